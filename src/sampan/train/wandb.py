"""The log on Weights & Biases, for a job that asks for it. A run that is resumed goes on under the same id.

A step that is taken again after a kill is sent again; it has the same numbers, so that the curves lie on one another.
"""

from __future__ import annotations

import io
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb  # pyright: ignore[reportMissingImports]

from sampan import files
from sampan.errors import JobError

RECORD = "wandb.json"
_OFFLINE = ("offline", "dryrun")
_UNSENT = (*_OFFLINE, "disabled")


class WeightsAndBiases:
    """One run of the service.

    Args:
        out: The run folder; the id is kept in its wandb.json, local files in its wandb/.
        project: "project" or "entity/project".
        facts: The job's settings.

    Raises:
        JobError: Nobody is logged in, or the service does not answer.
    """

    def __init__(self, out: Path, project: str, facts: Mapping[str, Any]):
        mode = os.environ.get("WANDB_MODE", "online")
        what = f'`train.wandb = "{project}"` cannot be done'
        entity, _, name = project.rpartition("/")
        try:
            if mode not in _UNSENT and not wandb.login(prompt=False):
                raise JobError(
                    what,
                    "no API key of Weights & Biases was found",
                    "run `wandb login`, or set WANDB_MODE=offline and send it later with `wandb sync`",
                )
            self._run = wandb.init(
                entity=entity or None,
                project=name,
                id=_run_id(out, project),
                name=out.name,
                dir=out,
                config=dict(facts),
                resume=None if mode in _UNSENT else "allow",
                save_code=False,
                settings=wandb.Settings(silent=True, console="off"),
            )
        except (wandb.Error, OSError) as error:
            raise JobError(
                what,
                f"Weights & Biases says: {error}",
                "set WANDB_MODE=offline and send it later with `wandb sync`, or take train.wandb out of the job",
            ) from error
        self._known: set[str] = set()

    def scalars(self, stage: str, step: int, values: Mapping[str, float]) -> None:
        """Send a step's numbers as STAGE/NAME over STAGE/step."""
        self._send(stage, step, {f"{stage}/{name}": value for name, value in values.items()})

    def image(self, stage: str, step: int, name: str, png: bytes, width: int, height: int) -> None:
        """Send a picture as STAGE/NAME."""
        from PIL import Image

        with Image.open(io.BytesIO(png)) as image:
            self._send(stage, step, {f"{stage}/{name}": wandb.Image(image)})

    def truncate(self, stage: str, step: int) -> None:
        """Do nothing: the service keeps what it was sent, and is sent the same again."""

    def close(self, failed: bool) -> None:
        """Wait until everything is sent."""
        self._run.finish(exit_code=1 if failed else 0)

    def _send(self, stage: str, step: int, values: dict[str, Any]) -> None:
        if stage not in self._known:
            self._run.define_metric(f"{stage}/step", hidden=True)
            self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")
            self._known.add(stage)
        self._run.log({f"{stage}/step": step, **values})


def _run_id(out: Path, project: str) -> str:
    """Return the id that this run folder has in a project; a new one is written down before it is used."""
    record = out / RECORD
    if record.is_file():
        found = json.loads(record.read_text(encoding="utf-8"))
        if found.get("project") == project:
            return found["id"]
    run_id = secrets.token_hex(4)
    files.write_text(record, json.dumps({"project": project, "id": run_id}, indent=2))
    return run_id
