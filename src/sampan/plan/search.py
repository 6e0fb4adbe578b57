"""The fastest layout that fits: every layout within stated limits is considered, none is guessed.

How long a layout takes and what memory it needs are functions given by the caller. The limits say what is not considered
at all: they are rules about layouts, and the search is exact among the rest. What a plan says about a chip (time, money,
energy) is made elsewhere, once, for the layout found here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain

from sampan.plan.records import ParallelLayout, Recompute, Workload
from sampan.units import format_bytes

MAX_COUNT = 1 << 16  # where looking for a count of chips that would fit ends


@dataclass(frozen=True, kw_only=True)
class LayoutLimits:
    """Which layouts are considered.

    Tensor, context and expert parallel degrees are powers of two, the first inside the scale-up domain; a pipeline's
    degree is any divisor. Interleaving wants equal pieces and micro-batches in multiples of the pipeline's degree (Narayanan
    et al. 2021, section 2.2); without it pieces may differ by one layer.

    Args:
        max_tp, max_pp, max_cp, max_ep, max_virtual: Largest degrees.
        max_micro_batch: Of the divisors of a rank's batch, those up to 8 and powers of two up to here are tried.
        min_cp_tokens: Tokens that context parallelism leaves on a chip at least.
        zero_stages: Those that the framework has. With one copy of the weights all are alike, and the first stands for all.
        recompute: In order of what is computed again, the least first.
    """

    max_tp: int = 64
    max_pp: int = 64
    max_cp: int = 64
    max_ep: int = 512
    max_virtual: int = 8
    max_micro_batch: int = 64
    min_cp_tokens: int = 4096
    zero_stages: tuple[int, ...] = (0, 1)
    recompute: tuple[Recompute, ...] = ("none", "selective", "full")


def layouts(
    workload: Workload, count: int, global_batch: int, *, scale_up_domain: int = 8, limits: LayoutLimits | None = None
) -> Iterator[ParallelLayout]:
    """Yield every layout on `count` chips within the limits; those that differ only in recomputation come together."""
    return chain.from_iterable(_families(workload, count, global_batch, scale_up_domain, limits or LayoutLimits()))


def _families(
    workload: Workload, count: int, global_batch: int, scale_up_domain: int, limits: LayoutLimits
) -> Iterator[list[ParallelLayout]]:
    """Yield lists of layouts that differ only in what they recompute, the least first."""
    if count < 1 or global_batch < 1 or scale_up_domain < 1:
        raise ValueError(f"counts are at least 1: {count} chips, {global_batch} samples, domain of {scale_up_domain}")
    can = _divisible(workload)
    for tp in _powers_of_two(min(limits.max_tp, scale_up_domain, count), can.heads, count):
        for cp in _powers_of_two(min(limits.max_cp, can.tokens // limits.min_cp_tokens), can.tokens, count // tp):
            left = count // (tp * cp)
            for pp in _divisors(left, min(limits.max_pp, can.layers)):
                dp = left // pp
                if global_batch % dp:
                    continue
                whole = dp * cp * tp
                zero_stages = limits.zero_stages if dp * cp > 1 else limits.zero_stages[:1]
                for ep in _powers_of_two(limits.max_ep, can.experts, whole):
                    for micro_batch in _micro_batches(global_batch // dp, limits.max_micro_batch):
                        accum = global_batch // (dp * micro_batch)
                        for virtual in _pieces(can.layers, pp, accum, limits.max_virtual):
                            for zero_stage in zero_stages:
                                yield [
                                    ParallelLayout(
                                        dp=dp, tp=tp, pp=pp, cp=cp, ep=ep, virtual=virtual, zero_stage=zero_stage,
                                        recompute=recompute, micro_batch=micro_batch, accum=accum,
                                    )
                                    for recompute in limits.recompute
                                ]  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class _Divisible:
    """What tensor, context, expert and pipeline parallelism have to divide; 1 where there is nothing."""

    heads: int
    tokens: int
    experts: int
    layers: int


def _divisible(workload: Workload) -> _Divisible:
    trunk = [block for block in workload.blocks if block.is_trunk]
    ops = [op for block in trunk for op in block.ops]
    heads = [round(op.copies) for op in ops if op.kind == "attention" and op.split == "heads"]
    experts = [round(op.copies) for op in ops if op.split == "experts" and op.kind == "matmul"]
    return _Divisible(
        heads=math.gcd(*heads) if heads else 1,
        tokens=math.gcd(*(round(block.tokens) for block in trunk)) or 1 if heads else 1,
        experts=math.gcd(*experts) if experts else 1,
        layers=max(1, workload.trunk_repeats),
    )


def _powers_of_two(most: int, *multiples: int) -> Iterator[int]:
    """Yield 1, 2, 4, … up to `most` while they divide all of `multiples`; 1 in any case."""
    yield 1
    value = 2
    while value <= most and not any(multiple % value for multiple in multiples):
        yield value
        value *= 2


def _divisors(number: int, most: int) -> list[int]:
    return [value for value in range(1, min(number, most) + 1) if number % value == 0]


def _micro_batches(per_rank: int, most: int) -> list[int]:
    small = _divisors(per_rank, min(8, most))
    return small + [value for value in _powers_of_two(most, per_rank) if value > 8]


def _pieces(layers: int, pp: int, accum: int, most: int) -> list[int]:
    """Return into how many pieces a chip's part of the pipeline may be cut."""
    if pp == 1 or layers % pp or accum % pp:
        return [1]
    return _divisors(layers // pp, most)


@dataclass(slots=True)
class _Family:
    """Layouts that differ only in what they recompute, and the memory of the first few of them."""

    layouts: list[ParallelLayout]
    needs: list[float] = field(default_factory=list)


class LayoutSearch:
    """The layouts of one workload and batch; their memory is counted once, whatever the chips that are tried.

    Args:
        memory_of: Bytes that a layout needs on the chip that needs most. It may not grow with what is recomputed, nor
            shrink as the micro-batch or the interleaving grows.
    """

    def __init__(
        self,
        workload: Workload,
        global_batch: int,
        memory_of: Callable[[ParallelLayout], float],
        limits: LayoutLimits | None = None,
    ):
        self.workload = workload
        self.global_batch = global_batch
        self.memory_of = memory_of
        self.limits = limits or LayoutLimits()
        self._considered: dict[tuple[int, int], list[_Family]] = {}
        self._smallest: dict[tuple[int, float], int | None] = {}

    def best(
        self, count: int, scale_up_domain: int, memory_bytes: float, time_of: Callable[[ParallelLayout], float]
    ) -> ParallelLayout | str:
        """Return the fastest layout that fits, or why there is none; of equally fast ones the first in `layouts`' order.

        Args:
            count: Chips.
            scale_up_domain: Chips that tensor parallelism may span.
            memory_bytes: What a chip has for the job.
            time_of: Seconds of a step. All else equal, computing more again may not be faster.
        """
        families = self._families(count, scale_up_domain)
        if not families:
            return self._why_none(count, scale_up_domain)
        fitting = self._fitting(families, memory_bytes)
        if not fitting:
            return self._too_large(families, count, scale_up_domain, memory_bytes)
        return min(fitting, key=time_of)

    def smallest_count(self, scale_up_domain: int, memory_bytes: float) -> int | None:
        """Return the least power of two of chips, up to MAX_COUNT, on which some layout fits; None where none does."""
        key = scale_up_domain, memory_bytes
        if key not in self._smallest:
            # memory never shrinks with micro-batch or interleaving and never grows with recomputation: where any
            # layout fits, so does the one with the least of the former and the most of the latter
            thrifty = replace(self.limits, max_micro_batch=1, max_virtual=1, recompute=self.limits.recompute[-1:])
            counts = (1 << power for power in range(MAX_COUNT.bit_length()))
            self._smallest[key] = next(
                (
                    count
                    for count in counts
                    if any(
                        self.memory_of(layout) <= memory_bytes
                        for layout in layouts(
                            self.workload, count, self.global_batch, scale_up_domain=scale_up_domain, limits=thrifty
                        )
                    )
                ),
                None,
            )
        return self._smallest[key]

    def _families(self, count: int, scale_up_domain: int) -> list[_Family]:
        # a domain beyond the largest tensor parallel degree changes nothing
        key = count, min(scale_up_domain, self.limits.max_tp, count)
        if key not in self._considered:
            self._considered[key] = [
                _Family(alike) for alike in _families(self.workload, count, self.global_batch, key[1], self.limits)
            ]
        return self._considered[key]

    def _fitting(self, families: list[_Family], memory_bytes: float) -> list[ParallelLayout]:
        """Return the layouts that fit, in the order of `layouts`.

        Two kinds are passed over. Of layouts that differ only in recomputation, those behind the first that fits: they
        compute more again, so none is faster, and in a tie the first wins. And those with more samples in a micro-batch, or
        more interleaving, than a layout that does not fit whatever it recomputes: they need no less.
        """
        fitting = []
        too_large: dict[tuple[int, ...], int] = {}  # the least micro-batch that does not fit
        for family in families:
            first = family.layouts[0]
            alike = first.tp, first.cp, first.pp, first.ep, first.zero_stage
            if first.micro_batch >= too_large.get(alike, math.inf):
                continue
            for index, layout in enumerate(family.layouts):
                if index == len(family.needs):
                    family.needs.append(self.memory_of(layout))
                if family.needs[index] <= memory_bytes:
                    fitting.append(layout)
                    break
            else:
                if first.virtual == 1:
                    too_large[alike] = first.micro_batch
        return fitting

    def _too_large(self, families: list[_Family], count: int, scale_up_domain: int, memory_bytes: float) -> str:
        need, layout = min(
            ((need, layout) for family in families for need, layout in zip(family.needs, family.layouts, strict=False)),
            key=lambda two: two[0],
        )
        smallest = self.smallest_count(scale_up_domain, memory_bytes)
        reason = (
            f"the job does not fit on {_chips(count)}: the least, {format_bytes(need)} a chip, is needed with {layout}, "
            f"and a chip has {format_bytes(memory_bytes)} for it"
        )
        if smallest is None:
            reason += f"; it fits on no number of chips up to {MAX_COUNT:,}"
        elif smallest > count:
            reason += f"; {_chips(smallest)} would do"
        return reason

    def _why_none(self, count: int, scale_up_domain: int) -> str:
        can, limits = _divisible(self.workload), self.limits
        splits = [1]
        for tp in _powers_of_two(min(limits.max_tp, scale_up_domain, count), can.heads, count):
            for cp in _powers_of_two(min(limits.max_cp, can.tokens // limits.min_cp_tokens), can.tokens, count // tp):
                splits += [tp * cp * pp for pp in _divisors(count // (tp * cp), min(limits.max_pp, can.layers))]
        ranks = count // max(splits)
        batch = f"a global batch of {self.global_batch:,}"
        if ranks > self.global_batch:
            return (
                f"{batch} is too small for {_chips(count)}: one sample can be divided over at most {max(splits):,} of "
                f"them, which leaves {ranks:,} groups to feed"
            )
        return f"{batch} cannot be divided evenly over {_chips(count)}, whatever the layout"


def _chips(count: int) -> str:
    return "1 chip" if count == 1 else f"{count:,} chips"
