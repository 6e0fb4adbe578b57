"""Memory of one chip: what a workload takes under a layout, by what takes it. Whether that fits is for sampan.plan.search.

Counted for the pipeline stage that needs most, at the worst moment of a step. What differs between families of frameworks
(which copies of the weights there are, in how many bytes) is a convention: data, not code. Left out: offloading to the
host, activations in 8 bits, and what a compiler fuses away.

Sources: states of mixed precision and their division, Rajbhandari et al. 2020 ("ZeRO", section 3); activations, sequence
parallelism and pipelines, Korthikanti et al. 2022 ("Reducing Activation Recomputation", sections 4 and 5, appendix B);
interleaving, Narayanan et al. 2021 ("Efficient Large-Scale Language Model Training on GPU Clusters", section 2.2).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields

from sampan.plan.conventions import CONVENTIONS, Convention
from sampan.plan.records import Op, ParallelLayout, Workload, WorkloadBlock, pipeline_stages
from sampan.units import format_bytes

_AVERAGE_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class ChipMemory:
    """Memory of one chip, in bytes, by what takes it; all of it at the worst moment of a step.

    Args:
        weights: Trained ones as they stay on the chip, with copies that live as long as a pass.
        frozen: Weights that are not trained.
        gradients: Those that stay from pass to pass.
        moments, master: The optimizer's.
        average: The weights' moving average.
        activations: Kept by forward passes for backward ones.
        workspace: Alive inside one operator or one recomputed block only.
        communication: Weights gathered and gradients not yet divided under ZeRO, and buffers of collectives.
        reserve: Context and the allocator's slack: a stated share, not a count.
    """

    weights: float = 0.0
    frozen: float = 0.0
    gradients: float = 0.0
    moments: float = 0.0
    master: float = 0.0
    average: float = 0.0
    activations: float = 0.0
    workspace: float = 0.0
    communication: float = 0.0
    reserve: float = 0.0

    @property
    def total(self) -> float:
        """All of it."""
        return self.allocated + self.reserve

    @property
    def allocated(self) -> float:
        """All of it but the reserve: what a framework's own counter shows."""
        return (
            self.weights + self.frozen + self.gradients + self.moments + self.master
            + self.average + self.activations + self.workspace + self.communication
        )  # fmt: skip

    def __str__(self) -> str:
        """Return "81.0 GiB: weights 14.0 GiB, gradients 14.0 GiB, …", without what takes nothing."""
        named = ((field.name, getattr(self, field.name)) for field in fields(self))
        return f"{format_bytes(self.total)}: " + ", ".join(f"{name} {format_bytes(n)}" for name, n in named if n >= 1)


class MemoryModel:
    """The memory of a workload under layouts; remembers the terms that many layouts share."""

    def __init__(self, workload: Workload, convention: Convention = CONVENTIONS["megatron"]):
        self.workload = workload
        self.convention = convention
        self._placed: dict[tuple[int, int], list[tuple[int, list[_Piece]]]] = {}
        self._states: dict[tuple[int, ...], list[tuple[float, dict[str, float]]]] = {}
        self._moments: dict[tuple[object, ...], list[_Moment]] = {}

    def __call__(self, layout: ParallelLayout) -> ChipMemory:
        """Return what the stage needs that needs most, by what takes it."""
        return max(
            (self._need(state[1], moment, layout, rank) for rank, state, moment in self._terms(layout)),
            key=lambda need: need.total,
        )

    def total(self, layout: ParallelLayout) -> float:
        """Return the bytes of the stage that needs most: the same as of the call, quicker."""
        slack = 1 + self.convention.slack
        most = 0.0
        for rank, (bytes_of_state, _), moment in self._terms(layout):
            standing = (in_flight(layout, rank) - 1) * moment.waiting
            most = max(most, bytes_of_state + slack * (standing + moment.kept + moment.work + moment.gathered))
        return most + self._constant(layout) + self.convention.context_bytes

    def _constant(self, layout: ParallelLayout) -> float:
        return self.convention.bucket_bytes if layout.num_chips > 1 else 0.0

    def _terms(self, layout: ParallelLayout) -> Iterator[tuple[int, tuple[float, dict[str, float]], _Moment]]:
        pp, virtual, tp, zero = layout.pp, layout.virtual, layout.tp, layout.zero_stage
        copies = layout.dp * layout.cp
        key = (pp, virtual, tp, layout.ep, zero, copies)
        states = self._states.get(key)
        if states is None:
            cut = _Cut.of(layout, self.convention)
            states = [
                _states(pieces, self.convention, cut, zero, self.workload.has_average)
                for _, pieces in self._stages(pp, virtual)
            ]
            self._states[key] = states
        divided = copies > 1
        experts_divided = copies * tp > max(layout.ep, tp)
        key = (
            pp,
            virtual,
            tp,
            layout.ep,
            layout.cp,
            layout.micro_batch,
            layout.recompute,
            zero,
            divided,
            experts_divided,
        )
        moments = self._moments.get(key)
        if moments is None:
            cut = _Cut.of(layout, self.convention)
            moments = [_worst_moment(pieces, self.convention, cut, layout) for _, pieces in self._stages(pp, virtual)]
            self._moments[key] = moments
        ranks = (rank for rank, _ in self._placed[pp, virtual])
        return zip(ranks, states, moments, strict=True)

    def _stages(self, pp: int, virtual: int) -> list[tuple[int, list[_Piece]]]:
        """Return the stages that differ, each with its first rank: of stages alike the first keeps most in flight."""
        if (pp, virtual) not in self._placed:
            first: dict[tuple[tuple[int, int], ...], int] = {}
            kept = []
            for rank, parts in enumerate(pipeline_stages(self.workload, pp, virtual)):
                alike = tuple((id(block), repeat) for block, repeat in parts)
                if first.setdefault(alike, rank) == rank:
                    kept.append((rank, [_piece(*part) for part in parts]))
            self._placed[pp, virtual] = kept
        return self._placed[pp, virtual]

    def _need(self, state: dict[str, float], moment: _Moment, layout: ParallelLayout, rank: int) -> ChipMemory:
        kept = moment.kept + (in_flight(layout, rank) - 1) * moment.waiting
        made = kept + moment.work + moment.gathered
        return ChipMemory(
            **state,
            activations=kept,
            workspace=moment.work,
            communication=moment.gathered + self._constant(layout),
            reserve=self.convention.context_bytes + self.convention.slack * made,
        )


def in_flight(layout: ParallelLayout, rank: int) -> float:
    """Return of how many micro-batches a pipeline rank keeps activations at its worst moment.

    One forward, one backward: as many as there are ranks from here on. Interleaved: its warm-up runs
    2·(pp - rank - 1) + (virtual - 1)·pp pieces ahead, and one more is in work (Narayanan et al. 2021, section 2.2;
    Korthikanti et al. 2022, section 4.2.3, has the same for the first rank).
    """
    ahead = layout.pp - rank
    if layout.virtual == 1:
        return min(ahead, layout.accum)
    pieces = 2 * (ahead - 1) + (layout.virtual - 1) * layout.pp + 1
    return min(pieces / layout.virtual, layout.accum)


@dataclass(frozen=True, slots=True)
class _Cut:
    """By how much a layout divides things."""

    tp: int
    cp: int
    whole: int  # what only sequence parallelism divides
    experts: int  # chips that one set of experts is spread over
    copies: int  # chips that hold the same weights; context parallel ones do
    expert_copies: float

    @classmethod
    def of(cls, layout: ParallelLayout, convention: Convention) -> _Cut:
        copies = layout.dp * layout.cp
        experts = max(layout.ep, layout.tp)
        return cls(
            tp=layout.tp,
            cp=layout.cp,
            whole=layout.tp if convention.sequence_parallel else 1,
            experts=experts,
            copies=copies,
            expert_copies=max(1.0, copies * layout.tp / experts),
        )

    def of_result(self, op: Op) -> float:
        """By how much an operator's result is divided."""
        return self.whole if op.split in ("none", "rows") else self.tp

    def of_input(self, op: Op) -> float:
        """By how much what it reads is divided; the input of divided columns has been gathered."""
        return 1 if op.split == "columns" else self.whole if op.split == "none" else self.tp


@dataclass(frozen=True, slots=True)
class _Piece:
    """A block on a stage, with its weights sorted by what divides them, for one repeat."""

    block: WorkloadBlock
    repeat: int
    divided: float
    whole: float
    experts: float
    trained_share: float  # of those three
    added: float  # trained weights beside frozen ones


def _piece(block: WorkloadBlock, repeat: int) -> _Piece:
    whole = sum(op.weights for op in block.ops if op.split == "none" and op.kind in ("matmul", "conv"))
    whole = min(whole, block.params - block.expert_params)
    full = block.grad == "full"
    return _Piece(
        block=block,
        repeat=repeat,
        divided=block.params - block.expert_params - whole,
        whole=whole,
        experts=block.expert_params,
        trained_share=block.trained / block.params if full and block.params else 0.0,
        added=0.0 if full else block.trained,
    )


def _states(
    pieces: list[_Piece], convention: Convention, cut: _Cut, zero: int, has_average: bool
) -> tuple[float, dict[str, float]]:
    """Return what stays on a chip of one stage from step to step: all of it, and by what takes it."""
    trained = trained_experts = frozen = 0.0
    for piece in pieces:
        common = piece.divided / cut.tp + piece.whole
        experts = piece.experts / cut.experts
        trained += piece.repeat * (piece.trained_share * common + piece.added / cut.tp)
        trained_experts += piece.repeat * piece.trained_share * experts
        rest = piece.repeat * (1 - piece.trained_share) * (common + experts)
        # parts that only look are not wrapped: every chip has them whole
        frozen += rest / cut.copies if zero >= 3 and piece.block.grad != "none" else rest
    on_chip = trained + trained_experts
    shard = trained / cut.copies + trained_experts / cut.expert_copies
    copies = convention.compute if convention.compute != convention.weight and zero < 3 else 0.0
    by_use = {
        "weights": convention.weight * (shard if zero >= 3 else on_chip) + copies * on_chip,
        "frozen": convention.frozen * frozen,
        "gradients": convention.gradient * (shard if zero >= 2 else on_chip),
        "moments": convention.moments * (shard if zero >= 1 else on_chip),
        "master": convention.master * (shard if zero >= 1 else on_chip),
        "average": _AVERAGE_BYTES * (shard if zero >= 1 else on_chip) if has_average else 0.0,
    }
    return sum(by_use.values()), by_use


@dataclass(frozen=True, slots=True)
class _Moment:
    """A stage's worst moment in bytes: what one micro-batch keeps, what works, what is gathered, and what each
    further micro-batch in flight keeps."""

    kept: float
    work: float
    gathered: float
    waiting: float


def _worst_moment(pieces: list[_Piece], convention: Convention, cut: _Cut, layout: ParallelLayout) -> _Moment:
    """Return when activations, workspace and gathered weights are most together.

    The backward pass goes through the pieces from the last to the first; when it works on one, those before it still
    keep theirs. What follows the trunk (head, loss) is passed back at once and waits for no other micro-batch. Which
    moment is worst does not depend on other micro-batches: they add the same to all.
    """
    size = convention.activation * layout.micro_batch / cut.cp
    keeps = [_kept(piece, convention, cut, layout.recompute) for piece in pieces]
    last_trunk = max((index for index, piece in enumerate(pieces) if piece.block.is_trunk), default=-1)
    waiting = sum(piece.repeat * kept for piece, kept in zip(pieces[: last_trunk + 1], keeps, strict=False))
    standing = 0.0
    worst, worst_total = _Moment(0.0, 0.0, 0.0, size * waiting), 0.0
    gathered_before = 0.0
    for piece, kept in zip(pieces, keeps, strict=True):
        block = piece.block
        standing += piece.repeat * kept
        inside = _inside(piece, cut)
        again = inside - kept if layout.recompute != "none" and block.is_trunk and block.grad != "none" else 0.0
        work = max(0.0, again) + _work(piece, cut, inside)
        if layout.ep > 1:
            work += block.dispatch / cut.whole
        common, experts = piece.divided / cut.tp + piece.whole, piece.experts / cut.experts
        gathered = own = 0.0
        if layout.zero_stage >= 3 and cut.copies > 1 and block.grad != "none":
            own = convention.compute * (common + (experts if cut.expert_copies > 1 else 0.0))
            gathered = own + convention.prefetch * (own if piece.repeat > 1 else gathered_before)
        if layout.zero_stage >= 2 and cut.copies > 1:
            summed = common + (experts if cut.expert_copies > 1 else 0.0)
            gathered += convention.reduced * (piece.trained_share * summed + piece.added / cut.tp)
        if layout.pp > 1:
            gathered += 2 * size * block.tokens * block.width / cut.whole
        gathered_before = own
        total = size * (standing + work) + gathered
        if total > worst_total:
            worst, worst_total = _Moment(size * standing, size * work, gathered, size * waiting), total
    return worst


def _inside(piece: _Piece, cut: _Cut) -> float:
    """Return the values that one repeat keeps when nothing is computed again."""
    block = piece.block
    return 0.0 if block.grad == "none" else block.kept / cut.tp + block.kept_whole / cut.whole


def _kept(piece: _Piece, convention: Convention, cut: _Cut, recompute: str) -> float:
    """Return the values that one repeat keeps from its forward to its backward pass."""
    block, inside = piece.block, _inside(piece, cut)
    if recompute == "none" or not block.is_trunk or block.grad == "none":
        return inside
    boundary = block.tokens * block.width / cut.whole
    if recompute == "full":
        return min(inside, boundary)
    if convention.selective_products is None:
        return inside - block.kept_attention / cut.tp
    results = 0.0
    for op in block.ops:
        if op.kind == "attention":
            results += op.copies * op.rows * op.inner / cut.of_result(op)
        elif op.kind != "memory":
            results += convention.selective_products * op.copies * op.rows * op.cols / cut.of_result(op)
    return min(inside, boundary + results)


def _work(piece: _Piece, cut: _Cut, inside: float) -> float:
    """Return the values that the pass makes beside what a repeat keeps: the gradients of its largest operator.

    An operator that only moves values has all it moves alive at once; where that is more than all a repeat keeps (a
    loss in fp32), the difference counts.
    """
    largest = moved = 0.0
    for op in piece.block.ops:
        if op.kind == "memory":
            moved = max(moved, op.values / cut.of_result(op))
        elif op.kind in ("attention", "conv"):  # a convolution's `inner` counts every input once for each tap
            largest = max(largest, op.values / cut.of_result(op))
        else:
            largest = max(largest, op.copies * op.rows * (op.inner / cut.of_input(op) + op.cols / cut.of_result(op)))
    residual = piece.block.tokens * piece.block.width / cut.whole
    return max(largest + residual, moved - inside)
