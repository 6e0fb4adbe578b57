"""How long an update takes: the work of a chip divided by its speeds, with what hides behind what.

Speeds are a chip's published ones times efficiencies; the efficiencies are fitted to published runs (scripts/fit_plan.py)
and come in here as plain numbers. Left out: start-up, checkpoints, failures; the verb adds what it assumes of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from operator import attrgetter

from sampan.catalog.records import Chip
from sampan.plan.device_work import DeviceWork, PassWork


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Efficiencies and overheads, the same for all chips.

    Args:
        matmul, attention: Share of the peak that large products and attention reach.
        thin: Shortest side of a product at which half the peak is lost.
        low_precision: Further share of the peak that fp8 and fp4 reach.
        memory: Share of the memory's bandwidth.
        launch_s: A kernel's launch.
        blend: Exponent with which launching and computing overlap: 1 adds them, infinity takes the longer.
        scale_up, scale_out: Shares of the links' bandwidths that collectives reach.
        message_s: Start of a collective.
        hidden: Share of a pass behind which gathering weights and scattering gradients (ZeRO-3) hide.
        shared_hidden: Share of the last backward pass behind which adding up gradients hides.
        sent: Share of a pipeline's messages that does not hide.
        step_s: Host work of an update, whatever its size.
        bubble: Time of a pipeline's idle micro-batch over that of a busy one.
    """

    matmul: float = 0.75
    thin: float = 100.0
    attention: float = 0.45
    low_precision: float = 0.65
    memory: float = 0.7
    launch_s: float = 8e-6
    blend: float = 2.0
    scale_up: float = 0.7
    scale_out: float = 0.6
    message_s: float = 2e-5
    hidden: float = 0.7
    shared_hidden: float = 0.3
    sent: float = 0.5
    step_s: float = 5e-3
    bubble: float = 1.0


RATE_NAMES = tuple(f.name for f in fields(Rates))


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipSpeeds:
    """What a chip's data sheet says, as far as a training step needs it.

    Args:
        matmul_flops_per_s: Dense peak in the precision of the products.
        half_flops_per_s: Dense peak in 16 bits, in which attention stays.
        memory_bytes_per_s: Of its memory.
        scale_up_bytes_per_s, domain: One way, to the chips of its domain, and how many those are.
        scale_out_bytes_per_s: One way, to any other chip.
        is_low: Whether products are in fewer than 16 bits.
    """

    matmul_flops_per_s: float
    half_flops_per_s: float
    memory_bytes_per_s: float
    scale_up_bytes_per_s: float
    domain: int
    scale_out_bytes_per_s: float
    is_low: bool = False


_LOW = {"fp8": "fp8", "mxfp8": "fp8", "fp8-or-fp4": "fp8", "nvfp4": "fp4", "mxfp4": "fp4", "fp4": "fp4"}


def speeds(chip: Chip, precision: str = "") -> ChipSpeeds | str:
    """Return a chip's speeds for a precision, or which of its facts is not known.

    Args:
        precision: "bf16", "fp16", "fp32", "fp8", "mxfp8", "nvfp4", …; "" is 16 bits.
    """
    half = chip.peak("bf16") or chip.peak("fp16")
    low = _LOW.get(precision)
    if precision == "fp32":
        matmul = chip.peak("tf32") or chip.peak("fp32")
    else:
        # where a chip has no units for fewer bits, its 16-bit ones do the work
        matmul = (chip.peak(low) if low else None) or half
    missing = []
    if half is None or matmul is None:
        missing.append(f"its peak in {precision or '16 bits'}")
    if chip.memory.bytes_per_s is None:
        missing.append("its memory bandwidth")
    if missing:
        return " and ".join(missing)
    assert half is not None and matmul is not None and chip.memory.bytes_per_s is not None
    up, out = chip.scale_up, chip.scale_out_bytes_per_s
    out = out or _SLOWEST_LINK
    return ChipSpeeds(
        matmul_flops_per_s=matmul,
        half_flops_per_s=half,
        memory_bytes_per_s=chip.memory.bytes_per_s,
        scale_up_bytes_per_s=(up.bytes_per_s_one_way if up is not None else None) or out,
        domain=(up.domain if up is not None else None) or 1,
        scale_out_bytes_per_s=out,
        is_low=matmul > half,
    )


_SLOWEST_LINK = 12.5e9  # a 100 Gbit/s port, where a data sheet names no network


# A chip's share of its server's storage and of the CPUs that open samples: supposed, and read ahead of the step.
_READ_BYTES_PER_S = 0.5e9


@dataclass(frozen=True, slots=True)
class StepTime:
    """Seconds of one update by what takes them; they add up to the step."""

    matmul_s: float
    attention_s: float
    memory_s: float
    launch_s: float
    tensor_parallel_s: float
    context_parallel_s: float
    expert_parallel_s: float
    pipeline_s: float
    data_parallel_s: float
    optimizer_s: float
    input_s: float
    host_s: float

    @property
    def total_s(self) -> float:
        """The step."""
        return sum(_PARTS_OF(self))  # asked for each of some 100,000 layouts


PART_NAMES = tuple(f.name for f in fields(StepTime))
_PARTS_OF = attrgetter(*PART_NAMES)


def step_time(q: DeviceWork, speed: ChipSpeeds, rates: Rates) -> StepTime:
    """Return how long one update takes.

    Idle time of a pipeline counts as `pipeline_s`; what hides behind computing is not in any part. A collective over n chips
    sends (n - 1) / n of its bytes (ring algorithms: Thakur et al. 2005, section 4); a pipeline of p stages stands idle for
    (p - 1) / virtual micro-batches (Narayanan et al. 2021, section 2.2).
    """
    layout = q.layout
    middle, ends = _computing(q.middle, speed, rates), _computing(q.ends, speed, rates)
    up, domain = speed.scale_up_bytes_per_s * rates.scale_up, speed.domain
    out = speed.scale_out_bytes_per_s * rates.scale_out

    def over(num_bytes: float, chips: int, near: int) -> float:
        """Return the time of a collective over `chips`, of which `near` share a domain and send in parallel beyond it."""
        within = num_bytes * (near - 1) / near / up
        return within + (num_bytes / near * (1 - near / chips) / out if chips > near else 0.0)

    # bytes of sums and dispatches already leave out a chip's own part
    sums_s = over(
        (q.middle.sum_bytes + q.ends.sum_bytes) * layout.tp / max(1, layout.tp - 1), layout.tp, min(layout.tp, domain)
    ) + rates.message_s * (q.middle.sums + q.ends.sums)
    ring = up if layout.tp * layout.cp <= domain else out
    ring_s = _seen(q.middle.ring_bytes / ring, rates.hidden * middle[1]) + rates.message_s * q.middle.rings
    spread = up if layout.ep <= domain else out
    dispatch_s = q.middle.dispatch_bytes / spread + rates.message_s * q.middle.dispatches
    sent = up if layout.num_chips <= domain else out
    sent_s = rates.sent * (q.sent_bytes / sent + (2 * rates.message_s if layout.pp > 1 else 0.0))
    idle = rates.bubble * q.bubble * (sum(middle) + sums_s + ring_s + dispatch_s + sent_s)
    # data-parallel ranks are spread over domains after tensor- and context-parallel ones have filled them
    near = max(1, min(layout.dp, domain // max(1, layout.tp)))
    shared_s = gathered_s = 0.0
    if q.replicas > 1:
        compute = sum(middle) + sum(ends)
        # context-parallel ranks hold the same weights as data-parallel ones
        ranks = max(2, layout.dp)
        near = min(max(near, min(layout.cp, domain)), ranks)
        if q.gathered_bytes:
            # weights are gathered for the forward and for the backward pass, gradients scattered, at every pass
            each = 2 * over(q.gathered_bytes, ranks, near) + over(q.shared_bytes, ranks, near)
            gathered_s = q.passes * _seen(each, rates.hidden * compute)
        else:
            all_s = over(q.shared_bytes, ranks, near) + over(q.returned_bytes, ranks, near)
            shared_s = _seen(all_s, rates.shared_hidden * compute) if q.hides else all_s
    passes = q.passes
    return StepTime(
        matmul_s=passes * (middle[0] + ends[0]),
        attention_s=passes * (middle[1] + ends[1]),
        memory_s=passes * (middle[2] + ends[2]),
        launch_s=passes * (middle[3] + ends[3]),
        tensor_parallel_s=passes * sums_s,
        context_parallel_s=passes * ring_s,
        expert_parallel_s=passes * dispatch_s,
        pipeline_s=idle + passes * sent_s,
        data_parallel_s=shared_s + gathered_s,
        optimizer_s=q.update_bytes / (speed.memory_bytes_per_s * rates.memory),
        input_s=_seen(q.input_bytes / _READ_BYTES_PER_S, passes * (sum(middle) + sum(ends))),
        host_s=rates.step_s,
    )


def _computing(part: PassWork, speed: ChipSpeeds, rates: Rates) -> tuple[float, float, float, float]:
    """Return seconds of products, attention, other operators, and of launching that does not hide behind them."""
    peak = speed.matmul_flops_per_s * rates.matmul * (rates.low_precision if speed.is_low else 1.0)
    bandwidth = speed.memory_bytes_per_s * rates.memory
    matmul = (part.matmul_flops + rates.thin * part.thin_flops) / peak + part.matmul_bytes / bandwidth
    attention = part.attention_flops / (speed.half_flops_per_s * rates.attention)
    memory = part.memory_bytes / bandwidth
    device = matmul + attention + memory
    host = part.kernels * rates.launch_s
    if device <= 0.0 or host <= 0.0:
        return matmul, attention, memory, host
    longer = max(device, host)
    shorter = min(device, host)
    both = longer * (1 + (shorter / longer) ** rates.blend) ** (1 / rates.blend)
    return matmul, attention, memory, both - device


def _seen(seconds: float, hides_behind: float) -> float:
    """Return what is seen of `seconds` that run beside others: next to nothing of little, nearly all of much."""
    return seconds * seconds / (seconds + hides_behind) if seconds > 0 else 0.0
