"""The denoising loop: what the diffusion decoder is told, with and without the prompt, at each Euler step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.frameworks.memory import memory_for
from sampan.models import positions
from sampan.models.config import ModelConfig
from sampan.models.dit import KV, join_references
from sampan.models.positions import Grid
from sampan.models.shapes import IMAGE, check_shapes
from sampan.pipeline.request import FEWER
from sampan.samplers import euler, noise

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


def latent_shape(size: Grid, config: ModelConfig) -> tuple[int, int, int]:
    """Return (channels, h, w) of the latent of an image of (height, width) in pixels."""
    return config.vae.latent_channels, size[0] // config.vae.factor, size[1] // config.vae.factor


def initial_noise(seed: int, picture: int, size: Grid, config: ModelConfig, purpose: str = "latent") -> Floats:
    """Return the noise (channels, h, w) that image number `picture` of a seed begins with."""
    return noise.generator(seed, purpose, picture).standard_normal(latent_shape(size, config), np.float32)


def is_guided(guidance_scale: float) -> bool:
    """Return whether a guidance scale needs the unconditional branch; 1 and less switch it off."""
    return guidance_scale > 1


@dataclass(frozen=True)
class InpaintingRegion:
    """What of an image is to stay.

    Args:
        latent: The base image's normalised latent (1, channels, h, w).
        mask: (1, 1, h, w), 1 where is painted and 0 where the base image stays.
    """

    latent: Floats
    mask: Floats


@dataclass(frozen=True)
class DenoiseInputs:
    """What the decoder is told of n images of one size and one kind.

    Args:
        prior_ids: (n, rows, columns).
        noise: (n, channels, h, w).
        glyph_embeds: Of the words to be drawn, (n, tokens, width).
        size: (height, width) in pixels.
        no_glyph_embeds: Of the empty string, (1, tokens, width); needed where the guidance scale is over 1.
        references: Keys and values per decoder layer, of n rows each, or None without references.
        inpainting: What stays as it is; for one image.
    """

    prior_ids: Ints
    noise: Floats
    glyph_embeds: Floats
    size: Grid
    num_steps: int
    guidance_scale: float = 1.0
    no_glyph_embeds: Floats | None = None
    references: tuple[KV, ...] | None = None
    inpainting: InpaintingRegion | None = None


def stack_inputs(inputs: Sequence[DenoiseInputs]) -> DenoiseInputs:
    """Return the inputs of several images of one kind, none of them inpainted, as those of one batch."""
    first = inputs[0]
    references = None
    if first.references is not None:
        each = [one.references for one in inputs if one.references is not None]
        references = tuple(
            (ops.concat([kv[layer][0] for kv in each], 0), ops.concat([kv[layer][1] for kv in each], 0))
            for layer in range(len(first.references))
        )
    return replace(
        first,
        prior_ids=np.concatenate([one.prior_ids for one in inputs]),
        noise=np.concatenate([one.noise for one in inputs]),
        glyph_embeds=np.concatenate([one.glyph_embeds for one in inputs]),
        references=references,
    )


class DenoiseState:
    """Latents on their way from noise to images, one Euler step at a time.

    Args:
        latent: Noise (n, channels, h, w) on the device, in fp32.
        velocity: Called with the latent and the network's time.
        known: Latent of the base image, and a mask that is 1 where it may change; elsewhere the latent is at each step that
            of the base image with as much noise.
    """

    def __init__(
        self,
        latent: Any,
        velocity: Callable[[Any, float], Any],
        times: Floats,
        sigmas: Floats,
        known: tuple[Any, Any] | None = None,
    ):
        self.latent, self.num_steps, self.steps_taken = latent, len(times), 0
        self._noise, self._velocity, self._times, self._sigmas, self._known = latent, velocity, times, sigmas, known
        self._last: Any = None

    @property
    def done(self) -> bool:
        """Whether the last step is taken."""
        return self.steps_taken == self.num_steps

    @memory_for("a step of the diffusion decoder", FEWER)
    def step(self) -> None:
        """Take the next step."""
        with dev.no_grad():
            self._last = self._velocity(self.latent, float(self._times[self.steps_taken]))
            self.latent = euler.euler_step(self.latent, self._last, self._sigmas, self.steps_taken)
            self.steps_taken += 1
            if self._known is not None:
                base, mask = self._known
                sigma = float(self._sigmas[self.steps_taken])
                self.latent = mask * self.latent + (1 - mask) * ((1 - sigma) * base + sigma * self._noise)

    def predict_clean(self) -> Any:
        """Return the latents that the last step was heading for: a preview, and at the end the latents themselves."""
        assert self._last is not None, "no step is taken yet"
        with dev.no_grad():
            return self.latent - float(self._sigmas[self.steps_taken]) * self._last


@dataclass(frozen=True)
class Denoiser:
    """The diffusion decoder, ready to denoise.

    Args:
        model: On `device`, in `dtype`.
        dtype: "fp32" or "bf16".
    """

    model: Any
    config: ModelConfig
    device: str
    dtype: str

    @memory_for("the references in the diffusion decoder", FEWER)
    def reference_kv(self, references: Sequence[tuple[Floats, Ints, Grid]]) -> tuple[KV, ...] | None:
        """Return the references' keys and values per decoder layer, or None without references.

        Args:
            references: For each, its normalised latent (1, channels, h, w), its visual tokens (rows, columns), and its
                (height, width) in pixels.
        """
        written = []
        for latent, ids, size in references:
            prior = positions.upsample_ids(ids, self.config.upsample)[None]
            with dev.no_grad():
                written.append(self.model.reference_kv(*self.model_inputs(latent, prior, 1.0, 0.0, size, 0)))
        return join_references(written) if written else None

    def denoise(self, inputs: DenoiseInputs, progress: Callable[[int, int], None] | None = None) -> Any:
        """Return normalised latents (n, channels, h, w), on the device in fp32.

        Args:
            progress: Called with steps taken and steps in all.
        """
        state = self.start(inputs)
        while not state.done:
            state.step()
            if progress is not None:
                progress(state.steps_taken, state.num_steps)
        return state.latent

    @memory_for("the diffusion decoder", FEWER)
    def start(self, inputs: DenoiseInputs) -> DenoiseState:
        """Return latents at their noise, to be brought on step by step.

        Raises:
            ValueError: Shapes do not fit one another, the size or the model; the message names the axis.
        """
        self._check(inputs)
        count, size = len(inputs.prior_ids), inputs.size
        prior = positions.upsample_ids(inputs.prior_ids, self.config.upsample)
        num_tokens = inputs.noise.shape[-2] * inputs.noise.shape[-1] // self.config.dit.patch_size**2
        times, sigmas = euler.schedule(inputs.num_steps, num_tokens, self.config.scheduler)
        compute = dev.dtype(self.dtype)

        def branch(embeds: Floats, keep: float, kv: tuple[KV, ...] | None) -> Callable[[Any, float], Any]:
            # only the latent and the time change from step to step
            _, ids, keeps, _, size_features, cos, sin = self.model_inputs(
                inputs.noise, prior, keep, 0.0, size, embeds.shape[1]
            )
            text = dev.array(embeds, self.device, self.dtype)

            def velocity_at(latent: Any, t: float) -> Any:
                time_features = self._time_features(t, count)
                out = self.model(
                    ops.cast(latent, compute), text, ids, keeps, time_features, size_features, cos, sin, kv
                )
                return ops.cast(out, ops.float32)

            return velocity_at

        with_prompt, without = branch(inputs.glyph_embeds, 1.0, inputs.references), None
        if is_guided(inputs.guidance_scale):
            assert inputs.no_glyph_embeds is not None, "guidance needs the embeddings of no words"
            without = branch(np.repeat(inputs.no_glyph_embeds, count, axis=0), 0.0, None)

        def velocity(latent: Any, t: float) -> Any:
            conditional = with_prompt(latent, t)
            if without is None:
                return conditional
            return euler.apply_guidance(conditional, without(latent, t), inputs.guidance_scale)

        region = inputs.inpainting
        known = None if region is None else (dev.array(region.latent, self.device), dev.array(region.mask, self.device))
        return DenoiseState(dev.array(inputs.noise, self.device, "fp32"), velocity, times, sigmas, known)

    def model_inputs(
        self, latent: Floats, prior: Ints, keep: float, t: float, size: Grid, num_text: int
    ) -> tuple[Any, ...]:
        """Return what the decoder takes beside text, on the device.

        Args:
            latent: (n, channels, h, w).
            prior: Ids at decoder tokens (n, rows, columns).
            keep: 1 to show the prior, 0 to drop it.
            t: The network's time.
            size: (height, width) in pixels that the decoder is told.
            num_text: Text tokens in front.
        """
        count, dit = len(latent), self.config.dit
        grid = (latent.shape[-2] // dit.patch_size, latent.shape[-1] // dit.patch_size)
        cos, sin = positions.rope_image(grid, dit.attention_head_dim, num_text)
        return (
            dev.array(latent, self.device, self.dtype),
            dev.array(prior.reshape(count, -1), self.device),
            dev.array(np.full(count, keep, np.float32), self.device),
            self._time_features(t, count),
            dev.array(positions.size_features((0, 0), size, dit.condition_dim, count), self.device),
            dev.array(cos, self.device),
            dev.array(sin, self.device),
        )

    def _check(self, inputs: DenoiseInputs) -> None:
        text, region = ("batch", "token", "channel of words"), inputs.inpainting
        grid, latent = self.config.geometry.prior_grid(*inputs.size), latent_shape(inputs.size, self.config)
        arrays = [
            # what the size and the model ask for, without memory of its own
            ("the size's grid", np.broadcast_to(0, grid), ("row", "column")),
            ("the size's latent", np.broadcast_to(0, latent), IMAGE[1:]),
            ("the model's words", np.broadcast_to(0, (self.config.dit.text_embed_dim,)), text[2:]),
            ("prior_ids", inputs.prior_ids, ("batch", "row", "column")),
            ("noise", inputs.noise, IMAGE),
            ("glyph_embeds", inputs.glyph_embeds, text),
        ]
        if inputs.no_glyph_embeds is not None:
            arrays.append(("no_glyph_embeds", inputs.no_glyph_embeds, ("one", "token of no words", text[2])))
        if region is not None:
            arrays.append(("latent of the region", region.latent, ("one", *IMAGE[1:])))
            arrays.append(("mask", region.mask, ("one", "channel of the mask", *IMAGE[2:])))
        check_shapes(*arrays)

    def _time_features(self, t: float, count: int) -> Any:
        return dev.array(positions.sinusoid([t] * count, self.config.dit.time_embed_dim), self.device)
