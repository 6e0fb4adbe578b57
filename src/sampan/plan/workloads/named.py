"""Workloads of published models by name: shapes come from sampan.catalog.models, geometry from the run or the defaults.

What a run does not say (length of a sequence, size of a picture, frames) is taken from the catalogue's entry and said in
the workload's notes.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from sampan.catalog.models import CatalogModel, find
from sampan.errors import CatalogError, PlanError, did_you_mean
from sampan.plan.records import Workload
from sampan.plan.workloads.convolutional import UNetShape, unet_model
from sampan.plan.workloads.diffusion import DiffusionShape, diffusion_model
from sampan.plan.workloads.encoders import Autoencoder, FrozenTextEncoder
from sampan.plan.workloads.hybrid import HybridShape, Mamba, hybrid_model
from sampan.plan.workloads.language import ExpertsShape, LanguageShape, LatentAttention, language_model
from sampan.plan.workloads.layers import TransformerLayers
from sampan.plan.workloads.vision_language import VisionTower, vision_language_model

METHODS = ("full", "lora")
# a table within a shape to what it becomes; a list of tables becomes a tuple of it
_INNER = {
    "experts": ExpertsShape, "latent": LatentAttention, "layers": TransformerLayers, "encoders": FrozenTextEncoder,
    "vae": Autoencoder, "mamba": Mamba,
}  # fmt: skip


@lru_cache(maxsize=4096)
def workload_of(
    name: str,
    *,
    params: float | None = None,
    seq_len: float | None = None,
    resolution_px: float | None = None,
    height_px: float | None = None,
    width_px: float | None = None,
    frames: float | None = None,
    text_tokens: float | None = None,
    picture_tokens: float | None = None,
    method: str = "full",
    trains: str | None = None,
    is_pretraining: bool = False,
    rank: int = 16,
    with_encoders: bool | None = None,
) -> Workload:
    """Return what one sample of a published model costs.

    Args:
        name: As sampan.catalog.models.find takes it, with `params`.
        seq_len: Of language models, picture tokens among them.
        resolution_px, height_px, width_px, frames, text_tokens: Of diffusion models. One side alone makes a square.
        picture_tokens: Of vision-language models: tokens of the sequence that come from pictures.
        method: "full" or "lora".
        trains: What a vision-language model trains: "all", "language" or "connector".
        is_pretraining: Whether it is the model's first training, of which some train a part alone.
        with_encoders: Whether autoencoder and text encoders run in every step.

    Raises:
        CatalogError: No model has this name.
        PlanError: A value is not above 0, or the method is not known.
    """
    if method not in METHODS:
        raise PlanError(f"the method `{method}` is not known", (), did_you_mean(method, METHODS))
    given = {
        "seq_len": seq_len, "height_px": height_px or width_px or resolution_px,
        "width_px": width_px or height_px or resolution_px, "frames": frames,
        "text_tokens": text_tokens, "picture_tokens": picture_tokens, "trains": trains, "with_encoders": with_encoders,
    }  # fmt: skip
    for key, value in {**given, "height_px": height_px, "width_px": width_px, "resolution_px": resolution_px}.items():
        if isinstance(value, int | float) and not isinstance(value, bool) and value <= 0 and key != "picture_tokens":
            raise PlanError(f"`{key}` of `{name}` must be above 0, got {value:g}")
    model = find(name, params)
    if is_pretraining and trains is None:
        given["trains"] = model.defaults.get("pretrain_trains")
    filled, notes = _filled(model, given)
    made = _made(model, filled, method, rank)
    return dataclasses.replace(made, family=model.kind, notes=(*made.notes, *model.notes, *notes))


def seq_len_from_text(note: str) -> int | None:
    """Return the length of sequences in tokens that a run's note states, or None: "average sequence length … 563"."""
    found = re.search(r"sequence length\b[^:;\d]*:?\s*(\d{2,7})\b", note)
    return int(found[1]) if found else None


def leaves_encoders_out(note: str) -> bool:
    """Return whether a run's note says that autoencoder and text encoders did not run: "latents precomputed"."""
    return re.search(r"\blatents (?:are |were )?precomputed\b|\bU-?Net only\b", note, re.IGNORECASE) is not None


def _made(model: CatalogModel, at: Mapping[str, Any], method: str, rank: int) -> Workload:
    """Return the workload of a model with everything that it asks for."""
    shape, how = model.shape, {"method": method, "rank": rank}
    if "tower" in shape:
        return vision_language_model(
            model.name, shape_of(VisionTower, shape["tower"], model), shape_of(LanguageShape, shape["language"], model),
            _need(model, at, "seq_len"), picture_tokens=_need(model, at, "picture_tokens"), tiles=at.get("tiles") or 1,
            trains=at.get("trains") or "all", **how,
        )  # fmt: skip
    if "language" in shape:
        shaped = shape_of(LanguageShape, shape["language"], model)
        return language_model(model.name, shaped, _need(model, at, "seq_len"), **how)
    if "hybrid" in shape:
        return hybrid_model(
            model.name, shape_of(HybridShape, shape["hybrid"], model), _need(model, at, "seq_len"), **how
        )
    size = {
        "height": _need(model, at, "height_px"), "width": _need(model, at, "width_px"),
        "text_tokens": at.get("text_tokens") or 0, "with_encoders": bool(at.get("with_encoders")),
    }  # fmt: skip
    if "unet" in shape:
        return unet_model(model.name, shape_of(UNetShape, shape["unet"], model), **size, **how)
    shaped = shape_of(DiffusionShape, shape["diffusion"], model)
    return diffusion_model(model.name, shaped, frames=at.get("frames") or 1, **size, **how)


def _filled(model: CatalogModel, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return what is given with the catalogue's defaults in the gaps, and those that matter in words."""
    defaults = {key: value for key, value in model.defaults.items() if key != "pretrain_trains"}
    if side := defaults.pop("resolution_px", None):
        defaults = {"height_px": side, "width_px": side, **defaults}
    filled = {**defaults, **{key: value for key, value in given.items() if value is not None}}
    if (
        given.get("seq_len")
        and given.get("picture_tokens") is None
        and {"seq_len", "picture_tokens"} <= defaults.keys()
    ):
        # a longer sequence holds more of both, pictures and words
        filled["picture_tokens"] = defaults["picture_tokens"] * filled["seq_len"] / defaults["seq_len"]
    taken = [key for key in defaults if given.get(key) is None]
    notes = [f"{key} is not given: {defaults[key]} is taken" for key in taken if key != "tiles"]
    return filled, notes


def _need(model: CatalogModel, at: Mapping[str, Any], key: str) -> float:
    if at.get(key) is None:
        raise PlanError(f"a workload of `{model.name}` needs `{key}`", "its catalogue entry has no default for it")
    return at[key]


def shape_of(kind: Any, table: Mapping[str, Any], model: CatalogModel) -> Any:
    """Return a builder's shape made of a catalogue table.

    Raises:
        CatalogError: The table has a field that the shape has not, or lacks one.
    """
    known = [f.name for f in dataclasses.fields(kind)]
    values: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise CatalogError(
                f"the shape of `{model.name}` cannot be used", f"it has `{key}`, which is not a field",
                did_you_mean(key, known),
            )  # fmt: skip
        if isinstance(value, dict):
            value = shape_of(_INNER[key], value, model)
        elif isinstance(value, list):
            value = tuple(shape_of(_INNER[key], one, model) if isinstance(one, dict) else one for one in value)
        values[key] = value
    try:
        return kind(**values)
    except TypeError as error:
        raise CatalogError(f"the shape of `{model.name}` cannot be used", str(error)) from error


def geometry_from_text(note: str) -> tuple[int, int, int] | None:
    """Return (frames, height, width) that a run's note states, or None.

    Reads "51x720x1280", "256x256" and "resolution 512". Three numbers are frames, height, width, as video models write
    them; a picture has one frame.
    """
    number = r"(\d{1,4})"
    if found := re.search(rf"(?<![\dx.]){number}\s*[x×]\s*(\d{{2,4}})\s*[x×]\s*(\d{{2,4}})(?![\dx.])", note):
        frames, height, width = (int(part) for part in found.groups())
        return frames, height, width
    if found := re.search(r"(?<![\dx.])(\d{2,4})\s*[x×]\s*(\d{2,4})(?![\dx.])", note):
        return 1, int(found[1]), int(found[2])
    if found := re.search(r"resolution\s*(?:of|:|=)?\s*(\d{2,4})\b", note):
        return 1, int(found[1]), int(found[1])
    return None
