"""A device without memory for a part's work: said in words, and the next image is made as if nothing had been."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sampan.cli import main
from sampan.errors import ApiError, DeviceError
from sampan.frameworks import device as dev
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.request import FEWER, ImageRequest
from sampan.serve.engine import Engine, ImageEvent, ImageTask, prepare_request
from sampan.serve.request import ServeRequest

REQUEST = ImageRequest("a boat", width_px=64, height_px=64, num_inference_steps=2)
WORK = {
    "ar": "the AR generator's tokens",
    "decoder": "a step of the diffusion decoder",
    "vae": "the VAE's decoder",
    "glyph": "the glyph encoder",
}


def cpu() -> None:
    torch.empty(2**55)  # the allocator's own refusal


def cuda() -> None:
    raise torch.OutOfMemoryError(
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 80.00 GiB"
    )


FAULTS: dict[str, tuple[Callable[[], None], str]] = {
    "cpu": (cpu, "can't allocate memory: you tried to allocate 144115188075855872 bytes"),
    "cuda": (cuda, "CUDA out of memory"),
}


@pytest.fixture
def pipeline(tiny_folder: Path) -> Pipeline:
    from sampan.checkpoint.folder import open_folder

    return Pipeline(open_folder(tiny_folder), "cpu", "fp32")


def failing(pipeline: Pipeline, part: str, fault: Callable[[], None], at_call: int) -> Any:
    """Let a part fail at its n-th call, and only there."""
    calls = [0]

    def hook(*_: Any) -> None:
        calls[0] += 1
        if calls[0] == at_call:
            fault()

    module = pipeline.part(part)
    # the VAE's halves are called by themselves
    return (module.decoder if part == "vae" else module).register_forward_pre_hook(hook)


@pytest.mark.parametrize("kind", FAULTS)
@pytest.mark.parametrize(
    ("part", "at_call"), [("ar", 1), ("ar", 3), ("decoder", 1), ("decoder", 2), ("vae", 1), ("glyph", 1)]
)
def test_the_work_is_named_and_the_next_image_is_made(pipeline: Pipeline, part: str, at_call: int, kind: str):
    expected = pipeline(REQUEST)[0]
    fault, says = FAULTS[kind]
    hook = failing(pipeline, part, fault, at_call)
    with pytest.raises(DeviceError) as caught:
        pipeline(REQUEST)
    assert caught.value.what == f"there is not enough memory for {WORK[part]}"
    assert says in caught.value.because[0] and caught.value.hint == FEWER
    assert np.array_equal(pipeline(REQUEST)[0], expected)
    hook.remove()


def test_what_the_work_held_is_let_go(pipeline: Pipeline):
    import gc
    import weakref

    held: list[Any] = []

    def fault() -> None:
        tensor = torch.zeros(8)
        held.append(weakref.ref(tensor))
        cuda()

    failing(pipeline, "decoder", fault, 1)
    with pytest.raises(DeviceError) as caught:
        pipeline(REQUEST)
    gc.collect()
    assert caught.value.__cause__ is not None and held[0]() is None  # though the error is still here


@pytest.mark.parametrize("part", ["ar", "decoder", "vae"])
def test_a_server_says_503_and_goes_on(pipeline: Pipeline, part: str):
    told: list[ImageEvent] = []

    def submit(engine: Engine) -> None:
        task = ImageTask(ServeRequest(REQUEST), 0, 0, told.append, time.monotonic() + 60)
        task.subject = prepare_request(pipeline, task.request)
        engine.waiting.append(task)
        while engine.turn():
            pass

    engine = Engine(pipeline)
    failing(pipeline, part, cuda, 1)
    submit(engine)
    submit(engine)
    assert isinstance(told[0].error, DeviceError) and told[0].error.because == ("CUDA out of memory",)
    assert told[1].error is None and np.array_equal(told[1].pixels, pipeline(REQUEST)[0])
    answer = ApiError.of(told[0].error)
    assert (answer.status, answer.code, answer.retry_after_s) == (503, "no_memory", 10)
    assert answer.message == f"there is not enough memory for {WORK[part]}: CUDA out of memory"


def test_generate_says_it_and_writes_nothing(
    tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
):
    def full(*_: Any, **__: Any) -> None:
        cpu()

    monkeypatch.setattr(dev, "zeros", full)
    out = tmp_path / "x.png"
    assert main(["generate", "a boat", "--model", str(tiny_folder), "--device", "cpu", "--out", str(out)]) == 1
    said = capsys.readouterr().err
    assert "error: there is not enough memory for the AR generator's tokens" in said and "Traceback" not in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error", [RuntimeError("mat1 and mat2 shapes cannot be multiplied"), ValueError("out of memory"), KeyError("x")]
)
def test_another_error_stays_what_it_is(error: Exception):
    assert dev.out_of_memory(error) is None
