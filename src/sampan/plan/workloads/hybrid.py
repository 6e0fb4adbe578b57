"""Language models whose layers are of several kinds, one after another: state spaces, attention, feed-forward, experts.

Left out: dropout, and the order of the layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sampan.plan.records import Grad, Op, Workload, WorkloadBlock, attention, memory_op, product
from sampan.plan.workloads.language import ExpertsShape, LanguageShape, language_model
from sampan.plan.workloads.layers import feed_forward, lora_additions, routed_experts


@dataclass(frozen=True, kw_only=True)
class Mamba:
    """State-space layers of the second kind (Dao and Gu 2024).

    Args:
        layers: How many there are.
        heads, head_dim: Of the inner stream; its width is their product.
        state: Width of the state of a head's channel.
        groups: Sets of the vectors that write and read the state.
        chunk: Tokens whose pairs are multiplied out; between chunks the state is carried.
    """

    layers: int
    heads: int
    head_dim: int
    state: int = 128
    groups: int = 8
    chunk: int = 128


@dataclass(frozen=True, kw_only=True)
class HybridShape:
    """The numbers that say what a model of several kinds of layers is.

    Args:
        attentions: Layers of attention alone.
        feed_forwards: Layers of two matrices (or three with a gate) alone; with `experts`, layers of experts.
    """

    hidden: int
    vocab: int
    mamba: Mamba
    attentions: int
    heads: int
    kv_heads: int
    head_dim: int
    feed_forwards: int
    ffn: float
    gated: bool = False
    tied: bool = False
    experts: ExpertsShape | None = None


def hybrid_model(name: str, shape: HybridShape, seq_len: float, *, method: str = "full", rank: int = 16) -> Workload:
    """Return what one sequence of `seq_len` tokens costs; with "lora", additions of `rank` stand beside every matrix."""
    grad: Grad = "through" if method == "lora" else "full"
    n, h, m = seq_len, shape.hidden, shape.mamba
    inner, shared = m.heads * m.head_dim, 2 * m.groups * m.state
    chunk = min(m.chunk, n)
    mamba = [
        memory_op("norm", 2 * n * h),
        product("streams, in", n, h, 2 * inner + shared + m.heads, split="columns"),
        memory_op("short convolution", 4 * n * (inner + shared), weights=4 * (inner + shared), split="columns"),
        # within a chunk every pair of tokens, between chunks the state, written and read
        Op(
            name="state space", kind="matmul", split="heads", rows=chunk, inner=m.state, cols=chunk,
            copies=n / chunk * m.heads, values=4 * n * inner + 2 * n * shared,
            flops=2 * n * chunk * (m.groups * m.state + inner) + 4 * n * inner * m.state,
        ),
        memory_op("gate and norm", 4 * n * inner, split="columns"),
        product("streams, out", n, inner, h, split="rows"),
        memory_op("residual", 3 * n * h),
    ]  # fmt: skip
    q_width, kv_width = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attentions = [
        memory_op("norm", 2 * n * h),
        product("query, key, value", n, h, q_width + 2 * kv_width, split="columns"),
        attention("attention", n, n, shape.heads, shape.head_dim, kv_heads=shape.kv_heads, causal=True),
        product("attention, out", n, q_width, h, split="rows"),
        memory_op("residual", 3 * n * h),
    ]
    wide, e = 2 if shape.gated else 1, shape.experts
    forward: list[Op] = [memory_op("norm", 2 * n * h)]
    kept = 0.0
    if f := shape.ffn if e is None else e.shared_ffn:
        forward += feed_forward(n, h, f, shape.gated)
        kept += n * f * (wide + 1)
    if e is not None:
        forward += routed_experts(n, h, e.num, e.per_token, e.ffn, shape.gated)
        kept += n * e.per_token * (e.ffn * (wide + 1) + 2 * h)
    forward.append(memory_op("residual", 3 * n * h))
    runs = [
        ("state-space layers", mamba, m.layers, n * (5 * inner + 2 * shared), 0.0),
        ("attention layers", attentions, shape.attentions, n * (3 * q_width + 2 * kv_width), 0.0),
        (
            "layers with experts" if e else "feed-forward layers", forward, shape.feed_forwards, kept,
            e.num * (wide + 1) * h * e.ffn if e else 0.0,
        ),
    ]  # fmt: skip
    layers = [
        _layers(called, ops, repeat, n, h, held, grad, rank, expert_params)
        for called, ops, repeat, held, expert_params in runs
    ]
    if e is not None:
        layers[-1] = replace(layers[-1], dispatch=2 * n * e.per_token * h)
    ends = LanguageShape(layers=0, hidden=h, ffn=0, heads=1, kv_heads=1, vocab=shape.vocab, tied=shape.tied)
    outer = language_model(name, ends, n, method=method)
    return replace(outer, blocks=(outer.blocks[0], *layers, outer.blocks[-1]), family="other")


def _layers(
    name: str, ops: list[Op], repeat: int, tokens: float, hidden: float, kept: float, grad: Grad, rank: int,
    expert_params: float,
) -> WorkloadBlock:  # fmt: skip
    params = sum(op.weights for op in ops) + hidden
    trained = None
    if grad == "through":
        adapted = [op for op in ops if op.kind == "matmul" and op.weights and op.name != "router"]
        additions, trained = lora_additions(adapted, rank)
        ops = ops + additions
    return WorkloadBlock(
        name=name, ops=tuple(ops), repeat=repeat, grad=grad, params=params + (trained or 0.0), trained_params=trained,
        expert_params=expert_params, tokens=tokens, width=hidden, sums=1, kept=kept, kept_whole=2 * tokens * hidden,
        is_trunk=True, num_kernels=10 + (12 if expert_params else 0),
    )  # fmt: skip
