"""A run's log as a measurement: seconds of its steps, and how a plan of the next one moves toward them."""

import json
import math

import pytest

from sampan import job as jobs
from sampan.errors import PlanError, UnusableMeasurement
from sampan.plan import measured, verb
from sampan.plan.measured_run import run_steps, step_seconds

JOB = """
out = "runs/x"
data.path = "pictures"
[train]
stages = ["decoder"]
[stage.decoder]
num_steps = 40
micro_batch_size = 4
grad_accum_steps = 8
recompute = true
"""
NAME = "NVIDIA H100 80GB HBM3"


def write_run(folder, step_s, *, steps=40, device="cuda", name=NAME, ranks=4, slow_start_s=30.0, job=JOB, first=0):
    """Write what a run of so many seconds a step leaves, its first step slower."""
    folder.mkdir()
    (folder / "job.toml").write_text(jobs.parse(job).to_toml(), "utf-8")
    events = [{"event": "begin"}, {"event": "device", "device": device, "device_name": name, "ranks": ranks}]
    if first:
        events.append({"event": "resume", "stage": "decoder", "step": first})
    (folder / "events.jsonl").write_text("".join(json.dumps(one) + "\n" for one in events), "utf-8")
    lines = [
        {"stage": "decoder", "step": first + n, "loss": 1.0, "peak_memory_bytes": 20 * 2**30,
         "images_per_s": 32 * n / (slow_start_s + n * step_s)}
        for n in range(1, steps + 1)
    ]  # fmt: skip
    (folder / "log.jsonl").write_text("".join(json.dumps(one) + "\n" for one in lines), "utf-8")
    return folder


def test_seconds_of_a_step_leave_the_first_ones_out(tmp_path):
    run = write_run(tmp_path / "run", 0.75)
    rows = [json.loads(line) for line in (run / "log.jsonl").read_text("utf-8").splitlines()]
    assert step_seconds(rows, 32) == pytest.approx(0.75)
    assert step_seconds(rows[:9], 32) is None
    resumed = write_run(tmp_path / "resumed", 0.75, first=100)
    rows = [json.loads(line) for line in (resumed / "log.jsonl").read_text("utf-8").splitlines()]
    assert step_seconds(rows, 32, 100) == pytest.approx(0.75)
    (step,) = run_steps(resumed)
    assert step.measured_s == pytest.approx(0.75)


def test_a_plan_moves_toward_what_a_run_took_and_says_by_how_much(tmp_path):
    job = jobs.parse(JOB)

    def planned(*runs):
        asked = verb.PlanArguments(chips=("h100_sxm", "h20"), count=(4, 4), sites=("sg",), measured=runs)
        return verb.plan(job, asked)

    def span(plan, chip):
        row = next(row for row in plan.rows if row.candidate.label == chip)
        return next(stage for stage in row.candidate.stages if stage.name == "decoder").prediction

    before = planned()
    (as_planned,) = run_steps(write_run(tmp_path / "first", 1.0))
    assert as_planned.chip.name == "h100_sxm" and as_planned.part == "decoder of nano on 4 chips"
    twice = write_run(tmp_path / "run", 2 * as_planned.predicted_s)
    after = planned(twice)
    old, new = span(before, "h100_sxm"), span(after, "h100_sxm")
    assert old.step_s < new.step_s < 2 * old.step_s * 1.0001  # part of the way: one run is one run
    assert math.log(new.high_s / new.low_s) < math.log(old.high_s / old.low_s)
    assert new.rests_on.endswith("and 1 measurement of your own")
    assert span(after, "h20") == span(before, "h20")  # another chip
    said = " ".join(after.measured)
    assert "h100_sxm with torch takes 2.00 times what is predicted (decoder of nano on 4 chips in bf16)" in said
    assert "The run's decoder:" in said and "pictures/s" in said and "20.0 GiB a chip where" in said


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"device": "cpu", "name": None}, "it ran on a CPU, and the catalogue has accelerators alone"),
        ({"name": "Mystery 9"}, "no chip of the catalogue is called `Mystery 9`"),
        ({"steps": 9}, "no stage has 10 steps in its log.jsonl; decoder took fewer in one process"),
        ({"job": JOB + "[place]\ncompile = true\n"}, "its steps were compiled, which is not how the job trains"),
    ],
)
def test_a_run_that_says_nothing_is_refused_with_the_reason(tmp_path, change, why):
    run = write_run(tmp_path / "run", 1.0, **change)
    with pytest.raises(UnusableMeasurement, match="^" + why.replace(".", r"\.") + "$"):
        run_steps(run)
    with pytest.raises(PlanError) as caught:
        measured.read([run])
    assert caught.value.because == (f"`{run}` is left out: {why}",)


def test_an_older_run_and_a_folder_that_is_none(tmp_path):
    with pytest.raises(UnusableMeasurement, match=r"it has no job\.toml"):
        run_steps(tmp_path)
    run = write_run(tmp_path / "run", 1.0)
    (run / "events.jsonl").write_text('{"event": "begin"}\n', "utf-8")
    with pytest.raises(UnusableMeasurement, match="does not say which device it ran on"):
        run_steps(run)


def test_addresses_are_refused_in_words(capsys, tmp_path):
    from sampan.cli import main

    path = tmp_path / "job.toml"
    path.write_text(JOB, "utf-8")
    for option in ("--measured", "--json", "--html"):
        assert main(["plan", str(path), option, "s3://bucket/x"]) == 2
        assert "`s3://bucket/x` is an address (s3)" in capsys.readouterr().err
    assert main(["plan", "s3://bucket/job.toml"]) == 2
    assert main(["plan", str(path), "--set", "data.path=s3://bucket/pictures"]) == 1
    assert '"s3://bucket/pictures" is an address (s3)' in capsys.readouterr().err
