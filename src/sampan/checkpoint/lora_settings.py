"""The scale of a LoRA adapter, as the file's header or the adapter_config.json beside it says it.

PEFT and diffusers scale an adapter by alpha / rank, or by alpha / sqrt(rank) where `use_rslora` is set; alpha is
`lora_alpha`, or the value in `alpha_pattern` whose key ends the layer's name. A file in diffusers' or other trainers' names
that says no alpha is scaled by 1.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.checkpoint import weights
from sampan.checkpoint.json_files import read_json
from sampan.checkpoint.lora_names import PEFT_PREFIX, other_kind
from sampan.errors import CheckpointError

HEADER_KEY = "lora_adapter_metadata"  # diffusers' name for its JSON in a safetensors header
CONFIG_FILE, PEFT_FILE = "adapter_config.json", "adapter_model.safetensors"
_DIFFUSERS_PREFIX = "transformer."
# settings with which a file's tensors mean something else than a plain addition
_OTHER_KINDS = (
    "use_dora", "use_qalora", "use_bdlora", "lora_bias", "layer_replication", "target_parameters",
    "trainable_token_indices", "alora_invocation_tokens", "arrow_config", "kasa_config", "monteclora_config",
    "velora_config", "megatron_config", "fan_in_fan_out",
)  # fmt: skip
# ways to begin that take something off the model's own weights, so that the addition fits the rest only
_SHIFTED = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True)
class LoraScales:
    """How the LoRA adapter in a file is scaled.

    Args:
        alpha: None for the rank of each, which is a scale of 1.
        patterns: End of a layer's name to its alpha.
        square_root: Divide by the square root of the rank.
    """

    alpha: float | None = None
    patterns: Mapping[str, float] | None = None
    square_root: bool = False

    def of(self, module: str, rank: int, alpha: float | None = None) -> float:
        """Return the scale of what is added to a layer.

        Args:
            module: The layer as the file names it, without what files put before names.
            alpha: The file's own tensor of this layer, where it has one; it counts first.
        """
        if alpha is None:
            matching = (v for key, v in (self.patterns or {}).items() if _ends_with(module, key))
            alpha = next(matching, self.alpha)
        if alpha is None:
            return 1.0
        return alpha / (math.sqrt(rank) if self.square_root else rank)


def read_scales(file: Path, modules: Iterable[str]) -> LoraScales:
    """Return how the LoRA adapter in a file is scaled.

    Args:
        modules: The layers as the file names them.

    Raises:
        CheckpointError: What scales it is missing or cannot be read, or it is of another kind.
    """
    header = weights.read_metadata(file).get(HEADER_KEY)
    beside = file.parent / CONFIG_FILE
    of_peft = file.name == PEFT_FILE or any(module.startswith(PEFT_PREFIX) for module in modules)
    if header is not None:
        where, values = f"the header of `{file}`", _parsed(file, header)
    elif of_peft and beside.is_file():
        where, values = f"`{beside}`", read_json(beside)
    elif of_peft:
        raise CheckpointError(
            f"the LoRA `{file}` cannot be used",
            f"it is named as PEFT names it, and `{CONFIG_FILE}`, which says its alpha, is not beside it",
            "copy the whole adapter folder",
        )
    else:
        return LoraScales()
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
    alpha, patterns = values.get("lora_alpha"), values.get("alpha_pattern") or {}
    numbers = [alpha, *patterns.values()] if isinstance(patterns, dict) else [None]
    if not all(isinstance(n, int | float) and not isinstance(n, bool) and math.isfinite(n) for n in numbers):
        raise CheckpointError(
            f"the LoRA `{file}` cannot be used", f"{where} has no numbers as `lora_alpha` and in `alpha_pattern`"
        )
    for key in patterns:
        if not re.fullmatch(r"\^?(\w|-|\\?\.)+\$?", key):
            raise CheckpointError(
                f"the LoRA `{file}` cannot be used",
                f"{where} has `{key}` in `alpha_pattern`, which is more than the end of a layer's name",
            )
    return LoraScales(alpha, patterns, bool(values.get("use_rslora")))


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
        values = json.loads(text)
    except json.JSONDecodeError as error:
        raise CheckpointError(f"the LoRA `{file}` cannot be used", f"its header is not JSON: {error}") from error
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
