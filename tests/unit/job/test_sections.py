"""Settings: all explained, all with a default that is in range, and none lost between a job and its text."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from sampan import job
from sampan.job import Setting, toml

SHORTEST = 'out = "runs/x"\ndata.path = "pictures"\n'
SETTINGS = [(name, setting) for name, section in job.sections(job.Job) for setting in job.settings(section).values()]
JOBS = sorted((Path(__file__).resolve().parents[3] / "jobs").glob("*.toml"))


def test_the_sections_come_in_the_order_of_the_file():
    names = [name for name, _ in job.sections(job.Job)]
    stages = [f"stage.{stage}" for stage in job.STAGES]
    assert names == ["", "model", "data", "place", "train", "lora", "plan", "actor", *stages]


@pytest.mark.parametrize(("section", "setting"), SETTINGS, ids=lambda value: getattr(value, "name", value))
def test_a_setting_is_explained_and_its_default_is_in_range(section: str, setting: Setting):
    assert setting.help.endswith(".")
    assert setting.kinds()
    shown = setting.example if setting.default in (None, {}) or setting.required else setting.default
    key = f"{section}.{setting.name}".lstrip(".")
    assert job.parse(SHORTEST, [f"{key}={toml.value(shown)}"])  # an example that is refused would be a bad example


def test_only_the_run_folder_and_the_pictures_must_be_given():
    assert [f"{section}.{s.name}" for section, s in SETTINGS if s.required] == [".out", "data.path"]


def test_the_defaults():
    read = job.parse(SHORTEST)
    assert (read.out, read.seed, read.data.path, read.data.limit) == (Path("runs/x"), 0, Path("pictures"), None)
    assert (read.model.preset, read.model.start, read.model.override) == ("nano", None, {})
    assert dataclasses.astuple(read.place) == ("torch", "auto", "auto", False, None, "auto", None, None, 60.0)
    assert (read.train.stages, read.train.save_every, read.train.keep_last) == (job.STAGES, 200, 2)
    assert (read.stage.ar.beta2, read.stage.decoder.beta2, read.stage.ar.preview_weight) == (0.95, 0.99, "auto")
    assert all(getattr(read.stage, name).grad_accum_steps == 1 for name in job.STAGES)


def test_a_job_cannot_be_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        job.parse(SHORTEST).seed = 1  # type: ignore[misc]


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_text_of_a_job_gives_an_equal_job(path: Path):
    read = job.read(path)
    again = job.parse(read.to_toml())
    assert again == read
    assert again.to_toml() == read.to_toml()


@given(
    out=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\b\t\n\f\r"), min_size=1, max_size=60),
    seed=st.integers(0, job.MAX_SEED),
    lr=st.floats(1e-9, 1e9),
    override=st.dictionaries(
        st.text("abcé. "), st.dictionaries(st.text("xyz"), st.integers() | st.lists(st.floats(0, 1)))
    ),
)
@hypothesis_settings(deadline=None, max_examples=50)
def test_any_job_survives_its_text(out, seed, lr, override):
    read = job.parse(SHORTEST)
    model, ar = dataclasses.replace(read.model, override=override), dataclasses.replace(read.stage.ar, lr=lr)
    changed = dataclasses.replace(
        read, out=Path(out), seed=seed, model=model, stage=dataclasses.replace(read.stage, ar=ar)
    )
    assert job.parse(changed.to_toml()) == changed


def test_as_dict_is_plain_json_with_every_setting():
    held = json.loads(json.dumps(job.parse(SHORTEST, ["model.override.dit.num_layers=2"]).as_dict()))
    assert held["out"] == "runs/x"
    assert held["data"]["limit"] is None
    assert held["model"]["override"] == {"dit": {"num_layers": 2}}
    for section, setting in SETTINGS:
        inner = held
        for key in section.split(".") if section else []:
            inner = inner[key]
        assert setting.name in inner
    assert set(held) == {"out", "seed", "model", "data", "place", "train", "lora", "plan", "actor", "stage"}
