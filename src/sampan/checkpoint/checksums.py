"""Whether a run's files are those that were written: checkpoints, the model that came out, what frozen parts made.

Hashes are kept in run.json, state.json, sampan.json, the headers of LoRA files and the cache's manifests. All but the last
have a checksum of their own content; the log has none: that what it says is true is for a replay to show.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sampan.checkpoint import folder as layout
from sampan.checkpoint import lora, lora_contents, own_file, run, sealed, weights
from sampan.checkpoint.json_files import read_json
from sampan.checkpoint.run_metadata import check_record
from sampan.errors import CheckpointError
from sampan.models.build import PARTS


def check(out: Path, cache: Path) -> dict[str, Any]:
    """Hash every file of a run and return how many of what there are; the first that differs is an error.

    Args:
        out: The run folder.
        cache: Its cache, which need not be there.

    Returns:
        `checkpoints` and their `files` and `bytes`; `model`: files of OUT/model, or None; `cache`: shards; `not_checked`:
        in words what is there and has no hash.

    Raises:
        CheckpointError: A file is missing, was changed, or does not belong there; it is named.
    """
    facts: dict[str, Any] = {"checkpoints": 0, "files": 0, "bytes": 0, "model": None, "cache": 0}
    facts["not_checked"] = check_record(out)
    for folder in sorted(path for path in (out / "stages").glob("*/step-*") if path.is_dir()):
        state = _check_checkpoint(folder, facts["not_checked"])
        facts["checkpoints"] += 1
        facts["files"] += len(state["files"])
        facts["bytes"] += sum((folder / name).stat().st_size for name in state["files"])
    if not facts["checkpoints"]:
        raise CheckpointError(f"the run in `{out}` has no checkpoint", (), "go on with `sampan train JOB --resume`")
    facts["cache"] = _check_cache(cache)
    if (out / "model").is_dir():
        facts["model"] = _check_model(out, facts["not_checked"])
    if (out / "lora").is_dir():
        facts["not_checked"] += [
            f"lora/{file.relative_to(out / 'lora').as_posix()}: it was written before it had hashes"
            for file in lora.find_files(out / "lora")
            if not lora_contents.check(file)
        ]
    return facts


def _check_checkpoint(folder: Path, not_checked: list[str]) -> dict[str, Any]:
    state = run.read_state(folder)
    if strange := sorted(path.name for path in folder.iterdir() if path.name not in {"state.json", *state["files"]}):
        raise CheckpointError(
            f"the checkpoint `{folder}` is not the one that was written", f"`{strange[0]}` was not written with it"
        )
    if not sealed.is_sealed(state):
        not_checked.append(f"{folder.parent.name}/{folder.name}/state.json: it was written before it had a checksum")
    return state


def _check_cache(cache: Path) -> int:
    """Check the shards that are there; one that is missing is made again by whoever needs it."""
    count = 0
    for manifest in sorted(cache.glob("*/manifest.json")):
        for shard in read_json(manifest).get("shards", []):
            path = manifest.parent / shard["file"]
            if path.is_file():
                count += 1
                if weights.file_digest(path) != shard["sha256"]:
                    raise CheckpointError(
                        f"`{path}` is not the file that was written",
                        f"its sha256 is not the one in `{manifest}`",
                        "remove it; what it held is made again",
                    )
    return count


def _check_model(out: Path, not_checked: list[str]) -> int:
    """Check a finished model's files, and that its weights are the averaged ones of the stages' last checkpoints."""
    model = out / "model"
    recorded = own_file.read(model).get("sha256")
    if not recorded:
        not_checked.append(f"model/: it has no {own_file.OWN_FILE} with hashes")
        return 0
    if wrong := own_file.differences(model, is_remembered=False):
        raise CheckpointError(
            f"the model in `{model}` is not the one that was written",
            wrong,
            f"remove `{model}`; `sampan train JOB --resume` writes it again",
        )
    for part in PARTS:
        last = run.final(out, part)
        if last is None:
            not_checked.append(f"model/: its {part} was not trained by this run")
            continue
        digests: dict[Path, dict[str, str]] = {}
        prefix, averaged = run.state_of(last)["prefix"], weights.tensor_digests(last / "ema.safetensors")
        for name, stored in layout.stored_tensors(model, part).items():
            inside = digests.setdefault(stored.file, weights.tensor_digests(stored.file))
            if averaged.get(prefix + name) != inside[name]:
                raise CheckpointError(
                    f"the model in `{model}` is not what the run came to",
                    f"`{name}` of the {part} differs from the one in `{last / 'ema.safetensors'}`",
                    f"remove `{model}`; `sampan train JOB --resume` writes it again",
                )
    return len(recorded)
