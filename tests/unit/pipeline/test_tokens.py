"""Rows written together: each gets the tokens that it gets alone, whenever it comes and whoever goes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampan.checkpoint.folder import open_folder
from sampan.pipeline import tokens
from sampan.pipeline.batch import generate_priors
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import prepare
from sampan.pipeline.request import ImageRequest
from sampan.pipeline.tokens import BatchedDecoder, TokenSequence, generate_tokens

PROMPTS = (
    "a boat",
    "a red apple on a very long table, seen from above",
    "",
    'a sign "OPEN"',
    "um gato",
    "一只猫",
    "x",
    "sun",
)
SIZE = (64, 96)


def request(prompt: str, seed: int, count: int = 1) -> ImageRequest:
    return ImageRequest(prompt, height_px=SIZE[0], width_px=SIZE[1], seed=seed, count=count)


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Pipeline:
    return Pipeline(open_folder(tiny_folder), "cpu", "fp32")


@pytest.fixture(scope="module")
def alone(pipeline: Pipeline) -> list[Any]:
    """What each prompt gets on its own, as the command line computes it."""
    found = []
    for seed, prompt in enumerate(PROMPTS):
        found.append(generate_priors(pipeline, [prepare(pipeline, request(prompt, seed))])[0][0])
    return found


def row(pipeline: Pipeline, seed: int, picture: int = 0) -> TokenSequence:
    config = pipeline.config
    grids = (config.geometry.preview_grid(*SIZE), config.geometry.prior_grid(*SIZE))
    prompt = pipeline.prompt_tokenizer.encode(PROMPTS[seed], grids[1], grids[0])
    return TokenSequence(
        prompt.ids,
        (),
        grids,
        num_codes=min(config.ar.vq.num_embeddings, config.dit.prior_vq_quantizer_codebook_size),
        sampling=config.sampling,
        seed=seed,
        picture=picture,
        config=config.ar.text,
    )


def writer(pipeline: Pipeline) -> BatchedDecoder:
    return BatchedDecoder(pipeline.part("ar"), "cpu", "fp32")


def test_rows_of_eight_prompts_get_what_each_gets_alone(pipeline: Pipeline, alone: list[Any]):
    together, rows = writer(pipeline), [row(pipeline, seed) for seed in range(8)]
    for one in rows:
        together.join([one])
    assert len({len(one.prompt_ids) for one in rows}) > 3
    while together.sequences:
        together.step()
    assert all(np.array_equal(one.grid_ids(-1), ids) for one, ids in zip(rows, alone, strict=True))
    assert len({ids.tobytes() for ids in alone}) == 8


def test_rows_may_come_and_go_between_two_tokens(pipeline: Pipeline, alone: list[Any]):
    together, rows = writer(pipeline), [row(pipeline, seed) for seed in range(8)]
    for number, one in enumerate(rows):
        together.join([one])
        for _ in range(3):
            together.step()
        if number == 4:
            together.keep([other for other in together.sequences if other is not rows[2]])  # somebody lost patience
    while together.sequences:
        together.step()
    assert not rows[2].done
    assert all(np.array_equal(rows[k].grid_ids(-1), alone[k]) for k in range(8) if k != 2)


def test_rows_of_one_prompt_are_read_once_and_differ_by_their_number(pipeline: Pipeline, alone: list[Any]):
    first = row(pipeline, 1)
    second = row(pipeline, 1, picture=1)
    second.prompt_ids = first.prompt_ids
    together = writer(pipeline)
    together.join([first, second])
    while together.sequences:
        together.step()
    (both,) = generate_priors(pipeline, [prepare(pipeline, request(PROMPTS[1], 1, count=2))])
    assert np.array_equal(first.grid_ids(-1), alone[1]) and np.array_equal(both[0], alone[1])
    assert np.array_equal(second.grid_ids(-1), both[1]) and not np.array_equal(both[0], both[1])


def test_a_row_has_as_many_tokens_as_its_grids(pipeline: Pipeline):
    one = row(pipeline, 0)
    together = writer(pipeline)
    together.join([one])
    steps = 0
    while not one.done:
        together.step()
        steps += 1
    assert steps == one.total - 1 and len(one.written) == one.total  # reading the prompt writes the first
    together.step()
    assert together.sequences == [] and len(one.written) == one.total


def test_the_step_may_be_another_function_than_reads_the_prompt(pipeline: Pipeline, alone: list[Any]):
    class Step:
        def __init__(self) -> None:
            self.calls, self.shapes = 0, set()

        def __len__(self) -> int:
            raise TypeError("a compiled module has no length, and so no truth value")

        def __call__(self, *arguments: Any) -> Any:
            self.calls += 1
            self.shapes.add(tuple(tuple(a.shape) for a in (*arguments[:4], arguments[4][0][0], arguments[5])))
            return pipeline.part("ar")(*arguments)

    step, one = Step(), row(pipeline, 1)
    generate_tokens(BatchedDecoder(pipeline.part("ar"), "cpu", "fp32", step), [one])
    assert step.calls == one.total - 1 and np.array_equal(one.grid_ids(-1), alone[1])
    assert len(step.shapes) == 1  # or every token would be compiled anew


def test_more_tokens_than_tables_are_sent_to_the_device_at_once(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tokens, "_AHEAD", 3)
    rows = [row(pipeline, seed) for seed in range(3)]
    generate_tokens(writer(pipeline), rows)
    whole = [row(pipeline, seed) for seed in range(3)]
    monkeypatch.undo()
    generate_tokens(writer(pipeline), whole)
    assert [one.written for one in rows] == [one.written for one in whole]
