"""From prior ids to a latent: what the decoder is told, with and without the prompt, at each Euler step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.models import positions
from sampan.models.config import ModelConfig
from sampan.models.dit import KV, join_references
from sampan.models.positions import Grid
from sampan.samplers import euler

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class InpaintingRegion:
    """What of a picture is to stay.

    Args:
        latent: Normalised (1, channels, h, w).
        mask: (1, 1, h, w), 1 where is painted and 0 where it stays.
    """

    latent: Floats
    mask: Floats


class DenoiseState:
    """Latents on their way from noise to pictures, one Euler step at a time.

    Args:
        latent: Noise (n, channels, h, w) on the device, in fp32.
        velocity: Called with the latent and the network's time.
        kept: What stays, and where it may change; outside, the latent is what it would be on its way.
    """

    def __init__(
        self,
        latent: Any,
        velocity: Callable[[Any, float], Any],
        times: Floats,
        sigmas: Floats,
        kept: tuple[Any, Any] | None = None,
    ):
        self.latent, self.step = latent, 0
        self._noise, self._velocity, self._times, self._sigmas, self._kept = latent, velocity, times, sigmas, kept
        self._last: Any = None

    @property
    def done(self) -> bool:
        """Whether the last step is taken."""
        return self.step == len(self._times)

    def advance(self) -> None:
        """Take the next step."""
        with dev.no_grad():
            self._last = self._velocity(self.latent, float(self._times[self.step]))
            self.latent = euler.moved(self.latent, self._last, self._sigmas, self.step)
            self.step += 1
            if self._kept is not None:
                clean, mask = self._kept
                sigma = float(self._sigmas[self.step])
                self.latent = mask * self.latent + (1 - mask) * ((1 - sigma) * clean + sigma * self._noise)

    def clean(self) -> Any:
        """Return the latents that the last step was heading for: a preview, and at the end the latents themselves."""
        assert self._last is not None, "no step is taken yet"
        with dev.no_grad():
            return self.latent - float(self._sigmas[self.step]) * self._last


@dataclass(frozen=True)
class Denoiser:
    """A decoder, ready to paint.

    Args:
        model: The decoder, on `device`, in `dtype`.
        dtype: "fp32" or "bf16".
    """

    model: Any
    config: ModelConfig
    device: str
    dtype: str

    def reference_kv(
        self, latents: Sequence[Floats], ids: Sequence[Ints], sizes: Sequence[Grid]
    ) -> tuple[KV, ...] | None:
        """Return the references' keys and values per decoder layer, or None without references.

        Args:
            latents: Normalised, each (1, channels, h, w).
            ids: Their visual tokens, each (rows, columns).
            sizes: Their (height, width) in pixels.
        """
        written = []
        for latent, own, size in zip(latents, ids, sizes, strict=True):
            prior = positions.upsample_ids(own, self.config.upsample)
            with dev.no_grad():
                written.append(self.model.reference_kv(*self.inputs(latent, prior[None], 1.0, 0.0, size, 0)))
        return join_references(written) if written else None

    def paint(
        self,
        prior_ids: Ints,
        noise_latent: Floats,
        glyph: Floats,
        unconditional_glyph: Floats | None,
        references: tuple[KV, ...] | None,
        size: Grid,
        num_steps: int,
        guidance_scale: float,
        progress: Callable[[int, int], None] | None = None,
    ) -> Any:
        """Return normalised latents (n, channels, h, w), on the device in fp32.

        Args:
            progress: Called with steps taken and steps in all.
            Others: As `begin`.
        """
        painting = self.begin(
            prior_ids, noise_latent, glyph, unconditional_glyph, references, size, num_steps, guidance_scale
        )
        while not painting.done:
            painting.advance()
            if progress is not None:
                progress(painting.step, num_steps)
        return painting.latent

    def begin(
        self,
        prior_ids: Ints,
        noise_latent: Floats,
        glyph: Floats,
        unconditional_glyph: Floats | None,
        references: tuple[KV, ...] | None,
        size: Grid,
        num_steps: int,
        guidance_scale: float,
        kept: InpaintingRegion | None = None,
    ) -> DenoiseState:
        """Return latents at their noise, to be brought on step by step.

        Args:
            prior_ids: (n, rows, columns).
            noise_latent: (n, channels, h, w).
            glyph: (1, tokens, width) for all pictures, or (n, tokens, width).
            unconditional_glyph: Of the empty string; None switches guidance off.
            references: For all pictures (1, …), or for each of them (n, …).
            kept: What stays as it is.
        """
        count = len(prior_ids)
        prior = positions.upsample_ids(prior_ids, self.config.upsample)
        patch = self.config.dit.patch_size
        num_tokens = noise_latent.shape[-2] * noise_latent.shape[-1] // patch**2
        times, sigmas = euler.schedule(num_steps, num_tokens, self.config.scheduler)
        spread = references
        if references and references[0][0].shape[0] != count:
            spread = tuple((ops.concat([k] * count, 0), ops.concat([v] * count, 0)) for k, v in references)
        compute = dev.dtype(self.dtype)

        def branch(embeds: Floats, keep: float, kv: tuple[KV, ...] | None) -> Callable[[Any, float], Any]:
            # only the latent and the time change from step to step
            _, ids, kept, _, size_features, cos, sin = self.inputs(
                noise_latent, prior, keep, 0.0, size, embeds.shape[1]
            )
            each = embeds if len(embeds) == count else np.repeat(embeds, count, axis=0)
            text = dev.array(each, self.device, self.dtype)

            def velocity_at(latent: Any, t: float) -> Any:
                times = self._time_features(t, count)
                out = self.model(ops.cast(latent, compute), text, ids, kept, times, size_features, cos, sin, kv)
                return ops.cast(out, ops.float32)

            return velocity_at

        with_prompt = branch(glyph, 1.0, spread or None)
        without = None if unconditional_glyph is None else branch(unconditional_glyph, 0.0, None)

        def velocity(latent: Any, t: float) -> Any:
            conditional = with_prompt(latent, t)
            if without is not None:
                conditional = euler.guided(conditional, without(latent, t), guidance_scale)
            return conditional

        return DenoiseState(dev.array(noise_latent, self.device, "fp32"), velocity, times, sigmas, self.held(kept))

    def held(self, kept: InpaintingRegion | None) -> tuple[Any, Any] | None:
        """Return what stays and where it may change, on the device."""
        return None if kept is None else (dev.array(kept.latent, self.device), dev.array(kept.mask, self.device))

    def inputs(self, latent: Floats, prior: Ints, keep: float, t: float, size: Grid, num_text: int) -> tuple[Any, ...]:
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

    def _time_features(self, t: float, count: int) -> Any:
        return dev.array(positions.sinusoid([t] * count, self.config.dit.time_embed_dim), self.device)
