"""Language models, dense and with experts, from the numbers of their shape: what one training sequence costs.

Left out: dropout, biases (their parameters are counted where a shape says so) and anything that is not a decoder.

Activations that are kept for the backward pass follow Korthikanti et al. 2022 ("Reducing Activation Recomputation in
Large Transformer Models", section 4), with attention that never writes its scores (FlashAttention) and no dropout.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.plan.records import Grad, Op, Workload, WorkloadBlock, attention, memory_op, product
from sampan.plan.workloads.layers import feed_forward, routed_experts


@dataclass(frozen=True, kw_only=True)
class ExpertsShape:
    """A mixture of experts in place of the feed-forward layer.

    Args:
        num: Routed experts of a layer.
        per_token: How many of them a token goes to.
        ffn: Inner width of one.
        shared_ffn: Inner width of the experts that every token passes, together.
        dense_layers: First layers that have a plain feed-forward layer instead.
        every: 1 where every layer (after those) has experts, 2 for every second one.
    """

    num: int
    per_token: int
    ffn: float
    shared_ffn: float = 0.0
    dense_layers: int = 0
    every: int = 1


@dataclass(frozen=True, kw_only=True)
class LatentAttention:
    """Attention whose keys and values are made from a narrow latent (DeepSeek-V2, section 2.1).

    Args:
        q_rank, kv_rank: Widths of the latents of queries (0 is none) and of keys and values.
        rope_dim: Width of a head's rotated part; `head_dim` of the shape is the rest.
        v_dim: Width of a head's values.
    """

    q_rank: int
    kv_rank: int
    rope_dim: int
    v_dim: int


@dataclass(frozen=True, kw_only=True)
class LanguageShape:
    """The numbers that say what a decoder is.

    Args:
        ffn: Inner width of the feed-forward layer.
        gated: Whether it has a gate (three matrices) or not (two).
        head_dim: Width of a head; None is hidden / heads.
        vocab: 0 leaves embedding and head out.
        tied: Whether embedding and head are one matrix.
        window: Keys that a query sees at most, on the share `window_share` of the layers; None sees all.
    """

    layers: int
    hidden: int
    ffn: float
    heads: int
    kv_heads: int
    vocab: int = 0
    gated: bool = True
    head_dim: float | None = None
    tied: bool = False
    experts: ExpertsShape | None = None
    latent: LatentAttention | None = None
    window: int | None = None
    window_share: float = 0.0
    positions: int = 0  # learned ones


KERNELS_PER_LAYER = 16  # of a forward pass: products, norms, rotation, residuals, activation


def layer(
    shape: LanguageShape,
    tokens: float,
    *,
    repeat: float,
    grad: Grad = "full",
    experts: ExpertsShape | None = None,
    rank: int = 0,
) -> WorkloadBlock:
    """Return the layers of one kind.

    Args:
        tokens: Length of a sequence.
        repeat: How many there are.
        experts: None gives the plain feed-forward layer.
        rank: Of LoRA's additions to every matrix of attention and feed-forward; 0 is none.
    """
    h, f = shape.hidden, shape.ffn
    d = shape.head_dim or h / shape.heads
    q_width, kv_width = shape.heads * d, shape.kv_heads * d
    ops: list[Op] = [memory_op("norm", 2 * tokens * h)]
    latent = shape.latent
    if latent is None:
        ops += [
            product("query, key, value", tokens, h, q_width + 2 * kv_width, split="columns"),
            memory_op("rotation", 2 * tokens * (q_width + kv_width), split="heads"),
        ]
        out_width, qk_dim, made = q_width, d, q_width + 2 * kv_width
    else:
        qk_dim = d + latent.rope_dim
        out_width, q_wide = shape.heads * latent.v_dim, shape.heads * qk_dim
        ops += [
            product("query, down", tokens, h, latent.q_rank or q_wide, split="none" if latent.q_rank else "columns"),
            product("key and value, down", tokens, h, latent.kv_rank + latent.rope_dim),
            product("key and value, up", tokens, latent.kv_rank, shape.heads * (d + latent.v_dim), split="columns"),
            memory_op("rotation", 4 * tokens * q_wide, split="heads"),
        ]
        if latent.q_rank:
            ops.append(product("query, up", tokens, latent.q_rank, q_wide, split="columns"))
        made = 2 * q_wide + out_width
    keys = tokens
    if shape.window is not None and shape.window < tokens:
        keys = shape.window_share * shape.window * 2 + (1 - shape.window_share) * tokens
    # queries and keys may be wider than values; the two products of attention share the mean of both widths
    dim = qk_dim if latent is None else (qk_dim + latent.v_dim) / 2
    ops += [
        attention("attention", tokens, keys, shape.heads, dim, kv_heads=shape.kv_heads, causal=True),
        product("attention, out", tokens, out_width, h, split="rows"),
        memory_op("residual and norm", 5 * tokens * h),
    ]
    kept_whole, kept = 4 * tokens * h, tokens * (made + 2 * out_width)
    dispatch = expert_params = 0.0
    wide = 2 if shape.gated else 1
    if experts is None:
        ops += feed_forward(tokens, h, f, shape.gated)
        kept += tokens * f * (wide + 1)
    else:
        routed = tokens * experts.per_token
        ops += routed_experts(tokens, h, experts.num, experts.per_token, experts.ffn, shape.gated)
        if experts.shared_ffn:
            ops += feed_forward(tokens, h, experts.shared_ffn, shape.gated)
        expert_params = experts.num * (wide + 1) * h * experts.ffn
        dispatch = 2 * routed * h
        kept += routed * (experts.ffn * (wide + 1) + 2 * h) + tokens * experts.shared_ffn * (wide + 1)
    ops.append(memory_op("residual", 3 * tokens * h))
    params = sum(op.weights for op in ops) + 2 * h
    trained = None
    if grad == "through":
        trained = sum(rank * (op.inner + op.cols) * op.copies for op in ops if op.weights)
        if rank and trained:
            ops.append(product("low-rank additions", tokens, trained / rank, rank))
    return WorkloadBlock(
        name="layers" if experts is None else "layers with experts",
        ops=tuple(ops),
        repeat=round(repeat),
        grad=grad,
        params=params,
        expert_params=expert_params,
        trained_params=trained,
        tokens=tokens,
        width=h,
        sums=2,
        dispatch=dispatch,
        kept=kept,
        kept_whole=kept_whole,
        is_trunk=True,
        num_kernels=KERNELS_PER_LAYER + (12 if experts else 0),
    )


def language_model(
    name: str, shape: LanguageShape, seq_len: float, *, method: str = "full", rank: int = 16, family: str | None = None
) -> Workload:
    """Return what one sequence of `seq_len` tokens costs.

    Args:
        method: "full", or "lora": the weights are frozen and additions of `rank` are trained.
    """
    grad: Grad = "through" if method == "lora" else "full"
    blocks = []
    h, v = shape.hidden, shape.vocab
    if v:
        blocks.append(
            WorkloadBlock(
                name="embedding", ops=(memory_op("lookup", 2 * seq_len * h),), grad="full" if grad == "full" else "none",
                params=v * h + shape.positions * h, tokens=seq_len, width=h, num_kernels=2,
            )
        )  # fmt: skip
    with_experts = 0
    if shape.experts is not None:
        with_experts = (shape.layers - shape.experts.dense_layers) // shape.experts.every
    options = {"grad": grad, "rank": rank}
    if shape.layers > with_experts:
        blocks.append(layer(shape, seq_len, repeat=shape.layers - with_experts, **options))
    if with_experts:
        blocks.append(layer(shape, seq_len, repeat=with_experts, experts=shape.experts, **options))
    if v:
        ops = (
            product("head", seq_len, h, v, split="columns"),
            # logits are written, read as fp32 for the loss, and their gradient is written
            memory_op("loss", 5 * seq_len * v, split="columns"),
        )
        blocks.append(
            WorkloadBlock(
                name="head", ops=ops, grad=grad, params=h + (0 if shape.tied else v * h),
                trained_params=0.0 if grad == "through" else None, tokens=seq_len, width=h,
                # at its worst moment a loss in fp32 has logarithms of shares, their gradient, and that of the logits: 12
                # bytes a logit, of which an operator's own workspace counts two
                kept=5 * seq_len * v, kept_whole=2 * seq_len * h, num_kernels=6,
            )
        )  # fmt: skip
    return Workload(
        name=name,
        family=family or ("llm-dense" if shape.experts is None else "llm-moe"),
        sample=f"sequence of {seq_len:.0f} tokens",
        blocks=tuple(blocks),
        tokens=seq_len,
        input_bytes=4 * seq_len,
    )
