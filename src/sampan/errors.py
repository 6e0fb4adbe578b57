"""The exceptions a user can meet, and how they are printed.

    SampanError             what failed, because of which facts, and what to do next
    ├── JobError            a job file or a --set that cannot be used
    ├── DataError           pictures, captions or a cache that cannot be read
    ├── CheckpointError     a model folder or a run folder that cannot be used
    ├── DeviceError         a device, a dtype or an amount of memory that is not there
    ├── RequestError        a prompt, a size, a reference or an option that this model cannot serve
    ├── CatalogError        a name or a file of the catalogue (chips, sites, models, runs) that cannot be used
    └── PlanError           something that cannot be planned, screened or compared
    Exception
    ├── NotPredictable      a published run that cannot be predicted; it is counted and left out
    └── UnusableMeasurement a file or a side of `sampan bench` that says nothing of a chip; it is named and left out

The command line prints one of these without a traceback and exits with 1; wrong usage exits with 2. A library caller's
bad argument is a ValueError; our own bugs are assertions.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SampanError(Exception):
    """An error that says what failed, why, and what to do next.

    Args:
        what: One line: the thing that failed, with the name the user gave it.
        because: Facts that led there, each with its origin (a file, a line, a measured number).
        hint: What to do next; a command or a nearest valid value where there is one.
    """

    def __init__(self, what: str, because: str | Iterable[str] = (), hint: str | None = None):
        self.what = what
        self.because = (because,) if isinstance(because, str) else tuple(because)
        self.hint = hint
        super().__init__(self.render())

    def render(self) -> str:
        """Return the text the command line prints on stderr."""
        lines = [f"error: {self.what}", *(f"  because {fact}" for fact in self.because)]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class JobError(SampanError):
    """A job file or a --set that cannot be used."""


class DataError(SampanError):
    """Pictures, captions or a cache that cannot be read."""


class CheckpointError(SampanError):
    """A model folder or a run folder that cannot be used."""


class DeviceError(SampanError):
    """A device, a dtype or an amount of memory that is not there."""


class RequestError(SampanError):
    """A prompt, a size, a reference or an option that this model cannot serve."""


class CatalogError(SampanError):
    """A name or a file of the catalogue that cannot be used."""


class PlanError(SampanError):
    """Something that cannot be planned, screened or compared."""


class NotPredictable(Exception):
    """A published run that cannot be predicted, and why; caught where runs are counted."""


class UnusableMeasurement(Exception):
    """A file or a side of `sampan bench` that says nothing of a chip, and why; caught where it is read."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean `x`?" for the nearest known word, or the whole list when none is near."""
    options = sorted(known)
    near = difflib.get_close_matches(word, options, n=2, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"`{name}`" for name in near) + "?"
    return "known: " + ", ".join(f"`{name}`" for name in options) if options else None
