"""The arrays that a pass of this project's models takes, in shape only, by sizes of pictures and lengths of texts."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sampan.frameworks.shapes.array import Blank
from sampan.models.config import NUM_WAVES, WORD_PX, ModelConfig

Size = tuple[int, int]
Arrays = tuple[object, ...]
PROMPT_TOKENS, GLYPH_TOKENS = 128, 32  # of a sample, where nobody says
_WORD_COLUMNS = WORD_PX[1] // 4 - 2  # the outermost are not read


def of_stage(
    stage: str, config: ModelConfig, size: Size, *, prompt_tokens: int, glyph_tokens: int, references: Sequence[Size],
    batch: int,
) -> Arrays:  # fmt: skip
    """Return what a stage's loss of `sampan.losses.stages` takes after the module, for samples alike.

    Args:
        size: (height, width) in pixels, as are `references`.
    """
    if stage == "vae":
        return _floats(1, 3, *size), _floats(1, *latent_shape(config, size))
    if stage == "tokenizer":
        patches = tokenizer_arrays(config, prod(config.geometry.prior_grid(*size)), batch)
        text = _ids(batch, prompt_tokens), _floats(batch, prompt_tokens)
        return *patches, *text, _floats(batch), _ids(batch), _floats(1)
    if stage == "glyph":
        words = _floats(batch, NUM_WAVES, glyph_tokens), _floats(batch, glyph_tokens, config.glyph.num_told)
        pictures = _floats(batch, 1, *WORD_PX), _floats(batch, NUM_WAVES, _WORD_COLUMNS)
        bytes_share = _floats(batch, glyph_tokens)
        return *glyph_arrays(glyph_tokens, batch), *words, bytes_share, *pictures, _ids(batch), _floats(batch)
    if stage == "ar":
        labels = generated_tokens(config, size, with_references=bool(references)) + 1
        tokens = sequence_tokens(config, size, prompt_tokens, references)
        return *ar_arrays(config, tokens), _ids(labels), _ids(1, labels), _floats(1, labels), None
    latent, *rest = decoder_arrays(config, size, glyph_tokens)
    shown = tuple(array for one in references for array in reference_arrays(config, one))
    return latent, latent, _floats(1), *rest, None, *shown


def tokenizer_arrays(config: ModelConfig, tokens: int, batch: int = 1) -> Arrays:
    """Return patches and positions of pictures of so many tokens."""
    return _floats(batch, tokens, 3 * config.processor.patch_size**2), _ids(4, tokens), _floats(4, tokens)


def glyph_arrays(tokens: int, batch: int = 1) -> Arrays:
    """Return ids, mask and buckets of strings of so many bytes."""
    return _ids(batch, tokens), Blank((batch, tokens), "bool"), _ids(tokens, tokens)


def ar_arrays(config: ModelConfig, tokens: int) -> Arrays:
    """Return ids and rotations of one sequence."""
    angles = _floats(1, 1, tokens, config.ar.text.rotary_dim // 2)
    return _ids(1, tokens), angles, angles


def decoder_arrays(config: ModelConfig, size: Size, glyph_tokens: int) -> Arrays:
    """Return what the decoder takes of one picture: latent, words, prior, keep, time, size and rotations."""
    dit, tokens = config.dit, decoder_tokens(config, size)
    words = _floats(1, glyph_tokens, dit.text_embed_dim)
    return _floats(1, *latent_shape(config, size)), words, *_conditions(config, tokens, glyph_tokens + tokens)


def reference_arrays(config: ModelConfig, size: Size) -> Arrays:
    """Return what the decoder takes of one reference."""
    tokens = decoder_tokens(config, size)
    return _floats(1, *latent_shape(config, size)), *_conditions(config, tokens, tokens)


def _conditions(config: ModelConfig, tokens: int, positions: int) -> Arrays:
    dit = config.dit
    angles = _floats(1, 1, positions, dit.attention_head_dim // 2)
    sizes = _floats(1, 4 * dit.condition_dim)
    return _ids(1, tokens), _floats(1), _floats(1, dit.time_embed_dim), sizes, angles, angles


def latent_shape(config: ModelConfig, size: Size) -> tuple[int, int, int]:
    """Return (channels, height, width) of a picture's latent."""
    return config.vae.latent_channels, size[0] // config.vae.factor, size[1] // config.vae.factor


def decoder_tokens(config: ModelConfig, size: Size) -> int:
    """Return the decoder's tokens of a picture (height, width) in pixels."""
    cell = config.vae.factor * config.dit.patch_size
    return (size[0] // cell) * (size[1] // cell)


def generated_tokens(config: ModelConfig, size: Size, *, with_references: bool = False) -> int:
    """Return the visual tokens that the generator writes: preview and picture, or with references the picture alone."""
    target = prod(config.geometry.prior_grid(*size))
    return target if with_references else target + prod(config.geometry.preview_grid(*size))


def sequence_tokens(config: ModelConfig, size: Size, prompt_tokens: int, references: Sequence[Size]) -> int:
    """Return the tokens that the generator reads in training: prompt, references' tokens, and those it writes."""
    seen = sum(prod(config.geometry.prior_grid(*one)) for one in references)
    return prompt_tokens + seen + generated_tokens(config, size, with_references=bool(references))


def _floats(*shape: int) -> Blank:
    return Blank(shape)


def _ids(*shape: int) -> Blank:
    return Blank(shape, "int64")
