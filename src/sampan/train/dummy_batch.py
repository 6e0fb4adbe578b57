"""Pictures as the frozen parts would see them, in shape only: for counting a stage's memory before anything is encoded."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from sampan.data.image_cache import ImageCache
from sampan.models.config import ModelConfig
from sampan.models.text import glyph_batch


class DummyInputs:
    """What `sampan.data.encode.EncodedInputs` offers, all zeros."""

    def __init__(self, pictures: ImageCache, config: ModelConfig):
        self._pictures, self._config = pictures, config

    def target_ids(self, picture: int) -> NDArray[np.int64]:
        """Return (rows, columns)."""
        return np.zeros(self._config.geometry.prior_grid(*self._pictures.size_of(picture)), np.int64)

    def preview_ids(self, picture: int) -> NDArray[np.int64]:
        """Return (rows, columns) of the preview."""
        return np.zeros(self._config.geometry.preview_grid(*self._pictures.size_of(picture)), np.int64)

    def latents(self, pictures: Sequence[int]) -> NDArray[np.float32]:
        """Return (n, channels, h, w) of pictures of one size."""
        height, width = self._pictures.size_of(pictures[0])
        vae = self._config.vae
        return np.zeros((len(pictures), vae.latent_channels, height // vae.factor, width // vae.factor), np.float32)

    def glyph(self, texts: tuple[str, ...]) -> NDArray[np.float32]:
        """Return (bytes, width)."""
        return np.zeros((int(glyph_batch(texts)[1].sum()), self._config.dit.text_embed_dim), np.float32)
