"""The nouns of a plan: operators, blocks, workloads and layouts. Counting is in the modules that make them.

Everything is for ONE sample (a sequence, a picture, a clip) on one chip that holds the whole model, before any split; the
time and memory models divide. Matrix products count 2·m·n·k FLOPs and attention 4·queries·keys·width, masked half included,
as PyTorch's FLOP counter does, so that counts can be held against it exactly.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

Kind = Literal["matmul", "conv", "attention", "memory"]
Split = Literal["none", "columns", "rows", "heads", "experts"]
Grad = Literal["full", "through", "none"]
Recompute = Literal["none", "selective", "full"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An amount and the ends of its interval."""

    low: float
    typical: float
    high: float

    def times(self, factor: float) -> Interval:
        """Return all three multiplied."""
        return Interval(low=self.low * factor, typical=self.typical * factor, high=self.high * factor)

    def __add__(self, other: Interval) -> Interval:
        """Return the sum of two amounts that are off in the same direction: their ends are added up."""
        return Interval(low=self.low + other.low, typical=self.typical + other.typical, high=self.high + other.high)

    def as_dict(self) -> dict[str, float]:
        """Return the three as JSON can hold them."""
        return {"low": self.low, "typical": self.typical, "high": self.high}


@dataclass(frozen=True, slots=True, kw_only=True)
class Op:
    """One operator in the forward pass of one sample.

    Args:
        kind: "matmul" and "conv" multiply; "attention" is scores and weighted sum together; "memory" only moves values
            (norms, activations, rotations, lookups).
        flops: Of the forward pass. 0 for "memory".
        rows, inner, cols: The product's three sides, rows growing with the batch; for attention queries, head width and
            keys; 0 for "memory".
        copies: How many products of these sides there are: experts, heads of attention, images.
        values: Values read and written, weights apart.
        weights: Values of the operator's parameters that are read.
        input_grad: Whether the backward pass needs the gradient of its input.
        split: How tensor parallelism divides it: its columns, its rows (which ends in a sum over chips), its heads, or not;
            "experts" are divided by expert parallelism.
        causal: Attention whose masked half a good kernel leaves out.
    """

    name: str
    kind: Kind
    flops: float = 0.0
    rows: float = 0.0
    inner: float = 0.0
    cols: float = 0.0
    copies: float = 1.0
    values: float = 0.0
    weights: float = 0.0
    input_grad: bool = True
    split: Split = "none"
    causal: bool = False


def product(
    name: str,
    rows: float,
    inner: float,
    cols: float,
    *,
    copies: float = 1.0,
    split: Split = "none",
    input_grad: bool = True,
    has_weights: bool = True,
) -> Op:
    """Return the operator of a matrix product, `copies` times [rows, inner] by [inner, cols]."""
    return Op(
        name=name,
        kind="matmul",
        flops=2.0 * copies * rows * inner * cols,
        rows=rows,
        inner=inner,
        cols=cols,
        copies=copies,
        values=copies * rows * (inner + cols),
        weights=copies * inner * cols if has_weights else 0.0,
        input_grad=input_grad,
        split=split,
    )


def attention(
    name: str, queries: float, keys: float, heads: float, head_dim: float, *, kv_heads: float | None = None,
    causal: bool = False,
) -> Op:  # fmt: skip
    """Return the operator of multi-head attention; masked pairs are counted, `causal` says that they may be left out."""
    shared = heads if kv_heads is None else kv_heads
    return Op(
        name=name,
        kind="attention",
        flops=4.0 * queries * keys * heads * head_dim,
        rows=queries,
        inner=head_dim,
        cols=keys,
        copies=heads,
        values=2 * queries * heads * head_dim + 2 * keys * shared * head_dim,
        split="heads",
        causal=causal,
    )


def memory_op(name: str, values: float, *, split: Split = "none", weights: float = 0.0) -> Op:
    """Return an operator that moves `values` values (read and written together) and multiplies nothing worth counting."""
    return Op(name=name, kind="memory", values=values, split=split, weights=weights)


@dataclass(frozen=True, kw_only=True)
class WorkloadBlock:
    """A run of equal layers, or one part such as an embedding or a head.

    Args:
        repeat: How many there are, one after another.
        grad: "full": its weights are trained. "through": they are frozen and gradients pass (LoRA). "none": forward only.
        params: Values of its parameters, experts included, one repeat.
        expert_params: Those of `params` that expert parallelism divides.
        trained_params: Values that are trained, one repeat; None means all of `params` where grad is "full", else 0.
        tokens, width: What flows from repeat to repeat for one sample: [tokens, width]; a pipeline sends this, full
            recomputation keeps it.
        sums: Times a forward pass adds [tokens, width] up over tensor-parallel chips.
        dispatch: Values a forward pass sends to experts and back, for one sample.
        kept: Values a forward pass keeps for the backward one, divided by tensor parallelism.
        kept_whole: Values it keeps that only sequence parallelism divides (inputs of norms, residuals).
        kept_attention: Of `kept`, what selective recomputation drops.
        is_trunk: Whether a pipeline may cut between repeats.
        num_kernels: Launches of one repeat's forward pass.
        autocast: False for what runs in fp32 whatever the precision (losses).
    """

    name: str
    ops: tuple[Op, ...]
    repeat: int = 1
    grad: Grad = "full"
    params: float = 0.0
    expert_params: float = 0.0
    trained_params: float | None = None
    tokens: float = 0.0
    width: float = 0.0
    sums: int = 0
    dispatch: float = 0.0
    kept: float = 0.0
    kept_whole: float = 0.0
    kept_attention: float = 0.0
    is_trunk: bool = False
    num_kernels: float = 0.0

    @property
    def trained(self) -> float:
        """Values that are trained in one repeat."""
        if self.trained_params is not None:
            return self.trained_params
        return self.params if self.grad == "full" else 0.0

    @cached_property
    def flops(self) -> float:
        """FLOPs of the forward pass of one sample through all repeats."""
        return self.repeat * sum(op.flops for op in self.ops)

    @cached_property
    def backward_flops(self) -> float:
        """FLOPs of the backward pass of one sample through all repeats, nothing computed twice."""
        return self.repeat * sum(backward_flops(op, self.grad) for op in self.ops)


def backward_flops(op: Op, grad: Grad) -> float:
    """Return an operator's FLOPs in the backward pass: one product for its input, one for its weights.

    Attention computes four products for the two of the forward pass, and what has no weights has a gradient for each of
    its two inputs.
    """
    if grad == "none" or not op.flops:
        return 0.0
    if op.kind == "attention" or not op.weights:
        return 2.0 * op.flops
    return op.flops * (op.input_grad + (grad == "full"))


@dataclass(frozen=True, kw_only=True)
class Workload:
    """What one training sample costs, in blocks, in the order in which it passes them.

    Args:
        name: "decoder of glm-image", "Llama-3.1-8B".
        family: "llm-dense", "llm-moe", "dit", "unet", "vlm", "ar", "vae", "other".
        sample: What a sample is, in words: "sequence of 4096 tokens", "picture of 1024 px".
        tokens: Tokens of a sample that count for tokens per second; None where nobody counts so.
        input_bytes: What a sample is on disk, read once for every pass.
        has_average: Whether a moving average of the trained weights is kept.
        notes: Assumptions that somebody who pays would want to read.
    """

    name: str
    family: str
    sample: str
    blocks: tuple[WorkloadBlock, ...]
    tokens: float | None = None
    input_bytes: float = 0.0
    has_average: bool = False
    notes: tuple[str, ...] = ()

    @cached_property
    def params(self) -> float:
        """All values of all weights."""
        return sum(block.repeat * block.params for block in self.blocks)

    @cached_property
    def trained_params(self) -> float:
        """Values that are trained."""
        return sum(block.repeat * block.trained for block in self.blocks)

    @cached_property
    def trunk_repeats(self) -> int:
        """Layers that a pipeline may cut between."""
        return sum(block.repeat for block in self.blocks if block.is_trunk)

    @cached_property
    def forward_flops(self) -> float:
        """FLOPs of the forward pass of one sample."""
        return sum(block.flops for block in self.blocks)

    @cached_property
    def flops(self) -> float:
        """FLOPs of forward and backward of one sample, nothing computed twice."""
        return sum(block.flops + block.backward_flops for block in self.blocks)


StagePart = tuple[WorkloadBlock, int]
"""A block and how many of its repeats are meant."""


def pipeline_stages(workload: Workload, pp: int, virtual: int = 1) -> tuple[tuple[StagePart, ...], ...]:
    """Return what lies on each of `pp` ranks, in the order in which a sample passes it.

    The trunk's repeats are cut into pp·virtual pieces that differ by one repeat at most; the ends, which also have
    embedding and head, are not among the longer ones while there are others. Rank r has the pieces r, r + pp, …, and what
    is not trunk stays beside the repeat before it (or after it, at the start).

    Raises:
        ValueError: There are fewer repeats than pieces.
    """
    num_pieces = pp * virtual
    num_repeats = workload.trunk_repeats
    if num_pieces > max(1, num_repeats):
        raise ValueError(f"{num_repeats} layers cannot be cut into {num_pieces} pieces")
    lengths = _piece_lengths(num_repeats, num_pieces)
    pieces: list[list[StagePart]] = [[] for _ in range(num_pieces)]
    at, room = 0, lengths[0]
    for block in workload.blocks:
        left = block.repeat
        while block.is_trunk and left:
            if not room:
                at += 1
                room = lengths[at]
            taken = min(left, room)
            pieces[at].append((block, taken))
            left, room = left - taken, room - taken
        if not block.is_trunk:
            pieces[at].append((block, block.repeat))
    return tuple(tuple(part for piece in pieces[rank::pp] for part in piece) for rank in range(pp))


def _piece_lengths(num_repeats: int, num_pieces: int) -> list[int]:
    """Return how many repeats each piece has; the longer ones are in the middle."""
    short, num_longer = divmod(num_repeats, num_pieces)
    first = (num_pieces - num_longer) // 2
    return [short + (first <= index < first + num_longer) for index in range(num_pieces)]


@dataclass(frozen=True, slots=True, kw_only=True)
class ParallelLayout:
    """How a job lies on chips.

    Args:
        dp, tp, pp, cp, ep: Data, tensor, pipeline, context and expert parallel degrees; ep is taken out of dp·cp·tp.
        virtual: Pieces of the pipeline on each chip (interleaving); 1 is none.
        zero_stage: 0 keeps everything on each data-parallel rank; 1 divides moments, master weights and average; 2 also
            gradients; 3 also weights (FSDP).
        recompute: What the backward pass computes again.
        micro_batch: Samples in one pass.
        accum: Passes before an update.
    """

    dp: int = 1
    tp: int = 1
    pp: int = 1
    cp: int = 1
    ep: int = 1
    virtual: int = 1
    zero_stage: int = 0
    recompute: Recompute = "none"
    micro_batch: int = 1
    accum: int = 1

    @property
    def num_chips(self) -> int:
        """Chips that it takes."""
        return self.dp * self.tp * self.pp * self.cp

    @property
    def global_batch(self) -> int:
        """Samples of one update."""
        return self.dp * self.micro_batch * self.accum

    def __str__(self) -> str:
        """Return "dp 8 tp 4 pp 2 zero 1, recompute full, 2 x 16 samples", without degrees of 1."""
        degrees = " ".join(
            f"{name} {value}" for name in ("dp", "tp", "pp", "cp", "ep") if (value := getattr(self, name)) > 1
        )
        words = [degrees or "one chip"]
        if self.virtual > 1:
            words[0] += f" interleaved {self.virtual}"
        if self.zero_stage and self.dp * self.cp > 1:  # with one copy there is nothing to divide
            words[0] += f" zero {self.zero_stage}"
        if self.recompute != "none":
            words.append(f"recompute {self.recompute}")
        words.append(f"{self.micro_batch} x {self.accum} samples")
        return ", ".join(words)


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A part of making pictures, forward only: prefill, one decode step, one decoder step, the pixels.

    Args:
        blocks: For one picture, and for decode steps one token with the mean length of the cache behind it.
        repeats: How often, one after another, it runs for one picture.
        rows: Rows that one picture takes in it: 2 with guidance.
        cache_values: Values of the KV cache that are read in each repeat, for one picture.
    """

    name: str
    blocks: tuple[WorkloadBlock, ...]
    repeats: int = 1
    rows: int = 1
    cache_values: float = 0.0
