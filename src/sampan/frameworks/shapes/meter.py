"""How a module of this framework is counted: its parameters and calls, as the other frameworks' meters name them."""

from __future__ import annotations

from typing import Any

from sampan.frameworks.shapes import nn
from sampan.frameworks.shapes.count import calling
from sampan.frameworks.shapes.nn import parameter_slots
from sampan.frameworks.shapes.tape import CostTape

__all__ = ["parameter_slots", "substitutes"]


def substitutes(tape: CostTape) -> dict[tuple[Any, str], Any]:
    """Return what takes the place of a module's call while a pass is counted."""
    return {(nn.Module, "__call__"): calling(tape)}
