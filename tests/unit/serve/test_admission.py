"""Whatever comes, goes or fails, every picture that was let in ends, and leaves no room taken behind it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from sampan.errors import RequestError
from sampan.frameworks import device as dev
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.request import ImageRequest
from sampan.serve.engine import Engine, ImageEvent, ImageTask, prepare_request
from sampan.serve.request import ServeRequest
from sampan.serve.scheduler import Scheduler
from sampan.serve.settings import AdmissionLimits

MAX_ROWS = 4
BAD_PROMPT = "a prompt that cannot be read"


class FakeGenerator:
    """Writes any token, at once; its next step fails where it is told so."""

    def __init__(self, num_codes: int):
        self.num_codes, self.fails = num_codes, False
        self.model = SimpleNamespace(language_model=SimpleNamespace(layers=[None]))

    def cache_shape(self, batch: int, slots: int) -> tuple[int, int, int, int]:
        return (batch, 1, slots, 1)

    def __call__(self, ids: Any, cos: Any, sin: Any, mask: Any, cache: Any, slot: Any, **_: Any) -> Any:
        if self.fails:
            self.fails = False
            raise RuntimeError("the device gave up")
        return dev.array(np.zeros((ids.shape[0], 1, self.num_codes), np.float32), "cpu"), cache


class FakeDenoiseState:
    """A painting that takes steps and computes nothing."""

    latent = None

    def __init__(self, num_steps: int):
        self.steps_taken, self.num_steps = 0, num_steps

    @property
    def done(self) -> bool:
        return self.steps_taken == self.num_steps

    def step(self) -> None:
        self.steps_taken += 1

    def predict_clean(self) -> None:
        return None


class FakePipeline:
    """A pipeline with the real one's configuration that does no arithmetic."""

    device, dtype = "cpu", "fp32"

    def __init__(self, config: Any):
        self.config = config
        self.generator = FakeGenerator(config.ar.vq.num_embeddings)
        self.prompt_tokenizer = SimpleNamespace(encode=self._encode)

    def _encode(self, prompt: str, *_: Any) -> Any:
        if prompt == BAD_PROMPT:
            raise RequestError("this prompt cannot be read")
        ids = np.arange(len(prompt))
        return SimpleNamespace(ids=ids, references=(), with_reference_ids=lambda _: ids)

    def part(self, name: str) -> Any:
        return self.generator

    def glyph_embeds(self, texts: Sequence[str]) -> Any:
        return np.zeros((1, 1, 1), np.float32)

    def denoiser(self) -> Any:
        return SimpleNamespace(start=lambda inputs: FakeDenoiseState(inputs.num_steps))

    def decode(self, latent: Any) -> Any:
        return np.zeros((1, 3, 64, 64), np.float32)


class Watched:
    """A picture, and how often it was said to be over."""

    def __init__(self, engine: Engine, request: ImageRequest, rows: int = 1, partials: int = 0):
        self.ends: list[str] = []
        self.cancelled = False
        serve_request = ServeRequest(request, num_partials=partials, num_rows=rows)
        self.task = ImageTask(serve_request, 0, 0, self.tell)
        self.task.subject = prepare_request(engine.pipeline, serve_request)

    def tell(self, event: ImageEvent) -> None:
        if event.partial is None:
            self.ends.append("finished" if event.error is None else type(event.error).__name__)


class Crowd(RuleBasedStateMachine):
    """Pictures that come, go, are late, are read and fail, in any order."""

    pictures = Bundle("pictures")

    def __init__(self, config: Any):
        super().__init__()
        self.reader_free = threading.Event()
        self.reader_free.set()
        self.reader_fails = False
        self.pipeline: Any = FakePipeline(config)
        self.engine = Engine(self.pipeline, max_rows=MAX_ROWS, proofread=self.proofread)
        self.all: list[Watched] = []

    def proofread(self, looks: Sequence[Any], prompt: str) -> list[float]:
        assert self.reader_free.wait(30)
        if self.reader_fails:
            raise RuntimeError("the reader failed")
        return [0.5] * len(looks)

    @rule(
        target=pictures,
        prompt=st.sampled_from(["a", "a boat", "a rather long prompt about boats", BAD_PROMPT]),
        rows=st.integers(1, MAX_ROWS),
        partials=st.integers(0, 2),
    )
    def ask(self, prompt: str, rows: int, partials: int) -> Watched:
        request = ImageRequest(prompt, width_px=64, height_px=64, num_inference_steps=2)
        watched = Watched(self.engine, request, rows, partials)
        self.all.append(watched)
        self.engine.waiting.append(watched.task)
        return watched

    @rule(times=st.integers(1, 12))
    def work(self, times: int) -> None:
        for _ in range(times):
            self.engine.turn()

    @rule(picture=pictures)
    def hang_up(self, picture: Watched) -> None:
        picture.cancelled = picture.cancelled or not picture.ends
        picture.task.gone = True

    @rule(picture=pictures)
    def run_out_of_time(self, picture: Watched) -> None:
        picture.task.deadline = 0.0

    @rule(free=st.booleans(), fails=st.booleans())
    def change_reader(self, free: bool, fails: bool) -> None:
        self.reader_fails = fails
        self.reader_free.set() if free else self.reader_free.clear()

    @rule()
    def break_a_step(self) -> None:
        self.pipeline.generator.fails = True

    @rule()
    def wait_until_all_is_done(self) -> None:
        self.reader_free.set()
        for _ in range(10_000):
            if not self.engine.turn():
                break
        assert not self.engine.waiting and not self.engine.num_under_way and not self.engine.writer.sequences
        for picture in self.all:
            assert len(picture.ends) == (0 if picture.cancelled else 1), picture.ends

    @invariant()
    def rows_belong_to_pictures_that_are_written(self) -> None:
        rows = self.engine.writer.sequences
        written = [row for p in self.all for row in p.task.rows if not all(row.done for row in p.task.rows)]
        assert len(rows) <= MAX_ROWS
        assert all(any(row is other for other in written) for row in rows)

    def teardown(self) -> None:
        self.wait_until_all_is_done()


def test_whatever_happens_every_picture_ends_and_leaves_no_rows(pipeline: Pipeline):
    run_state_machine_as_test(
        lambda: Crowd(pipeline.config),  # type: ignore[arg-type]  # a factory is what it takes
        settings=settings(max_examples=60, stateful_step_count=30, deadline=None),
    )


def paint(engine: Engine, count: int, rows: int = 1) -> None:
    """Let pictures be painted that come together, and see that all of them are."""
    watched = [Watched(engine, ImageRequest("a boat", width_px=64, height_px=64), rows) for _ in range(count)]
    engine.waiting.extend(one.task for one in watched)
    while engine.turn():
        pass
    assert [one.ends for one in watched] == [["finished"]] * count


@pytest.mark.parametrize(
    ("max_rows", "waves"),
    [(1, (1, 1, 1)), (8, (8, 1)), (8, (8, 8, 8)), (4, (6, 9, 2))],
    ids=["one at a time", "a full batch and one", "three full batches", "more than a batch"],
)
def test_a_batch_that_ends_together_makes_room_for_the_next(pipeline: Pipeline, max_rows: int, waves: tuple[int, ...]):
    engine = Engine(FakePipeline(pipeline.config), max_rows=max_rows)  # type: ignore[arg-type]
    for count in waves:
        paint(engine, count)
        assert not engine.writer.sequences


def test_the_same_with_rows_that_are_proofread(pipeline: Pipeline):
    engine = Engine(
        FakePipeline(pipeline.config),  # type: ignore[arg-type]
        max_rows=4,
        proofread=lambda looks, prompt: [1.0] * len(looks),
    )
    for _ in range(3):
        paint(engine, 2, rows=4)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("late", [False, True])
def test_an_engine_that_breaks_fails_what_it_has_and_what_still_comes(pipeline: Pipeline, late: bool):
    engine = Engine(FakePipeline(pipeline.config))  # type: ignore[arg-type]
    scheduler = Scheduler(engine, AdmissionLimits())
    watched = Watched(engine, ImageRequest("a boat", width_px=64, height_px=64))

    def broken(what: str, seconds: float, rows: int) -> None:
        raise MemoryError("no room at all")

    engine.observe = broken
    if late:
        engine.waiting.append(Watched(engine, ImageRequest("a boat", width_px=64, height_px=64)).task)
    else:
        scheduler.submit([watched.task])
    scheduler.start()
    until = time.monotonic() + 30
    while scheduler.broken is None and time.monotonic() < until:
        time.sleep(0.001)
    if late:
        scheduler.submit([watched.task])  # it was admitted before, and comes into the queue only now
    scheduler.stop()
    assert watched.ends == ["MemoryError"]


@pytest.mark.parametrize(
    ("batch", "waves"), [(1, (1, 1, 1)), (4, (4, 1)), (4, (4, 4, 4))], ids=["batch 1", "full, then one", "three waves"]
)
def test_over_http_a_full_batch_makes_room_too(start: Callable[..., Any], batch: int, waves: tuple[int, ...]):
    running = start(max_rows=batch, limits=AdmissionLimits(timeout_s=20.0))
    for count in waves:
        answer = running.paint(n=count)
        assert answer.status_code == 200, answer.text
        assert len(answer.json()["data"]) == count


def test_a_picture_whose_end_cannot_be_noted_still_ends(running: Any, monkeypatch: pytest.MonkeyPatch):
    def full(*_: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(running.server.store, "end", full)
    answer = running.paint(prompt="a <sop> boat")
    assert answer.status_code == 400 and "control token" in answer.text
