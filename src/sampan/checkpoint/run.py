"""The run folder of a training: complete checkpoints, found again after any interruption.

    OUT/run.json                     what must stay the same from the first step to the last
    OUT/job.toml                     the job as it was given
    OUT/config.json                  the model's shape
    OUT/processor/                   the learned prompt tokenizer
    OUT/log.jsonl                    one line a step
    OUT/stages/STAGE/step-00000200/  weights, ema, optimizer, extra (safetensors) and state.json
    OUT/model/                       the finished model, in the released layout

A checkpoint is written beside under a temporary name, synced and renamed, so that a folder named step-N is complete. Its
state.json has the hash of every other file and a checksum of its own content (`sampan.checkpoint.sealed`). One that lost a
file afterwards, has another one, or in which a bit differs is never gone on from.

A state.json of before there were checksums (format 1 and 2) is taken where its stage and step are those of its folder, and
every file beside it is listed with the hash that it has; what else it says is taken as it stands, and that is said.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from sampan import documents, files
from sampan.checkpoint import hash_cache, sealed
from sampan.checkpoint.provenance import StageSession, versions
from sampan.checkpoint.weights import file_digest
from sampan.errors import CheckpointError
from sampan.frameworks.ranges import HostRange, begin_file, write_ranges

FORMAT = 3  # of state.json: 1 had no sizes, no versions and no history, 2 no checksum
_SESSION = {"from_step", "to_step", "framework"}
GROUPS = ("weights", "ema", "optimizer", "extra")
_STATE = "state.json"
_METADATA = {"format": "pt"}
_REMOVE = "remove this folder; the run goes on from the checkpoint before it"


class Together(Protocol):
    """The ranks that write one checkpoint."""

    rank: int
    ranks: int

    def gathered(self, value: Any) -> list[Any]:
        """Return every rank's plain value, in order."""
        ...


class _Alone:
    rank, ranks = 0, 1

    def gathered(self, value: Any) -> list[Any]:
        return [value]


def save(
    run: Path,
    stage: str,
    step: int,
    groups: Mapping[str, Mapping[str, Any] | Sequence[HostRange]],
    state: Mapping[str, Any],
    session: StageSession | None = None,
    together: Together | None = None,
) -> Path:
    """Write one checkpoint and return its folder.

    Ranks write side by side, each its own bytes of every file; the folder is renamed into place when all have synced theirs
    and every file was read back for its hash. Every rank calls this, and raises where one fails.

    Args:
        groups: Some of GROUPS to tensors by name, or to what this rank holds of them.
        state: What else continues, written into state.json as it is. A training gives `done`, `prefix`, `seed`,
            `rows_drawn` (the place in the data: rows of the stage's order that its steps have drawn), `schedule` (`lr`,
            `min_lr_ratio`, `warmup_steps`, `num_steps` as they were) and `job` (the job's text).
        session: Whose work it is; adds `framework`, `device`, `versions` and `history`.
        together: The ranks; None where this process is alone.

    Raises:
        CheckpointError: It cannot be written; the checkpoints before it stay.
    """
    from sampan.frameworks import io  # here: a run can be looked into where no framework is

    together = together or _Alone()
    parent = run / "stages" / stage
    final = parent / f"step-{step:08d}"
    beside = parent / f".writing-{step:08d}-{together.gathered(os.getpid())[0]}"
    record: dict[str, Any] = {"format": FORMAT, "stage": stage, "step": step, "files": {}, "bytes": {}, **state}
    if session is not None:
        record |= {"framework": session.framework, "device": session.device, "versions": versions(session.framework)}
        record["history"] = session.history(step)
    ready = {
        beside / f"{group}.safetensors": io.host_ranges(given, copied=False) if isinstance(given, Mapping) else given
        for group, given in groups.items()
        if given
    }

    def begin() -> None:
        if together.rank == 0:
            parent.mkdir(parents=True, exist_ok=True)
            shutil.rmtree(beside, ignore_errors=True)
            beside.mkdir()
            for path, ranges in ready.items():
                begin_file(path, ranges, _METADATA)

    def write() -> None:
        for path, ranges in ready.items():
            write_ranges(path, ranges, _METADATA)

    def hashes() -> dict[str, tuple[str, int]]:
        own = list(ready)[together.rank :: together.ranks]  # each file is read by one rank
        return {path.name: (file_digest(path), path.stat().st_size) for path in own}

    def end() -> None:
        if together.rank == 0:
            sealed.write(beside / _STATE, record)
            files.sync_folder(beside)
            if final.exists():
                _remove(final)
            os.replace(beside, final)
            files.sync_folder(parent)

    try:
        _all(together, final, begin)
        _all(together, final, write)
        found = {name: facts for own in _all(together, final, hashes) for name, facts in own.items()}
        for path in ready:
            record["files"][path.name], record["bytes"][path.name] = found[path.name]
        _all(together, final, end)
    finally:
        if together.rank == 0:
            shutil.rmtree(beside, ignore_errors=True)  # after a failure, what it took
    return final


def _all(together: Together, final: Path, work: Callable[[], Any]) -> list[Any]:
    """Do one part of a save, and return what every rank's came to; all fail where one does."""
    result, problem, cause = None, None, None
    try:
        result = work()
    except (OSError, CheckpointError) as error:  # the latter of a file of tensors
        problem = ", ".join(error.because) if isinstance(error, CheckpointError) else str(error)
        cause = error
    from_all = together.gathered([result, problem])
    for rank, (_, failed) in enumerate(from_all):
        if failed is not None:
            raise CheckpointError(
                f"the checkpoint `{final}` cannot be written",
                failed if together.ranks == 1 else f"rank {rank} of {together.ranks}: {failed}",
                "the checkpoints before it stay; go on with --resume",
            ) from cause
    return [result for result, _ in from_all]


def steps(run: Path, stage: str) -> list[Path]:
    """Return the complete checkpoints of a stage by names, sizes and state.json, oldest first; the files are not read."""
    return [folder for folder in _folders(run, stage) if defect(folder) is None]


def step_folder(path: Path) -> Path | None:
    """Return the folder of a checkpoint that a path `RUN/stages/STAGE/step-N` names, with or without zeros before N.

    None for every other path, and where there is none of that number.
    """
    number = re.fullmatch(r"step-(\d{1,12})", path.name)
    if number is None or path.parent.parent.name != "stages":
        return None
    folder = path.parent / f"step-{int(number[1]):08d}"
    return folder if folder.is_dir() else None


def find_step(run: Path, stage: str, step: int) -> Path:
    """Return the checkpoint of a stage after a step.

    Raises:
        CheckpointError: There is none of that number, or it is not whole; it says which there are.
    """
    there = {int(folder.name.removeprefix("step-")): folder for folder in _folders(run, stage)}
    wrong = defect(there[step]) if step in there else "it is not there"
    if wrong is None:
        return there[step]
    whole = ", ".join(str(number) for number, folder in there.items() if defect(folder) is None)
    raise CheckpointError(
        f"the run in `{run}` has no checkpoint of `{stage}` after step {step}",
        wrong,
        f"there are those after steps {whole}; train.keep_last keeps more" if whole else "the stage was not saved yet",
    )


def newest(run: Path, stage: str) -> tuple[Path | None, list[str]]:
    """Return the newest checkpoint of a stage whose files are those that were written, or None, and notes in words.

    A note says which newer ones are passed over, and of the one that is taken what nothing vouches for.

    Raises:
        CheckpointError: The newest is in a format of a later sampan.
    """
    notes = []
    for folder in reversed(_folders(run, stage)):
        wrong = defect(folder) or _changed_file(folder)
        if wrong is None:
            state_of(folder)
            if not sealed.is_sealed(_values(folder)):
                notes.append(
                    f"{stage}: the checkpoint `{folder.name}` was written before state.json had a checksum: its files have "
                    "the hashes in it and its step is that of its folder; the rest of it is taken as it stands"
                )
            return folder, notes
        notes.append(f"{stage}: the checkpoint `{folder.name}` is passed over: {wrong}")
    return None, notes


def defect(folder: Path) -> str | None:
    """Return in words why a checkpoint is not whole, or None. Looks at state.json, names and sizes, not into the files."""
    try:
        state = _values(folder)
    except FileNotFoundError:
        return f"it has no {_STATE}"
    except (OSError, ValueError) as error:
        return f"its {_STATE} cannot be read: {error}"
    if not isinstance(state, dict) or not isinstance(state.get("files"), dict) or "step" not in state:
        return f"its {_STATE} is not that of a checkpoint"
    version = state.get("format", 1)
    if wrong := sealed.defect(state, required=version not in (1, 2)):
        return f"its {_STATE} is not the one that was written: {wrong}"
    if _is_later(version):
        return None  # what is whole in it is for a later sampan to say
    if (state.get("stage"), _step_name(state["step"])) != (folder.parent.name, folder.name):
        return f"its {_STATE} is of stage {state.get('stage')}, {_step_name(state['step'])}"
    if not _is_stated(state):
        return f"its {_STATE} is not that of a checkpoint"
    sizes = state.get("bytes")
    sizes = sizes if isinstance(sizes, dict) else {}
    for name in state["files"]:
        if name != Path(name).name:
            return f"its {_STATE} names `{documents.shown(name)}`, which is not in it"
        path = folder / name
        if not path.is_file():
            return f"`{name}` is missing"
        if name in sizes and path.stat().st_size != sizes[name]:
            return f"`{name}` has {path.stat().st_size} bytes and was written with {sizes[name]}"
    names = (path.name for path in folder.iterdir() if not path.name.startswith("."))  # what a desktop leaves
    if strange := sorted({*names} - {_STATE, *state["files"]}):
        return f"`{strange[0]}` was not written with it"
    return None if state["files"] else f"its {_STATE} lists no files"


def skipped_in_a_row(state: Mapping[str, Any]) -> int:
    """Return how many steps up to a checkpoint changed nothing, one after another, because they were not finite."""
    number = state.get("skipped_in_a_row", 0)
    return number if type(number) is int and number > 0 else 0


def keep_last(run: Path, stage: str, count: int) -> None:
    """Remove all but the newest whole checkpoints of a stage, and what interrupted writing and removing left.

    One that was saved while steps were skipped does not count among `count`, and is kept beside them only while it is the
    newest: the last ones from before the skipping began stay.
    """
    whole = steps(run, stage)
    kept = [folder for folder in whole if not skipped_in_a_row(state_of(folder))][-count:]
    kept = sorted({*kept, *whole[-1:]})
    if kept:
        for folder in _folders(run, stage):
            if folder < kept[-1] and folder not in kept:
                _remove(folder)
    for pattern in (".writing-*", ".removing-*"):
        for folder in (run / "stages" / stage).glob(pattern):
            shutil.rmtree(folder, ignore_errors=True)


def state_of(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json, held against its own checksum, without a look at the other files.

    Raises:
        CheckpointError: It is not what was written, or in a format of a later sampan.
    """
    try:
        state = _values(folder)
        wrong = sealed.defect(state, required=state.get("format", 1) not in (1, 2))
    except (OSError, ValueError, AttributeError) as error:
        state, wrong = {}, f"it cannot be read: {error}"
    if wrong:
        raise CheckpointError(f"the {_STATE} of `{folder}` is not the one that was written", wrong, _REMOVE)
    version = state.get("format", 1)
    if _is_later(version):
        raise CheckpointError(
            f"the checkpoint `{folder}` cannot be read",
            f"its {_STATE} has format {version}, and this version of sampan knows {FORMAT} and those before it",
            "use the version of sampan that wrote it, or a later one",
        )
    return state


def read_state(folder: Path) -> dict[str, Any]:
    """Return a checkpoint's state.json, its files checked against their hashes.

    Raises:
        CheckpointError: A file is missing, is one too many or is not the one that was written, naming the file; or its format
            is unknown.
    """
    state = state_of(folder)
    if wrong := defect(folder):
        raise CheckpointError(f"the checkpoint `{folder}` is not whole", wrong, _REMOVE)
    if wrong := _changed_file(folder):
        raise CheckpointError(f"the checkpoint `{folder}` is not the one that was written", wrong, _REMOVE)
    return state


def read_groups(folder: Path, device: str, *, lazily: bool = False) -> dict[str, dict[str, Any]]:
    """Return the tensors of a checkpoint by group, on a device.

    Args:
        lazily: Return them unread, for a rank that holds some rows of them.
    """
    from sampan.frameworks import io

    found: dict[str, dict[str, Any]] = {}
    for group in GROUPS:
        path = folder / f"{group}.safetensors"
        if not path.is_file():
            found[group] = {}
        elif lazily and group != "extra":
            found[group] = dict(io.read_lazily(path))
        else:
            found[group] = io.read_tensors(path, device)
    return found


def final(run: Path, stage: str) -> Path | None:
    """Return the checkpoint at which a stage was finished, or None; one in which a file was changed is none."""
    folders = steps(run, stage)
    if not folders or state_of(folders[-1]).get("done") is not True or _changed_file(folders[-1]):
        return None
    return folders[-1]


def damage(run: Path, stage: str) -> str | None:
    """Return in words what is wrong with the last checkpoint of a stage, or None; it may have been its end."""
    folders = _folders(run, stage)
    wrong = (defect(folders[-1]) or _changed_file(folders[-1])) if folders else None
    return f"`{folders[-1]}`: {wrong}" if wrong else None


def _values(folder: Path) -> Any:
    return documents.parse_json(documents.read_text(folder / _STATE))


def _is_stated(state: Mapping[str, Any]) -> bool:
    """Say whether a state.json has what every one has, and its history, where there is one, says who took which steps."""
    sessions = state.get("history", [])
    return (
        isinstance(state.get("files"), dict)
        and type(state.get("step")) is int
        and isinstance(sessions, list)
        and all(isinstance(entry, dict) and entry.keys() >= _SESSION for entry in sessions)
    )


def _is_later(version: Any) -> bool:
    return version not in range(1, FORMAT + 1)


def _step_name(step: Any) -> str:
    return f"step-{step:08d}" if isinstance(step, int) else f"step {documents.shown(step)}"


def _changed_file(folder: Path) -> str | None:
    """Return in words which file of a checkpoint has another hash than its state.json says, or None; reads them once."""
    for name, sha256 in state_of(folder)["files"].items():
        if hash_cache.digest(folder / name) != sha256:
            return f"the sha256 of `{name}` is not the one in its {_STATE}"
    return None


def _folders(run: Path, stage: str) -> list[Path]:
    return sorted(path for path in (run / "stages" / stage).glob("step-*") if path.is_dir())


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that a half-removed one is never found under its name."""
    aside = folder.with_name(f".removing-{folder.name}-{os.getpid()}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(folder, aside)
    shutil.rmtree(aside, ignore_errors=True)
