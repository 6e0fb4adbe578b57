"""Checkpoints: whole or never offered, with what is needed to go on and to say who made them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampan import __version__
from sampan.checkpoint import run, sealed
from sampan.checkpoint.provenance import StageSession, in_words, place_of, taken_by, versions_of
from sampan.checkpoint.weights import file_digest
from sampan.errors import CheckpointError


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


def make_old(folder: Path, **values: Any) -> None:
    """Make a state.json what the first format had, with other values on top."""
    state = json.loads((folder / "state.json").read_text("utf-8"))
    for key in ("format", "bytes", "checksum"):
        del state[key]
    (folder / "state.json").write_text(json.dumps(state | values), "utf-8")


def test_an_old_checkpoint_without_sizes_and_checksum_is_read_and_said(tmp_path: Path):
    folder = save(tmp_path, 3)
    make_old(folder)
    found, notes = run.newest(tmp_path, "vae")
    assert found == folder
    (note,) = notes
    assert note == (
        "vae: the checkpoint `step-00000003` was written before state.json had a checksum: its files have the hashes in it "
        "and its step is that of its folder; the rest of it is taken as it stands"
    )
    session = StageSession.after(run.read_state(folder), framework="torch", device="cpu")
    assert [entry["from_step"] for entry in session.history(4)] == [3]


OLD_DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another step": (lambda f: make_old(f, step=7), "its state.json is of stage vae, step-00000007"),
    "another stage": (lambda f: make_old(f, stage="ar"), "its state.json is of stage ar, step-00000006"),
    "a step that is none": (lambda f: make_old(f, step="six"), "its state.json is of stage vae, step 'six'"),
    "no files listed": (lambda f: make_old(f, files={}), "`ema.safetensors` was not written with it"),
    "no files at all": (
        lambda f: [make_old(f, files={}), *(path.unlink() for path in f.glob("*.safetensors"))],
        "its state.json lists no files",
    ),
    "one file not listed": (
        lambda f: make_old(f, files={"ema.safetensors": file_digest(f / "ema.safetensors")}),
        "`weights.safetensors` was not written with it",
    ),
    "another hash": (
        lambda f: make_old(f, files={path.name: "0" * 64 for path in f.glob("*.safetensors")}),
        "the sha256 of `",
    ),
}


@pytest.mark.parametrize("damage", OLD_DAMAGE)
def test_an_old_checkpoint_is_taken_only_where_its_files_vouch_for_it(damage: str, tmp_path: Path):
    before, newest = save(tmp_path, 3), save(tmp_path, 6)
    do, said = OLD_DAMAGE[damage]
    do(newest)
    found, notes = run.newest(tmp_path, "vae")
    assert found == before
    assert len(notes) == 1
    assert notes[0].startswith("vae: the checkpoint `step-00000006` is passed over: " + said)


DAMAGE = {
    "state cut off": (lambda f: (f / "state.json").write_text('{"stage": "v'), "its state.json cannot be read: "),
    "state gone": (lambda f: (f / "state.json").unlink(), "it has no state.json"),
    "state of something else": (lambda f: (f / "state.json").write_text("[]"), "its state.json is not that of a"),
    "another step": (lambda f: change(f, step=7), "its state.json is of stage vae, step-00000007"),
    "checksum of another content": (
        lambda f: (f / "state.json").write_text(
            (f / "state.json").read_text().replace('"prefix": ""', '"prefix": "x"')
        ),
        "its state.json is not the one that was written: its content is not that of its checksum: it was changed since",
    ),
    "no checksum": (
        lambda f: (f / "state.json").write_text((f / "state.json").read_text().replace('"checksum"', '"checksul"')),
        "its state.json is not the one that was written: it has no checksum of its content, and was written with one",
    ),
    "a file more": (lambda f: (f / "extra.safetensors").touch(), "`extra.safetensors` was not written with it"),
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
    flip(folder / "weights.safetensors", -1, 0)
    assert run.steps(tmp_path, "vae") == [folder]  # names and sizes say nothing
    why = "the sha256 of `weights.safetensors` is not the one in its state.json"
    assert run.newest(tmp_path, "vae") == (None, [f"vae: the checkpoint `step-00000003` is passed over: {why}"])
    with pytest.raises(CheckpointError, match=re.escape(why)):
        run.read_state(folder)


def test_a_finished_stage_whose_end_was_changed_is_not_finished(tmp_path: Path):
    save(tmp_path, 3)
    folder = save(tmp_path, 6, done=True)
    assert run.final(tmp_path, "vae") == folder
    assert run.damage(tmp_path, "vae") is None
    flip(folder / "weights.safetensors", -1, 0)
    assert run.final(tmp_path, "vae") is None
    assert run.damage(tmp_path, "vae") == (
        f"`{folder}`: the sha256 of `weights.safetensors` is not the one in its state.json"
    )
    assert run.damage(tmp_path, "ar") is None


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def test_no_bit_of_a_checkpoint_turns_it_into_another_one(tmp_path: Path):
    """600 bits at random places of all files, and each bit of what says format, step, stage and checksum."""
    session = StageSession.after(None, framework="torch", device="cpu", dtype="fp32", threads=2)
    before, newest = save(tmp_path, 3, session=session), save(tmp_path, 6, session=session)
    names = sorted(path.name for path in newest.iterdir())
    whole = {name: (newest / name).read_bytes() for name in names}
    random = np.random.default_rng(0)
    sizes = np.array([len(whole[name]) for name in names])
    chosen = [
        (names[np.searchsorted(sizes.cumsum(), at, side="right")], int(at), int(bit))
        for at, bit in zip(random.integers(0, sizes.sum(), 600), random.integers(0, 8, 600), strict=True)
    ]
    places = [(name, at - int(sizes[: names.index(name)].sum()), bit) for name, at, bit in chosen]
    text = whole["state.json"]
    for word in (b'"format": 3', b'"step": 6', b'"stage": "vae"', b'"checksum"', b'"files"'):
        begin = text.index(word)
        places += [("state.json", place, bit) for place in range(begin, begin + len(word)) for bit in range(8)]
    passed = 0
    for name, place, bit in places:
        content = bytearray(whole[name])
        content[place] ^= 1 << bit
        (newest / name).write_bytes(content)
        found, notes = run.newest(tmp_path, "vae")
        if found == newest:
            passed += 1
            assert name == "state.json"
            assert json.loads(content) == json.loads(text)
        else:
            assert found == before
            assert len(notes) == 1
            assert notes[0].startswith("vae: the checkpoint `step-00000006` is passed over: ")
        (newest / name).write_bytes(whole[name])
    assert run.newest(tmp_path, "vae") == (newest, [])
    assert passed < 10  # an exponent may be written e or E


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


def test_a_checkpoint_of_skipped_steps_pushes_out_none_from_before(tmp_path: Path):
    for step, skipped in ((1, 0), (2, 0), (3, 0), (4, 1), (5, 2)):
        change(save(tmp_path, step), skipped_in_a_row=skipped)
    run.keep_last(tmp_path, "vae", 2)
    assert names(run.steps(tmp_path, "vae")) == ["step-00000002", "step-00000003", "step-00000005"]
    save(tmp_path, 6)
    run.keep_last(tmp_path, "vae", 2)
    assert names(run.steps(tmp_path, "vae")) == ["step-00000003", "step-00000006"]
    assert [run.skipped_in_a_row({"skipped_in_a_row": value}) for value in (3, -1, True, "3", None)] == [3, 0, 0, 0, 0]


@pytest.mark.parametrize(
    "values",
    [
        {"step": "3"},
        {"files": []},
        {"history": [1]},
        {"history": [{"from_step": 0}]},
        {"files": {"../../etc/passwd": "x"}},
        {"bytes": 3, "files": {"none": ""}},
    ],
)
def test_a_state_that_says_strange_things_is_passed_over(values: dict[str, Any], tmp_path: Path):
    good, bad = save(tmp_path, 3), save(tmp_path, 6)
    change(bad, **values)
    folder, notes = run.newest(tmp_path, "vae")
    assert folder == good and len(notes) == 1 and "step-00000006" in notes[0]


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
        monkeypatch.setattr(run, "write_ranges", full)
    else:
        monkeypatch.setattr(run.sealed, "write", full)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, 6)
    assert caught.value.what.endswith("step-00000006` cannot be written")
    assert caught.value.because == ("[Errno 28] No space left on device",)
    assert caught.value.hint == "the checkpoints before it stay; go on with --resume"
    assert list((tmp_path / "stages" / "vae").iterdir()) == [before]
    assert run.newest(tmp_path, "vae") == (before, [])
