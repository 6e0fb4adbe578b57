"""Whether a caption can be trained on: what a prompt is refused for is refused of a caption, before the training begins."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.data.bucket import Size
from sampan.data.readers import RowFault
from sampan.errors import BadRowError, RequestError
from sampan.models import text
from sampan.models.config import ModelConfig

_EXCERPT = 60


class CaptionCheck:
    """The check of a set's captions against the model that is trained on them.

    Args:
        tokenizer: The prompt tokenizer; None where it is learned from these very captions. How many tokens a caption has
            is then not known, and not checked.
    """

    def __init__(self, config: ModelConfig, tokenizer: text.PromptTokenizer | None):
        self._config, self._tokenizer = config, tokenizer
        learned = text.special_tokens(config.ar.text.vision_vocab_size)
        self._control_tokens = tokenizer.control_tokens if tokenizer else text.ControlTokens(learned)

    def refuse(self, caption: str) -> None:
        """Raise BadRowError for a caption that no picture could have."""
        if token := self._control_tokens.find(caption):
            raise BadRowError(
                "control-token", f"`{token}` in {_excerpt(caption)} is a control token of the model's tokenizer"
            )
        for words in text.glyph_texts(caption):
            try:
                text.check_glyph_text(words)
            except RequestError as error:
                reason = "; ".join((error.what, *error.because))
                raise BadRowError("long-quotation", f"{_excerpt(caption)}: {reason}") from error

    def check(self, where: str, captions: Sequence[str], target: Size, references: Sequence[Size]) -> list[RowFault]:
        """Return what is worth a word about the captions of a row.

        Args:
            where: The row.
            target, references: The (height, width) of its pictures in pixels.

        Raises:
            BadRowError: One of the captions cannot be trained on.
        """
        notes = []
        for caption in captions:
            self.refuse(caption)
            self._refuse_length(caption, target, references)
            if text.has_far_apostrophes(caption):
                notes.append(RowFault(where, "far-apostrophes", _excerpt(caption)))
        return notes

    def _refuse_length(self, caption: str, target: Size, references: Sequence[Size]) -> None:
        geometry, limit = self._config.geometry, self._config.ar.text.max_position_embeddings
        grid, preview = geometry.prior_grid(*target), None if references else geometry.preview_grid(*target)
        shown = [geometry.prior_grid(*size) for size in references]
        num_generated = sum(rows * columns for rows, columns in [grid, *([preview] if preview else [])]) + 1
        num_shown = sum(rows * columns for rows, columns in shown)
        # a token has at least one byte, so that most captions need not be cut into tokens
        if self._tokenizer is None or len(caption.encode()) + num_shown + num_generated + _LAYOUT_TOKENS <= limit:
            return
        num_prompt = len(self._tokenizer.encode(caption, grid, preview, shown).ids)
        if num_prompt + num_generated > limit:
            raise BadRowError(
                "long-caption",
                f"{_excerpt(caption)} has {num_prompt:,} tokens with its references, its picture needs "
                f"{num_generated:,}, and {limit:,} fit together",
            )


_LAYOUT_TOKENS = 128  # more than the grids and the marks around pictures take, each number in digits


def _excerpt(caption: str) -> str:
    line = " ".join(caption.split())
    return f"`{line}`" if len(line) <= _EXCERPT else f"`{line[:_EXCERPT]}…`"
