"""From a run folder to a model in the released layout, and the model that a run starts from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from sampan import __version__
from sampan.checkpoint import detect_layout, run, sealed
from sampan.checkpoint.folder import ModelFolder, open_folder
from sampan.checkpoint.run_metadata import check_record, read_config_values, read_record
from sampan.checkpoint.write import write_folder
from sampan.errors import CheckpointError
from sampan.frameworks import io
from sampan.models.build import PARTS
from sampan.models.config import ModelConfig

_SECTIONS: dict[str, Any] = get_type_hints(ModelConfig)  # the name and the class of each section


def write_config(out: Path, config: ModelConfig) -> None:
    """Write the shape of a run's model to OUT/config.json, in the words of the released config files.

    Raises:
        CheckpointError: It cannot be written.
    """
    try:
        sealed.write(out / "config.json", {name: getattr(config, name).to_json() for name in _SECTIONS})
    except OSError as error:
        raise CheckpointError(
            f"`{out / 'config.json'}` cannot be written", str(error), "make room, and go on with --resume"
        ) from error


def read_config(out: Path) -> ModelConfig:
    """Return what `write_config` wrote.

    Raises:
        CheckpointError: It is missing or cannot be read, is not what was written, or is no config.
    """
    path = out / "config.json"
    found = read_config_values(out)
    for name in ("painting", "prompt"):
        found.setdefault(name, {})  # a run of before it was stated
    if strange := [name for name in _SECTIONS if not isinstance(found.get(name), dict)]:
        raise CheckpointError(f"`{path}` cannot be used", f"it has no table `{strange[0]}`")
    try:
        return ModelConfig(**{name: kind.from_json(found[name]) for name, kind in _SECTIONS.items()})
    except CheckpointError as error:
        raise CheckpointError(error.what, (*error.because, f"the file is `{path}`"), error.hint) from error


def part_tensors(
    out: Path, name: str, start: ModelFolder | None, device: str = "cpu", folder: Path | None = None
) -> dict[str, Any]:
    """Return the finished weights of a part under released names: the run's averaged ones, or those it started from.

    Args:
        folder: A checkpoint of the part to take, finished or not; None takes that of its end.

    Raises:
        CheckpointError: The part is not finished, or its last checkpoint is not what was written.
    """
    folder = folder or _final(out, name)
    if folder is None and start is not None:
        return start.tensors(name, device)
    if folder is None:
        raise CheckpointError(
            f"the run in `{out}` has no finished `{name}`",
            "the stage was not trained to its end",
            "go on with `sampan train JOB --resume`",
        )
    prefix = run.read_state(folder)["prefix"]
    return select_part(io.read_tensors(folder / "ema.safetensors", device), prefix)


def select_part(tensors: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Return a part's own tensors under released names, without the heads that trained it.

    Args:
        prefix: Where the part stands in the module that was trained; "" when it is the module.
    """
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def part_hash(out: Path, name: str, start: ModelFolder | None, folder: Path | None = None) -> str:
    """Return a hash that names the finished weights of a part, or those of a checkpoint of it; errors as `part_tensors`."""
    folder = folder or _final(out, name)
    if folder is None:
        assert start is not None, "part_tensors refuses this first"
        return f"{name}:{start.hash}"
    return f"{name}:{run.state_of(folder)['files']['ema.safetensors']}"


def _final(out: Path, name: str) -> Path | None:
    """Return the checkpoint at which a stage was finished, or None where it was not."""
    folder = run.final(out, name)
    if folder is None and (wrong := run.damage(out, name)):
        # it may have been finished: what the run started from would stand in for what it came to
        raise CheckpointError(
            f"the run in `{out}` has no whole `{name}`",
            wrong,
            "go on with `sampan train JOB --resume`, which takes the checkpoint before it",
        )
    return folder


def export(out: Path, directory: Path, dtype: str | None, steps: Mapping[str, int] | None = None) -> Path:
    """Write a run's finished model to a new folder in the released layout, and return that folder.

    Args:
        out: The run folder.
        dtype: "fp32" or "bf16" to convert, None to keep what was trained.
        steps: By stage, the step whose checkpoint is taken instead of the stage's end; the stage need not be finished.

    Raises:
        CheckpointError: It is no run, a stage is not finished, a checkpoint is not there, or the folder exists and is not
            empty.
    """
    facts = read_record(out)
    check_record(out)
    if detect_layout.find_lora_run(out) or facts.get("method") == "lora":
        chosen = [str(run.find_step(out, name, step)) for name, step in (steps or {}).items()]
        # of a training that goes on there is no `lora` folder yet, and of a step there never is
        lora = "".join(f" --lora {path}" for path in chosen) or (
            "" if (out / "lora").is_dir() else " --lora STEP-FOLDER"
        )
        model = facts["model"].get("start") if lora else out
        raise CheckpointError(
            f"the run in `{out}` has no model of its own",
            "it trained low-rank additions to another model",
            f"`sampan checkpoint merge {model} {directory}{lora}` writes that model with the additions in it",
        )
    model_start = facts["model"].get("start")
    start = open_folder(Path(model_start)) if model_start else None
    if start:
        start.check_written()  # what is written gets new hashes
    config = read_config(out)
    folders = {name: run.find_step(out, name, step) for name, step in (steps or {}).items()}
    for name in PARTS:
        if name not in folders and (final := _final(out, name)):
            folders[name] = final
    return write_folder(
        directory,
        config,
        # what was not trained goes from file to file and is never held whole
        {
            name: start.unread(name)
            if start and name not in folders
            else part_tensors(out, name, start, folder=folders.get(name))
            for name in PARTS
        },
        out / "processor",
        dtype=dtype,
        # what other weights of these two know was learned here, and nobody has said it
        knows=None if start is None or {"ar", "decoder"} & folders.keys() else start.knows,
        provenance={
            "sampan": __version__,
            "seed": facts["seed"],
            "framework": facts["framework"],
            "stages": {
                name: {
                    "steps": run.state_of(folders[name])["step"],
                    "ema": part_hash(out, name, start, folders[name]),
                    # a run can change its framework on the way
                    "frameworks": list(
                        dict.fromkeys(e["framework"] for e in run.state_of(folders[name]).get("history", ()))
                    ),
                }
                for name in PARTS
                if name in folders
            },
        },
    )
