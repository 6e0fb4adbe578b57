"""What is shown while a stage trains: on a terminal and off it, with a time that the warm-up does not spoil."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator

import pytest
from rich.console import Console

from sampan.train.progress_display import EVERY_S, ProgressDisplay, SmoothedMean, TimeLeft


def shown(is_terminal: bool, step_s: float, losses: list[float], total: int, first: int = 0) -> str:
    """Return what a stage prints whose every step takes so long."""
    file = io.StringIO()
    console = Console(file=file, force_terminal=is_terminal, width=140, legacy_windows=False)
    now_s = 0.0
    with ProgressDisplay(console, "decoder", first, total, clock=lambda: now_s) as show:
        for step, loss in enumerate(losses, first + 1):
            now_s += step_s
            show(step, loss=loss, images_per_s=12.34, mfu=None, memory_bytes=None, skipped=0)
    return file.getvalue()


def test_off_a_terminal_there_is_a_plain_line_now_and_then():
    text = shown(False, 4.0, [2.0] * 20, 20)
    lines = text.splitlines()
    assert [line.split()[1] for line in lines] == ["8/20", "16/20", "20/20"]
    assert lines[0] == "decoder  8/20  loss 2.0000  12.3 pictures/s  MFU N/A  48.0 s left"
    assert lines[-1] == "decoder  20/20  loss 2.0000  12.3 pictures/s  MFU N/A"
    assert "\x1b" not in text
    assert "\r" not in text
    assert EVERY_S == 30


def test_a_short_stage_still_says_that_it_is_done():
    assert shown(False, 0.01, [1.0, 1.0], 2).splitlines() == ["decoder  2/2  loss 1.0000  12.3 pictures/s  MFU N/A"]


def test_everything_that_is_known_is_said():
    file = io.StringIO()
    with ProgressDisplay(Console(file=file, width=60), "ar", 98, 100) as show:
        show(99, loss=1.0, images_per_s=3.0)
        show(100, loss=math.nan, images_per_s=3.0, mfu=0.4123, memory_bytes=12.5 * 2**30, skipped=2)
    # not broken into lines, however narrow a file is said to be
    assert file.getvalue() == "ar  100/100  loss 1.0000  3.0 pictures/s  MFU 41.2%  peak 12.5 GiB  2 skipped\n"


def test_a_terminal_keeps_one_line_up_to_date():
    text = shown(True, 1.0, [1.0] * 5, 5, first=0)
    assert "5/5" in text
    assert "MFU N/A" in text
    assert "\x1b[2K" in text or "\r" in text


def test_the_loss_is_smoothed_over_finite_values():
    mean = SmoothedMean()
    assert math.isnan(mean.add(math.nan))
    assert mean.add(4.0) == pytest.approx(4.0)  # the first is not pulled to 0
    assert mean.add(math.inf) == pytest.approx(4.0)
    for _ in range(300):
        last = mean.add(1.0)
    assert last == pytest.approx(1.0, abs=1e-5)


def steps(seconds: list[float]) -> Iterator[tuple[int, float]]:
    now_s = 0.0
    for step, took_s in enumerate(seconds, 1):
        now_s += took_s
        yield step, now_s


def test_the_time_left_ignores_the_warm_up():
    left = TimeLeft(0, 100)
    found = [left.at(step, now_s) for step, now_s in steps([60.0, 20.0, 5.0] + [2.0] * 7)]
    assert found[:3] == [None, None, None]
    assert found[-1] == pytest.approx(2.0 * 90)


def test_the_time_left_of_a_resumed_stage_counts_from_where_it_goes_on():
    left = TimeLeft(50, 60)
    found = [left.at(50 + step, now_s) for step, now_s in steps([30.0, 1.0, 1.0, 1.0, 1.0])]
    assert found == [None, None, None, pytest.approx(6.0), pytest.approx(5.0)]


def test_the_time_left_follows_a_run_that_became_slower_and_ends_at_nothing():
    left = TimeLeft(0, 1000)
    found = [left.at(step, now_s) for step, now_s in steps([1.0] * 500 + [3.0] * 300)]
    assert found[-1] == pytest.approx(3.0 * 200)
    assert left.at(1000, 5000.0) == 0.0
