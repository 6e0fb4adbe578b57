"""LoRA adapters in files: written as diffusers and PEFT read them, read from them and from other trainers, used and merged.

    OUT/lora/decoder/pytorch_lora_weights.safetensors                       diffusers: transformer.load_lora_adapter
    OUT/lora/ar/adapter_config.json, OUT/lora/ar/adapter_model.safetensors  PEFT: PeftModel.from_pretrained

What is read becomes a LoRA adapter for layers of this model, by its own names, in fp32 on the host.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan import __version__, files
from sampan.checkpoint import lora_contents, lora_names, lora_settings, lora_step, weights
from sampan.checkpoint.lora_names import ALPHA, FUSED, PIECES, A, B
from sampan.checkpoint.lora_settings import PROVENANCE_KEY
from sampan.checkpoint.weights import TensorHeader
from sampan.errors import CheckpointError
from sampan.frameworks import device as dev
from sampan.frameworks import io, nn, ops
from sampan.frameworks.weight_files import FLOATING
from sampan.models import lora
from sampan.models.config import ModelConfig

DIFFUSERS_FILE = "pytorch_lora_weights.safetensors"
_WHOLE_NUMBERS = ("I64", "I32", "I16", "I8", "U8")
_WRITTEN_AS = {  # part → its file, and what stands before the layers' names in it
    "decoder": (DIFFUSERS_FILE, "transformer."),
    "ar": (lora_settings.PEFT_FILE, lora_names.PEFT_PREFIX),
}
_HINT = "give a safetensors file or a folder: of `sampan train`, of diffusers, or of PEFT"


@dataclass(frozen=True)
class LoraLayer:
    """What a LoRA adapter adds to the weight of one linear layer: b · a · scale.

    Args:
        a: (rank, in).
        b: (out, rank).
    """

    a: NDArray[np.float32]
    b: NDArray[np.float32]
    scale: float


@dataclass(frozen=True)
class LoraAdapter:
    """A LoRA adapter: what one file adds to the linear layers of one part.

    Args:
        layers: What is added, by the layer's name in the model.
        strength: Factor that the user puts on the file's own scale.
        notes: What the file leaves open or has beside, and how that was taken, in words.
    """

    part: str
    layers: Mapping[str, LoraLayer]
    file: Path
    sha256: str
    strength: float = 1.0
    notes: tuple[str, ...] = ()


def provenance_records(adapters: Iterable[LoraAdapter]) -> list[dict[str, Any]]:
    """Return what provenance says of adapters: name, hash, and the user's scale of each file, once a file."""
    files_once = {(adapter.file, adapter.strength): adapter for adapter in adapters}.values()
    return [{"file": each.file.name, "sha256": each.sha256, "scale": each.strength} for each in files_once]


def notes(adapters: Iterable[LoraAdapter]) -> list[str]:
    """Return what is to be said of adapters' files, each thing once."""
    return list(dict.fromkeys(note for adapter in adapters for note in adapter.notes))


# --- writing ---------------------------------------------------------------------------------------------------------


def write(
    folder: Path,
    tensors: Mapping[str, Mapping[str, Any]],
    *,
    alpha: float | Mapping[str, float] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write LoRA adapters as diffusers and PEFT read them, each part in a folder of its own, and return `folder`.

    Each file is there whole or not at all; parts that are not given stay as they are.

    Args:
        tensors: Part ("ar", "decoder") to tensors by name, of which `….lora_A.weight` and `….lora_B.weight` are written.
        alpha: The adapter is scaled by alpha / rank: one for all layers, or by layer; None for alpha = rank.
        provenance: Where the adapters come from, for the header of the files.

    Raises:
        CheckpointError: A file cannot be written.
        ValueError: There is no adapter, or half of one.
    """
    facts = {"sampan": __version__, **(provenance or {})}
    for part, given in tensors.items():
        kept = {name: tensor for name, tensor in given.items() if lora.trainable(name)}
        ranks: dict[str, int] = {}
        for layer in dict.fromkeys(name.rsplit(".lora_", maxsplit=1)[0] for name in kept):
            pair = [kept.get(layer + end) for end in lora.FACTORS]
            if pair[0] is None or pair[1] is None or pair[0].shape[0] != pair[1].shape[1]:
                raise ValueError(f"`{layer}` has no `lora_A` and `lora_B` of the same rank")
            ranks[layer] = int(pair[0].shape[0])
        if not ranks:
            raise ValueError(f"there are no additions to `{part}` among {len(given)} tensors")
        alphas = {
            layer: float(rank if alpha is None else alpha[layer] if isinstance(alpha, Mapping) else alpha)
            for layer, rank in ranks.items()
        }
        settings = lora_settings.describe(ranks, alphas)
        name, prefix = _WRITTEN_AS[part]
        place = folder / part
        try:
            place.mkdir(parents=True, exist_ok=True)
            if part == "ar":  # PEFT reads the settings beside the file, diffusers in its header
                config = {**settings, "base_model_name_or_path": None, "task_type": None, "inference_mode": True}
                files.write_text(place / lora_settings.CONFIG_FILE, json.dumps(config, indent=2))
        except OSError as error:
            raise CheckpointError(f"`{place}` cannot be written", str(error)) from error
        header = {"format": "pt"} | ({} if part == "ar" else {lora_settings.HEADER_KEY: lora_settings.header(settings)})
        named = {prefix + key: tensor for key, tensor in kept.items()}
        io.save_tensors(place / name, named, header)
        # the hash is of the bytes as they are written, and stands before them: a LoRA is small enough to be written twice
        header[PROVENANCE_KEY] = lora_contents.provenance(place / name, facts)
        io.save_tensors(place / name, named, header)
    return folder


# --- reading ---------------------------------------------------------------------------------------------------------


def read(path: Path, config: ModelConfig, strength: float = 1.0) -> list[LoraAdapter]:
    """Return the LoRA adapters of a file or a folder, one for each part.

    Args:
        path: A safetensors file, a folder of diffusers or PEFT, the `lora` folder of a run, the run itself, or one of its
            checkpoints, `RUN/stages/STAGE/step-N`.
        config: The model that the adapters are for.
        strength: Factor that the user puts on the file's own scale.

    Raises:
        CheckpointError: There is no LoRA, it is a pickle, of another kind, broken, or for another model.
    """
    layers = {part: lora.linear_layers(part, config) for part in lora.PARTS}
    if (step := lora_step.read_step(path)) is not None:
        return [_of_step(step, layers[step.part], strength)]
    return [adapter for file in find_files(path) for adapter in _read_file(file, layers, strength)]


def _of_step(step: lora_step.StepAdapter, layers: Mapping[str, tuple[int, int]], strength: float) -> LoraAdapter:
    added = {}
    for layer, (a, b) in step.factors.items():
        if layer not in layers:
            raise _does_not_fit(step.file, f"it has `{layer}`, which `{step.part}` of this model has not")
        width_out, width_in = layers[layer]
        _check(step.file, layer + lora.FACTORS[0], a, layer, (None, width_in))
        _check(step.file, layer + lora.FACTORS[1], b, layer, (width_out, len(a)))
        added[layer] = LoraLayer(a, b, 1.0 if step.alpha is None else step.alpha / len(a))
    return LoraAdapter(step.part, added, step.file, weights.file_digest(step.file), strength)


def find_files(path: Path) -> list[Path]:
    """Return the LoRA files that a path stands for.

    Raises:
        CheckpointError: There are none, only pickles, or several that may be meant.
    """
    if not path.exists():
        # a scale that is no number stays a part of the name
        name, colon, word = path.name.rpartition(":")
        cut = path.with_name(name) if colon and name else None
        because = f"`{cut}` is there, and `{word}` is not a number" if cut is not None and cut.exists() else ()
        raise CheckpointError(f"there is no LoRA `{path}`", because, _HINT)
    if path.is_file():
        if weights.pickles([path]):
            raise weights.pickle_refused(path, [path.name])
        return [path]
    if (path / "run.json").is_file() and (path / "lora").is_dir():
        return find_files(path / "lora")
    ours = [path / part / name for part, (name, _) in _WRITTEN_AS.items() if (path / part / name).is_file()]
    if ours:
        return ours
    there = sorted(path.iterdir())
    for name in (lora_settings.PEFT_FILE, DIFFUSERS_FILE):
        if (path / name).is_file():
            return [path / name]
    found = [entry for entry in there if entry.suffix == ".safetensors" and entry.is_file()]
    if len(found) == 1 and not (path / "model_index.json").exists():
        return found
    if not found and (names := weights.pickles(there)):
        raise weights.pickle_refused(path, names)
    if found:
        raise CheckpointError(
            f"`{path}` is not clear",
            f"it holds {len(found)} safetensors files, first `{found[0].name}`",
            "name the file that is meant",
        )
    raise CheckpointError(f"`{path}` holds no LoRA", "it has no safetensors file", _HINT)


def _read_file(file: Path, layers: lora_names.Layers, strength: float) -> Iterator[LoraAdapter]:
    lora_contents.check(file)
    stored = weights.read_header(file)
    modules = lora_names.split(f"{file}", stored)
    scales = lora_settings.read_scales(file, modules)
    targets = lora_names.resolve(file, modules, layers)
    _check_dtypes(file, stored, modules)
    wanted = [name for roles in modules.values() for name in roles.values()]
    tensors = {name: dev.to_numpy(tensor) for name, tensor in io.read_tensors(file, "cpu", wanted).items()}
    unstated: list[str] = []
    pieces: dict[tuple[str, str], dict[str | None, LoraLayer]] = {}
    for module, roles in modules.items():
        target = targets[module]
        width_out, width_in = layers[target.part][target.layer]
        a, b = tensors[roles[A]], tensors[roles[B]]
        _check(file, roles[A], a, target.layer, (None, width_in))
        _check(file, roles[B], b, target.layer, (width_out // len(PIECES) if target.piece else width_out, None))
        if len(a) != b.shape[1]:
            raise _does_not_fit(file, f"`{roles[A]}` has rank {len(a)}, `{roles[B]}` rank {b.shape[1]}")
        alpha = _alpha(file, roles[ALPHA], tensors[roles[ALPHA]]) if ALPHA in roles else None
        scale = scales.of(module, len(a), alpha)
        if scale is None:
            unstated.append(module)
            scale = 1.0
        here = pieces.setdefault((target.part, target.layer), {})
        here[target.piece] = LoraLayer(a.astype(np.float32), b.astype(np.float32), scale)
        if None in here and len(here) > 1:
            raise CheckpointError(
                f"the LoRA `{file}` is not clear", f"it has `{FUSED}` and a part of it, for `{target.layer}`"
            )
    sha256 = weights.file_digest(file)
    said = _notes(file, len(modules), unstated, lora_names.text_encoder_names(stored))
    for part in dict.fromkeys(part for part, _ in pieces):
        added = {
            layer: here[None] if None in here else _fuse(here, layers[part][layer][0])
            for (of, layer), here in pieces.items()
            if of == part
        }
        yield LoraAdapter(part, added, file, sha256, strength, said)


def _check_dtypes(file: Path, stored: Mapping[str, TensorHeader], modules: lora_names.Modules) -> None:
    """Refuse factors that are not stored as floating numbers; an alpha may be a whole one."""
    for roles in modules.values():
        for role, name in roles.items():
            dtype = stored[name].dtype
            if dtype in FLOATING or (role == ALPHA and dtype in _WHOLE_NUMBERS):
                continue
            why = "which is no number" if role == ALPHA else "which needs scales to be read"
            raise CheckpointError(f"the LoRA `{file}` cannot be used", f"`{name}` is stored as {dtype}, {why}")


def _alpha(file: Path, name: str, tensor: Any) -> float:
    if tensor.size != 1:
        raise CheckpointError(
            f"the LoRA `{file}` cannot be used", f"`{name}` is {tensor.shape}, and an alpha is one number"
        )
    alpha = float(tensor.reshape(-1)[0])
    if not math.isfinite(alpha) or alpha == 0:
        raise CheckpointError(
            f"the LoRA `{file}` cannot be used",
            f"`{name}` is {alpha:g}, which is no alpha",
            "ask its maker which alpha it was trained with",
        )
    return alpha


def _notes(file: Path, num_layers: int, unstated: Sequence[str], left_out: Sequence[str]) -> tuple[str, ...]:
    said = []
    if unstated:
        of = "" if len(unstated) == num_layers else f" of {len(unstated)} of {num_layers} layers, first `{unstated[0]}`"
        said.append(
            f"LoRA `{file}`: nothing says the alpha{of}; the scale taken is 1 (alpha = rank), and "
            f"--lora {file}:SCALE multiplies it"
        )
    if left_out:
        said.append(
            f"LoRA `{file}`: {len(left_out)} tensors of a text encoder are left out, first `{left_out[0]}`: "
            "sampan adapts generator and decoder only"
        )
    return tuple(said)


def _check(file: Path, name: str, factor: Any, layer: str, wanted: tuple[int | None, int | None]) -> None:
    fits = factor.ndim == 2 and all(w in (None, n) for w, n in zip(wanted, factor.shape, strict=True))
    if not fits or 0 in factor.shape:
        words = ", ".join("rank" if width is None else str(width) for width in wanted)
        raise _does_not_fit(file, f"`{name}` is {factor.shape}, and `{layer}` takes ({words})")
    if not np.isfinite(factor).all():
        raise CheckpointError(f"the LoRA `{file}` is broken", f"`{name}` holds numbers that are not finite")


def _does_not_fit(file: Path, why: str) -> CheckpointError:
    return CheckpointError(f"the LoRA `{file}` does not fit this model", why, "is the LoRA for another model?")


def _fuse(pieces: Mapping[str | None, LoraLayer], width_out: int) -> LoraLayer:
    """Return what is added to a fused layer, from what is added to its parts: A stacked, B block by block."""
    height = width_out // len(PIECES)
    given = [(number, pieces[name]) for number, name in enumerate(PIECES) if name in pieces]
    b = np.zeros((width_out, sum(len(piece.a) for _, piece in given)), np.float32)
    done = 0
    for number, piece in given:
        b[number * height : (number + 1) * height, done : done + len(piece.a)] = piece.b * np.float32(piece.scale)
        done += len(piece.a)
    return LoraLayer(np.concatenate([piece.a for _, piece in given]), b, 1.0)


# --- use -------------------------------------------------------------------------------------------------------------


def add(module: Any, part: str, adapters: Sequence[LoraAdapter], dtype: str = "fp32") -> None:
    """Put the LoRA adapters for a part beside its layers; several for one layer become one of their ranks' sum.

    Args:
        module: The part, with its weights.
        dtype: "fp32" or "bf16", that of A and B.
    """
    joined = _join(part, adapters)
    nn.add_low_rank(module, {layer: (len(added.a), added.scale) for layer, added in joined.items()}, dtype=dtype)
    values = {}
    for layer, added in joined.items():
        values |= dict(zip((layer + end for end in lora.FACTORS), (added.a, added.b), strict=True))
    io.put_weights(module, values)


def merge(
    tensors: Mapping[str, Any],
    part: str,
    adapters: Sequence[LoraAdapter],
    *,
    subtract: bool = False,
    dtype: str | None = None,
) -> dict[str, Any]:
    """Return a part's tensors with the LoRA adapters in them, or taken out of them: summed in fp32, each cast once.

    Args:
        tensors: By name; an `io.LazyTensor` stays unread, and is changed when it is read.
        dtype: What the sums become, "fp32" or "bf16"; None for the dtype that each tensor had.
    """
    changed = dict(tensors)
    for layer, added in _join(part, adapters).items():
        weight = changed[f"{layer}.weight"]
        summed = _sum(added, -1.0 if subtract else 1.0, dtype)
        changed[f"{layer}.weight"] = (
            weight.changed(summed, dtype) if isinstance(weight, io.LazyTensor) else summed(weight)
        )
    return changed


def _sum(added: LoraLayer, sign: float, dtype: str | None) -> Callable[[Any], Any]:
    """Return the function from a layer's weight to its weight with the adapter in it."""

    def summed(weight: Any) -> Any:
        where = str(weight.device)
        delta = ops.linear(dev.array(added.b, where), dev.array(added.a.T, where)) * (sign * added.scale)
        return ops.cast(ops.cast(weight, ops.float32) + delta, weight.dtype if dtype is None else dev.dtype(dtype))

    return summed


def _join(part: str, adapters: Iterable[LoraAdapter]) -> dict[str, LoraLayer]:
    """Return what is added to each layer: that of the only adapter, or of all side by side with their scales in B."""
    found: dict[str, list[LoraLayer]] = {}
    for adapter in adapters:
        if adapter.part == part:
            for layer, added in adapter.layers.items():
                found.setdefault(layer, []).append(dataclasses.replace(added, scale=added.scale * adapter.strength))
    return {
        layer: several[0]
        if len(several) == 1
        else LoraLayer(
            np.concatenate([added.a for added in several]),
            np.concatenate([added.b * np.float32(added.scale) for added in several], axis=1),
            1.0,
        )
        for layer, several in found.items()
    }
