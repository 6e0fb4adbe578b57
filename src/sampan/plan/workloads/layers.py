"""Layers that several kinds of workload are made of: convolutions, and transformer layers that are not language models'.

Left out: dropout, and the FLOPs of norms, activations and rotations, which move values and multiply next to nothing.

Activations kept for the backward pass are those of a framework without fused norms and modulations, with attention that
never writes its scores: the input of every matrix product, norm, activation and gate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sampan.plan.records import Grad, Op, WorkloadBlock, attention, memory_op, product

Reach = Literal["full", "spatial", "temporal"]
KERNELS_PER_LAYER = 24  # of a forward pass: products, norms, modulations, rotation, gates, residuals, activation


def convolution(
    name: str, rows: float, channels_in: float, channels_out: float, *, taps: int = 9, stride: int = 1,
    input_grad: bool = True,
) -> Op:  # fmt: skip
    """Return the operator of a convolution.

    Args:
        rows: Cells that come out.
        taps: Cells of the kernel.
        stride: Cells that go in for one that comes out, all ways together.
    """
    return Op(
        name=name,
        kind="conv",
        flops=2.0 * rows * taps * channels_in * channels_out,
        rows=rows,
        inner=taps * channels_in,
        cols=channels_out,
        values=rows * (stride * channels_in + channels_out),
        weights=taps * channels_in * channels_out,
        input_grad=input_grad,
        split="none",
    )


def resnet(cells: float, wide: float, channels: float, *, time: float = 0, taps: int = 9) -> list[Op]:
    """Return the operators of a residual block: two convolutions with norms, and a skip.

    Args:
        time: Width of the embedded time that is added between them; 0 is none.
    """
    ops = [
        memory_op("norm and activation", 4 * cells * wide, weights=2 * wide),
        convolution("convolution 1", cells, wide, channels, taps=taps),
        memory_op("norm and activation", 4 * cells * channels, weights=2 * channels),
        convolution("convolution 2", cells, channels, channels, taps=taps),
        memory_op("residual", 3 * cells * channels),
    ]
    if time:
        ops.append(product("time", 1, time, channels))
    if wide != channels:
        ops.append(convolution("skip", cells, wide, channels, taps=1))
    return ops


def feed_forward(tokens: float, hidden: float, ffn: float, gated: bool) -> list[Op]:
    """Return the operators of a feed-forward layer: two matrices, or three with a gate."""
    wide = 2 if gated else 1
    return [
        product("feed-forward, in", tokens, hidden, wide * ffn, split="columns"),
        memory_op("activation", tokens * ffn * (wide + 1), split="columns"),
        product("feed-forward, out", tokens, ffn, hidden, split="rows"),
    ]


def routed_experts(tokens: float, hidden: float, num: int, per_token: float, ffn: float, gated: bool) -> list[Op]:
    """Return the operators of `num` feed-forward layers, `per_token` of which each token is sent to."""
    wide = 2 if gated else 1
    routed = tokens * per_token
    return [
        product("router", tokens, hidden, num),
        product("experts, in", routed / num, hidden, wide * ffn, copies=num, split="experts"),
        memory_op("experts' activation", routed * ffn * (wide + 1), split="experts"),
        product("experts, out", routed / num, ffn, hidden, copies=num, split="experts"),
        memory_op("dispatch and combine", 4 * routed * hidden),
    ]


def lora_additions(ops: Sequence[Op], rank: int) -> tuple[list[Op], float]:
    """Return the operators of LoRA's additions beside matrix products, and how many values they have (Hu et al. 2021)."""
    values = sum(rank * (op.inner + op.cols) * op.copies for op in ops)
    additions = [
        product(f"{op.name}, addition", op.rows * op.copies, rank, op.inner + op.cols, has_weights=False) for op in ops
    ]
    return additions, values


@dataclass(frozen=True, kw_only=True)
class TransformerLayers:
    """A run of equal transformer layers over tokens of a picture or clip.

    Args:
        repeat: How many there are.
        ffn: Inner width of the feed-forward layer; 0 is none.
        head_dim: Width of a head; None is hidden / heads.
        gated: Whether the feed-forward layer has a gate.
        streams: Sets of weights: 2 where text tokens have their own, which they take through the same attention (MMDiT).
        joined: Text tokens pass these layers with the picture's.
        context: Width of the text that a cross-attention reads; 0 is none.
        modulations: Vectors of `hidden` that a linear map of the layer makes of the time, for each stream.
        condition: Width of what it makes them of; None is `hidden`.
        reach: What the attentions of a layer see, one after another: all tokens, those of a frame, or those of a place.
        linear: Attention without scores, whose cost grows with the number of tokens alone (Katharopoulos et al. 2020).
        taps: Cells of a depthwise convolution within the feed-forward layer; 0 is none.
        experts, per_token: Feed-forward layers that tokens are sent to, and how many of them each; 0 is one for all.
        shared_ffn: Inner width of those that every token passes beside them.
        biases: Whether matrices have bias vectors.
    """

    repeat: int
    hidden: int
    heads: int
    ffn: float
    kv_heads: int | None = None
    head_dim: float | None = None
    gated: bool = False
    streams: int = 1
    joined: bool = False
    context: int = 0
    modulations: float = 0
    condition: int | None = None
    reach: tuple[Reach, ...] = ("full",)
    linear: bool = False
    taps: int = 0
    experts: int = 0
    per_token: int = 0
    shared_ffn: float = 0
    biases: bool = True


def transformer(
    name: str,
    layers: TransformerLayers,
    *,
    places: float,
    frames: float = 1,
    text: float = 0,
    grad: Grad = "full",
    rank: int = 0,
) -> WorkloadBlock:
    """Return a run of layers.

    Args:
        places: Tokens of one frame.
        frames: Frames of tokens.
        text: Tokens of the text: joined to the picture's, or read by cross-attention.
        rank: Of LoRA's additions to every matrix of attention and feed-forward; 0 is none.
    """
    h, f = layers.hidden, layers.ffn
    d = layers.head_dim or h / layers.heads
    q_width = layers.heads * d
    kv_heads = layers.kv_heads or layers.heads
    made = q_width + 2 * kv_heads * d
    own = places * frames
    tokens = own + (text if layers.joined else 0)
    # where text has weights of its own, two smaller products stand for one
    parts = [(tokens, "")] if layers.streams == 1 else [(own, " of picture"), (text, " of text")]
    ops: list[Op] = []
    linear_params = 0.0
    if layers.modulations:
        told = layers.condition or h
        ops += [product(f"modulation{of}", 1, told, layers.modulations * h) for _, of in parts]
    kept = 0.0
    kept_whole = (8 if layers.modulations else 4) * tokens * h
    for reach in layers.reach:
        ops.append(memory_op("norm and modulation", 4 * tokens * h))
        ops += [product(f"query, key, value{of}", n, h, made, split="columns") for n, of in parts]
        ops.append(memory_op("rotation", 2 * tokens * made, split="heads"))
        ops.append(_attention(layers, reach, places, frames, tokens, d, kv_heads))
        ops += [product(f"attention, out{of}", n, q_width, h, split="rows") for n, of in parts]
        ops.append(memory_op("gate and residual", 4 * tokens * h))
        kept += tokens * (made + 2 * q_width)
    kept_whole += 4 * tokens * h * (len(layers.reach) - 1)
    if layers.context:
        ops += [
            product("cross-attention, query", tokens, h, q_width, split="columns"),
            product("cross-attention, key, value", text, layers.context, 2 * q_width, split="columns"),
            attention("cross-attention", tokens, text, layers.heads, d),
            product("cross-attention, out", tokens, q_width, h, split="rows"),
            memory_op("residual", 3 * tokens * h),
        ]
        kept += 2 * tokens * q_width + 2 * text * q_width
        kept_whole += 2 * tokens * h
    expert_params = 0.0
    if f:
        ops.append(memory_op("norm and modulation", 4 * tokens * h))
        more, wide = _feed_forward(layers, parts, tokens)
        ops += more
        ops.append(memory_op("gate and residual", 4 * tokens * h))
        kept += tokens * (wide + 1) * (f * max(1, layers.per_token) + layers.shared_ffn)
        expert_params = layers.experts * (wide + 1) * h * f
    linear_params = sum(op.weights for op in ops)
    biases = sum(op.cols * op.copies for op in ops if op.weights) if layers.biases else 0.0
    trained = None
    if grad == "through":
        adapted = [op for op in ops if op.weights and not op.name.startswith("modulation")] if rank else []
        kept += sum(rank * op.rows * op.copies for op in adapted)
        additions, trained = lora_additions(adapted, rank)
        ops += additions
    return WorkloadBlock(
        name=name,
        ops=tuple(ops),
        repeat=layers.repeat,
        grad=grad,
        params=linear_params + biases + (trained or 0.0),
        expert_params=expert_params,
        trained_params=trained,
        tokens=tokens,
        width=h,
        sums=len(layers.reach) + bool(f) + bool(layers.context),
        dispatch=2 * layers.per_token * tokens * h if layers.experts else 0.0,
        kept=0.0 if grad == "none" else kept,
        kept_whole=0.0 if grad == "none" else kept_whole,
        is_trunk=True,
        num_kernels=KERNELS_PER_LAYER + 12 * (len(layers.reach) - 1) + 6 * (layers.streams - 1),
    )


def _attention(
    layers: TransformerLayers, reach: Reach, places: float, frames: float, tokens: float, d: float, kv_heads: int
) -> Op:
    """Return the attention of a layer; within a frame or a place it is many small ones."""
    if layers.linear:  # keys times values, then queries times that
        return Op(
            name="linear attention", kind="matmul", flops=4.0 * tokens * layers.heads * d * d, rows=tokens, inner=d,
            cols=d, copies=2 * layers.heads, values=4 * tokens * layers.heads * d, split="heads",
        )  # fmt: skip
    if reach == "full":
        return attention("attention", tokens, tokens, layers.heads, d, kv_heads=kv_heads)
    length, copies = (places, tokens / places) if reach == "spatial" else (frames, tokens / max(frames, 1))
    return Op(
        name=f"{reach} attention", kind="attention", flops=4.0 * length * length * copies * layers.heads * d,
        rows=length, inner=d, cols=length, copies=copies * layers.heads, split="heads",
        values=2 * tokens * (layers.heads + kv_heads) * d,
    )  # fmt: skip


def _feed_forward(layers: TransformerLayers, parts: list[tuple[float, str]], tokens: float) -> tuple[list[Op], int]:
    """Return the operators of the feed-forward layer and how many matrices go in."""
    h, f, wide = layers.hidden, layers.ffn, 2 if layers.gated else 1
    if not layers.experts:
        ops = [product(f"feed-forward, in{of}", n, h, wide * f, split="columns") for n, of in parts]
        ops.append(memory_op("activation", tokens * f * (wide + 1), split="columns"))
        if layers.taps:
            ops.append(memory_op("depthwise convolution", 2 * tokens * wide * f, weights=layers.taps * wide * f))
        ops += [product(f"feed-forward, out{of}", n, f, h, split="rows") for n, of in parts]
        return ops, wide
    ops = routed_experts(tokens, h, layers.experts, layers.per_token, f, layers.gated)
    if layers.shared_ffn:
        ops += feed_forward(tokens, h, layers.shared_ffn, layers.gated)
    return ops, wide
