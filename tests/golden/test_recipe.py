"""The recipe's defaults are pinned: what a job, a model and a request are where nobody says otherwise.

    pytest tests/golden --regenerate

writes recipe.json anew. A changed default is a changed recipe: it shows here, and in the change that a person reads.
"""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from sampan import job
from sampan.models import presets
from sampan.models.config import PaintingConfig

GOLDEN = Path(__file__).parent / "recipe.json"


def plain(value: Any) -> Any:
    """Return a value as JSON has it."""
    return json.loads(json.dumps(value, default=str))


def recipe() -> dict[str, Any]:
    """Return every default by name."""
    settings = {
        name or "top": {
            setting.name: "(required)" if setting.required else plain(setting.default)
            for setting in job.settings(section).values()
        }
        for name, section in job.sections(job.Job)
    }
    models = {name: plain(dataclasses.asdict(presets.get(name))) for name in sorted(presets.PRESETS)}
    return {"job": settings, "models": models, "request": {"num_inference_steps": PaintingConfig().num_inference_steps}}


def test_defaults_are_those_that_are_written_down(pytestconfig: pytest.Config):
    if pytestconfig.getoption("--regenerate"):
        GOLDEN.write_text(json.dumps(recipe(), indent=1) + "\n", encoding="utf-8")
        pytest.skip(f"wrote {GOLDEN}; look at the difference before it is committed")
    assert recipe() == json.loads(GOLDEN.read_text(encoding="utf-8"))
