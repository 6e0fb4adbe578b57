"""Making pictures, and learning from rewards: phases that run forward only, as sampan.pipeline runs them.

Left out: reading and resizing references on the host, drawing tokens, writing PNG files, and the reward model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sampan.models.config import ModelConfig
from sampan.plan.records import Phase, Workload
from sampan.plan.workloads.own import generator, painter
from sampan.plan.workloads.own.encoders import glyph_blocks, tokenizer_blocks, vae_decoder, vae_encoder
from sampan.plan.workloads.own.stages import (
    GLYPH_TOKENS,
    PROMPT_TOKENS,
    Size,
    checked,
    generated_tokens,
    sequence_tokens,
)
from sampan.plan.workloads.own.tape import Additions

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
    phases = []
    for one in references:
        rows, columns = config.geometry.prior_grid(*one)
        seen = tokenizer_blocks(config, rows * columns, is_forward=True)
        latent = vae_encoder(config.vae, *one, is_forward=True)
        phases.append(Phase(name="read a reference", blocks=(*seen, *latent)))
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
    reading = generator.generator_blocks(text, prompt, num_logits=1, keys=slots, is_forward=True)
    writing = generator.generator_blocks(text, 1, num_logits=1, keys=slots, is_forward=True)
    cache = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * slots
    return [
        Phase(name="read the prompt", blocks=tuple(reading)),
        Phase(name="write a token", blocks=tuple(writing), repeats=written - 1, cache_values=cache),
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
    phases = [Phase(name="spell the words", blocks=tuple(glyph_blocks(config.glyph, glyph_tokens, is_forward=True)))]
    phases += [
        Phase(name="show a reference to the decoder", blocks=tuple(painter.reference_blocks(config, one)))
        for one in references
    ]
    keys = sum(painter.painter_tokens(config, one) for one in references)
    shown = painter.step_blocks(config, size, glyph_tokens=glyph_tokens, reference_tokens=keys)
    values = 2 * config.dit.num_layers * config.dit.dim * keys
    phases.append(
        Phase(name="a step with the prompt", blocks=tuple(shown), repeats=num_inference_steps, cache_values=values)
    )
    if has_guidance:  # apart from the other: without the prompt there are neither words nor references
        bare = painter.step_blocks(config, size, glyph_tokens=EMPTY_GLYPH_TOKENS)
        phases.append(Phase(name="a step without the prompt", blocks=tuple(bare), repeats=num_inference_steps))
    phases.append(Phase(name="pixels", blocks=tuple(vae_decoder(config.vae, *size, is_forward=True))))
    return phases


@dataclass(frozen=True, kw_only=True)
class Reinforcement:
    """Learning of the generator from rewards, in the manner of GRPO (Shao et al. 2024), for one prompt.

    Args:
        rollout: Phases of one picture of the group; each runs `group_size` times.
        update: Forward and backward over one picture's tokens.
        group_size: Pictures of a prompt that are compared.
    """

    rollout: tuple[Phase, ...]
    update: Workload
    group_size: int


def reinforcement(
    config: ModelConfig,
    size: Size,
    *,
    group_size: int = 8,
    reward_sees_pictures: bool = True,
    has_reference_policy: bool = True,
    num_inference_steps: int = 20,
    prompt_tokens: int = PROMPT_TOKENS,
    glyph_tokens: int = GLYPH_TOKENS,
    lora_rank: int | None = None,
) -> Reinforcement:
    """Return what a prompt takes when the generator learns from rewards.

    Args:
        size: (height, width) in pixels.
        reward_sees_pictures: Whether tokens are painted for the reward, without guidance.
        has_reference_policy: Whether a frozen generator reads the tokens too, for the pull towards it. With low-rank
            additions it is the same weights without them.
    """
    size = checked(size, config)
    phases = write_phases(config, size, prompt_tokens=prompt_tokens)
    if reward_sees_pictures:
        phases += paint_phases(
            config, size, num_inference_steps=num_inference_steps, has_guidance=False, glyph_tokens=glyph_tokens
        )
    tokens = sequence_tokens(config, size, prompt_tokens, ())
    logits = generated_tokens(config, size)
    added = None if lora_rank is None else Additions(lora_rank, generator.TARGETS)
    blocks = generator.generator_blocks(config.ar.text, tokens, num_logits=logits, added=added)
    if has_reference_policy:
        frozen = generator.generator_blocks(config.ar.text, tokens, num_logits=logits, is_forward=True)
        share = {} if lora_rank is None else {"params": 0.0}
        blocks += [replace(one, name=f"reference policy: {one.name}", is_trunk=False, **share) for one in frozen]
    notes = [
        f"A prompt has {group_size} pictures, all of which are learned from, once.",
        "The reward's own model is not counted.",
    ]
    if not has_reference_policy:
        notes.append("There is no reference policy.")
    update = Workload(
        name="update of ar by rewards",
        family="ar",
        sample=f"tokens of a picture of {size[1]}x{size[0]} px",
        blocks=tuple(blocks),
        tokens=tokens,
        input_bytes=8.0 * tokens,
        notes=tuple(notes),
    )
    return Reinforcement(rollout=tuple(phases), update=update, group_size=group_size)
