"""A finished plan, and how JSON holds it: every number with its unit in the name, its source, and what was supposed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from sampan.catalog.records import Chip, Site
from sampan.plan import cost, inference, runnable
from sampan.plan.cost import Assumptions, Energy, Money
from sampan.plan.inference import InferenceRecipe
from sampan.plan.jobs import JobWork
from sampan.plan.planner import Candidate, Infeasible, StageCandidate
from sampan.plan.rank import InferenceRow, PlanRow, Sort
from sampan.plan.records import Interval

_TRAINABLE = "Layouts are those that `sampan train` can run; --all plans those of other software too."


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What was asked, and what was found.

    Args:
        rows: Ranked.
        curves: All candidates, whether worth a row or not, for the curves of time over number of chips.
        infeasible: What cannot be done, with its reason.
        derived: What was chosen because nobody said it, in sentences.
        efficiency: Of which measurements times are, in words.
        recipe: Of the pictures whose making is planned.
        pictures: Making them, chip by chip and site by site, ranked; not_made says where that cannot be.
        measured: What the user's own measurements did, in sentences.
        notes_on_rows: What is said of the rows from outside, all together, in lines; empty where nobody was asked.
        num_hidden: Restricted rows that were asked not to be shown.
        only_trainable: Whether layouts that `sampan train` cannot run were left out.
        job_hash: Of the job as `Job.training_hash` has it; "" where there is no job.
    """

    work: JobWork
    chips: tuple[Chip, ...]
    sites: tuple[Site, ...]
    rows: tuple[PlanRow, ...]
    curves: tuple[Candidate, ...]
    infeasible: tuple[Infeasible, ...]
    assumptions: Assumptions
    derived: tuple[str, ...] = ()
    sort: Sort = "money"
    deadline_days: float | None = None
    budget_usd: float | None = None
    efficiency: str = ""
    recipe: InferenceRecipe | None = None
    pictures: tuple[InferenceRow, ...] = ()
    not_made: tuple[Infeasible, ...] = ()
    measured: tuple[str, ...] = ()
    notes_on_rows: tuple[str, ...] = ()
    num_hidden: int = 0
    only_trainable: bool = False
    job_hash: str = ""

    def notes(self) -> list[str]:
        """Return everything that was supposed or chosen, in sentences."""
        return [
            *self.derived,
            *([_TRAINABLE] if self.only_trainable else []),
            *self.work.assumptions,
            *self.assumptions.lines(),
            cost.LEFT_OUT,
            "A rent is one of the chip in its region, whatever the site; electricity is in it.",
            "Start-up, checkpoints, validation, failures and waiting for chips are left out.",
            *([self.efficiency] if self.efficiency else []),
            *([inference.BASIS] if self.recipe else []),
            *self.measured,
            *([f"{self.num_hidden} rows that a rule restricts are hidden."] if self.num_hidden else []),
        ]

    def as_dict(self) -> dict[str, Any]:
        """Return the whole plan as JSON can hold it."""
        # a candidate has a row at every site; what it is made of is written out once
        candidates = {id(row.candidate): row.candidate for row in self.rows}
        stages = {key: [_stage(stage) for stage in candidate.stages] for key, candidate in candidates.items()}
        return {
            "what": "sampan plan",
            "job": self.work.name,
            "job_hash": self.job_hash,
            "sort": self.sort,
            "deadline_days": self.deadline_days,
            "budget_usd": self.budget_usd,
            "precision": self.work.precision,
            "notes": self.notes(),
            "assumptions": asdict(self.assumptions),
            "stages": [
                {
                    "name": stage.name,
                    "workload": stage.workload.name,
                    "sample": stage.workload.sample,
                    "method": stage.method,
                    "num_params": stage.workload.params,
                    "num_trained_params": stage.workload.trained_params,
                    "flops_per_sample": stage.workload.flops,
                    "num_steps": stage.num_steps,
                    "global_batch_size": stage.global_batch,
                    "num_samples": stage.num_samples,
                }
                for stage in self.work.stages
            ],
            "rows": [_row(rank, row, stages[id(row.candidate)]) for rank, row in enumerate(self.rows, start=1)],
            "infeasible": [
                {"chip": one.chip, "num_chips": one.count, "framework": one.framework, "reason": one.reason}
                for one in self.infeasible
            ],
            "pictures": None if self.recipe is None else self._pictures(self.recipe),
            "chips": {chip.label: _facts(chip, _CHIP_FACTS) for chip in self.chips},
            "sites": {site.name: _facts(site, _SITE_FACTS) for site in self.sites},
        }

    def _pictures(self, recipe: InferenceRecipe) -> dict[str, Any]:
        return {
            "num_pictures": inference.NUM_PICTURES,
            "side_px": recipe.side_px,
            "num_inference_steps": recipe.num_inference_steps,
            "num_references": recipe.num_references,
            "part_params": dict(recipe.part_params),
            "rows": [_picture_row(rank, row) for rank, row in enumerate(self.pictures, start=1)],
            "infeasible": [
                {
                    "chip": one.chip,
                    "framework": one.framework,
                    "reason": one.reason,
                    "smallest_count": one.smallest_count,
                }
                for one in self.not_made
            ],
        }


def _picture_row(rank: int, row: InferenceRow) -> dict[str, Any]:
    estimate, split = row.estimate, row.split
    return {
        "rank": rank,
        "chip": estimate.label,
        "framework": estimate.framework,
        "site": row.site.name,
        "at_once": estimate.batch,
        "is_offloaded": estimate.is_offloaded,
        "time_s": _span(estimate.time_s),
        "parts_s": dict(estimate.parts_s),
        "one_alone_s": _span(estimate.alone_s),
        "usd": _span(row.usd),
        "is_owned": row.is_owned,
        "rent_usd": _span(split.rent),
        "power_usd": _span(split.power),
        "depreciation_usd": _span(split.depreciation),
        "markup_usd": _span(split.markup),
        "money_reasons": list(split.reasons),
        **_energy(row.energy),
        "memory_bytes": {**asdict(estimate.memory), "total": estimate.memory.total},
        "num_measurements": estimate.num_measurements,
        "basis": estimate.basis,
    }


def _row(rank: int, row: PlanRow, stages: list[dict[str, Any]]) -> dict[str, Any]:
    candidate = row.candidate
    return {
        "rank": rank,
        "chip": candidate.label,
        "num_chips": candidate.count,
        "framework": candidate.framework,
        "site": row.site.name,
        "is_on_front": row.is_on_front,
        "not_runnable": runnable.why_not(candidate),
        "rules": None if row.note is None else dict(row.note.document),
        "misses": list(row.misses),
        "time_s": _span(candidate.time_s),
        "chip_hours": _span(candidate.chip_hours),
        "money": _money(row.money),
        "money_if_bought": _money(row.bought),
        **_energy(row.energy),
        "chip_power_w": row.energy.power.w,
        "chip_power_basis": row.energy.power.basis,
        "stages": stages,
    }


def _stage(stage: StageCandidate) -> dict[str, Any]:
    prediction = stage.prediction
    return {
        "name": stage.name,
        "num_steps": stage.num_steps,
        "samples_per_step": stage.layout.global_batch,
        "layout": asdict(stage.layout),
        "layout_in_words": str(stage.layout),
        "step_s": _span(prediction.span),
        "parts_s": {name.removesuffix("_s"): seconds for name, seconds in prediction.parts.items()},
        "num_measurements": prediction.num_measurements,
        "basis": prediction.basis,
        "memory_bytes": {**asdict(stage.memory), "total": stage.memory.total},
        "time_s": _span(stage.time_s),
    }


def _span(span: Interval | None) -> Mapping[str, float] | None:
    return None if span is None else span.as_dict()


def _energy(used: Energy) -> dict[str, Any]:
    return {
        "energy_kwh": _span(used.kwh),
        "energy_reason": used.reason,
        "carbon_kg_co2": _span(used.kg_co2),
        "carbon_reason": used.carbon_reason,
    }


def _money(money: Money) -> dict[str, Any]:
    return {
        "basis": money.basis,
        "usd": _span(money.usd),
        "usd_per_chip_hour": _span(money.hour_usd),
        "said": money.said,
    }


_CHIP_FACTS = (
    "title", "vendor", "launched", "peak_dense_flops_per_s", "memory", "scale_up", "scale_out_bytes_per_s", "board_power_w",
    "server", "price", "rent", "confidence", "from_memory", "sources", "note",
)  # fmt: skip
_SITE_FACTS = (
    "country", "region", "electricity_usd_per_kwh", "electricity_year", "pue", "grid_g_co2_per_kwh", "grid_year",
    "confidence", "from_memory", "sources", "note",
)  # fmt: skip
"""What a plan takes from the files of chips and sites, with sources and dates."""


def _facts(record: Chip | Site, names: tuple[str, ...]) -> dict[str, Any]:
    every = asdict(record)
    return {name: every[name] for name in names}
