"""A run is what it says it is, or the first thing that is not is named: its files, and its steps taken again."""

from __future__ import annotations

import hashlib
import io
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file, save_file

from sampan.checkpoint import export, sealed
from sampan.checkpoint.tolerance import TOLERANCES
from sampan.checkpoint.weights import file_digest
from sampan.errors import CheckpointError
from sampan.job import parse
from sampan.train import replay
from sampan.train.verify import refuse, show, verify
from unit.train.conftest import NUM_STEPS, SAVE_EVERY, train


def checked(out: Path, windows: int | None = None, *, seed: int = 0, **tolerances: float) -> dict[str, Any]:
    return verify(
        out,
        replay=windows,
        seed=seed,
        device=None,
        dtype=None,
        tolerances=tolerances,
        console=Console(file=io.StringIO()),
    )


def shown(report: dict[str, Any]) -> str:
    out = io.StringIO()
    show(report, Console(file=out, width=200))
    return out.getvalue()


def step(out: Path, stage: str, number: int) -> Path:
    return out / "stages" / stage / f"step-{number:08d}"


def rewrite(path: Path, edit: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change a file of a checkpoint, and its hash with it."""
    tensors = load_file(path)
    edit(tensors)
    save_file(tensors, path)
    state = json.loads((path.parent / "state.json").read_text("utf-8"))
    state["files"][path.name], state["bytes"][path.name] = file_digest(path), path.stat().st_size
    sealed.write(path.parent / "state.json", state)


def only(out: Path, *keep: tuple[str, int]) -> None:
    """Remove all checkpoints but some."""
    for folder in out.glob("stages/*/step-*"):
        if (folder.parent.name, int(folder.name.removeprefix("step-"))) not in keep:
            shutil.rmtree(folder)


def contents(folder: Path) -> dict[str, tuple[int, str]]:
    return {
        path.relative_to(folder).as_posix(): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


# --- what comes out -----------------------------------------------------------------------------------------------------


def test_every_window_of_a_run_comes_out_and_nothing_is_written_into_it(tiny_run: Path, tiny_job: str):
    cache = parse(tiny_job).data.cache
    assert cache
    before = contents(tiny_run), contents(cache)
    report = checked(tiny_run, 3)
    assert (contents(tiny_run), contents(cache)) == before
    json.dumps(report, allow_nan=False)
    saves = NUM_STEPS // SAVE_EVERY
    assert report["files"]["checkpoints"] == 2 * saves
    assert report["files"]["files"] == 2 * saves * 3
    assert report["files"]["cache"] == 3
    assert report["comes_out"] and report["not_checked"] == []
    assert report["replay"]["possible"] == 2 * saves
    for window in report["replay"]["windows"]:
        assert window["to_step"] - window["from_step"] == SAVE_EVERY
        assert window["bit_for_bit"] and window["same_place"] and window["faults"] == []
    refuse(report)
    text = shown(report)
    assert text.startswith(f"{tiny_run}: every file is the one that was written\n")
    assert f"replayed: 3 of {2 * saves} windows, drawn by seed 0\n" in text
    assert text.count("the same, bit for bit") == 3


def test_windows_are_drawn_by_the_seed_from_all_stages(tiny_run: Path):
    every, gone = replay.windows(tiny_run)
    assert gone == []
    assert [window.name for window in every][:2] == ["ar 1-2", "ar 3-4"]
    assert (every[0].begin, every[1].begin) == (None, every[0].end)
    drawn = {seed: [window.name for window in replay.choose(every, 4, seed)] for seed in range(8)}
    assert all(len(set(names)) == 4 for names in drawn.values())
    assert drawn[3] == [window.name for window in replay.choose(every, 4, 3)]
    assert len({tuple(names) for names in drawn.values()}) > 1
    assert {name.split()[0] for names in drawn.values() for name in names} == {"ar", "decoder"}
    assert replay.choose(every, 999, 0) == every


def test_a_window_may_begin_where_the_stage_does_and_more_are_asked_for_than_there_are(copied: Path):
    only(copied, ("ar", 2))
    report = checked(copied, 5)
    (window,) = report["replay"]["windows"]
    assert (window["from_step"], window["to_step"], window["bit_for_bit"]) == (0, 2, True)
    assert "asked for: 5; there are no more than 1\n" in shown(report)


# --- what does not ------------------------------------------------------------------------------------------------------


def refused(report: dict[str, Any]) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        refuse(report)
    return caught.value


def test_a_loss_that_was_not_is_named_with_its_step(copied: Path):
    only(copied, ("ar", 8), ("ar", 10))
    lines = (copied / "log.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    at = next(i for i, row in enumerate(rows) if (row["stage"], row["step"]) == ("ar", 10))
    rows[at]["loss"] *= 1.01
    (copied / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    report = checked(copied, 1, seed=5)
    error = refused(report)
    assert error.what == f"the run in `{copied}` does not come out as it was recorded"
    assert error.because == ("ar 9-10: the loss of step 10 is off by 0.0099 of the recorded one (at most 0.0005)",)
    assert error.hint == "`--replay 1 --seed 5` takes the same windows again"
    assert "differs" in shown(report)
    assert checked(copied, 1, loss=0.02)["comes_out"]
    (copied / "log.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows if row != rows[at]), "utf-8")
    assert refused(checked(copied, 1)).because == ("ar 9-10: log.jsonl has no step 10",)


def test_weights_that_were_not_trained_so(copied: Path):
    only(copied, ("ar", 8), ("ar", 10))
    again = load_file(step(copied, "ar", 8) / "weights.safetensors")

    def claim(tensors: dict[str, torch.Tensor]) -> None:  # only half of the way
        for name, tensor in tensors.items():
            tensor += again[name]
            tensor /= 2

    rewrite(step(copied, "ar", 10) / "weights.safetensors", claim)
    report = checked(copied, 1)
    (window,) = report["replay"]["windows"]
    assert window["weights"]["share"] == pytest.approx(0.5, abs=0.01)  # the missing half
    assert window["ema"]["share"] == window["loss"]["off"] == 0
    assert refused(report).because == ("ar 9-10: weights end 0.5 of the window's way apart (at most 0.02)",)


def test_one_small_tensor_that_was_changed(copied: Path):
    only(copied, ("decoder", 8), ("decoder", 10))
    name = "transformer_blocks.0.attn1.to_q.bias"

    def nudge(tensors: dict[str, torch.Tensor]) -> None:
        tensors[name] += 0.01

    rewrite(step(copied, "decoder", 10) / "weights.safetensors", nudge)
    (window,) = checked(copied, 1)["replay"]["windows"]
    assert window["weights"]["worst"]["name"] == name
    assert window["weights"]["worst"]["share"] > TOLERANCES["tensor"]
    assert any(fault.startswith(f"`{name}` in weights ends ") for fault in window["faults"])


def test_a_count_of_updates_that_was_changed(copied: Path):
    only(copied, ("ar", 8), ("ar", 10))
    path = step(copied, "ar", 10) / "optimizer.safetensors"
    rewrite(path, lambda tensors: tensors.update(num_updates=torch.tensor(9)))
    assert refused(checked(copied, 1)).because == ("ar 9-10: `num_updates` is 10 and was recorded as 9",)


# --- files --------------------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE: dict[str, tuple[Callable[[Path], Any], str]] = {
    "a bit": (
        lambda out: flip(step(out, "ar", 10) / "ema.safetensors"),
        (
            "error: the checkpoint `{out}/stages/ar/step-00000010` is not the one that was written\n"
            "  because the sha256 of `ema.safetensors` is not the one in its state.json\n"
        ),
    ),
    "a file gone": (
        lambda out: (step(out, "ar", 10) / "weights.safetensors").unlink(),
        (
            "error: the checkpoint `{out}/stages/ar/step-00000010` is not whole\n"
            "  because `weights.safetensors` is missing"
        ),
    ),
    "a file more": (
        lambda out: shutil.copy(step(out, "ar", 10) / "ema.safetensors", step(out, "ar", 10) / "extra.safetensors"),
        (
            "error: the checkpoint `{out}/stages/ar/step-00000010` is not whole\n"
            "  because `extra.safetensors` was not written with it"
        ),
    ),
    "another step's": (
        lambda out: (shutil.rmtree(step(out, "ar", 10)), step(out, "ar", 8).rename(step(out, "ar", 10))),
        (
            "error: the checkpoint `{out}/stages/ar/step-00000010` is not whole\n"
            "  because its state.json is of stage ar, step-00000008"
        ),
    ),
    "a bit of a state": (
        lambda out: (step(out, "ar", 10) / "state.json").write_text(
            (step(out, "ar", 10) / "state.json").read_text("utf-8").replace('"seed": 0', '"seed": 1')
        ),
        (
            "error: the state.json of `{out}/stages/ar/step-00000010` is not the one that was written\n"
            "  because its content is not that of its checksum: it was changed since it was written\n"
        ),
    ),
    "a run.json": (
        lambda out: (out / "run.json").write_text((out / "run.json").read_text("utf-8").replace('"torch"', '"torcl"')),
        "error: `{out}/run.json` is not the file that was written\n  because its content is not that of its checksum",
    ),
    "a config": (
        lambda out: (out / "config.json").write_text(
            (out / "config.json").read_text("utf-8").replace("1e-05", "1e-04", 1)
        ),
        "error: `{out}/config.json` is not the file that was written\n  because its content is not that of its checksum",
    ),
    "a config without its checksum": (
        lambda out: (out / "config.json").write_text(
            (out / "config.json").read_text("utf-8").replace("checksum", "chacksum")
        ),
        "error: `{out}/config.json` is not the file that was written\n  because it has no checksum of its content",
    ),
    "a tokenizer": (
        lambda out: flip(out / "processor" / "chat_template.jinja"),
        (
            "error: `{out}/processor/chat_template.jinja` is not the file that was written\n"
            "  because its sha256 is not the one in run.json"
        ),
    ),
    "no checkpoint": (
        lambda out: shutil.rmtree(out / "stages"),
        "error: the run in `{out}` has no checkpoint\n\nhint: go on with `sampan train JOB --resume`",
    ),
    "no run": (
        lambda out: (out / "run.json").unlink(),
        (
            "error: `{out}` is not a run\n  because it has no run.json\n\n"
            "hint: give the folder that a job names as its `out`"
        ),
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_folder_that_is_not_what_was_written_is_refused(damage: str, copied: Path):
    do, says = DAMAGE[damage]
    do(copied)
    with pytest.raises(CheckpointError) as caught:
        checked(copied)
    assert caught.value.render().startswith(says.format(out=copied))


def test_a_cache_that_was_changed_is_refused(copied: Path, tiny_job: str, tmp_path: Path):
    cache = parse(tiny_job).data.cache
    assert cache
    shutil.copytree(cache, tmp_path / "cache")
    text = (copied / "job.toml").read_text("utf-8").replace(cache.as_posix(), (tmp_path / "cache").as_posix())
    (copied / "job.toml").write_text(text, "utf-8")
    assert checked(copied)["files"]["cache"] == 3
    shard = next((tmp_path / "cache").glob("tokens-*/*.safetensors"))
    flip(shard)
    with pytest.raises(CheckpointError, match=re.escape(f"error: `{shard}` is not the file that was written")):
        checked(copied)


def test_the_model_is_what_the_stages_came_to(copied: Path):
    export.export(copied, copied / "model", None)
    report = checked(copied)
    assert report["files"]["model"] == 4
    assert report["not_checked"] == [
        f"model/: its {part} was not trained by this run" for part in ("tokenizer", "vae", "glyph")
    ]
    path = copied / "model" / "transformer" / "diffusion_pytorch_model.safetensors"
    flip(path)
    with pytest.raises(CheckpointError) as caught:
        checked(copied)
    assert caught.value.what == f"the model in `{copied / 'model'}` is not the one that was written"
    assert "`transformer/diffusion_pytorch_model.safetensors`" in caught.value.because[0]
    own = copied / "model" / "sampan.json"
    facts = json.loads(own.read_text("utf-8"))
    assert facts["provenance"]["stages"]["decoder"]["frameworks"] == ["torch"]
    facts["sha256"]["transformer/diffusion_pytorch_model.safetensors"] = file_digest(path)
    sealed.write(own, facts)
    with pytest.raises(CheckpointError) as caught:
        checked(copied)
    assert caught.value.what == f"the model in `{copied / 'model'}` is not what the run came to"
    own.unlink()
    assert checked(copied)["not_checked"] == ["model/: it has no sampan.json with hashes"]


# --- what cannot be replayed --------------------------------------------------------------------------------------------


def test_steps_whose_checkpoints_are_gone_are_said(copied: Path):
    only(copied, ("ar", 22), ("ar", 24), ("decoder", 24))
    report = checked(copied, 1)
    assert report["comes_out"]
    assert report["replay"]["windows"][0]["from_step"] == 22
    gone = (
        "{stage}: steps 1-{last} cannot be replayed: the checkpoints before step {last} are gone "
        "(removed; train.keep_last = 99 had kept them)"
    )
    assert report["not_checked"] == [gone.format(stage="ar", last=22), gone.format(stage="decoder", last=24)]
    assert "not checked: decoder: steps 1-24 cannot be replayed" in shown(report)
    only(copied, ("decoder", 24))
    path = step(copied, "decoder", 24) / "state.json"
    sealed.write(path, json.loads(path.read_text("utf-8").replace("keep_last = 99", "keep_last = 2")))
    gone = gone.replace("removed; train.keep_last = 99 had kept them", "train.keep_last = 2; 12 keeps them all")
    with pytest.raises(CheckpointError) as caught:
        checked(copied, 1)
    assert caught.value.render() == (
        f"error: the run in `{copied}` has no window of steps to replay\n"
        f"  because {gone.format(stage='decoder', last=24)}\n\n"
        "hint: a window needs two kept checkpoints: train with a larger train.keep_last"
    )


def test_pictures_that_are_not_those_of_the_run(copied: Path, tiny_job: str):
    only(copied, ("ar", 8), ("ar", 10))
    path = step(copied, "ar", 10) / "state.json"
    state = json.loads(path.read_text("utf-8"))
    state["job"] = state["job"].replace("[data]\n", "[data]\nlimit = 5\n")
    sealed.write(path, state)
    with pytest.raises(Exception, match="its pictures or captions are not those it was begun with"):
        checked(copied, 1)


# --- where it goes on ---------------------------------------------------------------------------------------------------


def test_going_on_elsewhere_is_said_and_recorded(copied: Path, tiny_job: str):
    only(copied, ("ar", 20))
    path = step(copied, "ar", 20) / "state.json"
    state = json.loads(path.read_text("utf-8"))
    last = state["history"][-1]
    last |= {"framework": "mindspore", "versions": {**last["versions"], "mindspore": "2.10.0"}, "device": "npu:0"}
    sealed.write(path, state)
    says = io.StringIO()
    job = parse(tiny_job, [f"out={copied.as_posix()}", 'train.stages=["ar"]'])
    train(job, resume=True, says=Console(file=says, width=200))
    version = torch.__version__
    assert (
        f"ar: goes on at step 20, from mindspore 2.10.0 on npu:0 in fp32 to torch {version} on cpu in fp32\n"
        in says.getvalue()
    )
    events = [json.loads(line) for line in (copied / "events.jsonl").read_text("utf-8").splitlines()]
    (resumed,) = [event for event in events if event["event"] == "resume"]
    assert resumed["from"] == {
        "framework": "mindspore", "version": "2.10.0", "device": "npu:0", "dtype": "fp32", "threads": 1
    }  # fmt: skip
    assert resumed["to"] == {"framework": "torch", "version": version, "device": "cpu", "dtype": "fp32", "threads": 1}
    report = checked(copied, 1)
    (window,) = report["replay"]["windows"]
    assert [place["framework"] for place in window["recorded"]] == ["torch"]  # who took them, not who was there before
