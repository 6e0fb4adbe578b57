"""Published models: the numbers of their shape, their names, and what they are trained on where a run does not say.

One file a model in `models/`, read once. Which fields a shape has is the business of sampan.plan.workloads, which makes a
workload of it; here only names, counts and sources are checked.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.errors import CatalogError, did_you_mean

FOLDER = Path(__file__).parent / "models"
KINDS = ("llm-dense", "llm-moe", "dit", "unet", "vlm", "other")
CONFIDENCES = ("read", "memory")  # of the shape: read off the source, or known of old and held against the count
PARTS = ("language", "diffusion", "unet", "tower", "hybrid")  # tables of a shape
_NEAR = 0.25  # of the larger count of parameters, within which a size of a series is meant


@dataclass(frozen=True, kw_only=True)
class ModelSource:
    """Where a fact was read."""

    title: str
    url: str
    as_of: datetime.date


@dataclass(frozen=True, kw_only=True)
class CatalogModel:
    """A published model.

    Args:
        series: What its sizes have in common: "llama-3.1".
        params: Published count of parameters; `active_params` those that a token meets, where that is fewer.
        shape: Tables of PARTS, by name, as the builders of workloads take them.
        defaults: What a run is taken to have where it does not say: `seq_len`, `resolution_px`, `height_px`, `width_px`,
            `frames`, `text_tokens`, `picture_tokens`, `tiles`, `trains`, `pretrain_trains`
            (what its pre-training trains, where that is not all), `with_encoders`.
        notes: What the shape leaves out.
    """

    name: str
    series: str
    kind: str
    params: float
    source: ModelSource
    confidence: str
    shape: Mapping[str, Mapping[str, Any]]
    active_params: float | None = None
    aliases: tuple[str, ...] = ()
    defaults: Mapping[str, Any]
    notes: tuple[str, ...] = ()


DEFAULTS = (
    "seq_len", "resolution_px", "height_px", "width_px", "frames", "text_tokens", "picture_tokens", "tiles", "trains",
    "pretrain_trains", "with_encoders",
)  # fmt: skip


@cache
def models() -> Mapping[str, CatalogModel]:
    """Return every model by name.

    Raises:
        CatalogError: A file cannot be used.
    """
    found: dict[str, CatalogModel] = {}
    for path in sorted(FOLDER.glob("*.toml")):
        model = read(path)
        found[model.name] = model
    return found


def read(path: Path) -> CatalogModel:
    """Return the model of a file.

    Raises:
        CatalogError: It is not TOML, lacks a field or has one that is not known, or a value is of the wrong kind.
    """
    try:
        table = documents.parse_toml(documents.read_text(path))
    except (OSError, ValueError) as error:
        raise CatalogError(f"the model file `{path.name}` cannot be read", str(error)) from error

    def refuse(fact: str, hint: str | None = None) -> CatalogError:
        return CatalogError(f"the model file `{path.name}` cannot be used", fact, hint)

    shape = {name: table.pop(name) for name in PARTS if name in table}
    known = [f.name for f in fields(CatalogModel) if f.name != "shape"]
    for key in table:
        if key not in known:
            raise refuse(f"it has `{key}`, which is not a field", did_you_mean(key, [*known, *PARTS]))
    for key in ("name", "series", "kind", "params", "source", "confidence"):
        if key not in table:
            raise refuse(f"it has no `{key}`")
    if not shape:
        raise refuse(f"it has no shape: none of {', '.join(PARTS)}")
    for key, choices in (("kind", KINDS), ("confidence", CONFIDENCES)):
        if table[key] not in choices:
            raise refuse(f"its `{key}` is {table[key]!r}", did_you_mean(str(table[key]), choices))
    if not isinstance(table["params"], int | float) or table["params"] <= 0:
        raise refuse(f"its `params` is {table['params']!r}, and is to be above 0")
    for key in table.get("defaults", {}):
        if key not in DEFAULTS:
            raise refuse(f"its defaults have `{key}`, which is not one", did_you_mean(key, DEFAULTS))
    try:
        source = ModelSource(**table.pop("source"))
    except TypeError as error:
        raise refuse(f"its `source` is not a title, a url and a date: {error}") from error
    aliases, notes = (tuple(table.pop(key, ())) for key in ("aliases", "notes"))
    return CatalogModel(**{"defaults": {}, **table}, source=source, shape=shape, aliases=aliases, notes=notes)


def find(name: str, params: float | None = None) -> CatalogModel:
    """Return the model that a name means.

    A name is compared without case, punctuation, an organisation before it, words of how it was trained, and what is in
    brackets. A name without a size means the size of its series that is within a quarter of `params`.

    Args:
        name: "Llama-3.1-8B", "llama3_1_8b", "sft_Qwen2-7B_multi_card".
        params: Of the model that is meant, where known: decides among the sizes of a series.

    Raises:
        CatalogError: No model has this name, or none of the series has that size.
    """
    found = _find(name, params)
    if isinstance(found, str):
        raise CatalogError(f"there is no model `{name}` in the catalogue", found, did_you_mean(name, models()))
    return found


_ALONE = ("clm", "sft", "lora", "finetune", "pretrain", "deepspeed", "multi", "single", "card", "instruct", "chat",
          "base", "hf", "it", "fa", "text2image", "image2text", "affinity", "t2v", "i2v", "t2i", "dropless", "tokendrop",
          "unet", "model", "text", "preview", "pt")  # fmt: skip


@cache
def _find(name: str, params: float | None) -> CatalogModel | str:
    exact, loose, series = _names()
    words = _words(name)
    # with its decimal points before without them: 1.3B and 13B are two sizes
    for tried, known in ((_key(name), exact), ("".join(words), exact), (_loose(name), loose)):
        found = known.get(tried, ())
        if found and (params is not None or len(found) == 1):
            return _sized(found, params)
    sizes = [word for word in words if re.fullmatch(r"\d+(x\d+)?(p\d+)?[bm]", word)]
    bare = "".join(word for word in words if word not in sizes)
    if bare not in series:
        return "neither its name nor the name of its series is known"
    wanted = params or (_params_of(sizes[0]) if sizes else None)
    members = series[bare]
    if wanted is None:
        if len(members) == 1:
            return members[0]
        return f"its series has {', '.join(m.name for m in members)}, and no size is given"
    nearest = min(members, key=lambda m: _distance(m, wanted))
    if _distance(nearest, wanted) > _NEAR:
        return f"its series has {', '.join(m.name for m in members)}, none within a quarter of {wanted / 1e9:g} billion"
    return nearest


def _sized(found: tuple[CatalogModel, ...], params: float | None) -> CatalogModel:
    """Return the only model of a name, or the one of them whose size is nearest."""
    return found[0] if params is None else min(found, key=lambda m: _distance(m, params))


def _distance(model: CatalogModel, params: float) -> float:
    counts = [count for count in (model.params, model.active_params) if count]
    return min(abs(count - params) / max(count, params) for count in counts)


def _params_of(word: str) -> float:
    """Return 8e9 of "8b", 1.3e9 of "1p3b", 56e9 of "8x7b"."""
    unit = 1e9 if word.endswith("b") else 1e6
    times, _, each = word[:-1].rpartition("x")
    return float(times or 1) * float(each.replace("p", ".")) * unit


def _words(name: str) -> list[str]:
    """Return the words of a name that say what it is; a decimal point within a size is written p."""
    name = re.sub(r"\(.*?\)|v0\.\d", " ", name.lower())
    name = re.sub(r".*/(?=[a-z])", "", name)  # the organisation
    name = re.sub(r"(?<=\d)\.(?=\d+[bm](?![a-z]))", "p", name)
    # "llama2_7b" and "Llama2-7B" are one: digits that end a word of letters stay with it, sizes stand alone
    words = re.findall(r"\d+x\d+[bm](?![a-z])|\d+(?:p\d+)?[bm](?![a-z0-9])|[a-z0-9]+", name.replace("_", " "))
    return [word for word in words if word not in _ALONE]


_Index = Mapping[str, tuple[CatalogModel, ...]]


@cache
def _names() -> tuple[_Index, _Index, _Index]:
    """Return models by every name, by every name without its decimal points, and by series."""
    indices: tuple[dict[str, dict[str, CatalogModel]], ...] = ({}, {}, {})
    for model in models().values():
        names = (model.name, *model.aliases)
        keys = (
            {key for one in names for key in (_key(one), "".join(_words(one)))},
            {_loose(one) for one in names},
            {"".join(_words(model.series)), *map(_bare, names)} - {""},
        )
        for index, own in zip(indices, keys, strict=True):
            for key in own:
                index.setdefault(key, {})[model.name] = model
    exact, loose, series = ({key: tuple(found.values()) for key, found in index.items()} for index in indices)
    return exact, loose, series


def _key(name: str) -> str:
    """Return a name's letters and digits, a decimal point written p."""
    return "".join(re.findall(r"[a-z0-9]+", re.sub(r"(?<=\d)\.(?=\d)", "p", name.lower())))


def _loose(name: str) -> str:
    """Return a name's letters and digits."""
    return "".join(re.findall(r"[a-z0-9]+", name.lower()))


def _bare(name: str) -> str:
    """Return a name without its size."""
    return "".join(w for w in _words(name) if not re.fullmatch(r"\d+(x\d+)?(p\d+)?[bm]", w))
