"""What diffusion models read through: text encoders and the autoencoder, forwarded in a training step and never trained.

Left out: tokenizers, and what reads and resizes pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sampan.plan.records import WorkloadBlock, attention, memory_op, product
from sampan.plan.workloads.layers import TransformerLayers, convolution, resnet, transformer


@dataclass(frozen=True, kw_only=True)
class FrozenTextEncoder:
    """A text encoder that is forwarded and never trained.

    Args:
        tokens: Length of the text it reads.
        vocab: Rows of its table.
    """

    layers: int
    hidden: int
    ffn: float
    heads: int
    tokens: float
    vocab: int = 0
    head_dim: float | None = None
    kv_heads: int | None = None
    gated: bool = False


@dataclass(frozen=True, kw_only=True)
class Autoencoder:
    """The encoder half of an autoencoder between pixels and latents.

    Args:
        widths: Channels of each level, the finest first; every next one has half the side.
        resnets: Residual blocks of a level.
        channels: Of the latent.
        frame_factor: Frames of a latent one; above 1 convolutions reach through time.
        attention: Whether the narrowest level has an attention over all its cells.
    """

    widths: tuple[int, ...] = (128, 256, 512, 512)
    resnets: int = 2
    channels: int = 4
    frame_factor: int = 1
    attention: bool = True


def _pixels(shape: Autoencoder, height: float, width: float, frames: float = 1) -> WorkloadBlock:
    """Return the autoencoder's encoder, forward only."""
    taps = 27 if shape.frame_factor > 1 else 9
    cells, wide = height * width * frames, shape.widths[0]
    ops = [convolution("pixels", cells, 3, wide, taps=taps)]
    factor = 1
    for level, channels in enumerate(shape.widths):
        for _ in range(shape.resnets):
            ops += resnet(cells, wide, channels, taps=taps)
            wide = channels
        if level < len(shape.widths) - 1:
            shrink = 4
            if factor < shape.frame_factor:
                factor, shrink = 2 * factor, 8
            cells /= shrink
            ops.append(convolution("half the side", cells, wide, wide, stride=shrink))
    for _ in range(2):
        ops += resnet(cells, wide, wide, taps=taps)
    if shape.attention:
        places = cells / max(1.0, frames / shape.frame_factor)
        ops += [
            product("query, key, value", cells, wide, 3 * wide),
            replace(attention("attention", places, places, 1, wide), flops=4.0 * cells * places * wide),
            product("attention, out", cells, wide, wide),
        ]
    ops.append(convolution("latent", cells, wide, 2 * shape.channels, taps=taps))
    params = sum(op.weights for op in ops)
    return WorkloadBlock(
        name="vae encoder", ops=tuple(ops), grad="none", params=params, tokens=cells, width=wide,
        num_kernels=3.0 * len(ops),
    )  # fmt: skip


def encode(
    encoders: Sequence[FrozenTextEncoder], vae: Autoencoder | None, height: float, width: float, frames: float = 1
) -> list[WorkloadBlock]:
    """Return the blocks of text encoders and autoencoder, forward only.

    Args:
        height, width: In pixels.
    """
    blocks = []
    for number, one in enumerate(encoders, start=1):
        layers = TransformerLayers(
            repeat=one.layers, hidden=one.hidden, heads=one.heads, ffn=one.ffn, head_dim=one.head_dim,
            kv_heads=one.kv_heads, gated=one.gated,
        )  # fmt: skip
        block = transformer(f"text encoder {number}", layers, places=one.tokens, grad="none")
        blocks.append(replace(block, is_trunk=False))
        if one.vocab:
            lookup = memory_op("lookup", 2 * one.tokens * one.hidden)
            table = one.vocab * one.hidden
            blocks.append(WorkloadBlock(name=f"text table {number}", ops=(lookup,), grad="none", params=table))
    if vae is not None:
        blocks.append(_pixels(vae, height, width, frames))
    return blocks
