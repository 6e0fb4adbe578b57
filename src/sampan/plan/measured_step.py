"""One measured step beside its prediction, and which chip of the catalogue a driver names."""

from __future__ import annotations

import re
from dataclasses import dataclass

from sampan.catalog import load
from sampan.catalog.records import Chip
from sampan.errors import UnusableMeasurement


@dataclass(frozen=True, kw_only=True)
class MeasuredStep:
    """A measured step.

    Args:
        part: "ar" or "decoder", and what of it: "block of ar", "ar of nano".
        says: What else was measured, in a sentence; "" where nothing was.
    """

    chip: Chip
    framework: str
    part: str
    precision: str
    measured_s: float
    predicted_s: float
    says: str = ""

    @property
    def ratio(self) -> float:
        """Measured over predicted."""
        return self.measured_s / self.predicted_s


def chip_of(device_name: str) -> Chip:
    """Return the chip of the catalogue that a driver calls so: the one of which most words are in the name.

    "NVIDIA H100 80GB HBM3" is `h100_sxm`, "Ascend910B2" is `ascend_910b2`.

    Raises:
        UnusableMeasurement: None is, or several are as near.
    """
    device_words = _words(device_name)
    nearest: dict[str, tuple[int, Chip]] = {}
    for chip in load.chips().values():
        for name in (chip.name, chip.title, *chip.aliases):
            words = _words(name)
            if words and words <= device_words:
                size = sum(map(len, words))
                nearest[chip.name] = max(nearest.get(chip.name, (0, chip)), (size, chip), key=lambda one: one[0])
    best = max((size for size, _ in nearest.values()), default=0)
    matches = [chip for size, chip in nearest.values() if size == best]
    if not matches:
        raise UnusableMeasurement(f"no chip of the catalogue is called `{device_name or 'name not known'}`")
    if len(matches) > 1:
        names = ", ".join(f"`{chip.name}`" for chip in matches)
        raise UnusableMeasurement(f"`{device_name}` may be each of {names}")
    return matches[0]


def _words(name: str) -> frozenset[str]:
    """Return a name's words: "Ascend910B2" has "ascend" and "910b2", "4090 D" is "4090d", "80GB" is "80"."""
    joined = re.sub(r"(\d) ([a-z])\b", r"\1\2", name.lower())
    apart = re.sub(r"([a-z]{3,})(\d)", r"\1 \2", joined)
    return frozenset(re.sub(r"^(\d+)gb?$", r"\1", word) for word in re.findall(r"[a-z0-9]+", apart))
