"""A prompt that cannot be painted is refused at once, whatever it is, and the message has the numbers."""

from __future__ import annotations

import bisect
import time
from pathlib import Path

import pytest

from sampan.checkpoint.folder import ModelFolder, open_folder
from sampan.errors import RequestError
from sampan.models.quotations import straighten
from sampan.pipeline.prompt import check_prompt

LONG_S = 0.2


@pytest.fixture(scope="module")
def nano() -> ModelFolder:
    return open_folder(Path(__file__).parents[3] / "src/sampan/weights/nano")


@pytest.mark.parametrize(
    "prompt",
    [
        "a" * 100_000,
        "hello world " * 8000,
        "漢" * 100_000,
        '"A" ' * 25_000,
        "“a " * 30_000,
        "e\u0301" * 50_000,
        "שלום " * 20_000,
    ],
    ids=["letters", "words", "chinese", "quoted", "unclosed", "combining", "rtl"],
)
def test_a_prompt_that_is_too_long_is_found_in_time_and_counted(nano: ModelFolder, prompt: str):
    tokenizer = nano.prompt_tokenizer()
    check_prompt("warm", (128, 128), (), tokenizer, nano.config)
    begun = time.perf_counter()
    with pytest.raises(RequestError) as caught:
        check_prompt(straighten(prompt), (128, 128), (), tokenizer, nano.config)
    assert time.perf_counter() - begun < LONG_S
    assert caught.value.what == "the prompt is too long for this model"
    assert " tokens or more with its references, the picture needs 81, and 2048 fit" in caught.value.because[0]
    assert caught.value.hint == "shorten the prompt to about 1967 tokens, or ask for a smaller picture"


@pytest.mark.parametrize("prompt", ["שלום עולם", "e\u0301\u0302" * 50, "  a boat  ", "\t\n", "🛶" * 40, "a\u202eb"])
def test_odd_prompts_that_fit_are_taken(nano: ModelFolder, prompt: str):
    check_prompt(prompt, (128, 128), (), nano.prompt_tokenizer(), nano.config)


@pytest.mark.parametrize("prompt", ["a boat " * 100, 'a sign "AB c" ' * 60, "“x” and 'y' " * 80, "漢字" * 150])
def test_the_bound_is_never_above_the_count(nano: ModelFolder, prompt: str):
    tokenizer = nano.prompt_tokenizer()
    assert 0 < tokenizer.count_at_least(prompt, 10**9) <= len(tokenizer.text_ids(prompt))


def test_the_count_is_exact_where_it_is_close(nano: ModelFolder):
    tokenizer = nano.prompt_tokenizer()

    def is_refused(num_words: int) -> bool:
        try:
            check_prompt("boat " * num_words, (128, 128), (), tokenizer, nano.config)
        except RequestError:
            return True
        return False

    prompt = "boat " * (bisect.bisect_left(range(2000), True, key=is_refused) - 1)
    ids = tokenizer.encode(prompt, (8, 8), (4, 4)).ids
    assert 2048 - 81 - 4 <= len(ids) <= 2048 - 81


def test_references_count_too(nano: ModelFolder):
    tokenizer, sizes = nano.prompt_tokenizer(), [(512, 512)] * 2
    check_prompt("make it blue", (128, 128), sizes[:1], tokenizer, nano.config)
    with pytest.raises(RequestError, match=r"too large|too long"):
        check_prompt("make it blue", (128, 128), sizes, tokenizer, nano.config)


def test_control_tokens_are_refused_by_name(nano: ModelFolder):
    with pytest.raises(RequestError, match="<sop>"):
        check_prompt("a <sop> b", (128, 128), (), nano.prompt_tokenizer(), nano.config)
