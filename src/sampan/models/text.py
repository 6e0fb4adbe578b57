"""Text to ids: the prompt with its shape declarations for the AR model, and quoted words as bytes for the glyph encoder.

The prompt tokenizer is the byte-level BPE in `processor/tokenizer.json`, run by the `tokenizers` library. The layout of a
prompt is built here instead of running a checkpoint's Jinja template: it is one line, and a template is code.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers.pre_tokenizers import Split

from sampan.documents import shown
from sampan.errors import CheckpointError, RequestError
from sampan.models.config import ModelConfig
from sampan.models.positions import Grid

NAMED_TOKENS = ("bos_token", "eos_token", "pad_token", "image_token", "grid_bos_token", "grid_eos_token")
GLYPH_PAD_ID, GLYPH_EOS_ID, GLYPH_BYTE_OFFSET = 0, 1, 3
GLYPH_MAX_BYTES = 2048
_GLYPH_TEXT_BYTES = GLYPH_MAX_BYTES - 1  # the end id takes one place
_QUOTES = (r"'([^']*)'", r"“([^“”]*)”", r'"([^"]*)"', r"「([^「」]*)」")
# the special tokens of GLM-4-0414 in id order, which follow the text pieces
_GLM_SPECIALS = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>",
)  # fmt: skip


# what is a piece by itself: capitals, digits, and what has an odd number of quotation marks, or a closing one, after it
_ALONE = (
    r"\p{Lu}",
    r"\p{N}",
    r'[^"](?=[^"]*"(?:[^"]*"[^"]*")*[^"]*$)',
    r"[^“”](?=[^“”]*”)",
    r"[^「」](?=[^「」]*」)",
)

_ANY_QUOTE = re.compile('["“”「」]+')
_SLICE_CHARS = 500
NUM_SPECIALS = len(_GLM_SPECIALS)


class ControlTokens:
    """The control tokens of a tokenizer: text that spells one would change the layout of a prompt.

    Args:
        tokens: As text spells them; the released tokenizer has 16,529.
    """

    def __init__(self, tokens: Iterable[str]):
        self._tokens = tuple(tokens)
        self._first_letters = {token[0] for token in self._tokens}

    def find(self, text: str) -> str | None:
        """Return a control token that a text spells, or None."""
        if self._first_letters.isdisjoint(text):
            return None
        return next((token for token in self._tokens if token in text), None)


@dataclass(frozen=True)
class Prompt:
    """A prompt as ids.

    Args:
        ids: Token ids, image-start token included; placeholders stand where reference tokens go.
        references: For each reference, the index of its first placeholder and its grid.
    """

    ids: NDArray[np.int64]
    references: tuple[tuple[int, Grid], ...]

    def with_reference_ids(self, reference_ids: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
        """Return the ids with each reference's visual tokens (flat, raster order) in place of its placeholders."""
        ids = self.ids.copy()
        for (first, (rows, columns)), tokens in zip(self.references, reference_ids, strict=True):
            ids[first : first + rows * columns] = tokens.reshape(-1)
        return ids


class PromptTokenizer:
    """Prompts to ids, in the released layout."""

    def __init__(self, tokenizer_json: str, tokenizer_config: Mapping[str, Any]):
        try:
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
        except BaseException as error:
            # the library raises a bare Exception for every malformed file, and its own kind beside it where it panics
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise CheckpointError("processor/tokenizer.json cannot be read", str(error)[:200]) from error
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._names: dict[str, str] = {}
        nested = [
            tokenizer_config.get(key)
            for key in ("extra_special_tokens", "model_specific_special_tokens")
            if isinstance(tokenizer_config.get(key), Mapping)
        ]
        for name in NAMED_TOKENS:
            found = next((place[name] for place in (tokenizer_config, *nested) if place and place.get(name)), None)
            content = found.get("content") if isinstance(found, Mapping) else found
            if not isinstance(content, str) or self._tokenizer.token_to_id(content) is None:
                raise CheckpointError(
                    "the prompt tokenizer of this checkpoint cannot be used",
                    f"processor/tokenizer_config.json names no usable `{name}`"
                    + (f" ({shown(content)} is not in tokenizer.json)" if content else ""),
                )
            self._names[name] = content
        self.control_tokens = ControlTokens(
            token.content for token in self._tokenizer.get_added_tokens_decoder().values()
        )

    def id_of(self, name: str) -> int:
        """Return the id of one of NAMED_TOKENS."""
        token_id = self._tokenizer.token_to_id(self._names[name])
        assert token_id is not None, "checked on construction"
        return token_id

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._tokenizer.get_vocab_size(with_added_tokens=True)

    def text_ids(self, text: str) -> list[int]:
        """Return the ids of plain text, without any layout around it."""
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def count_at_least(self, text: str, most: int) -> int:
        """Return a number of tokens that a text has at least, counted until it is above `most`.

        It costs time in proportion to the text, which `encode` does not: what is quoted is found by looking ahead to the end.
        """
        plain, total = _ANY_QUOTE.sub(" ", text), 0
        for first in range(0, len(plain), _SLICE_CHARS):
            # a cut may fall into a word, and then its ends are two tokens instead of one
            total += max(0, len(self.text_ids(plain[first : first + _SLICE_CHARS])) - 2)
            if total > most:
                break
        return total

    def encode(self, prompt: str, target: Grid, preview: Grid | None, references: Sequence[Grid] = ()) -> Prompt:
        """Lay out a prompt.

        Text to image: `{prompt}<sop>{rows} {columns}<eop><sop>{rows} {columns}<eop>{image start}`, the target's grid
        before the preview's. With references: start, one placeholder per reference token, end, for each; then the text and
        the target's grid only.

        Raises:
            RequestError: The prompt spells one of the tokenizer's special tokens.
        """
        if token := self.control_tokens.find(prompt):
            raise RequestError(
                f"the prompt contains `{token}`",
                "that is a control token of this model's tokenizer, and would change the layout of the picture",
                "write the text without it",
            )
        name = self._names
        start, end, image = name["bos_token"], name["eos_token"], name["image_token"]
        grids = [target] if preview is None else [target, preview]
        shapes = "".join(f"{name['grid_bos_token']}{rows} {columns}{name['grid_eos_token']}" for rows, columns in grids)
        pictures = "".join(f"{start}{image * (rows * columns)}{end}" for rows, columns in references)
        ids = self._tokenizer.encode(f"{pictures}{prompt}{shapes}{start}", add_special_tokens=False).ids
        placed, index = [], 0
        for rows, columns in references:
            placed.append((index + 1, (rows, columns)))  # after this picture's start token
            index += rows * columns + 2
        return Prompt(np.asarray(ids, np.int64), tuple(placed))


def glyph_texts(prompt: str) -> list[str]:
    """Return the words to be drawn: what stands in '…', then “…”, then "…", then 「…」, each from left to right.

    An apostrophe counts as a quote, as in the reference: "It's Bob's" yields "s Bob". Where more stands between two of them
    than the glyph encoder reads, the first one opens nothing; the reference cuts what it takes for a quotation.
    """
    quoted = [text for pattern in _QUOTES[1:] for text in re.findall(pattern, prompt)]
    return [*_between_apostrophes(prompt), *quoted]


def has_far_apostrophes(prompt: str) -> bool:
    """Say whether two apostrophes that follow one another are too far apart to be quotes."""
    # most prompts are too short for that
    return len(prompt.encode()) > _GLYPH_TEXT_BYTES and any(
        not _can_be_drawn(text) for text in re.findall(_QUOTES[0], prompt)
    )


def _between_apostrophes(prompt: str) -> list[str]:
    between, texts, place = re.compile(_QUOTES[0]), [], 0
    while found := between.search(prompt, place):
        fits = _can_be_drawn(found[1])
        texts += [found[1]] if fits else []
        place = found.end() if fits else found.start() + 1
    return texts


def _can_be_drawn(text: str) -> bool:
    return len(text.encode()) <= _GLYPH_TEXT_BYTES


def check_glyph_text(text: str) -> None:
    """Raise RequestError for a text to be drawn that is longer than the glyph encoder was built for."""
    if not _can_be_drawn(text):
        raise RequestError(
            f"a quoted text of {len(text.encode())} bytes is too long to draw",
            f"the glyph encoder reads at most {_GLYPH_TEXT_BYTES} bytes",
            "shorten the text in quotes",
        )


def glyph_batch(texts: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return ids and mask (strings, bytes) for the glyph encoder; no texts means the empty string.

    UTF-8 bytes + 3 and the end id. When the number of strings is even every string begins with one pad id, which the mask
    leaves visible: a quirk of the reference that the released weights expect.

    Raises:
        RequestError: A string is longer than the encoder was built for.
    """
    texts = list(texts) or [""]
    front = [GLYPH_PAD_ID] * ((len(texts) + 1) % 2)
    rows = []
    for text in texts:
        check_glyph_text(text)
        data = text.encode("utf-8")
        rows.append([*front, *(byte + GLYPH_BYTE_OFFSET for byte in data), GLYPH_EOS_ID])
    width = max(len(row) for row in rows)
    ids = np.full((len(rows), width), GLYPH_PAD_ID, np.int64)
    mask = np.zeros((len(rows), width), bool)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = True
    return ids, mask


def _letter_by_letter() -> Any:
    """Return what cuts a text before pieces are looked up: capitals, digits and all that is quoted one by one.

    A generator that is to spell a word has to see its letters; in pieces of several it would have to know by heart how
    each is spelt.
    """
    alone = Split(Regex("|".join(_ALONE)), "isolated")
    return pre_tokenizers.Sequence([alone, pre_tokenizers.ByteLevel(add_prefix_space=False)])


def special_tokens(num_visual: int) -> tuple[str, ...]:
    """Return the special tokens of a tokenizer that `train_tokenizer` learns: the visual ones, then those for layout."""
    return (*(f"<|dit_token_{i}|>" for i in range(num_visual)), *_GLM_SPECIALS)


def train_tokenizer(texts: Iterable[str], num_visual: int, num_codes: int, num_pieces: int) -> dict[str, bytes]:
    """Learn a byte-level BPE from texts and return the files of `processor/` in the released form.

    Ids 0..num_visual-1 are visual, the text pieces follow, then the special tokens: the layout of the release.

    Args:
        num_visual: Rows of the visual head.
        num_codes: Codes of the tokenizer; ids num_codes and num_codes + 1 are image start and image end.
        num_pieces: Text pieces at most, the 256 bytes included.
    """
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _letter_by_letter()
    trainer = trainers.BpeTrainer(
        vocab_size=num_pieces, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
    )
    learner.train_from_iterator(texts, trainer)
    learned = json.loads(learner.to_str())["model"]
    specials = special_tokens(num_visual)
    visual = specials[:num_visual]
    vocab = {token: i for i, token in enumerate(visual)}
    vocab |= {piece: num_visual + i for piece, i in learned["vocab"].items()}
    merges = [tuple(m) if isinstance(m, list) else tuple(m.split(" ")) for m in learned["merges"]]
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=merges))
    tokenizer.pre_tokenizer = _letter_by_letter()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in specials])
    names = {
        "bos_token": visual[num_codes],
        "eos_token": visual[num_codes + 1],
        "pad_token": "<|endoftext|>",
        "image_token": "<|image|>",
        "grid_bos_token": "<sop>",
        "grid_eos_token": "<eop>",
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "processor_class": "GlmImageProcessor",
        "padding_side": "left",
        "clean_up_tokenization_spaces": False,
        "model_max_length": 131072,
        "bos_token": names["bos_token"],
        "eos_token": names["eos_token"],
        "pad_token": names["pad_token"],
        "extra_special_tokens": {k: names[k] for k in ("image_token", "grid_bos_token", "grid_eos_token")},
    }
    template = (
        "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
        "{% else %}{% for item in message['content'] %}{% if item['type'] == 'image' %}"
        f"{names['bos_token']}{names['image_token']}{names['eos_token']}"
        "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
    )
    return {
        "tokenizer.json": tokenizer.to_str().encode(),
        "tokenizer_config.json": json.dumps(config, indent=2, ensure_ascii=False).encode(),
        "chat_template.jinja": template.encode(),
    }


def with_token_ids(config: ModelConfig, files: Mapping[str, bytes]) -> ModelConfig:
    """Return a config whose special ids are those of a tokenizer that `train_tokenizer` learned."""
    tokenizer = PromptTokenizer(files["tokenizer.json"].decode(), json.loads(files["tokenizer_config.json"]))
    text = dataclasses.replace(
        config.ar.text, pad_token_id=tokenizer.id_of("pad_token"), eos_token_id=tokenizer.id_of("eos_token")
    )
    ar = dataclasses.replace(
        config.ar,
        text=text,
        image_token_id=tokenizer.id_of("image_token"),
        image_start_token_id=tokenizer.id_of("bos_token"),
        image_end_token_id=tokenizer.id_of("eos_token"),
    )
    return dataclasses.replace(config, ar=ar)
