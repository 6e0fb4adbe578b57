"""What each adapter offers: all names of the interface, or those that a comparison of generator and decoder needs."""

from __future__ import annotations

from sampan import frameworks
from sampan.bench.backends import PACKAGES

LEFT_OUT = {
    "tensorflow": frozenset((
        "Conv2d", "GroupNorm", "linear_layers", "add_low_rank",
        "int32", "where", "sum", "exp", "abs", "sqrt", "clip", "argmin", "softmax", "normalize", "upsample_nearest",
        "pad_right_bottom", "stop_gradient", "meter", "weight files",
    )),
}  # fmt: skip
"""By framework: names of layers, operations and modules that it does not have; "weight files": it reads none."""


def left_out(framework: str) -> frozenset[str]:
    """Return what a framework, or the reference, does not have."""
    return LEFT_OUT.get(framework, frozenset())


def use(framework: str) -> None:
    """Make a framework that of this process, wherever its adapter is."""
    frameworks.use(framework, package=PACKAGES[framework])
