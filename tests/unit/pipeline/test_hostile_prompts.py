"""Prompts that were made to hurt: taken or refused in words, each in a fifth of a second."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.checkpoint.folder import open_folder
from sampan.errors import RequestError
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import prepare
from sampan.pipeline.prompt import MAX_PROMPT_CHARS
from sampan.pipeline.request import ImageRequest

LIMIT_S = 0.2
LONG = 1_000_000  # of which MAX_PROMPT_CHARS are tried, too
PROMPTS = {
    "nothing": "",
    "blanks": " " * LONG,
    "one letter": "a" * LONG,
    "words": "boat " * 200_000,
    "apostrophes": "'a " * 300_000,
    "quotes": '"' * LONG,
    "open quotes": "“" * LONG,
    "nested quotes": "\"'" * 400_000,
    "letters to spell": '"' + "x" * LONG + '"',
    "combining marks": "a" + "\u0301" * LONG,
    "emoji with joiners": "👩‍🚀" * 100_000,
    "right to left": "\u202e" + "boat" * 1000,
    "surrogate": "a \ud800 boat",
    "nul": "a\0boat",
    "control characters": "".join(map(chr, range(1, 32))) * 1000,
    "private use": "\ue000" * 10_000,
    "line breaks": "\n\u2028\u2029\x85" * 10_000,
    "a control token": "a <|image|> of",
    "nearly control tokens": "<|" * 100_000,
    "json": '{"a":' * 50_000,
    "format": "%s%n{0}{a.__class__}" * 1000,
}


@pytest.fixture(scope="module")
def pipeline(tiny_folder: Path) -> Pipeline:
    made = Pipeline(open_folder(tiny_folder), "cpu", "fp32")
    prepare(made, ImageRequest("a boat", width_px=64, height_px=64)).sequence(0)  # the tokenizer is read
    return made


@pytest.mark.parametrize("most", [None, MAX_PROMPT_CHARS])
@pytest.mark.parametrize("kind", PROMPTS)
def test_it_is_taken_or_refused_soon(
    most: int | None, kind: str, pipeline: Pipeline, record_property: Callable[..., None]
):
    taken = []
    for _ in range(3):  # the machine has other things to do, too
        begun = time.process_time()
        with contextlib.suppress(RequestError):
            one = prepare(pipeline, ImageRequest(PROMPTS[kind][:most], width_px=64, height_px=64))
            assert len(one.sequence(0).prompt_ids) < pipeline.config.ar.text.max_position_embeddings
        taken.append(time.process_time() - begun)
    record_property("ms for a hostile prompt at most", round(min(taken) * 1000))
    assert min(taken) < LIMIT_S


def test_a_long_prompt_is_refused_without_its_text(pipeline: Pipeline):
    with pytest.raises(RequestError) as caught:
        prepare(pipeline, ImageRequest("boat " * 200_000, width_px=64, height_px=64))
    assert caught.value.render() == (
        "error: the prompt is too long for this model\n"
        "  because it has 1,000,000 characters, and at most 8,000 are read\n\n"
        "hint: shorten the prompt"
    )


def test_half_a_character_is_named(pipeline: Pipeline):
    with pytest.raises(RequestError, match="its character 3 is half of a surrogate pair"):
        prepare(pipeline, ImageRequest("a \ud800 boat", width_px=64, height_px=64))
