"""The framework interface in NumPy, float64, forward only: what every framework is held to.

It is written from the definitions, slowly and plainly, and shares no code with the frameworks' folders, so that the very
same `sampan.models` code runs on it. `register` makes it a framework of this process.
"""

from __future__ import annotations

import sys
from types import ModuleType

from contract.numpy_framework import device, io, nn, ops
from sampan import frameworks

NAME = "reference"


def register() -> None:
    """Make the reference the framework of this process; model modules are imported after this."""
    package = ModuleType(f"sampan.frameworks.{NAME}")
    package.__path__ = []
    sys.modules[package.__name__] = package
    for module in (device, io, nn, ops):
        sys.modules[f"{package.__name__}.{module.__name__.rpartition('.')[2]}"] = module
    frameworks.use(NAME, package=package.__name__)
