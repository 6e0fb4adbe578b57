"""Twenty steps of every stage on one framework, in a process of its own: what a recipe's numbers are today.

    python tests/golden/record.py FRAMEWORK FOLDER

writes FOLDER/FRAMEWORK.json: by stage the losses and gradient norms of the first steps of the contract's small run, and how
far weights and their moving average have come from their first values (Euclidean length over all trained tensors).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from contract import curve_job, worker

NUM_STEPS = 20


def of_stage(work: Any, name: str) -> dict[str, Any]:
    """Take the steps of one stage and return its numbers."""
    import numpy as np

    from sampan.frameworks import device as dev
    from sampan.train.stage_trainer import StageTrainer

    trainer = StageTrainer(work, name)

    def values(group: str) -> dict[str, Any]:
        return {key: dev.to_numpy(value).astype(np.float64) for key, value in trainer.groups()[group].items()}

    def distance(after: dict[str, Any], before: dict[str, Any]) -> float:
        return float(np.sqrt(sum(((after[key] - before[key]) ** 2).sum() for key in after if key in before)))

    first = values("weights")
    reports = [trainer.step(step).report for step in range(NUM_STEPS)]
    return {
        "loss": [report.loss for report in reports],
        "grad_norm": [report.grad_norm for report in reports],
        "weights_moved": distance(values("weights"), first),
        "average_moved": distance(values("ema"), first),
    }


def main() -> None:
    """Record one framework."""
    framework, folder = sys.argv[1], Path(sys.argv[2])
    worker.choose(framework)
    curve_job.write_pictures(folder)
    work = curve_job.open_run(curve_job.read(folder, framework))
    stages = {name: of_stage(work, name) for name in curve_job.STAGES}
    (folder / f"{framework}.json").write_text(json.dumps(stages), encoding="utf-8")


if __name__ == "__main__":
    main()
