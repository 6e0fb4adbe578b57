"""Making pictures: phases that run forward only, as sampan.pipeline runs them.

Left out: reading and resizing references on the host, drawing tokens, and writing PNG files.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from sampan.models.config import ModelConfig
from sampan.plan.records import Phase
from sampan.plan.workloads.own.batches import (
    GLYPH_TOKENS,
    PROMPT_TOKENS,
    Size,
    decoder_tokens,
    generated_tokens,
    sequence_tokens,
)
from sampan.plan.workloads.own.parts import (
    ar_blocks,
    decoder_blocks,
    glyph_blocks,
    reference_blocks,
    tokenizer_blocks,
    vae_blocks,
)
from sampan.plan.workloads.own.stages import check_fits, checked

DEFAULT_STEPS = 50
EMPTY_GLYPH_TOKENS = 1  # of no words: the end alone


def picture_phases(
    config: ModelConfig,
    size: Size,
    *,
    num_inference_steps: int = DEFAULT_STEPS,
    has_guidance: bool = True,
    prompt_tokens: int = PROMPT_TOKENS,
    glyph_tokens: int = GLYPH_TOKENS,
    references: Sequence[Size] = (),
) -> list[Phase]:
    """Return what one picture takes, in the order in which it is made.

    Args:
        size: (height, width) in pixels, as are `references`.
        has_guidance: Whether every step of the decoder is computed with the prompt and without it.
        prompt_tokens: Of the prompt, references left out.
        glyph_tokens: Bytes of words to be drawn.

    Raises:
        PlanError: A size that the model cannot have.
    """
    size, references = checked(size, config), [checked(one, config) for one in references]
    check_fits(size, config)
    phases = []
    for one in references:
        seen = tokenizer_blocks(config, prod(config.geometry.prior_grid(*one)))
        phases.append(Phase(name="read a reference", blocks=(*seen, *vae_blocks("encoder", config, one))))
    phases += write_phases(config, size, prompt_tokens=prompt_tokens, references=references)
    phases += paint_phases(
        config, size, num_inference_steps=num_inference_steps, has_guidance=has_guidance, glyph_tokens=glyph_tokens,
        references=references,
    )  # fmt: skip
    return phases


def write_phases(
    config: ModelConfig, size: Size, *, prompt_tokens: int = PROMPT_TOKENS, references: Sequence[Size] = ()
) -> list[Phase]:
    """Return the generator's phases: it reads the prompt at once and writes visual tokens one by one."""
    text = config.ar.text
    written = generated_tokens(config, size, with_references=bool(references))
    slots = sequence_tokens(config, size, prompt_tokens, references)
    prompt = slots - written
    # the cache has all its slots from the beginning, and every step's attention passes over all of them
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * slots
    return [
        Phase(name="read the prompt", blocks=ar_blocks(config, prompt, slots)),
        Phase(name="write a token", blocks=ar_blocks(config, 1, slots), repeats=written - 1, cache_values=cache),
    ]


def paint_phases(
    config: ModelConfig,
    size: Size,
    *,
    num_inference_steps: int = DEFAULT_STEPS,
    has_guidance: bool = True,
    glyph_tokens: int = GLYPH_TOKENS,
    references: Sequence[Size] = (),
) -> list[Phase]:
    """Return the phases from visual tokens to pixels."""
    phases = [Phase(name="spell the words", blocks=glyph_blocks(config, glyph_tokens))]
    phases += [
        Phase(name="show a reference to the decoder", blocks=reference_blocks(config, one)) for one in references
    ]
    keys = sum(decoder_tokens(config, one) for one in references)
    shown = decoder_blocks(config, size, glyph_tokens, keys)
    values = 2 * config.dit.num_layers * config.dit.dim * keys
    phases.append(Phase(name="a step with the prompt", blocks=shown, repeats=num_inference_steps, cache_values=values))
    if has_guidance:  # apart from the other: without the prompt there are neither words nor references
        bare = decoder_blocks(config, size, EMPTY_GLYPH_TOKENS)
        phases.append(Phase(name="a step without the prompt", blocks=bare, repeats=num_inference_steps))
    phases.append(Phase(name="pixels", blocks=vae_blocks("decoder", config, size)))
    return phases
