"""The job file: what to train, on which pictures, where.

Only the verbs see a `Job`; the parts of the program get plain values.
"""

from sampan.job.reading import parse, read
from sampan.job.sections import (
    DEVICES,
    DTYPES,
    MAX_SEED,
    NUMBERED_DEVICE,
    STAGES,
    STORED_DTYPES,
    Job,
)
from sampan.job.setting import Setting, address_problem, sections, settings
from sampan.job.stages import StageSection

__all__ = [
    "DEVICES",
    "DTYPES",
    "MAX_SEED",
    "NUMBERED_DEVICE",
    "STAGES",
    "STORED_DTYPES",
    "Job",
    "Setting",
    "StageSection",
    "address_problem",
    "parse",
    "read",
    "sections",
    "settings",
]
