"""A prompt before it becomes tokens: how it is read, and whether it and its picture fit the model. Loads no framework."""

from __future__ import annotations

from collections.abc import Sequence

from sampan.errors import RequestError
from sampan.models import pixels
from sampan.models.config import ModelConfig
from sampan.models.positions import Grid
from sampan.models.quotations import straighten
from sampan.models.text import PromptTokenizer
from sampan.pipeline.request import check_length, num_tokens

MAX_PROMPT_CHARS = 8000  # some tokenizers take four times as long for a text that is twice as long


def painted_prompt(prompt: str, config: ModelConfig) -> str:
    """Return a prompt as the model reads it: as it is written, or in straight quotation marks where its folder says so."""
    return straighten(prompt) if config.prompt.quotation_marks == "straight" else prompt


def note_on(prompt: str, config: ModelConfig) -> str | None:
    """Return what to say where another prompt is painted than was written, or None."""
    painted = painted_prompt(prompt, config)
    if painted == prompt:
        return None
    return f"this model knows straight quotation marks alone, so that what is painted is: {painted}"


def check_characters(prompt: str) -> None:
    """Raise RequestError for a prompt that is not cut into tokens, be it for its length or for what is no character."""
    if len(prompt) > MAX_PROMPT_CHARS:
        raise RequestError(
            "the prompt is too long for this model",
            f"it has {len(prompt):,} characters, and at most {MAX_PROMPT_CHARS:,} are read",
            "shorten the prompt",
        )
    try:
        prompt.encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            "the prompt cannot be read",
            f"its character {error.start + 1} is half of a surrogate pair",
            "write it again",
        ) from error


def check_prompt(
    prompt: str, size: Grid, references: Sequence[Grid], tokenizer: PromptTokenizer, config: ModelConfig
) -> None:
    """Raise RequestError for a prompt that cannot be painted; in a fraction of a second, however long it is.

    Args:
        prompt: As `painted_prompt` returns it.
        size: Height and width of the picture in pixels, as `check_size` takes them.
        references: The same of each reference, as it was given.

    Raises:
        RequestError: It spells a control token, or does not fit beside the picture; or a reference is too narrow.
    """
    geometry, grids = config.geometry, []
    for height, width in references:
        taken = pixels.reference_size(height, width, config.processor, geometry.prior_px)
        rows, columns = pixels.smart_resize(*taken, config.processor, config.token_scale)
        grids.append((rows // config.processor.patch_size, columns // config.processor.patch_size))
    target = geometry.prior_grid(*size)
    num_generated = target[0] * target[1] + 1 if references else num_tokens(*size, config)
    num_shown = sum(rows * columns for rows, columns in grids)
    limit = config.ar.text.max_position_embeddings
    least = tokenizer.count_at_least(prompt, max(0, limit - num_generated - num_shown))
    check_length(num_shown + least, num_generated, config, is_least=True)
    preview = None if references else geometry.preview_grid(*size)
    check_length(len(tokenizer.encode(prompt, target, preview, grids).ids), num_generated, config)
