"""What a caller may ask of a model, and whether this model can do it. Loads no framework."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import RequestError
from sampan.models import pixels
from sampan.models.config import ModelConfig, PaintingConfig, SamplingConfig

# what to do where the device has no memory left
FEWER = "ask for a smaller size or fewer pictures at once; `sampan generate` and `sampan eval` have --offload, too"
_PROMPT_TOKENS = 64  # room for a prompt beside the largest size that is offered


@dataclass(frozen=True)
class ImageRequest:
    """One call of `generate`.

    Args:
        prompt: What to paint; words in quotes are drawn.
        references: Pictures to edit or to take from.
        width_px, height_px: Size of the picture; without one, the model's own, in the shape of the first reference.
        count: How many pictures; picture k of a seed does not depend on the others.
        num_inference_steps: Euler steps of the decoder; without one, what the checkpoint says, else 50.
        guidance_scale: 1 or less switches the unconditional branch off; without one, what the checkpoint says.
        temperature, top_p, top_k: Sampling of prior tokens; without one, what the checkpoint says. Temperature 0 is greedy.
        inject: A safetensors file with `prior_token_ids` (rows, columns), `noise` (1, channels, h, w) and `glyph_embeds`
            (1, tokens, width), any of them; what it holds is not computed.
        prompt_metadata: Write the prompt into the picture's metadata.
    """

    prompt: str
    references: tuple[Path, ...] = ()
    width_px: int | None = None
    height_px: int | None = None
    count: int = 1
    seed: int = 0
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    inject: Path | None = None
    prompt_metadata: bool = True

    def sampling(self, released: SamplingConfig) -> SamplingConfig:
        """Return the checkpoint's sampling with this request's values in place."""
        given = {"temperature": self.temperature, "top_p": self.top_p, "top_k": self.top_k}
        return dataclasses.replace(released, **{k: v for k, v in given.items() if v is not None})

    def guidance(self, released: PaintingConfig) -> float:
        """Return this request's guidance, or the checkpoint's."""
        return released.guidance_scale if self.guidance_scale is None else self.guidance_scale

    def steps(self, released: PaintingConfig) -> int:
        """Return this request's steps of the decoder, or the checkpoint's."""
        return self.num_inference_steps or released.num_inference_steps


def check_size(height_px: int, width_px: int, config: ModelConfig) -> None:
    """Raise RequestError unless the model can paint that size; the message names the nearest or largest one that it can."""
    unit = config.geometry.prior_px
    nearest = [max(unit, round(side / unit) * unit) for side in (height_px, width_px)]
    if [height_px, width_px] != nearest:
        raise RequestError(
            f"this model cannot paint {width_px}x{height_px} pixels",
            f"both sides must be multiples of {unit}, the pixels of one prior token",
            f"the nearest size is --size {nearest[1]}x{nearest[0]}",
        )
    limit, needed = config.ar.text.max_position_embeddings, num_tokens(height_px, width_px, config)
    if needed >= limit:
        height, width = _largest(height_px, width_px, config)
        raise RequestError(
            f"{width_px}x{height_px} pixels are too large for this model",
            f"they take {needed} tokens, and {limit} fit together with the prompt",
            f"the largest size of about this shape is --size {width}x{height}",
        )


def default_size(shape: tuple[int, int], config: ModelConfig) -> tuple[int, int]:
    """Return the (height, width) in pixels that is painted where nobody names a size.

    It has about as many pixels as the model's own square and the wanted shape, as far as sides in whole prior tokens allow.

    Args:
        shape: Height and width in any unit: of a photo, or the parts of an aspect ratio.

    Raises:
        RequestError: It is longer than `pixels.MAX_ASPECT_RATIO` times its width, or the other way round.
    """
    pixels.check_ratio(*shape, "a picture")
    side, unit = config.geometry.default_px, config.geometry.prior_px
    height, width = (side * math.sqrt(part / other) for part, other in (shape, shape[::-1]))
    return max(unit, round(height / unit) * unit), max(unit, round(width / unit) * unit)


def num_tokens(height_px: int, width_px: int, config: ModelConfig) -> int:
    """Return the tokens that the generator writes for an image without references: preview, image, and the end."""
    grids = (config.geometry.preview_grid(height_px, width_px), config.geometry.prior_grid(height_px, width_px))
    return sum(rows * columns for rows, columns in grids) + 1


def _largest(height_px: int, width_px: int, config: ModelConfig) -> tuple[int, int]:
    """Return the largest height and width of a shape that leave room for a prompt."""
    unit, limit = config.geometry.prior_px, config.ar.text.max_position_embeddings
    room = limit - _prompt_room(config)
    across = max(height_px, width_px) // unit
    for long in range(min(across, limit), 0, -1):
        height, width = (max(unit, round(side * long / across / unit) * unit) for side in (height_px, width_px))
        if num_tokens(height, width, config) <= room:
            return height, width
    return unit, unit


def check_length(num_prompt: int, num_generated: int, config: ModelConfig, *, is_least: bool = False) -> None:
    """Raise RequestError unless prompt and picture together fit the positions the model was trained on.

    Args:
        is_least: The prompt has `num_prompt` tokens or more; it was not worth while to count on.
    """
    limit = config.ar.text.max_position_embeddings
    if num_prompt + num_generated <= limit:
        return
    room = max(0, limit - num_generated)
    words = f"{num_prompt} tokens{' or more' if is_least else ''} with its references"
    facts = f"it has {words}, the picture needs {num_generated}, and {limit} fit together"
    if room < _prompt_room(config):
        raise RequestError(
            "the picture is too large for this model with its prompt", facts, "ask for a smaller picture"
        )
    raise RequestError(
        "the prompt is too long for this model",
        facts,
        f"shorten the prompt to about {room} tokens, or ask for a smaller picture",
    )


def _prompt_room(config: ModelConfig) -> int:
    """Return the tokens that are kept for a prompt."""
    limit = config.ar.text.max_position_embeddings
    return min(_PROMPT_TOKENS, limit // 8)
