"""Prompts as ids, quoted words as bytes, and a tokenizer of our own that the libraries can read."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from sampan.errors import CheckpointError, RequestError
from sampan.models import presets
from sampan.models.text import (
    GLYPH_MAX_BYTES,
    PromptTokenizer,
    glyph_batch,
    glyph_texts,
    has_far_apostrophes,
    train_tokenizer,
    with_token_ids,
)

CORPUS = ["a red apple on a wooden table", "uma maçã vermelha em uma mesa", "桌子上的一个红苹果", "🍎 2 apples"] * 5
PROMPTS = ["a red apple", "uma maçã vermelha, só ação", "桌子上的红苹果", "🚤 unseen ✓ signs", ""]
NUM_VISUAL, NUM_CODES, NUM_PIECES = 80, 64, 400


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return train_tokenizer(CORPUS, NUM_VISUAL, NUM_CODES, NUM_PIECES)


@pytest.fixture(scope="module")
def tokenizer(files: dict[str, bytes]) -> PromptTokenizer:
    return PromptTokenizer(files["tokenizer.json"].decode(), json.loads(files["tokenizer_config.json"]))


def test_the_layout_of_a_prompt(tokenizer: PromptTokenizer):
    sop, eop, start = (tokenizer.id_of(name) for name in ("grid_bos_token", "grid_eos_token", "bos_token"))
    text = tokenizer.text_ids
    got = tokenizer.encode("a red apple", (36, 24), (19, 13)).ids.tolist()
    assert got == [*text("a red apple"), sop, *text("36 24"), eop, sop, *text("19 13"), eop, start]
    assert start == NUM_CODES


def test_the_layout_with_references(tokenizer: PromptTokenizer):
    names = ("grid_bos_token", "grid_eos_token", "bos_token", "eos_token", "image_token")
    sop, eop, start, end, image = (tokenizer.id_of(name) for name in names)
    prompt = tokenizer.encode("blue", (4, 4), None, [(2, 3), (1, 2)])
    text = tokenizer.text_ids
    pictures = [start, *[image] * 6, end, start, *[image] * 2, end]
    assert prompt.ids.tolist() == [*pictures, *text("blue"), sop, *text("4 4"), eop, start]
    assert prompt.references == ((1, (2, 3)), (9, (1, 2)))
    filled = prompt.with_reference_ids([np.arange(6).reshape(2, 3), np.array([7, 8])])
    assert filled[:13].tolist() == [start, 0, 1, 2, 3, 4, 5, end, start, 7, 8, end, *text("blue")[:1]]
    assert image not in filled
    assert image in prompt.ids, "the prompt itself is not changed"


@pytest.mark.parametrize("token", ["<sop>", "<|image|>", "<|dit_token_3|>", "<|endoftext|>"])
def test_control_tokens_are_refused(tokenizer: PromptTokenizer, token: str):
    with pytest.raises(RequestError) as caught:
        tokenizer.encode(f"a {token} b", (2, 2), None)
    assert str(caught.value) == (
        f"error: the prompt contains `{token}`\n"
        "  because that is a control token of this model's tokenizer, and would change the layout of the picture\n\n"
        "hint: write the text without it"
    )


def test_a_tokenizer_that_is_none():
    with pytest.raises(CheckpointError, match=r"processor/tokenizer\.json cannot be read"):
        PromptTokenizer("{}", {})


def test_a_tokenizer_without_its_named_tokens(files: dict[str, bytes]):
    named = json.loads(files["tokenizer_config.json"])
    named["extra_special_tokens"].pop("grid_bos_token")
    with pytest.raises(CheckpointError) as caught:
        PromptTokenizer(files["tokenizer.json"].decode(), named)
    assert str(caught.value) == (
        "error: the prompt tokenizer of this checkpoint cannot be used\n"
        "  because processor/tokenizer_config.json names no usable `grid_bos_token`"
    )


def test_what_is_learned_has_the_released_order(files: dict[str, bytes], tokenizer: PromptTokenizer):
    vocab = json.loads(files["tokenizer.json"])["model"]["vocab"]
    pieces = [i for piece, i in vocab.items() if not piece.startswith("<|dit_token_")]
    assert (min(pieces), len(pieces)) == (NUM_VISUAL, max(pieces) - NUM_VISUAL + 1)
    assert len(pieces) <= NUM_PIECES
    assert tokenizer.id_of("pad_token") == max(pieces) + 1
    # any text is made of known pieces, all after the visual ids
    for prompt in PROMPTS:
        assert all(NUM_VISUAL <= i < tokenizer.id_of("pad_token") for i in tokenizer.text_ids(prompt))
    # a frequent word is few pieces
    assert len(tokenizer.text_ids("a red apple on a wooden table")) <= 8


def test_training_is_the_same_twice(files: dict[str, bytes]):
    assert train_tokenizer(CORPUS, NUM_VISUAL, NUM_CODES, NUM_PIECES) == files


def test_ids_of_a_learned_tokenizer_go_into_the_config(files: dict[str, bytes], tokenizer: PromptTokenizer):
    config = with_token_ids(presets.get("nano"), files)
    assert config.ar.text.pad_token_id == tokenizer.id_of("pad_token")
    assert config.ar.image_token_id == tokenizer.id_of("image_token")
    assert (config.ar.image_start_token_id, config.ar.image_end_token_id) == (NUM_CODES, NUM_CODES + 1)
    assert config.ar.text.eos_token_id == NUM_CODES + 1


def test_the_libraries_read_a_learned_tokenizer(files: dict[str, bytes], tokenizer: PromptTokenizer, tmp_path: Path):
    from transformers import AutoTokenizer, GlmImageProcessor
    from transformers.models.glm_image.image_processing_pil_glm_image import GlmImageImageProcessorPil

    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    for prompt in PROMPTS:
        assert theirs(prompt, add_special_tokens=False).input_ids == tokenizer.text_ids(prompt)
        assert theirs.decode(tokenizer.text_ids(prompt)) == prompt
    assert {
        name: theirs.convert_tokens_to_ids(getattr(theirs, name)) for name in ("image_token", "grid_bos_token")
    } == {name: tokenizer.id_of(name) for name in ("image_token", "grid_bos_token")}
    assert (theirs.bos_token_id, theirs.eos_token_id, theirs.pad_token_id, theirs.padding_side) == (
        tokenizer.id_of("bos_token"), tokenizer.id_of("eos_token"), tokenizer.id_of("pad_token"), "left"
    )  # fmt: skip
    assert len(theirs) == tokenizer.vocab_size
    images = presets.get("nano").processor.to_json()
    processor = GlmImageProcessor(
        image_processor=GlmImageImageProcessorPil.from_dict(images),
        tokenizer=theirs,
        chat_template=files["chat_template.jinja"].decode(),
    )
    for prompt in PROMPTS[:4]:
        message = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
        got = processor.apply_chat_template(
            [message], tokenize=True, return_dict=True, processor_kwargs={"target_h": 1152, "target_w": 768}
        )
        assert got["input_ids"][0] == tokenizer.encode(prompt, (36, 24), (19, 13)).ids.tolist()


@pytest.mark.parametrize(
    ("prompt", "texts"),
    [
        ("nothing", []),
        ("one \"a\" then 'b'", ["b", "a"]),
        ("“c” and 「d」 and \"e\" and 'f'", ["f", "c", "e", "d"]),
        ("It's Bob's", ["s Bob"]),
        ('an empty ""', [""]),
        ("‘curly’", []),
    ],
)
def test_words_to_be_drawn(prompt: str, texts: list[str]):
    assert glyph_texts(prompt) == texts


def test_an_odd_number_of_words_has_nothing_in_front_and_an_even_one_a_pad():
    ids, mask = glyph_batch([])
    assert (ids.tolist(), mask.tolist()) == ([[1]], [[True]])
    ids, mask = glyph_batch(["ab"])
    assert ids.tolist() == [[ord("a") + 3, ord("b") + 3, 1]]
    ids, mask = glyph_batch(["hello", "world!"])
    assert ids.shape == (2, 8)
    assert ids[:, 0].tolist() == [0, 0]
    assert mask.sum(1).tolist() == [7, 8]  # 6 + 1 and 7 + 1, the pad in front included
    ids, _ = glyph_batch(["é"])
    assert ids.tolist() == [[0xC3 + 3, 0xA9 + 3, 1]]


def test_a_word_that_is_too_long():
    glyph_batch(["x" * (GLYPH_MAX_BYTES - 1)])
    with pytest.raises(RequestError) as caught:
        glyph_batch(["é" * 1024])
    assert str(caught.value) == (
        "error: a quoted text of 2048 bytes is too long to draw\n"
        "  because the glyph encoder reads at most 2047 bytes\n\n"
        "hint: shorten the text in quotes"
    )


@pytest.mark.parametrize(
    ("prompt", "alone"),
    [
        ('a red sign that says "Olá"', "Olá"),
        ('"red" on a red sign', "red"),
        ("a sign with “red” on it", "red"),
        ("a sign with 「red」 on it", "red"),
        ("a RED sign", "RED"),
        ("a sign with 128", "128"),
    ],
)
def test_what_is_to_be_spelt_is_read_letter_by_letter(prompt, alone):
    texts = ["a red sign that says red", "on a red sign with it", "red on it"] * 20
    made = train_tokenizer(texts, 16, 8, 400)
    tokenizer = PromptTokenizer(made["tokenizer.json"].decode(), json.loads(made["tokenizer_config.json"]))
    ids = tokenizer.text_ids(prompt)
    single = [i for letter in alone for i in tokenizer.text_ids(letter)]  # a letter may be several bytes
    assert any(ids[at : at + len(single)] == single for at in range(len(ids)))
    assert tokenizer.text_ids("a red sign") == [i for part in ("a", " red", " sign") for i in tokenizer.text_ids(part)]
    assert len(tokenizer.text_ids(" red")) == 1  # outside of quotes, pieces are learned


def test_apostrophes_too_far_apart_are_no_quotes():
    far = "x" * 2048
    assert glyph_texts(f"It's {far} Bob's") == []
    assert glyph_texts(f"It's {far} 'TEA' {far} 'and'") == ["TEA", "and"]
    assert glyph_texts("It's Bob's 'TEA'") == ["s Bob", "TEA"]
    assert glyph_texts(f"'{'é' * 1023}'") == ["é" * 1023]
    assert glyph_texts(f"'{'é' * 1024}' then \"A\"") == ["A"]
    assert [has_far_apostrophes(t) for t in (f"It's {far} Bob's", f"It's {far}", "It's Bob's", f"“{far}”")] == [
        True, False, False, False,
    ]  # fmt: skip


def test_many_apostrophes_far_apart_are_read_in_time():
    prompt = ("'" + "x" * 2048) * 50
    assert glyph_texts(prompt) == []
