"""One side by itself, in this process: what it answers is what PyTorch computes, and nothing of it is asleep."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from sampan import frameworks
from sampan.bench import shapes
from sampan.bench.backends import Backend
from sampan.bench.process import ComputeTarget, running
from sampan.bench.worker import LR, Worker, serve
from sampan.errors import DeviceError

TINY = shapes.BenchShape(
    "nano", 64, dict.fromkeys(("ar", "decoder"), 2),
    {"text": {"num_hidden_layers": 1}, "dit": {"num_layers": 1}, "geometry": {"default_px": 64, "preview_side": 2}},
)  # fmt: skip


def loaded(part: str, folder: Path, **settings: bool) -> Worker:
    frameworks.use("torch")
    worker = Worker()
    worker.describe("cpu", "fp32", None)
    shapes.save(folder / "batch.npz", shapes.batch(part, TINY, 0))
    model = {"preset": TINY.preset, "override": TINY.override}
    worker.load(part, str(folder / "batch.npz"), 0, settings.get("compiled", False), model)
    return worker


@pytest.mark.parametrize("part", ["ar", "decoder"])
def test_gradients_are_the_gradients_and_every_parameter_has_one(part: str, tmp_path: Path):
    worker = loaded(part, tmp_path)
    before = {name: value.detach().clone() for name, value in worker.module.named_parameters()}
    wanted = torch.autograd.grad(worker.loss(worker.module, *worker.batch), list(worker.module.parameters()))
    answer = worker.step(lr=0.0, gradients=str(tmp_path / "gradients.npz"))
    with np.load(tmp_path / "gradients.npz") as found:
        assert set(found.files) == set(before)
        for name, gradient in zip(before, wanted, strict=True):
            np.testing.assert_allclose(found[name], gradient.numpy(), rtol=1e-5, atol=1e-9)
            assert np.abs(found[name]).max() > 0, f"`{name}` is asleep"
    for name, value in worker.module.named_parameters():
        assert torch.equal(value, before[name])  # the step that is compared changes nothing
    assert answer["skipped"] is False and answer["seconds"] > 0
    worker.step()
    moved = max(float((value.detach() - before[name]).abs().max()) for name, value in worker.module.named_parameters())
    assert moved == pytest.approx(LR, rel=0.2)


def test_the_same_seed_gives_the_same_answer(tmp_path: Path):
    answers = [loaded("ar", tmp_path).step()["loss"] for _ in range(2)]
    assert answers[0] == answers[1]


def test_what_is_said_of_a_side(tmp_path: Path):
    worker = loaded("decoder", tmp_path)
    facts = worker.describe("auto", "auto", None)
    assert facts["version"] == torch.__version__ and facts["device"] == worker.device
    flops, memory = worker.flops(), worker.memory()
    assert 0 < flops["forward_flops"] < flops["step_flops"] < 4 * flops["forward_flops"]
    assert memory["peak_rss_bytes"] > 2**26 and memory["peak_device_bytes"] is None
    assert worker.evaluate()["loss"] == pytest.approx(worker.step()["loss"], rel=1e-5)


def test_an_error_is_an_answer_and_the_next_request_is_served():
    frameworks.use("torch")
    requests = [{"do": "describe", "device": "npu", "dtype": "fp32", "threads": None}]
    requests.append({"do": "describe", "device": "cpu", "dtype": "fp32", "threads": None})
    answers = io.StringIO()
    serve(Worker(), io.StringIO("".join(json.dumps(request) + "\n" for request in requests)), answers)
    first, second = map(json.loads, answers.getvalue().splitlines())
    assert first["error"]["what"] == "there is no `npu` device" and first["error"]["hint"]
    assert second["device"] == "cpu"


def test_what_a_framework_prints_does_not_get_between_the_answers(tmp_path: Path):
    backend = Backend("torch", "eager", (str(Path(__file__).parent / "faulty_worker.py"), "noise"))
    with running([backend], tmp_path, ComputeTarget("cpu", "fp32", 1)) as [process]:
        assert process.facts["device"] == "cpu" and process.facts["threads"] == 1
        assert process.facts["stdin"] == ""  # requests are not there for others to read
    said = (tmp_path / "torch-eager.log").read_text(encoding="utf-8")
    assert "a banner" in said and "[WARNING] from a library" in said


def test_a_framework_can_be_chosen_once():
    frameworks.use("torch")
    with pytest.raises(DeviceError, match="this process runs on torch and cannot change to mindspore"):
        frameworks.use("mindspore")
