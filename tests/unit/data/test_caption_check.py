"""Captions that no prompt could be: each is refused before the training, and what may not be meant is noted."""

from __future__ import annotations

import pytest

from sampan.checkpoint import builtin
from sampan.checkpoint.folder import open_folder
from sampan.data.caption_check import CaptionCheck
from sampan.errors import BadRowError
from sampan.models import presets

CONFIG = presets.get("nano")
SIZE = (128, 128)


@pytest.fixture(scope="module")
def learned() -> CaptionCheck:
    """The check where the tokenizer is learned from the set."""
    return CaptionCheck(CONFIG, None)


@pytest.fixture(scope="module")
def starting() -> CaptionCheck:
    """The check where the training starts from a model."""
    folder = open_folder(builtin.builtin_models()["nano"])
    return CaptionCheck(folder.config, folder.prompt_tokenizer())


def reason(check: CaptionCheck, caption: str) -> str:
    with pytest.raises(BadRowError) as caught:
        check.check("m:1", ("a good one", caption), SIZE, ())
    return f"{caught.value.kind}: {caught.value}"


@pytest.mark.parametrize("token", ["[MASK]", "<|user|>", "<|endoftext|>", "<sop>", "<|dit_token_7|>"])
def test_control_tokens_are_found_with_and_without_a_tokenizer(learned, starting, token):
    for check in (learned, starting):
        assert reason(check, f"a diagram of\n{token}") == (
            f"control-token: `{token}` in `a diagram of {token}` is a control token of the model's tokenizer"
        )
        assert check.check("m:1", ("a < b [and] |c|", "a <div>"), SIZE, ()) == []


@pytest.mark.parametrize("quotes", ['""', "“”", "「」"])
def test_a_quotation_that_is_too_long_to_draw(learned, quotes):
    caption = f"a poster with {quotes[0]}{'word ' * 600}{quotes[1]}"
    begins = f"a poster with {quotes[0]}{'word ' * 20}"[:60]
    assert reason(learned, caption) == (
        f"long-quotation: `{begins}…`: a quoted text of 3000 bytes is too long to draw; "
        "the glyph encoder reads at most 2047 bytes"
    )
    assert learned.check("m:1", (f"{quotes[0]}{'x' * 2047}{quotes[1]}",), SIZE, ()) == []


def test_apostrophes_far_apart_are_a_note(learned):
    caption = f"It's a poster. {'word ' * 600} It is Bob's, with 'TEA' on it"
    notes = learned.check("m:1", (caption, "It's Bob's"), SIZE, ())
    assert [(note.where, note.kind) for note in notes] == [("m:1", "far-apostrophes")]
    assert notes[0].reason.startswith("`It's a poster. word word")


def test_a_caption_beside_whose_picture_there_is_no_room(starting):
    limit = CONFIG.ar.text.max_position_embeddings
    assert reason(starting, "á😀 " * limit).startswith("long-caption: `á😀 á😀")
    told = reason(starting, "á😀 " * limit)
    assert told.endswith(f"and {limit:,} fit together")
    assert starting.check("m:1", ("a lamp " * 20,), SIZE, (SIZE, SIZE)) == []


def test_long_captions_are_cut_into_tokens_before_they_are_refused(starting):
    # more bytes than there is room for, and not more tokens
    limit = CONFIG.ar.text.max_position_embeddings
    caption = "a dog face on a blue background " * (limit // 32)
    assert len(caption) > limit - 200
    assert starting.check("m:1", (caption,), SIZE, ()) == []
