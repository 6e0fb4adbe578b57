"""Weight files of the contract: one that the host writes, and what frameworks make of it and of one another's."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

HOST = "host"
METADATA = {"format": "contract"}


def write_host_file(folder: Path) -> None:
    """Write a file of every dtype that a checkpoint has, with numbers that a careless copy would change."""
    random = np.random.default_rng(0)
    numbers = random.standard_normal((5, 7)).astype(np.float32)
    numbers[0, :6] = [0.0, -0.0, np.inf, -np.inf, 1e-40, np.finfo(np.float32).max]
    tensors = {
        "fp32": numbers,
        "bf16": random.standard_normal((3, 4)).astype(ml_dtypes.bfloat16),
        "fp16": random.standard_normal((2, 3)).astype(np.float16),
        "int64": np.array([0, -1, 2**62], np.int64),
        "codes": np.arange(256, dtype=np.uint8),
        "count": np.array(17, np.int64),
    }
    save_file(tensors, folder / f"{HOST}.safetensors", METADATA)


def contents(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Return dtype, shape and bytes of every tensor of a file, read without any library."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + length])
    return {
        name: (entry["dtype"], tuple(entry["shape"]), raw[8 + length :][slice(*entry["data_offsets"])])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def write_bad_files(folder: Path) -> None:
    """Write half of the host's file, and a file whose only tensor is quantized."""
    whole = (folder / f"{HOST}.safetensors").read_bytes()
    (folder / "half.safetensors").write_bytes(whole[: len(whole) // 2])
    save_file({"weight": np.zeros((4, 6), np.int8)}, folder / "quantized.safetensors")
