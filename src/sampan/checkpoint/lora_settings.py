"""The scale of a LoRA adapter, from every place of a file that says it: its header, alpha tensors, adapter_config.json.

    scale = alpha / rank, or alpha / sqrt(rank) where `use_rslora` (of LyCORIS `rs_lora`) is set

    `lora_adapter_metadata` in the header           diffusers: `lora_alpha`, `alpha_pattern`, `r`, `rank_pattern`
    adapter_config.json beside the file             PEFT: the same
    `alpha`, `lora_alpha`, `network_alpha`,         others, as texts, with `rank`, `r`, `ss_network_dim` …
        `ss_network_alpha`, `transformer.lora_alpha` in the header
    a tensor `LAYER.alpha`                          kohya and who follows it; always over the rank

Every place that says something must say the same of each layer, and the rank that it says must be that of the tensors.
Where nothing says an alpha, the scale is 1, as diffusers and kohya take it; PEFT's names promise a config, and without one a
file is refused.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.checkpoint import weights
from sampan.checkpoint.json_files import read_json
from sampan.checkpoint.lora_names import ALPHA, PEFT_PREFIX, is_text_encoder, other_kind, plain
from sampan.errors import BadDocumentError, CheckpointError

HEADER_KEY = "lora_adapter_metadata"  # diffusers' name for its JSON in a safetensors header
CONFIG_FILE, PEFT_FILE = "adapter_config.json", "adapter_model.safetensors"
PROVENANCE_KEY = "sampan"  # our own JSON in a header
_DIFFUSERS_PREFIX = "transformer."
# settings with which a file's tensors mean something else than a plain addition
_OTHER_KINDS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config",
    "velora_config", "megatron_config", "fan_in_fan_out",
)  # fmt: skip
# ways to begin that take something off the model's own weights, so that the addition fits the rest only
_SHIFTED = ("pissa", "olora", "corda", "loftq", "lora_ga")


_ALPHAS = ("lora_alpha", "network_alpha", "alpha")
_RANKS = ("lora_rank", "lora_r", "network_dim", "network_rank", "lora_dim", "rank", "r")
_ROOTS = ("use_rslora", "rslora", "rs_lora")
_UNSTATED = ("", "none", "null")
# settings of kohya's and LyCORIS's networks that give some layers another alpha or rank than the file's
_VARYING = re.compile("alpha|dim|rank|preset|algo_map")
_TOLERANCE = 0.01  # alphas are stored as rounded as weights, in bf16 to 1 part in 256
_ASK = "ask its maker which one holds: a copy without the other loads"


@dataclass(frozen=True)
class ScaleSource:
    """What one place says of the scale.

    Args:
        where: The place in words.
        alpha: None where it says none.
        rank: None where it says none.
        alphas, ranks: End of a layer's name to its own alpha or rank.
        square_root: Divide by the square root of the rank.
        varies: Some layers have other alphas and ranks, which the place does not say.
        unreadable: In words, what it has in the place of an alpha.
    """

    where: str
    alpha: float | None = None
    rank: float | None = None
    alphas: Mapping[str, float] = field(default_factory=dict)
    ranks: Mapping[str, float] = field(default_factory=dict)
    square_root: bool = False
    varies: bool = False
    unreadable: str | None = None

    @property
    def has_alpha(self) -> bool:
        """Whether it says any alpha."""
        return self.alpha is not None or bool(self.alphas)

    def scale(self, layer: str, rank: int) -> float | None:
        """Return the scale of a layer of that rank, or None where it says none."""
        alpha = _of_layer(layer, self.alphas, self.alpha)
        return None if alpha is None else alpha / (math.sqrt(rank) if self.square_root else rank)


@dataclass(frozen=True)
class LoraScales:
    """How the LoRA adapter in a file is scaled.

    Args:
        file: What errors call it.
        sources: The places that say something, beside the tensors.
    """

    file: object
    sources: tuple[ScaleSource, ...] = ()

    def of(self, module: str, rank: int, alpha: float | None = None) -> float | None:
        """Return the scale of what is added to a layer, or None where nothing says it.

        Args:
            module: The layer as the file names it.
            rank: That of its tensors.
            alpha: The file's own tensor of this layer, where it has one.

        Raises:
            CheckpointError: Two places contradict each other, or one the tensors; both are named.
        """
        layer = plain(module)
        for source in self.sources:
            wanted = _of_layer(layer, source.ranks, source.rank)
            if wanted is not None and wanted != rank and not source.varies:
                raise CheckpointError(
                    f"the LoRA `{self.file}` contradicts itself",
                    f"{source.where} says rank {wanted:g}, and the tensors of `{module}` have rank {rank}",
                    _ASK,
                )
        stated = [] if alpha is None else [(f"`{module}.alpha`", alpha / rank)]
        for source in self.sources:
            scale = source.scale(layer, rank)
            if scale is not None and not (source.varies and alpha is not None):
                stated.append((source.where, scale))
        for where, scale in stated[1:]:
            if not math.isclose(scale, stated[0][1], rel_tol=_TOLERANCE):
                raise CheckpointError(
                    f"the LoRA `{self.file}` contradicts itself",
                    f"of `{module}`, of rank {rank}, {stated[0][0]} says scale {stated[0][1]:g} and {where} {scale:g}",
                    _ASK,
                )
        return stated[0][1] if stated else None


def read_scales(file: Path, modules: Mapping[str, Mapping[str, str]]) -> LoraScales:
    """Return how the LoRA adapter in a file is scaled.

    Args:
        modules: The layers as the file names them, each with its tensors by role.

    Raises:
        CheckpointError: What scales it is missing or cannot be read, or it is of another kind.
    """
    metadata = weights.read_metadata(file)
    lone = next((name for name, roles in modules.items() if ALPHA not in roles), None)  # without an alpha of its own
    beside = file.parent / CONFIG_FILE
    of_peft = file.name == PEFT_FILE or any(module.startswith(PEFT_PREFIX) for module in modules)
    sources = _header_sources(file, metadata, modules)
    if HEADER_KEY in metadata:
        parsed = _parsed(file, metadata[HEADER_KEY])
        values = {key: value for key, value in parsed.items() if not is_text_encoder(key)}
        if values or not parsed:  # else it is all of the text encoder
            required = lone is not None and not any(source.has_alpha for source in sources)
            sources.append(_settings(file, f"the header of `{file}`", values, required=required))
    if beside.is_file() and (of_peft or _is_alone(file)):
        required = lone is not None and not any(source.has_alpha for source in sources)
        sources.append(_settings(file, f"`{beside}`", read_json(beside), required=required))
    if lone is not None and not any(source.has_alpha for source in sources):
        if unreadable := next((source.unreadable for source in sources if source.unreadable), None):
            raise CheckpointError(
                f"the LoRA `{file}` cannot be used",
                f"{unreadable}, which is no alpha, and `{lone}` has none of its own",
            )
        if of_peft:
            raise CheckpointError(
                f"the LoRA `{file}` cannot be used",
                f"it is named as PEFT names it, and `{CONFIG_FILE}`, which says its alpha, is not beside it"
                + (f"; `{lone}` has no alpha of its own" if len(modules) > 1 else ""),
                "copy the whole adapter folder",
            )
    return LoraScales(file, tuple(sources))


def _is_alone(file: Path) -> bool:
    """Say whether a file is the only one in its folder that a config beside it can be for."""
    return sum(path.suffix == ".safetensors" for path in file.parent.iterdir()) == 1


def _settings(file: Path, where: str, values: Mapping[str, Any], *, required: bool) -> ScaleSource:
    """Return what PEFT's settings say.

    Args:
        required: They must say an alpha.
    """
    kind = values.get("peft_type", "LORA")
    if kind != "LORA":
        raise other_kind(file, str(kind), f"{where} says so")
    for key in _OTHER_KINDS:
        if values.get(key):
            raise other_kind(file, key, f"{where} sets it")
    if str(values.get("init_lora_weights")).startswith(_SHIFTED):
        raise other_kind(
            file,
            str(values["init_lora_weights"]),
            f"{where} says so, and such an addition goes with weights that it was taken from",
        )
    alpha = next((values[key] for key in _ALPHAS if values.get(key) is not None), None)
    patterns = values.get("alpha_pattern") or {}
    numbers = (
        [*([] if alpha is None and not required else [alpha]), *patterns.values()] if _is_dict(patterns) else [None]
    )
    if not all(map(_is_number, numbers)):
        raise CheckpointError(
            f"the LoRA `{file}` cannot be used", f"{where} has no numbers as `lora_alpha` and in `alpha_pattern`"
        )
    for key in patterns:
        if not _is_plain(key):
            raise CheckpointError(
                f"the LoRA `{file}` cannot be used",
                f"{where} has `{key}` in `alpha_pattern`, which is more than the end of a layer's name",
            )
    rank, ranks = next((values[key] for key in _RANKS if values.get(key) is not None), None), values.get("rank_pattern")
    ranks = ranks or {}
    if not _is_dict(ranks) or not all(map(_is_number, [*([] if rank is None else [rank]), *ranks.values()])):
        raise CheckpointError(
            f"the LoRA `{file}` cannot be used", f"{where} has no numbers as `r` and in `rank_pattern`"
        )
    if not all(map(_is_plain, ranks)):
        rank, ranks = None, {}  # which layers have which is not known then
    return ScaleSource(where, alpha, rank, patterns, ranks, bool(values.get("use_rslora")))


def _header_sources(file: Path, metadata: Mapping[str, str], modules: Iterable[str]) -> list[ScaleSource]:
    """Return what the texts of a header say, one source for each that says an alpha or a rank."""
    layers = {plain(module) for module in modules}
    arguments = _arguments(metadata)
    root = any(str(arguments.get(key)).lower() in ("true", "1") for key in _ROOTS)
    varies = any(_VARYING.search(key) for key in arguments)
    values = [(key, key, text) for key, text in metadata.items()] + list(_nested(metadata))
    root |= any(_word(key) in _ROOTS and text.strip().lower() in ("true", "1") for key, _, text in values)
    sources = []
    for key, shown, text in values:
        word, of_kohya = _word(key), key.startswith("ss_")
        if word not in _ALPHAS + _RANKS or is_text_encoder(key) or text.strip().lower() in _UNSTATED:
            continue
        where = f"`{shown}` in the header of `{file}`"
        number = _number(text)
        if number is None:
            if word in _ALPHAS:
                sources.append(ScaleSource(where, unreadable=f"{where} is `{text[:40]}`"))
        elif word in _RANKS:
            sources.append(ScaleSource(where, rank=number, varies=of_kohya and varies))
        elif number == 0:
            if not of_kohya:  # whose trainer takes 0 for the rank, and says so in the tensors
                raise CheckpointError(
                    f"the LoRA `{file}` cannot be used", f"{where} is 0, with which it would do nothing", _ASK
                )
        elif (layer := plain(key.rpartition(".")[0])) in layers:
            sources.append(ScaleSource(where, alphas={f"^{layer}$": number}, square_root=root))
        else:
            sources.append(ScaleSource(where, number, square_root=root, varies=of_kohya and varies))
    return sources


def _arguments(metadata: Mapping[str, str]) -> Mapping[str, Any]:
    """Return the arguments of kohya's network, which its header has as JSON."""
    try:
        values = documents.parse_json(metadata.get("ss_network_args", "{}"))
    except BadDocumentError:
        return {}
    return values if _is_dict(values) else {}


def _nested(metadata: Mapping[str, str]) -> Iterator[tuple[str, str, str]]:
    """Yield key, place and text of what JSON in a header says of an adapter: its objects, and objects in these."""
    for name, text in metadata.items():
        if name in (HEADER_KEY, PROVENANCE_KEY) or name.startswith("ss_") or not text.lstrip().startswith("{"):
            continue
        try:
            outer = documents.parse_json(text)
        except BadDocumentError:
            continue
        for place, values in ((name, outer), *((f"{name}.{k}", v) for k, v in outer.items() if _is_dict(v))):
            # a bare alpha may be that of anything
            is_adapter = re.search("lora|network|adapter|peft", place.lower()) or (
                values.keys() & set(_ALPHAS) and values.keys() & set(_RANKS)
            )
            for key, value in values.items():
                if isinstance(value, str | int | float) and (is_adapter or key in ("lora_alpha", "network_alpha")):
                    yield f"{place}.{key}", f"{place}.{key}", str(value)


def _word(key: str) -> str:
    """Return what a header's key is about: `alpha` of `ss_alpha` and `transformer.alpha`."""
    return key.rpartition(".")[2].lower().removeprefix("ss_")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_plain(key: str) -> bool:
    """Say whether a key of a pattern is the end of a layer's name, or after ^ the whole of it."""
    return bool(re.fullmatch(r"\^?(\w|-|\\?\.)+\$?", key))


def _of_layer(layer: str, patterns: Mapping[str, float], otherwise: float | None) -> float | None:
    return next((value for key, value in patterns.items() if _ends_with(layer, key)), otherwise)


def describe(ranks: Mapping[str, int], alphas: Mapping[str, float]) -> dict[str, Any]:
    """Return the settings that PEFT and diffusers read of an adapter, by layer: rank and alpha."""
    rank, alpha = _commonest(ranks.values()), _commonest(alphas.values())
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": _whole(alpha),
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: _whole(value) for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(ranks),
        "lora_dropout": 0.0,
        "bias": "none",
        "use_rslora": False,
        "use_dora": False,
    }


def header(settings: Mapping[str, Any]) -> str:
    """Return the JSON that diffusers reads in a file's header."""
    return json.dumps({f"{_DIFFUSERS_PREFIX}{key}": value for key, value in settings.items()}, indent=2, sort_keys=True)


def _parsed(file: Path, text: str) -> dict[str, Any]:
    try:
        values = documents.parse_json(text)
    except BadDocumentError as error:
        raise CheckpointError(f"the LoRA `{file}` cannot be used", f"the settings in its header: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"the LoRA `{file}` cannot be used", "its header holds no settings")
    return {key.removeprefix(_DIFFUSERS_PREFIX): value for key, value in values.items()}


def _ends_with(module: str, key: str) -> bool:
    """Say whether a key of a pattern is for a layer, as PEFT matches it: by its end, or as a whole after ^."""
    name = key.removeprefix("^").removesuffix("$").replace("\\.", ".")
    return module == name or (not key.startswith("^") and module.endswith(f".{name}"))


def _commonest(values: Iterable[Any]) -> Any:
    listed = list(values)
    return max(dict.fromkeys(listed), key=listed.count)


def _whole(number: float) -> float | int:
    return int(number) if number == int(number) else number
