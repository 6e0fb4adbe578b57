"""The engine: pictures as the command line paints them, whoever else is there, and nobody waits for who has gone."""

from __future__ import annotations

import dataclasses
import threading
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampan.errors import DeadlineExceeded, RequestError
from sampan.pipeline.batch import generate_priors
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import prepare
from sampan.pipeline.request import ImageRequest
from sampan.serve.engine import Engine, ImageEvent, ImageTask, prepare_request
from sampan.serve.request import ServeRequest

PROMPTS = (
    "a boat",
    'a sign "OPEN" over a door',
    "a red apple on a very long table",
    "um gato",
    "一只猫",
    "sun",
    "x",
    "a kite",
)
REQUEST = ImageRequest("a boat", width_px=64, height_px=64, num_inference_steps=3)


class Told:
    """What was told of a task."""

    def __init__(self) -> None:
        self.partials: list[tuple[int, Any]] = []
        self.pixels: Any = None
        self.facts: dict[str, Any] = {}
        self.error: BaseException | None = None

    def tell(self, event: ImageEvent) -> None:
        if event.partial is not None:
            self.partials.append((event.partial, event.pixels))
        else:
            self.pixels, self.facts, self.error = event.pixels, event.task.facts, event.error


def submit(engine: Engine, request: ServeRequest, seed: int = 0, seconds: float = 60.0) -> tuple[ImageTask, Told]:
    told = Told()
    task = ImageTask(request, seed, 0, told.tell, time.monotonic() + seconds)
    task.subject = prepare_request(engine.pipeline, request)
    engine.waiting.append(task)
    return task, told


def run(engine: Engine) -> int:
    steps = 0
    while engine.turn():
        steps += 1
    return steps


def test_a_batch_of_eight_paints_the_very_pictures_of_the_command_line(pipeline: Pipeline):
    engine = Engine(pipeline)
    asked = [
        ServeRequest(ImageRequest(p, width_px=64, height_px=64, num_inference_steps=3, seed=k))
        for k, p in enumerate(PROMPTS)
    ]
    told = [submit(engine, one, seed)[1] for seed, one in enumerate(asked)]
    run(engine)
    alone = [pipeline(one.image)[0] for one in asked]
    assert all(np.array_equal(one.pixels, pixels) for one, pixels in zip(told, alone, strict=True))
    assert len({pixels.tobytes() for pixels in alone}) == 8


def test_the_same_with_references(pipeline: Pipeline):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    engine = Engine(pipeline)
    _, told = submit(engine, ServeRequest(REQUEST, (image, image)), seed=7)
    _, other = submit(engine, ServeRequest(REQUEST), seed=7)
    run(engine)
    request = ImageRequest("a boat", width_px=64, height_px=64, num_inference_steps=3, seed=7)
    assert np.array_equal(told.pixels, pipeline(request, [image, image])[0])
    assert np.array_equal(other.pixels, pipeline(request)[0])
    assert told.facts["image_tokens"] > 0 and other.facts["image_tokens"] == 0


@pytest.mark.parametrize("steps_before", [0, 1, 2, 10, 40])
def test_who_has_gone_costs_no_further_step(pipeline: Pipeline, steps_before: int):
    engine = Engine(pipeline)
    picture, told = submit(
        engine, ServeRequest(ImageRequest("a boat", width_px=64, height_px=64, num_inference_steps=50))
    )
    for _ in range(steps_before):
        assert engine.turn()
    picture.gone = True
    assert engine.turn() is False  # nothing is left to do
    assert engine.num_under_way == 0 and engine.writer.sequences == []
    assert told.pixels is None and told.error is None


def test_others_go_on_when_one_has_gone(pipeline: Pipeline):
    engine = Engine(pipeline)
    first, _ = submit(engine, ServeRequest(REQUEST), seed=1)
    _, second = submit(engine, ServeRequest(REQUEST), seed=2)
    for _ in range(5):
        engine.turn()
    first.gone = True
    run(engine)
    alone = pipeline(ImageRequest("a boat", width_px=64, height_px=64, num_inference_steps=3, seed=2))[0]
    assert np.array_equal(second.pixels, alone)


def test_who_is_late_is_told(pipeline: Pipeline):
    engine = Engine(pipeline)
    picture, told = submit(engine, ServeRequest(REQUEST), seconds=0.0)
    time.sleep(0.01)
    assert engine.turn() is False
    assert isinstance(told.error, DeadlineExceeded) and picture.gone


def test_a_picture_that_fails_harms_no_other(pipeline: Pipeline):
    engine = Engine(pipeline)
    _, bad = submit(engine, ServeRequest(ImageRequest("a <sop> boat", width_px=64, height_px=64)))
    _, good = submit(engine, ServeRequest(REQUEST))
    run(engine)
    assert isinstance(bad.error, RequestError) and "control token" in str(bad.error)
    assert good.pixels is not None


def test_the_generators_preview_comes_first_and_then_steps_of_the_decoder(pipeline: Pipeline):
    engine = Engine(pipeline)
    request = ImageRequest("a boat", width_px=96, height_px=64, num_inference_steps=6)
    _, told = submit(engine, ServeRequest(request, num_partials=3))
    run(engine)
    assert [number for number, _ in told.partials] == [0, 1, 2]
    assert all(pixels.shape == (64, 96, 3) for _, pixels in told.partials)
    assert all(not np.array_equal(pixels, told.pixels) for _, pixels in told.partials)
    alone = pipeline(ImageRequest("a boat", width_px=96, height_px=64, num_inference_steps=6, seed=0))[0]
    assert np.array_equal(told.pixels, alone)  # looking changes nothing


def test_only_what_the_mask_opens_changes(pipeline: Pipeline):
    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    mask = np.zeros((64, 64), bool)
    mask[10:40, 5:33] = True
    engine = Engine(pipeline)
    _, told = submit(engine, ServeRequest(REQUEST, (image,), mask))
    run(engine)
    before = np.asarray(image)
    assert np.array_equal(told.pixels[~mask], before[~mask])
    assert (told.pixels[mask] != before[mask]).mean() > 0.5


def test_of_several_rows_the_one_that_reads_best_is_painted(pipeline: Pipeline):
    seen: list[str] = []

    def proofread(looks: Sequence[Any], prompt: str) -> list[float]:
        seen.append(prompt)
        assert len(looks) == 3 and len({look.tobytes() for look in looks}) == 3
        return [0.1, 0.9, 0.5]

    engine = Engine(pipeline, proofread=proofread)
    _, told = submit(engine, ServeRequest(REQUEST, num_rows=3), seed=4)
    run(engine)
    assert seen == ["a boat"] and told.facts["proofread_chosen"] == 1 and told.facts["proofread_score"] == 0.9
    # row 1 of the seed is what the command line writes for its second picture; noise is that of the first
    (two,) = generate_priors(pipeline, [prepare(pipeline, dataclasses.replace(REQUEST, seed=4, count=2))])
    _, plain = submit(engine, ServeRequest(REQUEST), seed=4)
    run(engine)
    assert not np.array_equal(two[0], two[1]) and not np.array_equal(plain.pixels, told.pixels)


def test_two_that_ask_for_the_same_are_not_taken_for_one_another(pipeline: Pipeline):
    free = threading.Event()

    def proofread(looks: Sequence[Any], prompt: str) -> list[float]:
        assert free.wait(60)
        return [0.5] * len(looks)

    image = Image.fromarray(np.random.default_rng(1).integers(0, 256, (64, 64, 3), np.uint8))
    mask = np.zeros((64, 64), bool)
    mask[10:40, 5:33] = True
    engine = Engine(pipeline, proofread=proofread)
    _, read = submit(engine, ServeRequest(REQUEST, (image,), mask.copy(), num_rows=2))
    _, plain = submit(engine, ServeRequest(REQUEST, (image,), mask.copy()))
    until = time.monotonic() + 60
    while plain.pixels is None and time.monotonic() < until:
        assert engine.turn()
    assert read.pixels is None  # it is being read while the other one is handed over
    free.set()
    run(engine)
    assert read.facts["proofread_rows"] == 2


def test_pictures_are_ready_one_after_another(pipeline: Pipeline):
    engine, order = Engine(pipeline), []
    for seed in range(3):
        picture, _ = submit(engine, ServeRequest(REQUEST), seed=seed)
        picture.tell = lambda event: order.append((event.task.seed, steps))
    steps = 0
    while engine.turn():
        steps += 1
    assert [seed for seed, _ in order] == [0, 1, 2]
    assert order[0][1] < order[1][1] < order[2][1]
