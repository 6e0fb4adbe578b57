"""Tiny parts with fixed weights, pictures to encode, and a program that encodes them and is killed over and over.

    python -m unit.data.tiny_encoder straight PICTURES FOLDER
    python -m unit.data.tiny_encoder killed PICTURES FOLDER SEED    prints how many kills there were

The program forks after everything is loaded, so that an attempt takes milliseconds.
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sampan.data import bucket
from sampan.data.encode import EncodedInputs, encode
from sampan.data.image_cache import ImageCache
from sampan.data.image_source import FileSource
from sampan.frameworks import device as dev
from sampan.frameworks import io, train_step
from sampan.models import presets
from sampan.models.build import build
from sampan.models.config import ModelConfig
from sampan.models.init import initial_weights

CONFIG: ModelConfig = presets.get(
    "nano",
    {
        "vision": {"depth": 1, "hidden_size": 24, "intermediate_size": 32, "num_heads": 2, "image_size": 64},
        "vq": {"num_embeddings": 50, "embed_dim": 8, "latent_channels": 24},
        "vae": {
            "block_out_channels": (8, 8, 8, 16),
            "latent_channels": 16,
            "latents_mean": (0.25,) * 16,
            "latents_std": (2.0,) * 16,
        },
        "dit": {"patch_size": 2, "in_channels": 16, "out_channels": 16},
        "glyph": {"num_layers": 1, "d_ff": 32},
        "geometry": {"default_px": 64},
    },
)
SIZES = bucket.sizes((64,), 2, 16)
TEXTS = [("boat",), (), ("a", "längst"), ("boat",), ("sea", "sea", "sea")]
KEYS = {"tokenizer": "tokenizer:1", "vae": "vae:1", "glyph": "glyph:1"}


def part(name: str) -> Any:
    """Return a part with its first weights of seed 0."""
    module = build(name, CONFIG)
    shapes = {key: tuple(value.shape) for key, value in module.state_dict().items()}
    io.put_weights(module, {key: dev.array(v, "cpu") for key, v in initial_weights(shapes, 0).items()})
    train_step.freeze(module)
    return module


def paint(folder: Path, count: int) -> list[Path]:
    """Write pictures of several shapes and return their files."""
    folder.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(0)
    files = []
    for number in range(count):
        height, width = ((70, 120), (64, 64), (130, 80))[number % 3]
        rough = draw.integers(0, 256, (5, 5, 3), np.uint8)
        files.append(folder / f"{number:04}.png")
        Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC).save(files[-1])
    return files


def opened(files: Sequence[Path]) -> ImageCache:
    """Return pictures at the sizes of their buckets."""
    digests = [hashlib.blake2b(file.read_bytes(), digest_size=16).hexdigest() for file in files]
    shapes = []
    for file in files:
        with Image.open(file) as image:
            shapes.append((image.height, image.width))
    sizes = [SIZES[bucket.assign(shape, SIZES)] for shape in shapes]
    return ImageCache([FileSource(file) for file in files], shapes, sizes, digests)


def run(pictures: ImageCache, folder: Path, parts: dict[str, Any], **changes: Any) -> EncodedInputs:
    """Encode pictures and TEXTS with what `parts` has."""
    given: dict[str, Any] = {
        "keys": KEYS,
        "folder": folder,
        "config": CONFIG,
        "device": "cpu",
        "dtype": "fp32",
        "workers": 0,
        "shard_items": 4,
        "batch": 3,
        "progress": lambda what, done, total: None,
        **{name: (lambda module=module: module) for name, module in parts.items()},
        **changes,
    }
    return encode(pictures, given.pop("texts", TEXTS), **given)


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, but for the lock that a killed writer leaves."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def main(how: str, source: Path, folder: Path, seed: int = 0) -> None:
    """Encode straight through, or in a child that is killed until one gets to the end."""
    dev.set_threads(1)
    parts = {name: part(name) for name in KEYS}
    pictures = opened(sorted(source.iterdir()))
    if how == "straight":
        run(pictures, folder, parts)
        return
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as beside:
        run(pictures, Path(beside), parts)
    whole_s = time.monotonic() - began
    draw, kills = random.Random(seed), 0
    while True:
        child = os.fork()
        if child == 0:
            run(pictures, folder, parts)
            os._exit(0)
        deadline = time.monotonic() + draw.uniform(0.02, 0.35) * whole_s
        while time.monotonic() < deadline:
            if os.waitpid(child, os.WNOHANG)[0]:
                sys.stdout.write(f"{kills}\n")
                return
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *map(int, sys.argv[4:]))
