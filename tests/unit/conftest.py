"""Which unit tests `make check` leaves out: those that start processes or a second framework, train, or draw large sets."""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent
# whole folders and single files; what they cost is seen with `pytest --durations=60 tests/unit`
PROCESS = (
    "bench/tensorflow",
    "bench/test_first_difference.py",
    "bench/test_timing.py",
    "bench/test_worker.py",
    "checkpoint/test_mutants.py",
    "cli/test_mutants.py",
    "data/test_encode.py",
    "data/test_examine.py",
    "data/test_workers.py",
    "evaluate/test_verb.py",
    "frameworks/mindspore",
    "frameworks/torch/test_meter.py",
    "frameworks/torch/test_ranks.py",
    "job/test_mutants.py",
    "models/test_presets.py",
    "pipeline/test_batch.py",
    "pipeline/test_no_memory.py",
    "pipeline/test_pipeline.py",
    "pipeline/test_prompt.py",
    "pipeline/test_token_counts.py",
    "plan/workloads/own/test_count.py",
    "plan/workloads/own/test_stages.py",
    "serve/test_admission.py",
    "serve/test_api.py",
    "serve/test_bodies.py",
    "serve/test_connection.py",
    "serve/test_engine.py",
    "serve/test_keys_are_kept.py",
    "serve/test_page.py",
    "serve/test_store_faults.py",
    "synthetic/signs/test_signs.py",
    "synthetic/test_pairs.py",
    "test_doctor.py",
    "test_extras.py",
    "train/stages/test_glyph.py",
    "train/test_carry.py",
    "train/test_clock.py",
    "train/test_dry_run.py",
    "train/test_kill.py",
    "train/test_loop.py",
    "train/test_resume.py",
    "train/test_run_log.py",
    "train/test_verify.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of the files above."""
    slow = tuple(str(HERE / name) for name in PROCESS)
    for item in items:
        if str(item.path).startswith(slow):
            item.add_marker(pytest.mark.process)
