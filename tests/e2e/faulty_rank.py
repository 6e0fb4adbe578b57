"""`sampan` with a fault in one rank: FAULT is what happens on rank 1 (`raise` at a step, `disk`: files are limited)."""

from __future__ import annotations

import os
import resource
import sys
from typing import Any

from sampan.cli import main

if os.environ.get("RANK") == "1":
    if os.environ.get("FAULT") == "disk":
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    if os.environ.get("FAULT") == "raise":
        from sampan import frameworks

        frameworks.use("torch")
        from sampan.train.stage_trainer import StageTrainer

        right = StageTrainer.step

        def step(self: StageTrainer, number: int) -> Any:
            if number == 7:
                raise ArithmeticError("a planted fault")
            return right(self, number)

        StageTrainer.step = step  # type: ignore[method-assign]

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
