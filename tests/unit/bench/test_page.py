"""The report for people, as lines and as a page: every condition is stated, and the sentence about CPUs is there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from sampan.bench import device_probe, report
from sampan.bench.backends import Backend
from sampan.bench.page import page
from sampan.bench.process import ComputeTarget
from sampan.bench.shapes import SMALL
from sampan.bench.timing import time_steps
from well_formed import assert_well_formed

FAKE = str(Path(__file__).parent / "fake_worker.py")
ABOUT_CPUS = (
    "This was measured on a CPU. CPU times and ratios say nothing about Ascend, or about any other accelerator."
)
LOCKSTEP = {
    "what": "two sides in lockstep: the first operation, layer and step that differ",
    "date": "2026-11-23",
    "machine": {"system": "Linux", "cpu": None, "cores": 2, "usable_cores": 1, "python": "3.11.7", "sampan": "0.1.0"},
    "load_average": {"before": None, "after": 1.5},
    "shape": SMALL.as_dict(),
    "steps": 2,
    "tolerance": 1e-3,
    "sides": [{"framework": "torch", "mode": "eager", "version": "2", "device": "npu", "device_name": "Ascend <910>",
               "dtype": "bf16", "threads": 2}],
    "parts": {"ar": {"parted": {"step": 1}, "said": "step 1: the operation silu in `mlp` differs by 1.0e-02", "num_calls": 9,
                     "steps": [{"step": 0, "operation": 1e-6, "loss": 0.0, "gradient": 2e-6, "weights": 0.0},
                               {"step": 1, "operation": 1e-2}]}},
    "notes": [],
}  # fmt: skip


@pytest.fixture(scope="module")
def raced() -> dict[str, Any]:
    sides = (Backend("torch", "eager", (FAKE, "right")), Backend("mindspore", "eager", (FAKE, "slow")))
    return time_steps(
        sides, ["ar", "decoder"], SMALL, rounds=2, target=ComputeTarget(), say=lambda words: None, notes=["one note"]
    )


def test_lines_state_the_conditions_and_have_a_table_for_each_part(raced: dict[str, Any]):
    lines = list(report.lines(raced))
    for begin in ("date ", "machine ", "device ", "load ", "size ", "rounds ", "framework torch 1.0, 1 thread"):
        assert any(line.startswith(begin) for line in lines), begin
    assert lines[-2:] == ["one note", ABOUT_CPUS]
    at = lines.index("ar: 12 parameters, 3.00 GFLOP a step (counted by torch); matrices are multiplied at 100 GFLOP/s")
    assert re.split(r"  +", lines[at + 2]) == [
        "torch eager", "200 ms", "1.00 (1.00-1.00)", "1.00", "200 ms", "1.0 GiB", "15.0%", "reference",
    ]  # fmt: skip
    assert re.split(r"  +", lines[at + 3]) == [
        "mindspore eager", "400 ms", "2.00 (2.00-2.00)", "2.00", "400 ms", "1.0 GiB", "7.5%", "0e+00",
    ]  # fmt: skip


def test_the_page_stands_alone_and_says_what_the_lines_say(raced: dict[str, Any]):
    written = page(raced)
    text = assert_well_formed(written)
    for line in report.facts(raced):
        assert line in text
    assert ABOUT_CPUS in text and "one note" in text
    assert "2.00  (400 ms)" in text and "decoder: 12 parameters" in text
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', written)]
    assert len(widths) == 8 and widths[1] == pytest.approx(2 * widths[0])


def test_a_page_of_single_blocks():
    sides = [Backend("torch", mode, (FAKE, "right")) for mode in ("eager", "compiled")]
    record = device_probe.probe_device(sides, ["ar"], tokens=20, target=ComputeTarget(), say=lambda words: None)
    text = assert_well_formed(page(record))
    assert "time of a forward pass; shorter is faster" in text and ABOUT_CPUS in text
    rows = [re.split(r"  +", line) for line in report.columns(report.tables(record)[0][1])]
    assert rows[1] == ["torch eager", "ar", "20", "100 ms", "10.0%", "200 ms", "15.0%", "5, 5", "1.0 GiB"]
    assert rows[2] == ["torch compiled", "ar", "20", "-", "-", "200 ms", "15.0%", "5", "1.0 GiB"]


def test_a_page_of_a_lockstep_is_escaped_and_says_nothing_of_cpus_on_an_accelerator():
    written = page(LOCKSTEP)
    assert "Ascend &lt;910&gt;" in written and ABOUT_CPUS not in written
    lines = list(report.lines(LOCKSTEP))
    assert "ar parts at step 1: the operation silu in `mlp` differs by 1.0e-02" in lines
    assert re.split(r"  +", lines[-1]) == ["1", "1e-02", "-", "-", "-"]
    whole = {**LOCKSTEP, "parts": {"ar": {**LOCKSTEP["parts"]["ar"], "parted": None}}}
    assert "ar: no difference past the tolerance in 2 steps, 9 operations in each, was found" in report.lines(whole)


def test_what_comes_in_is_escaped(raced: dict[str, Any]):
    script = "<script>alert(1)</script>"
    part = raced["parts"]["ar"]
    odd = {**part, "results": [{**row, "framework": script} for row in part["results"]]}
    text = assert_well_formed(
        page({**raced, "what": script, "notes": [script], "ratios_to": script, "parts": {script: odd}})
    )
    assert text.count(script) > 8
