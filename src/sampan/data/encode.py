"""What the frozen parts make of pictures and words: visual ids, latents, glyph embeddings; for training and generation.

Training reads pictures through the tokenizer and the autoencoder once and keeps the result in one safetensors file, named
by the hash of the weights and of the list of pictures it came from.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data.pictures import fit, load_rgb, to_array
from sampan.frameworks import device as dev
from sampan.frameworks import io
from sampan.models import positions
from sampan.models.config import ModelConfig
from sampan.models.positions import Grid
from sampan.models.text import glyph_batch

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
_BATCH = 16


def token_ids(tokenizer: Any, patches: Floats, grid: Grid, config: ModelConfig, device: str, dtype: str) -> Ints:
    """Return visual ids (pictures, rows·columns) of patches (pictures, rows·columns, 3·patch²)."""
    gather_ids, gather_weights = positions.bilinear_gather(grid, config.ar.vision.grid_side)
    with dev.no_grad():
        ids = tokenizer(
            dev.array(patches, device, dtype), dev.array(gather_ids, device), dev.array(gather_weights, device)
        )
    return dev.to_numpy(ids).astype(np.int64)


def latent_statistics(config: ModelConfig, device: str, dtype: str) -> tuple[Any, Any]:
    """Return the latents' mean and deviation, each (1, channels, 1, 1), on a device."""
    mean, std = (
        np.asarray(v, np.float32).reshape(1, -1, 1, 1) for v in (config.vae.latents_mean, config.vae.latents_std)
    )
    return dev.array(mean, device, dtype), dev.array(std, device, dtype)


def latents(vae: Any, images: Floats, config: ModelConfig, device: str, dtype: str) -> Floats:
    """Return normalised latents (n, channels, h, w), the mode, of images (n, 3, H, W) in [-1, 1]."""
    with dev.no_grad():
        return dev.to_numpy(vae.encode(dev.array(images, device, dtype), *latent_statistics(config, device, dtype)))


def glyph_embeds(glyph: Any, texts: Sequence[str], config: ModelConfig, device: str) -> Floats:
    """Return (bytes, width) of the words to be drawn, one after another; of no words, the empty string's."""
    ids, mask = glyph_batch(texts)
    buckets = positions.relative_buckets(
        ids.shape[1], config.glyph.relative_attention_num_buckets, config.glyph.relative_attention_max_distance
    )
    with dev.no_grad():
        embeds = glyph(*(dev.array(a, device) for a in (ids, mask, buckets)))
    return dev.to_numpy(embeds)[mask]


def grid_patches(image: Image.Image, grid: Grid, patch: int) -> Floats:
    """Return the patches (rows·columns, 3·patch²) of an RGB picture brought to exactly that grid, as pixels.to_patches."""
    rows, columns = grid
    resized = image.resize((columns * patch, rows * patch), Image.Resampling.BICUBIC)
    pixels = to_array(resized).reshape(3, rows, patch, columns, patch).transpose(1, 3, 0, 2, 4)
    return np.ascontiguousarray(pixels.reshape(rows * columns, 3 * patch * patch))


class Pictures:
    """Pictures of a set, opened when asked for and brought to one size; those that fit in `cache_bytes` stay open."""

    def __init__(self, paths: Sequence[Path], height_px: int, width_px: int, cache_bytes: int = 2_000_000_000):
        self.paths = list(paths)
        self.height_px, self.width_px = height_px, width_px
        self._kept: dict[int, Image.Image] = {}
        self._room = cache_bytes // (height_px * width_px * 3)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Image.Image:
        image = self._kept.get(index)
        if image is None:
            image = fit(load_rgb(self.paths[index]), self.width_px, self.height_px)
            if len(self._kept) < self._room:
                self._kept[index] = image
        return image

    def arrays(self, indices: Sequence[int]) -> Floats:
        """Return (n, 3, H, W) in [-1, 1]."""
        return np.stack([to_array(self[i]) for i in indices])


@dataclass(frozen=True)
class Encoded:
    """Pictures as the frozen parts see them.

    Args:
        target_ids: (pictures, rows, columns).
        preview_ids: (pictures, rows, columns) of the preview.
        latents: Normalised, (pictures, channels, h, w); None until an autoencoder is there.
    """

    target_ids: Ints
    preview_ids: Ints
    latents: Floats


def encode_pictures(
    pictures: Pictures,
    tokenizer: Callable[[], Any],
    vae: Callable[[], Any],
    key: str,
    folder: Path,
    config: ModelConfig,
    device: str,
    dtype: str,
    progress: Progress,
) -> Encoded:
    """Return all pictures encoded, from the cache file where it is there, else computed and written.

    Args:
        tokenizer, vae: Called for the frozen parts if they are needed.
        key: Names the weights of both.
        folder: Where cache files are kept.
    """
    listing = "\n".join(f"{path.name} {path.stat().st_size}" for path in pictures.paths)
    name = hashlib.sha256(f"{key}\n{pictures.height_px}x{pictures.width_px}\n{listing}".encode()).hexdigest()[:16]
    file = folder / f"encoded-{name}.safetensors"
    if file.is_file():
        found = {k: dev.to_numpy(v) for k, v in io.read_tensors(file, "cpu").items()}
        return Encoded(found["target_ids"], found["preview_ids"], found["latents"])
    target = config.geometry.prior_grid(pictures.height_px, pictures.width_px)
    preview = config.geometry.preview_grid(pictures.height_px, pictures.width_px)
    tokenizer_part, vae_part = tokenizer(), vae()
    patch = config.processor.patch_size
    ids: dict[Grid, list[Ints]] = {target: [], preview: []}
    found_latents = []
    for first in range(0, len(pictures), _BATCH):
        batch = [pictures[i] for i in range(first, min(first + _BATCH, len(pictures)))]
        for grid in {target, preview}:
            patches = np.stack([grid_patches(image, grid, patch) for image in batch])
            ids[grid].append(token_ids(tokenizer_part, patches, grid, config, device, dtype))
        found_latents.append(latents(vae_part, np.stack([to_array(i) for i in batch]), config, device, dtype))
        progress("encoding pictures", first + len(batch), len(pictures))
    encoded = Encoded(
        np.concatenate(ids[target]).reshape(-1, *target),
        np.concatenate(ids[preview]).reshape(-1, *preview),
        np.concatenate(found_latents),
    )
    folder.mkdir(parents=True, exist_ok=True)
    arrays = {"target_ids": encoded.target_ids, "preview_ids": encoded.preview_ids, "latents": encoded.latents}
    io.save_tensors(file, {k: dev.array(v, "cpu") for k, v in arrays.items()}, {})
    return encoded
