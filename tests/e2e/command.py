"""The command line, run in a process of its own as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def sampan(*arguments: str | Path, cwd: Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    """Run the command line and check how it ends; an error never shows a traceback."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, "-m", "sampan", *map(str, arguments)],
        cwd=cwd, env=environment, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert done.returncode == code, f"{arguments}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    return done


def draw_smoke_pictures(folder: Path) -> Path:
    """Write the pictures of jobs/smoke.toml, few and small, where it looks for them below a folder; return the folder."""
    (folder / "runs").mkdir()
    sampan("data", "emoji", "runs/smoke-pictures", "--count", "8", "--size", "64", "--edits", "1", cwd=folder)
    return folder
