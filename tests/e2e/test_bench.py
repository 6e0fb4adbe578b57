"""`sampan bench` as a user would: a job's step on one framework, compiled and not; and two frameworks in lockstep."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import pytest

from e2e.command import sampan

JOB = """
out = "runs/job"

[data]
path = "pictures"

[model.override.text]
num_hidden_layers = 1

[model.override.dit]
num_layers = 1

[place]
device = "cpu"
dtype = "fp32"
threads = 1

[stage.decoder]
micro_batch_size = 1
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "job.toml").write_text(JOB, encoding="utf-8")
    return tmp_path


@pytest.mark.slow
def test_a_step_compiled_and_not(place: Path):
    done = sampan(
        "bench", "job.toml", "--frameworks", "torch", "--parts", "decoder", "--rounds", "2", "--html", "page.html",
        cwd=place,
    )  # fmt: skip
    written, page = done.stdout.splitlines()
    record = json.loads((place / written).read_text(encoding="utf-8"))
    eager, compiled = record["parts"]["decoder"]["results"]
    assert compiled["first_step_s"] > 2 * eager["first_step_s"]  # it is compiled then, and not taken from a cache
    assert compiled["error"]["gradient"] < 1e-4 and compiled["error"]["loss"] < 1e-5
    assert all(row["mfu"] > 0 and row["peak_rss_bytes"] > 2**26 for row in (eager, compiled))
    assert [side["threads"] for side in record["sides"]] == [1, 1]
    assert "CPU times and ratios say nothing about Ascend" in done.stderr
    assert "CPU times and ratios say nothing about Ascend" in (place / page).read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("other", ["mindspore", "tensorflow"])
def test_frameworks_do_not_part(place: Path, other: str):
    if find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    done = sampan("bench", "job.toml", "--diverge", "torch", other, "--steps", "2", "--json", "found.json", cwd=place)
    record = json.loads((place / "found.json").read_text(encoding="utf-8"))
    for part in ("ar", "decoder"):
        assert record["parts"][part]["parted"] is None and record["parts"][part]["num_calls"] > 20
    assert done.stdout == "found.json\n"
