"""Weights of a module in memory; the reference reads and writes no files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def shapes(module: Any) -> dict[str, tuple[int, ...]]:
    return {name: parameter.values.shape for name, parameter in module.named_parameters()}


def put_weights(module: Any, values: Mapping[str, Any]) -> None:
    places = dict(module.named_parameters())
    for name, value in values.items():
        if name not in places or places[name].values.shape != value.shape:
            raise ValueError(f"the module has no weight `{name}` of shape {value.shape}")
        places[name].values = np.asarray(value, np.float64)
