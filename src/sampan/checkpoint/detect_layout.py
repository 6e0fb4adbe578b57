"""What a folder is when it is not simply a model folder: a run, another library's model, pickles, a file, nothing."""

from __future__ import annotations

from pathlib import Path

from sampan.checkpoint import builtin, hub, lora_names, weights
from sampan.checkpoint.json_files import read_json
from sampan.checkpoint.run_metadata import read_log, read_record
from sampan.errors import CheckpointError, did_you_mean
from sampan.models.presets import PRESETS

PIPELINE_CLASS = "GlmImagePipeline"
LAYOUT_HINT = "pass a folder in the layout of the GLM-Image release, or the folder of a finished `sampan train`"
_SHOWN = 5


def is_run(path: Path) -> bool:
    """Say whether a folder is one that `sampan train` writes into."""
    marks = ("run.json", "log.jsonl", "stages")
    return not (path / "model_index.json").exists() and any((path / mark).exists() for mark in marks)


def find_lora_run(path: Path) -> tuple[Path, Path] | None:
    """Return what a run that trained LoRA adapters goes with: the model it started from, and its `lora` folder.

    None for every other path, and for a run that also has a model of its own.
    """
    if not is_run(path) or (path / "model").is_dir() or not (path / "lora").is_dir():
        return None
    record = path / "run.json"
    start = read_record(path).get("model", {}).get("start") if record.is_file() else None
    return (Path(start), path / "lora") if start else None


def locate(path: Path) -> Path:
    """Return the folder that is there for a path: itself, a shipped model's, or that of a name of the Hub in its cache."""
    found = builtin.find(path)
    return hub.find(path) if found == path else found


def resolve(path: Path) -> Path:
    """Return the model folder that a path names: itself, `model/` of a finished training, a shipped or a cached model's.

    Raises:
        CheckpointError: There is no such folder, it is a file, the training is not finished, or it trained additions.
    """
    path = locate(path)
    if not path.exists():
        if str(path) in PRESETS:
            raise CheckpointError(
                f"there are no weights for `{path}` in this installation",
                "this version ships those of `nano` alone; a model of its size trains in minutes",
                "run `make scratch`, or `sampan init` and `sampan train`, and pass --model RUN",
            )
        if name := hub.parse(path):
            raise hub.not_here(name)
        near = did_you_mean(str(path), builtin.builtin_models()) or ""
        raise CheckpointError(f"there is no model folder `{path}`", (), near if near.startswith("did") else LAYOUT_HINT)
    if not path.is_dir():
        if weights.pickles([path]):
            raise weights.pickle_refused(path.parent, [path.name])
        if _is_lora(path):
            raise _adapter(path, "it is a LoRA, not a whole model")
        raise CheckpointError(f"`{path}` is a file, not a model folder", (), LAYOUT_HINT)
    if not is_run(path):
        return path
    if (path / "model").is_dir():
        return path / "model"
    if found := find_lora_run(path):
        raise CheckpointError(
            f"`{path}` holds low-rank additions, not a model",
            f"it is a training of additions to `{found[0]}`",
            f"`sampan checkpoint merge {path} DIR` makes a model of both; `sampan generate --model {path}` paints with both",
        )
    stages = read_log(path / "log.jsonl")
    last = list(stages)[-1] if stages else None
    raise CheckpointError(
        f"the training in `{path}` is not finished",
        f"it has no `model` folder; its log ends in stage `{last}`, step {stages[last]['last_step']}"
        if last
        else "it has no `model` folder, and no step in its log",
        f"sampan train {path / 'job.toml'} --resume",
    )


def check_class(path: Path) -> None:
    """Refuse a folder that another pipeline's class reads.

    Raises:
        CheckpointError: model_index.json names another class than the release.
    """
    index = path / "model_index.json"
    if not index.is_file():
        return
    name = read_json(index).get("_class_name")
    if name != PIPELINE_CLASS:
        raise CheckpointError(
            f"`{path}` is another kind of model",
            f"its model_index.json is for a pipeline of class {name}; sampan runs {PIPELINE_CLASS}",
            LAYOUT_HINT,
        )


def explain(path: Path, missing: list[str]) -> CheckpointError:
    """Return the error for a folder that lacks config files of the layout: what it seems to be instead.

    Args:
        missing: Names of the config files that are not there.
    """
    there = sorted(path.iterdir())
    known = {name.partition("/")[0] for name in missing} & {entry.name for entry in there if entry.is_dir()}
    if (path / "model_index.json").is_file() or known:
        more = f" and {len(missing) - _SHOWN} more" if len(missing) > _SHOWN else ""
        return CheckpointError(
            f"the model folder `{path}` is not whole",
            f"{', '.join(f'`{name}`' for name in missing[:_SHOWN])}{more} "
            f"{'is' if len(missing) == 1 else 'are'} missing",
            f"`{hub.HubName(*of_hub.split('/')).command}` fetches the rest"
            if (of_hub := hub.name_of(path))
            else "download or copy the folder again; `sampan checkpoint inspect` lists what is there",
        )
    if not there:
        return CheckpointError(f"`{path}` is not a model folder", "it is empty", LAYOUT_HINT)
    if (path / "snapshots").is_dir():
        found = sorted(entry for entry in (path / "snapshots").iterdir() if entry.is_dir())
        name = hub.name_of(path / "snapshots" / "any")
        return CheckpointError(
            f"`{path}` is not a model folder",
            "it is a download cache, which keeps the folder itself below `snapshots`",
            f"pass `{name or found[-1]}`" if found else LAYOUT_HINT,
        )
    if (path / "adapter_config.json").is_file():
        return _adapter(path, "it holds an adapter (adapter_config.json), not a whole model")
    if any(_is_lora(file) for file in (*path.glob("*.safetensors"), *path.glob("*/*.safetensors"))):
        return _adapter(path, "it holds a LoRA, not a whole model")
    if (path / "config.json").is_file():
        return _single_model(path)
    if found := weights.pickles(there):
        return weights.pickle_refused(path, found)
    names = ", ".join(f"`{entry.name}`" for entry in there[:_SHOWN])
    more = f" and {len(there) - _SHOWN} more" if len(there) > _SHOWN else ""
    return CheckpointError(
        f"`{path}` is not a model folder", f"it has no model_index.json; it holds {names}{more}", LAYOUT_HINT
    )


def _single_model(path: Path) -> CheckpointError:
    """Return the error for a folder of one part or of one model of another library."""
    config = read_json(path / "config.json")
    classes = config.get("architectures") or [
        config.get("_class_name") or config.get("model_type") or "an unknown class"
    ]
    whole = (path.parent / "model_index.json").is_file()
    return CheckpointError(
        f"`{path}` is one model, not the whole of it",
        f"its config.json is for {classes[0]}; GLM-Image has four models side by side, listed in a model_index.json",
        f"pass the folder above it, `{path.parent}`" if whole else LAYOUT_HINT,
    )


def _is_lora(file: Path) -> bool:
    if file.suffix != ".safetensors":
        return False
    try:
        return lora_names.is_lora(weights.read_header(file))
    except CheckpointError:  # what cannot be read is not known to be one
        return False


def _adapter(path: Path, because: str) -> CheckpointError:
    return CheckpointError(
        f"`{path}` is not a model folder", because, f"pass the folder of the model that it adapts, and `--lora {path}`"
    )
