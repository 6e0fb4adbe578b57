"""Checkpoints: whole or never offered, with what is needed to go on and to say who made them."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sampan import __version__
from sampan.checkpoint import run, sealed
from sampan.checkpoint.provenance import StageSession, in_words, place_of, taken_by, versions_of
from sampan.errors import CheckpointError
from sampan.frameworks import io


def save(out: Path, step: int, *, done: bool = False, **more: Any) -> Path:
    groups = {"weights": {"a": torch.full((4,), float(step))}, "ema": {"a": torch.zeros(4)}, "extra": {}}
    return run.save(out, "vae", step, groups, {"done": done, "prefix": ""}, **more)


def names(folders: list[Path]) -> list[str]:
    return [folder.name for folder in folders]


def change(folder: Path, **values: Any) -> None:
    path = folder / "state.json"
    sealed.write(path, json.loads(path.read_text("utf-8")) | values)


def test_what_was_saved_comes_back(tmp_path: Path):
    folder = save(tmp_path, 3)
    state = run.read_state(folder)
    assert (state["format"], state["stage"], state["step"], state["done"]) == (run.FORMAT, "vae", 3, False)
    assert state["files"].keys() == {"weights.safetensors", "ema.safetensors"}
    assert state["bytes"] == {name: (folder / name).stat().st_size for name in state["files"]}
    groups = run.read_groups(folder, "cpu")
    assert groups["weights"]["a"].tolist() == [3.0] * 4
    assert groups["optimizer"] == {}
    assert names(sorted((tmp_path / "stages" / "vae").iterdir())) == ["step-00000003"]


def test_the_history_is_carried_over(tmp_path: Path):
    first = StageSession.after(None, framework="torch", device="cpu")
    state = run.read_state(save(tmp_path, 3, session=first))
    state = run.read_state(save(tmp_path, 5, session=first))
    second = StageSession.after(state, framework="torch", device="cuda:1")
    state = run.read_state(save(tmp_path, 9, done=True, session=second))
    assert [(h["from_step"], h["to_step"], h["device"], h["versions"]) for h in state["history"]] == [
        (0, 5, "cpu", state["versions"]),
        (5, 9, "cuda:1", state["versions"]),
    ]
    assert state["versions"]["sampan"] == __version__
    assert all(h["started"] <= h["ended"] and h["machine"]["cores"] for h in state["history"])
    assert (state["framework"], state["device"]) == ("torch", "cuda:1")
    assert state["versions"]["torch"] == torch.__version__
    assert {"sampan", "python", "numpy", "torch"} == state["versions"].keys()


def test_a_record_of_a_session_says_what_numbers_depend_on():
    session = StageSession.after(None, framework="torch", device="cpu", dtype="fp32", threads=2)
    (entry,) = session.history(7)
    place = place_of(entry)
    assert place == session.place()
    assert place == {
        "framework": "torch",
        "version": entry["versions"]["torch"],
        "device": "cpu",
        "dtype": "fp32",
        "threads": 2,
    }
    assert in_words(place) == f"torch {place['version']} on cpu in fp32"
    old = {"from_step": 0, "to_step": 7, "framework": "torch", "device": "cuda:1", "sampan": "0.0.9"}
    assert versions_of(old) == {"sampan": "0.0.9"}
    assert in_words(place_of(old)) == "torch on cuda:1"


def test_who_took_steps_is_found_in_the_history():
    history = [{"from_step": 0, "to_step": 5}, {"from_step": 5, "to_step": 9}, {"from_step": 9, "to_step": 12}]
    assert taken_by(history, 5, 9) == history[1:2]
    assert taken_by(history, 4, 9) == history[:2]
    assert taken_by(history, 6, 10) == history[1:]
    assert taken_by([], 0, 5) == []


def test_an_old_checkpoint_without_sizes_is_read(tmp_path: Path):
    folder = save(tmp_path, 3)
    state = json.loads((folder / "state.json").read_text("utf-8"))
    del state["format"], state["bytes"]
    (folder / "state.json").write_text(json.dumps(state), "utf-8")
    assert run.newest(tmp_path, "vae") == (folder, [])
    session = StageSession.after(run.read_state(folder), framework="torch", device="cpu")
    assert [entry["from_step"] for entry in session.history(4)] == [3]


DAMAGE = {
    "state cut off": (lambda f: (f / "state.json").write_text('{"stage": "v'), "its state.json cannot be read: "),
    "state gone": (lambda f: (f / "state.json").unlink(), "it has no state.json"),
    "state of something else": (lambda f: (f / "state.json").write_text("[]"), "its state.json is not that of a"),
    "file gone": (lambda f: (f / "ema.safetensors").unlink(), "`ema.safetensors` is missing"),
    "file cut off": (lambda f: (f / "weights.safetensors").write_bytes(b"12345"), "`weights.safetensors` has 5 bytes"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_not_whole_is_passed_over_and_said(damage: str, tmp_path: Path):
    before, newest = save(tmp_path, 3), save(tmp_path, 6)
    DAMAGE[damage][0](newest)
    found, notes = run.newest(tmp_path, "vae")
    assert found == before
    assert len(notes) == 1
    assert notes[0].startswith("vae: the checkpoint `step-00000006` is passed over: " + DAMAGE[damage][1])
    assert run.steps(tmp_path, "vae") == [before]
    assert run.final(tmp_path, "vae") is None


def test_without_a_whole_one_there_is_none(tmp_path: Path):
    assert run.newest(tmp_path, "vae") == (None, [])
    DAMAGE["file gone"][0](save(tmp_path, 3))
    found, notes = run.newest(tmp_path, "vae")
    assert (found, len(notes)) == (None, 1)


def test_a_later_format_is_refused_in_words(tmp_path: Path):
    save(tmp_path, 3)
    folder = save(tmp_path, 6)
    change(folder, format=99)
    with pytest.raises(CheckpointError) as caught:
        run.newest(tmp_path, "vae")
    assert str(caught.value) == (
        f"error: the checkpoint `{folder}` cannot be read\n"
        f"  because its state.json has format 99, and this version of sampan knows {run.FORMAT} and those before it\n\n"
        "hint: use the version of sampan that wrote it, or a later one"
    )


def test_changed_bytes_are_refused(tmp_path: Path):
    folder = save(tmp_path, 3)
    content = bytearray((folder / "weights.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "weights.safetensors").write_bytes(content)
    assert run.newest(tmp_path, "vae") == (folder, [])  # names and sizes say nothing
    with pytest.raises(CheckpointError, match=re.escape("the sha256 of `weights.safetensors` is not")):
        run.read_state(folder)


def test_the_last_ones_are_kept_and_leftovers_go(tmp_path: Path):
    for step in (1, 2, 3, 4):
        save(tmp_path, step)
    parent = tmp_path / "stages" / "vae"
    DAMAGE["file gone"][0](parent / "step-00000002")
    (parent / ".writing-00000005-77").mkdir()
    (parent / ".removing-step-00000001-77").mkdir()
    run.keep_last(tmp_path, "vae", 2)
    assert names(sorted(parent.iterdir())) == ["step-00000003", "step-00000004"]
    # a newer one that is not whole stays where a person can look at it
    DAMAGE["file gone"][0](parent / "step-00000004")
    run.keep_last(tmp_path, "vae", 1)
    assert names(sorted(parent.iterdir())) == ["step-00000003", "step-00000004"]


def test_a_step_that_is_saved_again_takes_the_place_of_the_first(tmp_path: Path):
    folder = save(tmp_path, 3)
    DAMAGE["file gone"][0](folder)
    assert save(tmp_path, 3, done=True) == folder
    assert run.final(tmp_path, "vae") == folder
    assert names(list((tmp_path / "stages" / "vae").iterdir())) == ["step-00000003"]


@pytest.mark.parametrize("failing", ["weights", "state"])
def test_a_full_disk_leaves_the_checkpoints_before(failing: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    before = save(tmp_path, 3)

    def full(*arguments: Any, **named: Any) -> None:
        raise OSError(28, "No space left on device")

    if failing == "weights":
        monkeypatch.setattr(io, "save_tensors", full)
    else:
        monkeypatch.setattr(run.files, "write_text", full)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, 6)
    assert caught.value.what.endswith("step-00000006` cannot be written")
    assert caught.value.because == ("[Errno 28] No space left on device",)
    assert list((tmp_path / "stages" / "vae").iterdir()) == [before]
    assert run.newest(tmp_path, "vae") == (before, [])
