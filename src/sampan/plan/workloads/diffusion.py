"""Diffusion models from the numbers of their shape: transformers over latents (DiT, MMDiT, of pictures and clips).

One sample is one picture or clip with its text. Convolutional ones are in sampan.plan.workloads.convolutional. Left out:
the noise schedule, the loss, and the last layer's text stream, which some models do without.
"""

from __future__ import annotations

from dataclasses import dataclass

from sampan.plan.records import Grad, Workload, WorkloadBlock, memory_op, product
from sampan.plan.workloads.encoders import Autoencoder, FrozenTextEncoder, encode
from sampan.plan.workloads.layers import TransformerLayers, transformer


@dataclass(frozen=True, kw_only=True)
class DiffusionShape:
    """The numbers that say what a diffusion transformer is.

    Args:
        layers: Runs of layers, in order.
        channels: Of the latent.
        channels_in: That go in, where more do (a mask, a picture to begin with); None is `channels`.
        patch, frame_patch: Latent cells of a token, each way, and in time.
        factor, frame_factor: Pixels of a latent cell, each way, and frames of one.
        text_width: Of what the text encoder writes; 0 where there is no text.
        text_layers: Matrices between it and the layers: 1, or 2 with an activation.
        time_matrices: Matrices of `hidden` by `hidden` that make the condition of time, vectors and guidance.
        shared_modulations: Vectors of `hidden` made of the time once for all layers (adaLN-single).
        final_modulations: Those of the last norm, by a linear map; 0 where a table gives them.
        table: Values of learned tables (positions, classes).
        first_frame_alone: Whether the first frame is a latent one of its own: (frames - 1) / frame_factor + 1.
        chunk: Frames after which that begins anew; 0 is never.
        scales: Sides of the grids that stand for a picture one after another, whatever its size (VAR); () is one grid.
    """

    layers: tuple[TransformerLayers, ...]
    channels: int = 4
    channels_in: int | None = None
    patch: int = 2
    frame_patch: int = 1
    factor: int = 8
    frame_factor: int = 1
    text_width: int = 0
    text_layers: int = 1
    time_matrices: float = 2
    shared_modulations: float = 0
    final_modulations: float = 2
    table: float = 0
    first_frame_alone: bool = True
    chunk: int = 0
    scales: tuple[int, ...] = ()
    encoders: tuple[FrozenTextEncoder, ...] = ()
    vae: Autoencoder | None = None

    @property
    def hidden(self) -> int:
        """Width of the layers."""
        return self.layers[0].hidden

    def grid(self, height: float, width: float, frames: float = 1) -> tuple[float, float]:
        """Return tokens of a frame and frames of tokens, parts of a patch counted as whole ones."""
        if self.scales:
            return sum(side**2 for side in self.scales), 1
        cell = self.factor * self.patch
        places = -(-height // cell) * -(-width // cell)
        if not self.first_frame_alone:
            times = -(-frames // self.frame_factor)
        elif self.chunk and frames > self.chunk:
            times = -(-frames // self.chunk) * ((self.chunk - 1) // self.frame_factor + 1)
        else:
            times = (frames - 1) // self.frame_factor + 1
        return places, -(-times // self.frame_patch)


def diffusion_model(
    name: str,
    shape: DiffusionShape,
    *,
    height: float,
    width: float,
    frames: float = 1,
    text_tokens: float = 0,
    method: str = "full",
    rank: int = 16,
    with_encoders: bool = False,
) -> Workload:
    """Return what one picture or clip costs.

    Args:
        height, width: In pixels.
        text_tokens: That the layers see.
        method: "full", or "lora": the weights are frozen and additions of `rank` are trained.
        with_encoders: Whether VAE and text encoders run in every step, forward only; else their results are read.
    """
    grad: Grad = "through" if method == "lora" else "full"
    places, times = shape.grid(height, width, frames)
    tokens, h = places * times, shape.hidden
    text = text_tokens if shape.text_width else 0
    cell = shape.patch**2 * shape.frame_patch
    blocks: list[WorkloadBlock] = []
    if with_encoders:
        blocks += encode(shape.encoders, shape.vae, height, width, frames)
    ops = [product("patches", tokens, cell * (shape.channels_in or shape.channels), h, input_grad=False)]
    if shape.text_width:
        ops.append(product("text, in", text, shape.text_width, h, input_grad=False))
        ops += [product("text, on", text, h, h) for _ in range(shape.text_layers - 1)]
    ops += [product("time", shape.time_matrices, h, h)]
    if shape.shared_modulations:
        ops.append(product("modulation of all layers", 1, h, shape.shared_modulations * h))
    time_params = shape.time_matrices * h * h
    params = sum(op.weights for op in ops) - h * h + time_params + shape.table
    blocks.append(
        WorkloadBlock(
            name="patches, text and time", ops=tuple(ops), grad="none" if grad == "through" else grad, params=params,
            tokens=tokens, width=h, kept_whole=tokens * cell * shape.channels + 2 * text * h,
            num_kernels=12,
        )
    )  # fmt: skip
    for index, layers in enumerate(shape.layers):
        blocks.append(
            transformer(
                f"layers {index + 1}" if len(shape.layers) > 1 else "layers", layers, places=places, frames=times,
                text=text, grad=grad, rank=rank if grad == "through" else 0,
            )
        )  # fmt: skip
    ops = [
        memory_op("norm and modulation", 4 * tokens * h),
        product("velocity", tokens, h, cell * shape.channels),
        memory_op("loss", 6 * tokens * cell * shape.channels),
    ]
    if shape.final_modulations:
        ops.insert(0, product("last modulation", 1, h, shape.final_modulations * h))
    blocks.append(
        WorkloadBlock(
            name="velocity and loss", ops=tuple(ops), grad=grad, params=sum(op.weights for op in ops),
            trained_params=0.0 if grad == "through" else None, tokens=tokens, width=h,
            kept_whole=3 * tokens * h + 2 * tokens * cell * shape.channels, num_kernels=12,
        )
    )  # fmt: skip
    size = f"{width:.0f}x{height:.0f} px"
    return Workload(
        name=name,
        family="dit",
        sample=f"clip of {frames:.0f} frames of {size}" if frames > 1 else f"picture of {size}",
        blocks=tuple(blocks),
        tokens=tokens,
        input_bytes=_input_bytes(shape, height, width, frames, text, with_encoders),
        has_average=grad == "full",
    )


def _input_bytes(
    shape: DiffusionShape, height: float, width: float, frames: float, text: float, with_encoders: bool
) -> float:
    """Return what a sample is on disk: compressed pixels, or latents and text in 2 bytes a value."""
    if with_encoders:
        return 0.2 * height * width * frames  # a JPEG or video of good quality has 1 to 2 bits a pixel
    places, times = shape.grid(height, width, frames)
    return 2 * (places * times * shape.patch**2 * shape.frame_patch * shape.channels + text * shape.text_width)
