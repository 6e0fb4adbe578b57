"""The host: floating arrays become float64 on the way in."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np


def dtype(name: str) -> Any:
    return {"fp32": np.float64}[name]


def on_meta() -> AbstractContextManager[Any]:
    return nullcontext()


def array(values: Any, device: str, dtype: str | None = None) -> np.ndarray[Any, Any]:
    found = np.asarray(values)
    return found.astype(np.float64) if found.dtype.kind == "f" else found


def zeros(shape: tuple[int, ...], device: str, dtype: str) -> np.ndarray[Any, Any]:
    return np.zeros(shape)


def to_numpy(tensor: Any) -> np.ndarray[Any, Any]:
    return np.asarray(tensor)


def no_grad() -> AbstractContextManager[Any]:
    return nullcontext()
