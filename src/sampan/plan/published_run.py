"""A published run's own columns, read as a workload on a layout of chips; the opposite way for what it measured.

Columns are those of the catalogue's runs (sampan.catalog.load.RUN_COLUMNS). What a run does not say is taken to be the
fastest choice that fits, as people who publish speeds would have it. Its value, id and source are not looked at.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

from sampan.catalog import load
from sampan.catalog.frameworks import FrameworkFamily, family
from sampan.catalog.models import find
from sampan.catalog.records import Chip
from sampan.errors import NotPredictable, SampanError
from sampan.plan.conventions import CONVENTIONS, Convention
from sampan.plan.device_work import DeviceWork, device_work
from sampan.plan.memory import MemoryModel
from sampan.plan.records import ParallelLayout, Recompute, Workload
from sampan.plan.time import ChipSpeeds, Rates, speeds, step_time
from sampan.plan.workloads.language import LanguageShape, language_model
from sampan.plan.workloads.named import geometry_from_text, leaves_encoders_out, seq_len_from_text, workload_of
from sampan.plan.workloads.usual import usual_model

Row = Mapping[str, str]

METRICS = ("tokens_per_s_per_chip", "step_s", "samples_per_s", "tflops_per_chip", "mfu", "days", "chip_hours")
_ROOM = 0.94  # of a chip's memory that a job may take
_USUAL_PASSES = 8  # micro-batches of an update where a run does not say
_DAY_S = 86400.0
_LAYOUT_COLUMNS = ("tp", "pp", "cp", "ep", "zero_stage", "micro_batch", "global_batch")
_RECOMPUTES: tuple[Recompute, ...] = ("none", "selective", "full")


@dataclass(frozen=True, kw_only=True)
class PublishedRun:
    """A run as the model of time takes it.

    Args:
        samples: Of one update, over all chips.
        precision: As the run has it, "" where it does not say.
        assumed: What the run does not say and was chosen.
    """

    workload: Workload
    layout: ParallelLayout
    chip: Chip
    speeds: ChipSpeeds
    device_work: DeviceWork
    framework: str
    family: FrameworkFamily
    precision: str
    method: str
    samples: float
    metric: str
    tokens_total: float | None
    model: str
    assumed: tuple[str, ...] = ()

    def step_s(self, value: float) -> float:
        """Return how long an update took, from the run's metric."""
        # every metric is proportional to the time of a step or to its inverse
        at_one = self.value(1.0)
        return value / at_one if self.metric in ("step_s", "days", "chip_hours") else at_one / value

    def value(self, step_s: float) -> float:
        """Return what the run's metric would be if an update took `step_s`."""
        chips = self.layout.num_chips
        if self.metric == "step_s":
            return step_s
        if self.metric == "samples_per_s":
            return self.samples / step_s
        if self.metric in ("tflops_per_chip", "mfu"):
            flops = self.workload.flops
            if self.metric == "mfu":
                return self.samples * flops / (step_s * chips * self.speeds.matmul_flops_per_s)
            if self.layout.recompute == "full" and "recompute" not in self.assumed:
                flops += self.workload.forward_flops  # achieved FLOP/s count what is computed (Narayanan et al. 2021)
            return self.samples * flops / (step_s * chips) / 1e12
        tokens = self.workload.tokens
        if tokens is None:
            raise NotPredictable(f"`{self.metric}` counts tokens, and nobody counts tokens of this kind of model")
        per_s = self.samples * tokens / step_s
        if self.metric == "tokens_per_s_per_chip":
            return per_s / chips
        if self.tokens_total is None:
            raise NotPredictable(f"`{self.metric}` needs `tokens_total`")
        seconds = self.tokens_total / per_s
        return seconds / _DAY_S if self.metric == "days" else seconds * chips / 3600


def read(row: Row) -> PublishedRun:
    """Return a run as a case.

    Raises:
        NotPredictable: Says why.
    """
    metric = row["metric"]
    if metric not in METRICS:
        raise NotPredictable(f"the metric `{metric}` is not one that is predicted")
    try:
        chip = load.chip(row["chip"])
    except SampanError as error:
        raise NotPredictable(error.what) from error
    speed = speeds(chip, row["precision"])
    if isinstance(speed, str):
        raise NotPredictable(f"of the chip {speed} is not known")
    count = _whole(row, "chips")
    if count is None:
        raise NotPredictable("it does not say how many chips ran")
    workload = _workload(row)
    software = family(row["framework"])
    layout, assumed = _layout(row, workload, chip, speed, software, count)
    return PublishedRun(
        workload=workload, layout=layout, chip=chip, speeds=speed,
        device_work=device_work(workload, layout, hides=software.hides), framework=row["framework"], family=software,
        precision=row["precision"], method=_method(row), samples=layout.global_batch, metric=metric,
        tokens_total=_number(row, "tokens_total"), model=row["model"], assumed=assumed,
    )  # fmt: skip


def _method(row: Row) -> str:
    return "lora" if "lora" in row["workload"].lower() else "full"


def _workload(row: Row) -> Workload:
    method, seq_len = _method(row), _number(row, "seq_len")
    counts = (_number(row, name) for name in ("params_b", "active_params_b"))
    params, active = (None if count is None else count * 1e9 for count in counts)
    kind = row["family"]
    if row["layers"] and row["hidden"] and kind.startswith("llm-dense"):
        if seq_len is None:
            raise NotPredictable("it does not say how long its sequences are")
        return _from_columns(
            row["model"], method, seq_len, *(_whole(row, name) for name in ("layers", "hidden")), _number(row, "ffn"),
            *(_whole(row, name) for name in ("heads", "kv_heads")), vocab=_number(row, "vocab"), params=params,
        )  # fmt: skip
    if kind.startswith("llm-") and params and seq_len and (active or kind != "llm-moe"):
        usual = _from_counts(row["model"], params, seq_len, active, method)
        if usual is not None:
            return usual
    note = row["note"]
    frames, height, width = geometry_from_text(note) or (None, None, None)
    try:
        return workload_of(
            row["model"], params=params, seq_len=seq_len or seq_len_from_text(note), frames=frames, height_px=height,
            width_px=width, method=method, with_encoders=False if leaves_encoders_out(note) else None,
            is_pretraining=row["workload"] == "pretrain",
        )  # fmt: skip
    except SampanError as error:
        raise NotPredictable(f"{error.what}{': ' + error.because[0] if error.because else ''}") from error


@lru_cache(maxsize=2048)
def _from_counts(name: str, params: float, seq_len: float, active: float | None, method: str) -> Workload | None:
    """Return a language model that the catalogue does not know, by its counts of parameters; None where it is known."""
    try:
        find(name, params)
    except SampanError:
        return usual_model(name, params, seq_len, active_params=active, method=method)
    return None


@lru_cache(maxsize=2048)
def _from_columns(
    name: str,
    method: str,
    seq_len: float,
    layers: float,
    hidden: float,
    ffn: float | None,
    heads: float | None,
    kv_heads: float | None,
    *,
    vocab: float | None,
    params: float | None,
) -> Workload:
    heads = heads or max(1.0, hidden // 128)
    made = [
        LanguageShape(
            layers=int(layers), hidden=int(hidden), ffn=ffn or 4 * hidden, heads=int(heads),
            kv_heads=int(kv_heads or heads), vocab=int(vocab or (32000 if ffn else 50304)), gated=gated,
        )
        for gated in (False, True)
    ]  # fmt: skip
    plain, gated = (language_model(name, shape, seq_len, method=method) for shape in made)
    if ffn is None:
        return plain
    if params is None:
        return gated if ffn < 4 * hidden else plain
    # whether the feed-forward layer has a gate is not a column; the count of parameters tells
    return min((plain, gated), key=lambda w: abs(math.log(w.params / params)))


def _layout(
    row: Row, workload: Workload, chip: Chip, speed: ChipSpeeds, software: FrameworkFamily, count: int
) -> tuple[ParallelLayout, tuple[str, ...]]:
    """Return the layout, with what the run does not say chosen."""
    given = {name: value for name in _LAYOUT_COLUMNS if (value := _whole(row, name)) is not None}
    # how many pieces each stage of a pipeline is cut into, where it is printed
    pieces = re.search(r"\bVP (\d+)\b", row["note"])
    if pieces is not None:
        given["virtual"] = int(pieces[1])
    if row["recompute"] and row["recompute"] not in _RECOMPUTES:
        raise NotPredictable(f"`recompute` is {row['recompute']!r}")
    convention = CONVENTIONS[software.convention]
    room = (chip.memory.bytes or math.inf) * _ROOM
    needs, rates = _needs(workload, convention), Rates()
    best: tuple[int, float, ParallelLayout] | None = None
    least: tuple[float, ParallelLayout] | None = None
    for layout in _possible(given, row["recompute"], workload, software, speed.domain, count):
        try:
            bytes_ = needs.total(layout)
        except ValueError:  # more stages than layers
            continue
        if bytes_ <= room:
            # what is usual is kept to as long as it fits
            usual = software.zero_stages.index(layout.zero_stage) if "zero_stage" not in given else 0
            if best is not None and usual > best[0]:
                continue
            work = device_work(workload, layout, hides=software.hides)
            time_s = step_time(work, speed, rates).total_s / layout.global_batch
            if best is None or (usual, time_s) < best[:2]:
                best = usual, time_s, layout
        elif least is None or bytes_ < least[0]:
            least = bytes_, layout
    # a run that was published did fit: where the model of memory says otherwise, the leanest layout is the likeliest
    if best is None and least is None:
        raise NotPredictable("its numbers of chips, parallel degrees and samples do not go together")
    assumed = tuple(name for name in _LAYOUT_COLUMNS if name not in given)
    layout = best[2] if best is not None else least[1]  # pyright: ignore[reportOptionalSubscript]
    return layout, assumed if row["recompute"] else (*assumed, "recompute")


_NEEDS: dict[tuple[int, str], MemoryModel] = {}


def _needs(workload: Workload, convention: Convention) -> MemoryModel:
    """Return the memory of a workload; runs of the same work share what it remembers."""
    # hashing a workload would walk through all its operators; its memory keeps it alive, so that its id stays its own
    return _NEEDS.setdefault((id(workload), convention.name), MemoryModel(workload, convention))


def _possible(
    given: Mapping[str, int], recompute: str, workload: Workload, software: FrameworkFamily, domain: int, count: int
) -> Iterator[ParallelLayout]:
    layers = workload.trunk_repeats or 1
    has_experts = any(block.expert_params for block in workload.blocks)
    tokens = workload.tokens or 0

    def choices(name: str, others: tuple[int, ...], where: bool = True) -> tuple[int, ...]:
        if name in given:
            return (max(1, given[name]),)
        is_given = any(axis in given for axis in ("tp", "pp"))
        return others if where and name in software.axes and not is_given else (1,)

    small = domain if domain < 64 else 8
    for tp in choices("tp", (1, 2, 4, 8)):
        if tp > max(small, given.get("tp", 1)):
            continue
        for pp in choices("pp", (1, 2, 4, 8, 16), layers > 1):
            if "pp" not in given and layers % pp:
                continue
            for cp in choices("cp", (1, 2, 4, 8), tokens >= 16384):
                if tp * pp * cp > count:
                    continue
                # some print degrees that leave chips over
                if count % (tp * pp * cp) and len(given.keys() & {"tp", "pp", "cp"}) < 2:
                    continue
                dp = max(1, count // (tp * pp * cp))
                yield from _shared(given, recompute, software, layers, has_experts, dp, tp, pp, cp)


def _shared(
    given: Mapping[str, int], recompute: str, software: FrameworkFamily, layers: int, has_experts: bool, dp: int, tp: int,
    pp: int, cp: int,
) -> Iterator[ParallelLayout]:  # fmt: skip
    batch = given.get("global_batch")
    for micro in (given["micro_batch"],) if "micro_batch" in given else (1, 2, 4, 8, 16):
        per_rank = micro * _USUAL_PASSES if batch is None else batch // dp
        if batch is not None and per_rank < micro:
            if "micro_batch" not in given or per_rank < 1:
                continue
            micro = per_rank
        accum = max(1, round(per_rank / micro))
        if pp > 1 and accum < pp and micro > 1:
            # fewer micro-batches than stages is no schedule: what is called a micro-batch is a rank's whole batch
            micro, accum = 1, accum * micro
        stages = (given["zero_stage"],) if "zero_stage" in given else software.zero_stages
        if "pp" in given or not software.interleaves:
            pieces = given.get("virtual", 1)
        else:
            pieces = max((v for v in (1, 2, 4, 5, 8) if layers % (pp * v) == 0), default=1)
        whole = dp * cp * tp
        experts = [given["ep"]] if "ep" in given else [e for e in (1, 8, 64) if has_experts or e == 1]
        for zero in stages:
            for ep in experts:
                for again in _RECOMPUTES if recompute not in _RECOMPUTES else (recompute,):
                    yield ParallelLayout(
                        dp=dp, tp=tp, pp=pp, cp=cp, ep=min(ep, whole), virtual=pieces if pp > 1 else 1,
                        zero_stage=zero, recompute=again, micro_batch=micro, accum=accum,
                    )  # fmt: skip


def _number(row: Row, name: str) -> float | None:
    text = row[name].strip()
    return float(text) if text else None


def _whole(row: Row, name: str) -> int | None:
    value = _number(row, name)
    if value is not None and value != int(value):
        raise NotPredictable(f"`{name}` is {row[name]}, not a whole number")
    return None if value is None else int(value)
