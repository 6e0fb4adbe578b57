"""A stage's memory and arithmetic are known before it begins, and what does not fit names the setting that would."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from sampan.errors import JobError
from sampan.frameworks.torch import device
from sampan.job import parse
from sampan.train.estimate import estimate_all
from sampan.train.run_state import RunState, open_run
from unit.train.conftest import draw_plain

JOB = """
out = "{folder}/run"
[data]
path = "{folder}/set"
workers = 0
[model.override.text]
num_hidden_layers = 2
[model.override.dit]
num_layers = 2
[stage.ar]
micro_batch_size = 8
[stage.decoder]
micro_batch_size = 8
"""


@pytest.fixture
def work(tmp_path: Path) -> RunState:
    draw_plain(tmp_path / "set")
    job = parse(JOB.format(folder=tmp_path.as_posix()))
    return open_run(job, "cpu", "fp32", resume=False, console=Console(quiet=True))


def test_nothing_is_encoded_and_every_stage_has_its_need(work: RunState):
    found = estimate_all(work, ["ar", "decoder"])
    for estimate in found.values():
        need = estimate.need
        # fp32 weights, gradients and the average are of one size, both moments of two
        assert need.weights == need.gradients == need.average == need.moments / 2
        assert need.activations > 0 and estimate.useful_flops_per_row > 1e8
    assert not list(work.cache.rglob("*.safetensors"))
    # a training step is about three forward passes: two FLOPs a weight and token, three times
    tokens = 8 * 8 + 64  # what the decoder sees of a picture of 128 px is 64 tokens, and a byte of no words
    assert found["decoder"].useful_flops_per_row < 6 * found["decoder"].need.weights / 4 * tokens


def test_what_does_not_fit_is_refused_with_the_setting_that_would(work: RunState, monkeypatch: pytest.MonkeyPatch):
    need = estimate_all(work, ["decoder"])["decoder"].need
    free = need.total - need.activations // 4  # a little too small
    monkeypatch.setattr(device, "memory_bytes", lambda name: (2 * free, free))
    with pytest.raises(JobError) as caught:
        estimate_all(work, ["decoder"])
    assert caught.value.what == "stage decoder does not fit on `cpu`"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("stage.decoder.recompute = true needs ") and caught.value.hint.endswith("fits")
    monkeypatch.setattr(device, "memory_bytes", lambda name: (1000, 1000))
    with pytest.raises(JobError, match="no setting makes it fit"):
        estimate_all(work, ["decoder"])
