"""The stages of training as workloads: what one picture costs in each, with plain values and no job.

Left out: drawing and reading batches. Batches of several pictures are counted as so many of one: none of these models joins
its samples but in the scores that tell them apart, which grow with the batch and are counted with `batch`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import prod

from sampan.errors import PlanError, did_you_mean
from sampan.models.config import ModelConfig
from sampan.plan.records import Workload, WorkloadBlock
from sampan.plan.workloads.own import batches
from sampan.plan.workloads.own.batches import GLYPH_TOKENS, PROMPT_TOKENS, Size
from sampan.plan.workloads.own.parts import glyph_blocks, stage_blocks, tokenizer_blocks, vae_blocks

STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder", "preparation")
_FLOAT, _ID = 4, 8  # bytes of a value that a batch brings: fp32, 64-bit ids
_ADAPTABLE = ("ar", "decoder")
_TOLD_APART = ("tokenizer", "glyph")  # stages whose samples are joined by the scores that tell them apart


def stage_workload(
    stage: str,
    config: ModelConfig,
    *,
    resolution_px: int | None = None,
    size: Size | None = None,
    prompt_tokens: int = PROMPT_TOKENS,
    glyph_tokens: int = GLYPH_TOKENS,
    references: Sequence[Size] = (),
    lora_rank: int | None = None,
    lora_targets: tuple[str, ...] = (),
    ema: bool = True,
    batch: int = 1,
    name: str = "own model",
) -> Workload:
    """Return what one picture costs in a stage.

    Args:
        stage: One of STAGES; "preparation" encodes pictures and words for the cache.
        resolution_px: Side of a square picture, instead of `size`.
        size: (height, width) in pixels; for "vae" of a crop.
        prompt_tokens: Of the prompt, the token that begins the picture among them, references left out.
        glyph_tokens: Bytes of words to be drawn, with the end of each; in the stage "glyph" of one word.
        references: Sizes of reference pictures.
        lora_rank: Of low-rank additions to `ar` and `decoder`, which alone are trained then; None trains everything.
        lora_targets: As a job's `lora.targets`; empty for attention and feed-forward.
        ema: Whether an average of the weights is kept.
        batch: Pictures (or words) of a pass, for the scores that tell them apart.
        name: Of the model, for the workload's name.

    Raises:
        PlanError: An unknown stage, a size that the model cannot have, or a stage that cannot be trained so.
        JobError: `lora_targets` names no layer of the stage's part.
    """
    if stage not in STAGES:
        raise PlanError(f"`{stage}` is not a stage", (), did_you_mean(stage, STAGES))
    if lora_rank is not None and stage not in _ADAPTABLE:
        raise PlanError(
            f"stage {stage} cannot train low-rank additions", "they stand beside layers of ar and decoder",
            'train it with method "full"',
        )  # fmt: skip
    side = resolution_px or config.geometry.default_px
    size = checked(size or (side, side), config)
    references = [checked(one, config) for one in references]
    if stage in ("ar", "decoder"):
        check_fits(size, config)
    height, width = size
    tokens = prod(config.geometry.prior_grid(height, width))
    latent = prod(batches.latent_shape(config, size))
    pixels = _FLOAT * 3 * height * width
    counted: float | None = None
    notes: tuple[str, ...] = ()
    if stage == "preparation":
        preview = prod(config.geometry.preview_grid(height, width))
        blocks = (
            *tokenizer_blocks(config, tokens), *_shared(tokenizer_blocks(config, preview)),
            *vae_blocks("encoder", config, size), *glyph_blocks(config, glyph_tokens),
        )  # fmt: skip
        input_bytes = 0.2 * height * width  # of a JPEG
    else:
        batch = batch if stage in _TOLD_APART else 1
        arrays = batches.of_stage(
            stage, config, size, prompt_tokens=prompt_tokens, glyph_tokens=glyph_tokens, references=references, batch=batch
        )  # fmt: skip
        blocks = stage_blocks(stage, config, arrays, lora_rank, lora_targets, batch)
    if stage == "vae":
        input_bytes = pixels + _FLOAT * latent
    elif stage == "tokenizer":
        input_bytes, counted = _FLOAT * tokens * 3 * config.processor.patch_size**2, tokens
        notes = ("Every picture is seen at its own grid; in training a quarter of them are at the smaller preview's.",)
    elif stage == "glyph":
        input_bytes = _FLOAT * prod(batches.WORD_PX)
    elif stage == "ar":
        generated = batches.generated_tokens(config, size, with_references=bool(references))
        counted = batches.sequence_tokens(config, size, prompt_tokens, references)
        input_bytes = _ID * (counted + generated) + _FLOAT * counted * config.ar.text.rotary_dim
    elif stage == "decoder":
        input_bytes = 2 * _FLOAT * latent + _FLOAT * glyph_tokens * config.glyph.d_model
        counted = batches.decoder_tokens(config, size)
    if lora_rank is not None:
        notes = (*notes, f"Low-rank additions of rank {lora_rank} are trained, and nothing else.")
    return Workload(
        name=f"{stage} of {name}",
        family={"ar": "ar", "decoder": "dit", "vae": "vae"}.get(stage, "other"),
        sample=f"picture of {width}x{height} px" if stage != "glyph" else f"word of {glyph_tokens} bytes",
        blocks=blocks,
        tokens=counted,
        input_bytes=input_bytes,
        has_average=ema and stage != "preparation",
        notes=notes,
    )


def checked(size: Size, config: ModelConfig) -> Size:
    """Return a size that the model can have.

    Raises:
        PlanError: A side is not a multiple of a prior token's.
    """
    step = config.geometry.prior_px
    for side in size:
        if side < step or side % step:
            raise PlanError(
                f"a picture of {size[1]}x{size[0]} px cannot be planned",
                f"this model's sides are multiples of {step} px",
                f"{max(1, round(side / step)) * step} is the nearest to {side}",
            )
    return size


def check_fits(size: Size, config: ModelConfig) -> None:
    """Check that the AR generator has positions for a picture's tokens: preview, image, and the end.

    Raises:
        PlanError: It has not; says how many there are.
    """
    grids = config.geometry.preview_grid(*size), config.geometry.prior_grid(*size)
    needed, limit = sum(rows * columns for rows, columns in grids) + 1, config.ar.text.max_position_embeddings
    if needed >= limit:
        raise PlanError(
            f"a picture of {size[1]}x{size[0]} px is too large for this model",
            f"it takes {needed:,} tokens, and {limit:,} fit together with the prompt",
            "choose smaller pictures: plan.picture_px, data.resolutions_px",
        )


def _shared(blocks: Sequence[WorkloadBlock]) -> list[WorkloadBlock]:
    """Return blocks whose weights are counted elsewhere."""
    return [replace(block, params=0.0, trained_params=0.0) for block in blocks]
