"""Job files with something wrong in them: each is used, or refused in words that name the file."""

from __future__ import annotations

from pathlib import Path

import pytest

from mutants import survives, toml_mutants
from sampan import job
from sampan.errors import JobError
from sampan.models import presets

JOBS = sorted((Path(__file__).resolve().parents[3] / "jobs").glob("*.toml"))


def read(text: str) -> None:
    made = job.parse(text, name="j.toml")
    presets.get(made.model.preset, made.model.override)
    assert job.parse(made.to_toml()) == made


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 2000), pytest.param(2, 10_000, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_no_mutant_of_a_job_ends_in_a_traceback(seed: int, count: int):
    texts = [path.read_text(encoding="utf-8") for path in JOBS]
    assert len(texts) > 5
    used = sum(survives(lambda text=text: read(text), text) for text in toml_mutants(seed, count, texts))
    assert count / 20 < used < count * 19 / 20  # both ways are walked


HEAD = 'out = "runs/x"\n[data]\npath = "pictures"\n'
WRONG = {
    f"limit = {'9' * 5000}": "j.toml: Exceeds the limit (4300 digits) for integer string conversion",
    f"limit = 0x{'f' * 5000}": "j.toml: `data.limit`: a whole number has more than 100 digits",
    f"limit = {10**60}": f"j.toml:4: data.limit: must be at most {2**53}, got {10**60}",
    f"limit = {'[' * 3000 + ']' * 3000}": "j.toml: its tables and lists are nested more than 64 deep",
    f"limit = {'[' * 70 + ']' * 70}": "j.toml: its tables and lists are nested more than 64 deep",
    f"limit = '{'x' * 500}'": f'j.toml:4: data.limit: must be a whole number, got "{"x" * 79}…',
    f"cache = '{'x' * 256}'": "j.toml:4: data.cache: is too long for a path",
    f"cache = '{'xy/' * 1400}'": "j.toml:4: data.cache: is too long for a path",
    "[model.override.dit]\nnum_layers = [1]": "the model `nano` with these overrides cannot be built",
}


@pytest.mark.parametrize("added", WRONG)
def test_what_is_beyond_all_bounds_is_said_with_its_place(added: str):
    with pytest.raises(JobError) as caught:
        read(HEAD + added)
    assert str(caught.value).startswith(f"error: {WRONG[added]}")


@pytest.mark.parametrize(
    ("override", "says"),
    [
        (f"data.limit={'9' * 5000}", "--set: data.limit: Exceeds the limit"),
        (f"data.limit={'[' * 3000}{']' * 3000}", "--set: data.limit: its tables and lists are nested"),
        (".".join("a" * 9) + "=1", "--set: `a.a.a.a.a.a.a.a.a=1…` has more keys than any setting"),
    ],
)
def test_an_override_beyond_all_bounds_is_refused(override: str, says: str):
    with pytest.raises(JobError) as caught:
        job.parse(HEAD, [override])
    assert str(caught.value).startswith(f"error: {says}")


def test_a_file_that_is_no_job_is_not_read_whole(tmp_path: Path):
    path = tmp_path / "job.toml"
    path.write_text("# " + "x" * 300_000, encoding="utf-8")
    with pytest.raises(JobError) as caught:
        job.read(path)
    assert caught.value.because == ("it has more than 262,144 bytes",)


def test_a_long_file_with_a_fault_at_its_end_is_refused_soon():
    text = HEAD + "# filled\n" * 20_000 + "[stage.ar]\nlr = 0\n"
    assert not survives(lambda: job.parse(text), "a long job")
