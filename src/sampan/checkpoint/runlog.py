"""The log of a training, read back: which stages have run, how far, with which loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def read_log(path: Path) -> dict[str, dict[str, Any]]:
    """Return, for each stage in the order they first appear in a `log.jsonl`, its last line's step and loss.

    A last line that was cut off by an interruption is left out, and so are lines that are no step. A loss that was not
    finite is None. Without a file there are no stages.
    """
    stages: dict[str, dict[str, Any]] = {}
    if not path.is_file():
        return stages
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue  # the line being written when the machine went off
            if not isinstance(record, dict) or not {"stage", "step", "loss"} <= record.keys():
                continue  # a measurement at a stage's end has no loss
            known = stages.setdefault(str(record["stage"]), {"first_loss": record["loss"]})
            known.update(last_step=record["step"], last_loss=record["loss"])
    return stages
