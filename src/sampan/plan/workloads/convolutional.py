"""The U-Net of latent diffusion from the numbers of its shape. One sample is one picture with its text.

Left out: the noise schedule.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sampan.plan.records import Grad, Op, Workload, WorkloadBlock, memory_op, product
from sampan.plan.workloads.encoders import Autoencoder, FrozenTextEncoder, encode
from sampan.plan.workloads.layers import TransformerLayers, convolution, resnet, transformer


@dataclass(frozen=True, kw_only=True)
class UNetShape:
    """The numbers that say what a U-Net of latent diffusion is.

    Args:
        widths: Channels of each level, the finest first.
        depths: Transformer layers after every residual block of a level; 0 is none.
        middle: Those at the narrowest point.
        context: Width of the text that cross-attention reads.
        head_dim: Width of a head, or None with `heads` everywhere.
        vectors: Width of further conditions (size, pooled text) that are embedded beside the time; 0 is none.
        channels: Of the latent.
        factor: Pixels of a latent cell, each way.
    """

    widths: tuple[int, ...]
    depths: tuple[int, ...]
    middle: int
    context: int
    resnets: int = 2
    head_dim: float | None = None
    heads: int = 8
    vectors: int = 0
    channels: int = 4
    factor: int = 8
    vae: Autoencoder | None = None
    encoders: tuple[FrozenTextEncoder, ...] = ()


def unet_model(
    name: str,
    shape: UNetShape,
    *,
    height: float,
    width: float,
    text_tokens: float = 77,
    method: str = "full",
    rank: int = 16,
    with_encoders: bool = False,
) -> Workload:
    """Return what one picture costs.

    Args:
        height, width: In pixels.
        method: "full", or "lora": the weights are frozen and additions of `rank` beside attention's matrices are trained.
        with_encoders: Whether autoencoder and text encoders run in every step, forward only; else their results are read.
    """
    grad: Grad = "through" if method == "lora" else "full"
    lora = rank if grad == "through" else 0
    rows, columns = height // shape.factor, width // shape.factor
    first, time = shape.widths[0], 4 * shape.widths[0]
    blocks: list[WorkloadBlock] = []
    if with_encoders:
        blocks += encode(shape.encoders, shape.vae, height, width)
    cells = rows * columns
    begin = [convolution("latent", cells, shape.channels, first, input_grad=False)]
    begin += [product("time", 1, first, time, input_grad=False), product("time", 1, time, time)]
    if shape.vectors:
        begin += [product("vectors", 1, shape.vectors, time, input_grad=False), product("vectors", 1, time, time)]
    blocks.append(_level("latent and time", begin, cells, first, grad))

    def level(name: str, wide: list[tuple[float, float]], depth: int, cells: float, more: list[Op]) -> None:
        channels = wide[0][1]
        ops: list[Op] = []
        for into, out in wide:
            ops += resnet(cells, into, out, time=time)
            if depth:
                ops += [product("into tokens", cells, out, out), product("out of tokens", cells, out, out)]
        blocks.append(_level(name, ops + more, cells, channels, grad))
        if depth:
            blocks.append(
                _attentions(shape, f"{name}, attention", channels, depth * len(wide), cells, text_tokens, grad, lora)
            )

    skips, wide = [first], first
    last = len(shape.widths) - 1
    for index, (channels, depth) in enumerate(zip(shape.widths, shape.depths, strict=True)):
        pairs: list[tuple[float, float]] = []
        for _ in range(shape.resnets):
            pairs.append((wide, channels))
            wide = channels
            skips.append(wide)
        more = [convolution("half the side", cells / 4, wide, wide, stride=4)] if index < last else []
        level(f"down {channels} at 1/{2**index}", pairs, depth, cells, more)
        if index < last:
            cells /= 4
            skips.append(wide)
    level("middle", [(wide, wide)], shape.middle, cells, resnet(cells, wide, wide, time=time))
    for index in reversed(range(len(shape.widths))):
        channels, depth = shape.widths[index], shape.depths[index]
        pairs = []
        for _ in range(shape.resnets + 1):
            pairs.append((wide + skips.pop(), channels))
            wide = channels
        more = [convolution("twice the side", 4 * cells, wide, wide)] if index else []
        level(f"up {channels} at 1/{2**index}", pairs, depth, cells, more)
        cells = 4 * cells if index else cells
    end = [
        memory_op("norm and activation", 4 * cells * first, weights=2 * first),
        convolution("noise", cells, first, shape.channels),
        memory_op("loss", 6 * cells * shape.channels),
    ]
    blocks.append(_level("noise and loss", end, cells, first, grad))
    text_bytes = 2 * text_tokens * shape.context
    return Workload(
        name=name,
        family="unet",
        sample=f"picture of {width:.0f}x{height:.0f} px",
        blocks=tuple(blocks),
        input_bytes=0.2 * height * width if with_encoders else 2 * rows * columns * shape.channels + text_bytes,
        has_average=grad == "full",
    )


def _level(name: str, ops: list[Op], cells: float, width: float, grad: Grad) -> WorkloadBlock:
    """Return convolutions and norms as a block; what they read is kept, and what norms write."""
    kept = sum(op.rows * op.inner / _taps(op) for op in ops if op.kind in ("conv", "matmul"))
    kept += sum(op.values / 4 for op in ops if op.name == "norm and activation") * 2
    biases = sum(op.cols for op in ops if op.kind in ("conv", "matmul"))
    return WorkloadBlock(
        name=name, ops=tuple(ops), grad=grad, params=sum(op.weights for op in ops) + biases,
        trained_params=0.0 if grad == "through" else None, tokens=cells, width=width, kept_whole=kept,
        num_kernels=3.0 * len(ops),
    )  # fmt: skip


def _taps(op: Op) -> float:
    """Return how often a convolution's input stands in its product."""
    if op.kind != "conv":
        return 1.0
    return 1.0 if op.name == "skip" else 9.0


def _attentions(
    shape: UNetShape, name: str, channels: float, repeat: int, cells: float, text: float, grad: Grad, rank: int
) -> WorkloadBlock:
    heads = shape.heads if shape.head_dim is None else round(channels / shape.head_dim)
    layers = TransformerLayers(
        repeat=repeat, hidden=round(channels), heads=heads, ffn=4 * channels, gated=True, context=shape.context,
        biases=False,
    )  # fmt: skip
    block = transformer(name, layers, places=cells, text=text, grad=grad, rank=rank)
    return replace(block, is_trunk=False, params=block.params + 6 * channels + 4 * channels)
