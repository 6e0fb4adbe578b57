"""How the sizes of pixels, prior tokens, latents and decoder tokens relate."""

from __future__ import annotations

import math
from dataclasses import dataclass

from sampan.models.config.section import ConfigSection


@dataclass(frozen=True)
class Geometry(ConfigSection):
    """How pixels, prior tokens, latents and DiT tokens relate. Sizes are (height, width).

    The released files do not state these numbers (the reference code has them built in), so a folder with other
    numbers carries them in `sampan.json` at its root; without that file the released ones hold.

    Args:
        prior_px: Pixels per prior token, each way (32 in the release).
        preview_side: Side of the preview grid of a square picture, in tokens (16 in the release).
        default_px: Side of the picture made when no size is asked for.
    """

    NAME = "geometry"

    prior_px: int = 32
    preview_side: int = 16
    default_px: int = 1024

    def __post_init__(self) -> None:
        self.require_positive()
        if self.default_px % self.prior_px:
            raise ValueError(f"default_px {self.default_px} is not a multiple of prior_px {self.prior_px}")

    def prior_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the (rows, columns) of prior tokens of a picture whose sides are multiples of `prior_px`."""
        return height // self.prior_px, width // self.prior_px

    def preview_grid(self, height: int, width: int) -> tuple[int, int]:
        """Return the (rows, columns) of the preview: the same aspect ratio at about `preview_side`² tokens."""
        rows, columns = self.prior_grid(height, width)
        ratio = rows / columns
        # truncation, and a floor of one row that the reference does not need below an aspect ratio of 256
        return max(1, int(math.sqrt(ratio) * self.preview_side)), max(1, int(math.sqrt(1 / ratio) * self.preview_side))
