"""What a model says it knows: `knows` in its sampan.json, written by whoever trained it, for the people who prompt it.

    "knows": {
      "subjects": ["red apple", "maçã vermelha"],           phrases that it learned a picture of
      "languages": ["en", "pt"],                            of its captions
      "examples": ["a red sign that says \\"AHOY\\""]         prompts that work as they stand
    }

A small model paints little, and nothing in its weights says what. Words in quotes are drawn by every model of this kind and
are no subjects. Nothing here changes a picture; a folder without it says nothing of its prompts.
"""

from __future__ import annotations

import json
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_type_hints

from sampan import files
from sampan.checkpoint import own_file, sealed
from sampan.checkpoint.json_files import read_json
from sampan.checkpoint.own_file import OWN_FILE
from sampan.errors import CheckpointError, did_you_mean
from sampan.models.text import glyph_texts

KEY = "knows"
_NEAR_SHOWN = 3
_MAX_TEXTS = 100_000
_MAX_CHARS = 2000


@dataclass(frozen=True)
class ModelKnowledge:
    """What a model says it knows. Nothing said is all empty.

    Args:
        subjects: Phrases that it learned a picture of.
        languages: Codes of its captions' languages, as "pt".
        examples: Prompts that work as they stand.
    """

    subjects: tuple[str, ...] = ()
    languages: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.subjects or self.languages or self.examples)

    def to_json(self) -> dict[str, list[str]]:
        """Return what `from_json` reads."""
        return {name: list(getattr(self, name)) for name in _FIELDS}

    @classmethod
    def from_json(cls, stated: Any) -> ModelKnowledge:
        """Return what a sampan.json states.

        Raises:
            CheckpointError: It is not a table of lists of texts.
        """
        failed = f"`{KEY}` of this model cannot be used"
        if not isinstance(stated, dict):
            raise CheckpointError(failed, f"it is a {type(stated).__name__}, not an object of lists")
        for name, texts in stated.items():
            if name not in _FIELDS:
                raise CheckpointError(failed, f"it has no key `{name[:80]}`", did_you_mean(name[:80], _FIELDS))
            is_list = isinstance(texts, list) and len(texts) <= _MAX_TEXTS
            if not is_list or not all(isinstance(text, str) and 0 < len(text.strip()) <= _MAX_CHARS for text in texts):
                raise CheckpointError(
                    failed,
                    f"its `{name}` is not a list of texts, each with something in it and of {_MAX_CHARS} at most",
                )
        return cls(**{name: tuple(texts) for name, texts in stated.items()})

    def covers(self, prompt: str) -> bool:
        """Say whether a prompt names a subject, quotes words to be drawn, or is an example; and where nothing is said."""
        if not self.subjects or prompt in self.examples or glyph_texts(prompt):
            return True
        text = _plain(prompt)
        return any(_stands_in(_plain(subject), text) for subject in self.subjects)

    def near(self, prompt: str) -> list[str]:
        """Return a few subjects that share a word with a prompt."""
        words = {word for word in re.findall(r"\w+", _plain(prompt)) if len(word) > 2}
        alike = [subject for subject in self.subjects if words & set(re.findall(r"\w+", _plain(subject)))]
        return alike[:_NEAR_SHOWN]

    def hint(self, prompt: str, model: str) -> str | None:
        """Return what to say of a prompt that lies outside of what is known, or None.

        Args:
            model: As it is named on the command line.
        """
        if self.covers(prompt):
            return None
        near = self.near(prompt)
        known = f"; near to it are {', '.join(f'`{subject}`' for subject in near)}" if near else ""
        return (
            f"hint: the prompt names none of the {len(self.subjects)} subjects that `{model}` knows, and has no words in "
            f"quotes to draw{known}; `sampan generate --examples --model {model}` lists prompts that work"
        )


_FIELDS = tuple(get_type_hints(ModelKnowledge))


def read_knowledge(folder: Path) -> ModelKnowledge:
    """Return what the sampan.json of a model folder says that the model knows; of a folder without it, nothing.

    Raises:
        CheckpointError: The file cannot be read, or what it says of this is not in its form.
    """
    file = folder / OWN_FILE
    try:
        return ModelKnowledge.from_json(own_file.read(folder).get(KEY, {}))
    except CheckpointError as error:
        if str(file) in error.what:
            raise
        raise CheckpointError(error.what, (*error.because, f"the file is `{file}`"), error.hint) from error


def state_knowledge(folder: Path, knowledge: ModelKnowledge) -> None:
    """Write what a model knows into the sampan.json of its folder, before what names its files; a checksum it has is renewed.

    Raises:
        CheckpointError: The file is missing or cannot be read, or is not what was written.
        OSError: It cannot be written; what was there stays.
    """
    file = folder / OWN_FILE
    own = read_json(file)
    if problem := sealed.defect(own, required="format" in own):
        raise CheckpointError(f"`{file}` cannot be added to", problem)  # a new checksum would hide it
    values = {key: value for key, value in own.items() if key != KEY}
    late = [key for key in ("provenance", "sha256", "documents") if key in values]
    early = {key: value for key, value in values.items() if key not in late}
    stated = {**early, KEY: knowledge.to_json(), **{key: values[key] for key in late}}
    if sealed.is_sealed(own):
        sealed.write(file, stated)
    else:
        files.write_text(file, json.dumps(stated, indent=2, ensure_ascii=False))


def _plain(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


def _stands_in(phrase: str, text: str) -> bool:
    """Say whether a phrase stands in a text as whole words; Chinese and Japanese have no spaces to tell words by."""
    before = r"(?<!\w)" if _is_spaced(phrase[0]) else ""
    after = r"(?!\w)" if _is_spaced(phrase[-1]) else ""
    return re.search(f"{before}{re.escape(phrase)}{after}", text) is not None


def _is_spaced(character: str) -> bool:
    return unicodedata.east_asian_width(character) not in "WF"
