"""What a run of `sampan train` measured of its chip: seconds of a step, stage by stage, beside what a plan says of the same.

Everything is read from the run folder: the job as it was run, the log's pictures a second, and from events.jsonl the device
and the number of ranks. The first steps of a process, which load and compile, are left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sampan import job as jobs
from sampan.catalog import frameworks
from sampan.catalog.records import Chip
from sampan.checkpoint.run_metadata import read_rows
from sampan.errors import SampanError, UnusableMeasurement
from sampan.job import Job
from sampan.plan.efficiency import Efficiency
from sampan.plan.jobs import JobWork, StageWork, of_job
from sampan.plan.measured_step import MeasuredStep, chip_of
from sampan.plan.memory import MemoryModel
from sampan.plan.predict import predict
from sampan.plan.records import ParallelLayout
from sampan.units import format_bytes, format_seconds

_WARM_UP_STEPS = 5  # of a process: they load, compile and read ahead
_LEAST_STEPS = 5  # that are needed after these


def run_steps(out: Path, *, fitted: Efficiency | None = None, compiled: bool = False) -> list[MeasuredStep]:
    """Return what a run folder says of each of its stages.

    Args:
        compiled: Which mode the job that is planned trains in; a run in the other mode says nothing of it.

    Raises:
        UnusableMeasurement: It says nothing, and why.
    """
    try:
        if not (out / "job.toml").is_file():
            raise UnusableMeasurement("it is no run folder: it has no job.toml")
        job = jobs.read(out / "job.toml")
        if job.place.compile != compiled:
            mode = "compiled" if job.place.compile else "eager"
            raise UnusableMeasurement(f"its steps were {mode}, which is not how the job trains")
        events = _rows(out / "events.jsonl")
        where = _device(events)
        if where["device"].startswith("cpu"):
            raise UnusableMeasurement("it ran on a CPU, and the catalogue has accelerators alone")
        chip, ranks = chip_of(where.get("device_name") or ""), int(where["ranks"])
        work = of_job(job)
        begun = {event["stage"]: int(event["step"]) for event in events if event.get("event") == "resume"}
        return _stages(job, work, chip, ranks, _rows(out / "log.jsonl"), begun, fitted)
    except SampanError as error:
        raise UnusableMeasurement("; ".join([error.what, *error.because])) from error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnusableMeasurement(f"its files are not those of a run ({error})") from error


def _rows(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise UnusableMeasurement(f"it has no {path.name}")
    return list(read_rows(path))


def _device(events: Iterable[Mapping[str, Any]]) -> Mapping[str, Any]:
    found = [event for event in events if event.get("event") == "device"]
    if not found:
        raise UnusableMeasurement("its events.jsonl does not say which device it ran on: an earlier version wrote it")
    if len({(event["device_name"], event["ranks"]) for event in found}) > 1:
        raise UnusableMeasurement("its processes ran on different devices or numbers of ranks")
    return found[-1]


def step_seconds(rows: Iterable[Mapping[str, Any]], samples: int, first: int = 0) -> float | None:
    """Return the seconds of one step from a stage's log lines of one process; None where they are too few.

    A line's `images_per_s` is the mean since the process took the stage up, so that the line of step n came
    (n - first) * samples / images_per_s seconds after that, pauses left out.

    Args:
        samples: Pictures of a step.
        first: Steps that were there when the process took the stage up; lines up to it are another process's.
    """
    taken = {row["step"] - first: row["images_per_s"] for row in rows if row["step"] > first}
    last = max(taken, default=0)
    if last < _WARM_UP_STEPS + _LEAST_STEPS:
        return None
    begin_s, end_s = (count * samples / taken[count] for count in (_WARM_UP_STEPS, last))
    return (end_s - begin_s) / (last - _WARM_UP_STEPS)


def _stages(
    job: Job,
    work: JobWork,
    chip: Chip,
    ranks: int,
    log: list[dict[str, Any]],
    begun: Mapping[str, int],
    fitted: Efficiency | None,
) -> list[MeasuredStep]:
    found, short = [], []
    for name in job.train.stages:
        rows = [row for row in log if row.get("stage") == name and row.get("images_per_s")]
        settings = getattr(job.stage, name)
        samples = settings.micro_batch_size * settings.grad_accum_steps
        measured_s = step_seconds(rows, samples, begun.get(name, 0))
        if measured_s is None:
            if rows:
                short.append(name)
            continue
        layout = ParallelLayout(
            dp=ranks,
            zero_stage=_zero_stage(job, ranks),
            recompute="full" if getattr(settings, "recompute", False) else "none",
            micro_batch=settings.micro_batch_size,
            accum=settings.grad_accum_steps // ranks,
        )
        # a stage of several sizes sees each equally often: its mean step is the mean of theirs
        sizes = [stage for stage in work.stages if stage.name == name or stage.name.startswith(f"{name} at ")]
        predicted = [
            predict(
                size.workload, layout, chip, framework=job.place.framework, precision=work.precision,
                method=size.method, fitted=fitted,
            ).step_s
            for size in sizes
        ]  # fmt: skip
        found.append(
            MeasuredStep(
                chip=chip, framework=job.place.framework, precision=work.precision,
                part=f"{name} of {job.model.preset} on {ranks} {'chip' if ranks == 1 else 'chips'}",
                measured_s=measured_s, predicted_s=sum(predicted) / len(predicted),
                says=_says(name, measured_s, samples, sizes, rows, layout, work, job.place.framework),
            )
        )  # fmt: skip
    if not found:
        least = _WARM_UP_STEPS + _LEAST_STEPS
        stages = f"; {', '.join(short)} took fewer in one process" if short else ""
        raise UnusableMeasurement(f"no stage has {least} steps in its log.jsonl{stages}")
    return found


def _zero_stage(job: Job, ranks: int) -> int:
    """Return how the ranks shared what training holds."""
    if ranks == 1:
        return 0
    if job.place.framework == "mindspore":
        return 1
    return 3 if getattr(job.place, "dp_shard", None) not in (None, 1) else 0


def _says(
    name: str,
    measured_s: float,
    samples: int,
    sizes: list[StageWork],
    rows: list[dict[str, Any]],
    layout: ParallelLayout,
    work: JobWork,
    framework: str,
) -> str:
    words = [f"{format_seconds(measured_s)} a step", f"{samples / measured_s:.3g} pictures/s"]
    counts = [size.workload.tokens for size in sizes]
    if all(counts):
        tokens = sum(count or 0.0 for count in counts) / len(counts)
        words.append(f"{samples * tokens / measured_s:,.0f} tokens/s")
    peaks = [row["peak_memory_bytes"] for row in rows if row.get("peak_memory_bytes")]
    if peaks:
        convention = work.convention(frameworks.family(framework).convention)
        planned = max(MemoryModel(size.workload, convention).total(layout) for size in sizes)
        words.append(f"{format_bytes(max(peaks))} a chip where {format_bytes(planned)} are planned")
    return f"The run's {name}: {', '.join(words)}."
