"""How far chips and software fall short of their data sheets, as fitted to published runs, and how sure that is.

scripts/fit_plan.py writes the file that is read here. A prediction is the model of sampan.plan.time at the fitted rates,
times the effects of what the run is made of: its chip's maker, silicon and name, its software's engine, family, product and
release, its precision, its method, its kind of model. What was never measured has no effect and a wider interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from sampan.catalog import frameworks
from sampan.catalog.records import Chip
from sampan.plan.records import Workload
from sampan.plan.time import PART_NAMES, ChipSpeeds, Rates, StepTime

FILE = Path(__file__).parent.parent / "catalog" / "efficiency.json"

PARTS = (
    "matmul_s", "attention_s", "memory_s", "launch_s", "tensor_parallel_s", "pipeline_s", "data_parallel_s", "other_s",
)  # fmt: skip
"""Parts of a step that have effects of their own; the others are one."""

_Z80 = 1.2816  # standard deviations on either side that hold 80 % of a normal distribution

Levels = Mapping[str, str]


@dataclass(frozen=True, kw_only=True)
class ErrorSpread:
    """How far predictions of runs that were left out of the fit lie from what was measured.

    Args:
        half: Half of the interval, of the logarithm, that held 80 % of them.
        num: How many they were.
    """

    half: float
    num: int


@dataclass(frozen=True, kw_only=True)
class Efficiency:
    """The fitted file: rates, effects by level and name, spreads by class, and how many runs each is of.

    Args:
        left_out: How well runs were predicted that were left out of the fit, in words; the whole table is in the file.
        ratio: Spread of ratios of runs on two chips that their source sets side by side.
    """

    rates: Rates
    effects: Mapping[str, Mapping[str, Mapping[str, float]]]
    counts: Mapping[str, Mapping[str, int]]
    spreads: Mapping[str, ErrorSpread]
    products: Mapping[str, float]
    num_runs: int
    made: str
    left_out: str = ""
    ratio: ErrorSpread | None = None

    def offset(self, levels: Levels, shares: Mapping[str, float]) -> float:
        """Return the logarithm of what the model's time is multiplied by."""
        total = 0.0
        for level, name in levels.items():
            effect = self.effects.get(level, {}).get(name)
            if effect:
                total += sum(value * (1.0 if part == "all" else shares[part]) for part, value in effect.items())
        return total

    def half_width(self, levels: Levels) -> float:
        """Return half of the 80 % interval, of the logarithm."""
        spread = self.spreads[spread_class(levels, self.counts)]
        return spread.half * self.products.get(levels["product"], 1.0)

    def count(self, levels: Levels) -> tuple[int, str]:
        """Return how many runs the nearest ones are, and what makes them near, in words."""
        for level, words in _NEAREST:
            number = self.counts.get(level, {}).get(levels[level], 0)
            if number:
                return number, words.format(**levels)
        return 0, "no run on chips of this maker"


_NEAREST = (
    ("product on silicon", "runs of {product} on this silicon"),
    ("family on silicon", "runs of {family} software on this silicon"),
    ("engine on maker", "runs of {engine} on {maker} chips"),
    ("silicon", "runs on this silicon, with other software"),
    ("maker", "runs on {maker} chips, of other silicon"),
)


@cache
def load(path: Path = FILE) -> Efficiency:
    """Return what the file holds."""
    table: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return Efficiency(
        rates=Rates(**{name: rate["value"] for name, rate in table["rates"].items()}),
        effects={
            level: {name: effect["of"] for name, effect in of.items() if effect["of"]}
            for level, of in table["effects"].items()
        },
        counts={level: {name: effect["runs"] for name, effect in of.items()} for level, of in table["effects"].items()},
        spreads={
            name: ErrorSpread(half=spread["half"], num=spread["runs"]) for name, spread in table["spreads"].items()
        },
        products=table["products"],
        num_runs=table["runs"],
        made=table["made"],
        left_out=table["left_out"],
        ratio=_ratio(table["cross_validation"]["spread of ratios"]),
    )


def _ratio(table: Mapping[str, float]) -> ErrorSpread:
    return ErrorSpread(half=table["half"], num=int(table["pairs"]))


_LIKE = {"ar": "llm-dense"}  # a model that writes pictures as tokens is a language model to a chip


def levels(
    workload: Workload, chip: Chip, speed: ChipSpeeds, framework: str, precision: str, method: str, model: str
) -> dict[str, str]:
    """Return what a run is made of, by level.

    Args:
        framework: Of the software that runs it, as its users write it.
        model: As a run names it.
    """
    family, product = frameworks.family(framework), frameworks.line(framework)
    bits = "low" if speed.is_low else "half"
    width = ("fp4" if "fp4" in precision and "8" not in precision else "fp8") if speed.is_low else bits
    kind, maker, silicon = _LIKE.get(workload.family, workload.family), chip.vendor, chip.silicon
    return {
        "maker": maker,
        "silicon": silicon,
        "chip": chip.name + (f" at {chip.power_cap_w:g} W" if chip.power_cap_w else ""),
        "engine": family.engine,
        "engine on maker": f"{family.engine} on {maker}",
        "family": family.name,
        "family on silicon": f"{family.name} on {silicon}",
        "product": product,
        "product on silicon": f"{product} on {silicon}",
        "release": framework.lower(),
        "precision": width,
        "precision on silicon": f"{width} on {silicon}",
        "method": method,
        "kind": kind,
        "kind on maker": f"{kind} on {maker}",
        "kind in product": f"{kind} in {product}",
        "model": f"{model.lower()}, {method}",
        "geometry": "assumed" if is_assumed(workload) else "given",
    }


def is_assumed(workload: Workload) -> bool:
    """Return whether sizes that make a sample dear or cheap were not given: resolution, frames, length, pictures in it."""
    names = ("height_px", "frames", "seq_len", "picture_tokens")
    words = (*(f"{name} is not given" for name in names), "layers and width are not given")
    return any(note.startswith(words) for note in workload.notes)


def shares(time: StepTime) -> dict[str, float]:
    """Return the parts of a step as shares of it, those without effects of their own together."""
    total = time.total_s
    found = {name: getattr(time, name) / total for name in PARTS if name in PART_NAMES}
    found["other_s"] = 1.0 - sum(found.values())
    return found


SOFTWARE = ("release", "product", "family", "nothing")  # what of a run's software was measured, from most to least
CHIP = ("silicon", "maker", "nothing")  # and of its chip
_GROUPS = {"llm-dense": "dense", "llm-dense-gqa": "dense", "llm-moe": "experts"}
GROUPS = ("dense", "experts", "pictures")  # kinds of models that are alike in how well they are known


def spread_class(of: Levels, counts: Mapping[str, Mapping[str, int]]) -> str:
    """Return which runs a run's uncertainty is like: how much of it has been measured before."""

    def known(level: str) -> bool:
        return bool(counts.get(level, {}).get(of[level]))

    if of["geometry"] == "assumed":
        return "sizes assumed; the model is " + ("known" if known("model") else "new")
    software = next((level for level in SOFTWARE[:-1] if known(level)), SOFTWARE[-1])
    chip = next((level for level in CHIP[:-1] if known(level)), CHIP[-1])
    return spread_name(_GROUPS.get(of["kind"], "pictures"), software, chip)


def spread_name(group: str, software: str, chip: str) -> str:
    """Return the name of a class of runs that say all their sizes."""
    return f"{group}; of the software {software} is known; of the chip {chip} is known"


def classes() -> Iterator[str]:
    """Yield every value of `spread_class`."""
    yield from (f"sizes assumed; the model is {m}" for m in ("known", "new"))
    for group in GROUPS:
        for software in SOFTWARE:
            for chip in CHIP:
                yield spread_name(group, software, chip)


def interval(seconds: float, half: float) -> tuple[float, float]:
    """Return the low and the high end of an interval of the logarithm around `seconds`."""
    return seconds * math.exp(-half), seconds * math.exp(half)
