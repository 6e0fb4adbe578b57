"""The first job file: it can be read as it stands, shows every setting, and never replaces another unasked."""

from __future__ import annotations

import re

import pytest

from sampan import extras, frameworks, init, job
from sampan.cli import main
from sampan.errors import JobError

SHORTEST = 'out = "runs/birds"\ndata.path = "pictures"\n'


@pytest.mark.parametrize("preset", ["nano", "glm-image"])
def test_what_is_written_is_a_job_of_defaults(tmp_path, preset):
    path = init.write(tmp_path / "jobs" / "birds.toml", preset, force=False)
    assert path == tmp_path / "jobs" / "birds.toml"
    assert job.read(path) == job.parse(SHORTEST, [f"model.preset={preset}"])


def test_every_setting_stands_there_and_is_explained_once(tmp_path):
    text = init.write(tmp_path / "job.toml", "nano", force=False).read_text(encoding="utf-8")
    words = re.sub(r"\s*\n\s*# ", " ", text)
    for name, section in job.sections(job.Job):
        body = text.partition(f"[{name}]\n")[2] if name else text
        body = re.split(r"^\[", body, maxsplit=1, flags=re.MULTILINE)[0]
        for setting in job.settings(section).values():
            assert re.search(rf"^(# )?{setting.name} = ", body, re.MULTILINE), (name, setting.name)
            assert words.count(setting.help.rstrip(".")) == 1, (name, setting.name)
    assert max(map(len, text.splitlines())) <= 120


def test_the_framework_is_the_one_that_is_installed(tmp_path, monkeypatch, capsys):
    def written(*installed: str) -> tuple[str, str]:
        monkeypatch.setattr(extras, "is_installed", lambda name: name in installed)
        assert main(["init", str(tmp_path / "job.toml"), "--force"]) == 0
        said = capsys.readouterr()
        assert said.out == f"{tmp_path / 'job.toml'}\n"
        return job.read(tmp_path / "job.toml").place.framework, said.err

    monkeypatch.delenv("SAMPAN_FRAMEWORK", raising=False)
    assert written("torch") == written("torch", "mindspore") == ("torch", "")
    assert written("mindspore") == ("mindspore", "")
    install = " or ".join(frameworks.FRAMEWORKS.values())
    assert written() == (
        "torch", f"note: no framework is installed, and the file names the usual one; to train: {install}\n"
    )  # fmt: skip
    monkeypatch.setenv("SAMPAN_FRAMEWORK", "mindspore")  # which all other verbs heed too
    assert written("torch", "mindspore") == ("mindspore", "")
    monkeypatch.setenv("SAMPAN_FRAMEWORK", "abacus")
    assert written("torch") == ("torch", "")


def test_what_is_commented_out_is_valid_once_it_is_not(tmp_path):
    text = init.write(tmp_path / "job.toml", "nano", force=False).read_text(encoding="utf-8")
    opened = re.sub(r"^# (\w+ = )", r"\1", text, flags=re.MULTILINE)
    read = job.parse(opened)
    assert opened.count("\n") == text.count("\n")
    assert (read.data.limit, read.model.override, read.stage.vae.crop_px) == (1000, {"dit": {"num_layers": 4}}, 64)


def test_a_file_that_is_there_is_kept(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text("mine")
    with pytest.raises(JobError) as caught:
        init.write(path, "nano", force=False)
    assert str(caught.value) == (
        f"error: `{path}` is there already\n\nhint: give another name, or --force to replace it"
    )  # fmt: skip
    assert path.read_text() == "mine"
    init.write(path, "nano", force=True)
    assert job.read(path).model.preset == "nano"
    assert [file.name for file in tmp_path.iterdir()] == ["job.toml"]


def test_a_failure_leaves_the_old_file_and_nothing_beside_it(tmp_path, monkeypatch):
    path = tmp_path / "job.toml"
    path.write_text("mine")

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(JobError) as caught:
        init.write(path, "nano", force=True)
    assert str(caught.value) == (
        f"error: the job file `{path}` cannot be written\n  because [Errno 28] No space left on device"
    )  # fmt: skip
    assert path.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["job.toml"]


def test_a_folder_is_no_job_file(tmp_path):
    with pytest.raises(JobError) as caught:
        init.write(tmp_path, "nano", force=True)
    assert str(caught.value) == f"error: `{tmp_path}` is a folder\n\nhint: sampan init {tmp_path / 'job.toml'}"


def test_a_file_where_a_folder_should_be(tmp_path):
    (tmp_path / "jobs").write_text("")
    with pytest.raises(JobError, match=r"^error: the job file `.*` cannot be written\n  because "):
        init.write(tmp_path / "jobs" / "job.toml", "nano", force=False)


def test_an_unknown_preset_writes_nothing(tmp_path):
    with pytest.raises(JobError, match=r"hint: did you mean `nano`\?$"):
        init.write(tmp_path / "job.toml", "nana", force=False)
    assert list(tmp_path.iterdir()) == []
