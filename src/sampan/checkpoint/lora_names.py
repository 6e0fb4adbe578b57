"""What tensors of LoRA files are called, by us and by others, and which layer of the model each belongs to.

    transformer.transformer_blocks.0.attn1.to_q.lora_A.weight                       diffusers, and ours for the decoder
    base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight   PEFT, and ours for the generator
    diffusion_model.transformer_blocks.0.attn1.to_q.lora_down.weight                other trainers
    pipe.dit.transformer_blocks.0.attn1.to_q.lora_A.default.weight                  a trainer that saves its pipeline
    lora_unet_transformer_blocks_0_attn1_to_q.lora_down.weight                      trainers that flatten names
    lycoris_transformer_blocks_0_attn1_to_q.lora_down.weight                        LyCORIS

Names of the generator may begin below the model (`language_model.layers…`, `layers…`), and its fused gate_up_proj may stand
as the gate_proj and the up_proj that it is made of. What a file has for a text encoder is left out, and said: this model's
encoder of words to be drawn is not adapted.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from sampan.errors import CheckpointError

Layers = Mapping[str, Mapping[str, tuple[int, int]]]  # part → linear layer → (width out, width in)
Modules = Mapping[str, Mapping[str, str]]  # layer as a file names it → role → name of the tensor

A, B, ALPHA = "A", "B", "alpha"
FUSED, PIECES = "gate_up_proj", ("gate_proj", "up_proj")  # in the order in which they stand in it
PEFT_PREFIX = "base_model.model."

_ENDS = (  # how a factor's name ends; PEFT puts an adapter's name in between when a whole model is saved
    (re.compile(r"\.lora_A(\.[^.]+)?\.weight"), A),
    (re.compile(r"\.lora_B(\.[^.]+)?\.weight"), B),
    (re.compile(r"\.(lora_down|lora\.down)\.weight"), A),
    (re.compile(r"\.(lora_up|lora\.up)\.weight"), B),
    (re.compile(r"\.alpha"), ALPHA),
)
_OTHER_KINDS = (  # what a name of another kind of adapter has in it
    (re.compile(r"lora_magnitude_vector|dora_scale"), "DoRA"),
    (re.compile(r"\.hada_"), "LoHa"),
    (re.compile(r"\.lokr_"), "LoKr"),
    (re.compile(r"\.b?oft_"), "OFT"),
    (re.compile(r"\.ia3_"), "IA3"),
    (re.compile(r"\.vera_|vera_lambda"), "VeRA"),
    (re.compile(r"\.lora_mid\."), "LoCon with a core tensor"),
    (re.compile(r"\.lora_embedding_[AB]"), "LoRA of an embedding table"),
    (re.compile(r"\.lora_[AB](\.[^.]+)?\.bias"), "LoRA with biases"),
    (re.compile(r"\.diff(_b)?$"), "whole difference"),
)
_PREFIXES = (
    PEFT_PREFIX, "pipe.", "module.", "transformer.", "model.diffusion_model.", "diffusion_model.", "dit.", "unet.",
    "vision_language_encoder.",
)  # fmt: skip
_ABOVE = ("", "model.", "model.language_model.")  # what a name that begins below the generator lacks
# of the decoder; other flattened names do not say what they adapt
_FLAT_PREFIXES = (
    "lora_unet_",
    "lora_transformer_",
    "lora_dit_",
    "lycoris_unet_",
    "lycoris_transformer_",
    "lycoris_",
    "lora_",
)
_TEXT_ENCODER = re.compile(
    r"(base_model\.model\.|pipe\.)*"
    r"((text_encoders?|te|clip|t5|byt5|text_model|cond_stage_model|conditioner)(_?\d|_?[lg]|xxl)?\."
    r"|(lora|lycoris)_(prior_)?(te|text_encoder|text_model|clip|t5)_?\d?_)"
)
_OTHER_FACTOR = (("lora_A", "lora_B"), ("lora_down", "lora_up"), ("lora.down", "lora.up"))


@dataclass(frozen=True)
class LoraTarget:
    """The layer that a tensor belongs to.

    Args:
        piece: One of PIECES where the layer is fused and the tensor is for a part of it.
    """

    part: str
    layer: str
    piece: str | None = None


def split(file: object, names: Iterable[str]) -> dict[str, dict[str, str]]:
    """Return the tensors of a file by the module they are for, as the file names it: role (A, B, ALPHA) to tensor name.

    Tensors of a text encoder are none of them: `text_encoder_names` returns these.

    Raises:
        CheckpointError: The file is of another kind of adapter, holds more than an adapter, half of one, or none.
    """
    every = list(names)
    others = text_encoder_names(every)
    if others and len(others) == len(every):
        raise CheckpointError(
            f"`{file}` holds no LoRA of generator or decoder",
            f"all of its {len(others)} tensors are of a text encoder, first `{others[0]}`",
            "sampan adapts generator and decoder only",
        )
    left_out = set(others)
    modules: dict[str, dict[str, str]] = {}
    strange: list[str] = []
    for name in (name for name in every if name not in left_out):
        for pattern, kind in _OTHER_KINDS:
            if pattern.search(name):
                raise other_kind(file, kind, f"it holds `{name}`")
        for pattern, role in _ENDS:
            if (found := pattern.search(name)) and found.end() == len(name):
                roles = modules.setdefault(name[: found.start()], {})
                if role in roles:
                    raise CheckpointError(
                        f"the LoRA `{file}` is not clear", f"`{roles[role]}` and `{name}` are for the same layer"
                    )
                roles[role] = name
                break
        else:
            strange.append(name)
    if not any(roles.keys() & {A, B} for roles in modules.values()):
        raise CheckpointError(
            f"`{file}` holds no LoRA",
            f"none of its {len(strange) + len(modules)} tensors is named `….lora_A.weight` or `….lora_down.weight`"
            + (f"; the first is `{strange[0]}`" if strange else ""),
        )
    if strange:
        raise CheckpointError(
            f"the LoRA `{file}` cannot be used",
            f"beside low-rank additions it holds {len(strange)} other tensors, first `{strange[0]}`",
            "sampan adds low-rank additions only; merge it with the tool that made it",
        )
    _check_whole(file, modules)
    return modules


def _check_whole(file: object, modules: Modules) -> None:
    """Refuse a file in which factors are missing, by the names that they would have."""
    ends = next(
        (
            [roles[role][len(module) :] for role in (A, B)]
            for module, roles in modules.items()
            if {A, B} <= roles.keys()
        ),
        None,
    )
    missing = []
    for module, roles in modules.items():
        if {A, B} <= roles.keys():
            continue
        there = roles.get(A) or roles.get(B)
        if there:
            pairs = _OTHER_FACTOR if A in roles else tuple((b, a) for a, b in _OTHER_FACTOR)
            lacking = [
                there[len(module) :].replace(mine, other) for mine, other in pairs if mine in there[len(module) :]
            ]
        else:
            there, lacking = roles[ALPHA], ends or [".lora_down.weight", ".lora_up.weight"]
        missing.append((there, " and ".join(f"`{module}{end}`" for end in lacking)))
    if missing:
        there, lacks = missing[0]
        more = f", and so it is with {len(missing) - 1} more of {len(modules)} layers" if missing[1:] else ""
        raise CheckpointError(
            f"the LoRA `{file}` is not whole",
            f"`{there}` is there, and {lacks} {'are' if ' and ' in lacks else 'is'} missing{more}",
            "download or copy the file again",
        )


def is_lora(names: Iterable[str]) -> bool:
    """Return whether one of the names ends as that of a low-rank factor does."""
    factors = [pattern for pattern, role in _ENDS if role in (A, B)]
    return any((found := end.search(name)) and found.end() == len(name) for name in names for end in factors)


def is_text_encoder(name: str) -> bool:
    """Say whether a tensor, or a setting in a header, is of a text encoder by its name."""
    return bool(_TEXT_ENCODER.match(name))


def text_encoder_names(names: Iterable[str]) -> list[str]:
    """Return which tensors of a file are of a text encoder."""
    return [name for name in names if is_text_encoder(name)]


def other_kind(file: object, kind: str, why: str) -> CheckpointError:
    """Return the error for an adapter that is no plain LoRA."""
    return CheckpointError(
        f"the adapter `{file}` cannot be used",
        f"its kind is {kind}: {why}",
        "sampan adds plain LoRA only; merge it with the tool that made it, and load the merged model",
    )


def resolve(file: object, modules: Iterable[str], layers: Layers) -> dict[str, LoraTarget]:
    """Return the layer of each module that a file names.

    Raises:
        CheckpointError: The model has no such layer, or the name fits several.
    """
    found: dict[str, LoraTarget] = {}
    lost: list[str] = []
    for module in modules:
        targets = _candidates(module, layers)
        if len(targets) > 1:
            raise CheckpointError(
                f"the LoRA `{file}` is not clear",
                f"`{module}` may be {' or '.join(sorted(f'`{t.layer}`' for t in targets))}",
            )
        if targets:
            found[module] = targets.pop()
        else:
            lost.append(module)
    if lost:
        raise CheckpointError(
            f"the LoRA `{file}` does not fit this model",
            f"{len(lost)} of the {len(lost) + len(found)} layers it adds to are not in the model's generator or decoder, "
            f"first `{lost[0]}`",
            _nearest(lost[0], layers),
        )
    taken: dict[LoraTarget, str] = {}
    for module, target in found.items():
        if target in taken:
            raise CheckpointError(
                f"the LoRA `{file}` is not clear", f"`{taken[target]}` and `{module}` are the same layer"
            )
        taken[target] = module
    return found


def plain(module: str) -> str:
    """Return a module's name without what files put before it, be it several things."""
    while prefix := next((prefix for prefix in _PREFIXES if module.startswith(prefix)), None):
        module = module.removeprefix(prefix)
    return module


def _candidates(module: str, layers: Layers) -> set[LoraTarget]:
    flat = {module.removeprefix(prefix) for prefix in _FLAT_PREFIXES if module.startswith(prefix)}
    if flat:
        return {LoraTarget("decoder", name) for name in layers["decoder"] if name.replace(".", "_") in flat}
    name = plain(module)
    parent, dot, last = name.rpartition(".")
    targets: set[LoraTarget] = set()
    for part, here in layers.items():
        for above in _ABOVE if part == "ar" else ("",):
            if above + name in here:
                targets.add(LoraTarget(part, above + name))
            fused = f"{above}{parent}{dot}{FUSED}"
            if last in PIECES and fused in here:
                targets.add(LoraTarget(part, fused, last))
    return targets


def _nearest(module: str, layers: Layers) -> str | None:
    every = [name for here in layers.values() for name in here]
    near = difflib.get_close_matches(plain(module), every, n=1, cutoff=0.6)
    return f"the nearest layer is `{near[0]}`; is the LoRA for another model?" if near else None
