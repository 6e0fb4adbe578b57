"""Writing visual tokens one by one over a static key-value cache.

The grid is exact: the number of tokens follows from the picture's size, so that ids outside the codebook (the end token
among them) are closed until the last code is written. Ids are drawn on the host from counter-based numbers; a vocabulary
of 16,512 logits a token is little to bring over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import device as dev
from sampan.models import positions
from sampan.models.ar import ARGenerator
from sampan.models.config import ModelConfig, SamplingConfig
from sampan.models.positions import Grid
from sampan.models.text import Prompt
from sampan.samplers import noise

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


def nucleus(logits: Floats, config: SamplingConfig) -> NDArray[np.float64]:
    """Return probabilities (rows, classes): temperature, then top-k, then top-p, which keeps the token that crosses.

    A temperature of 0 puts everything on the greatest logit.
    """
    rows, classes = logits.shape
    if config.temperature == 0:
        return np.eye(classes)[logits.argmax(-1)]
    scaled = logits.astype(np.float64) / config.temperature
    order = np.argsort(-scaled, axis=-1, kind="stable")[:, : min(config.top_k or classes, classes)]
    ranked = np.take_along_axis(scaled, order, -1)
    weights = np.exp(ranked - ranked[:, :1])
    weights /= weights.sum(-1, keepdims=True)
    # a token stays while the mass before it is under top_p
    before = np.cumsum(weights, -1) - weights
    weights = np.where(before < config.top_p, weights, 0.0)
    probabilities = np.zeros((rows, classes))
    np.put_along_axis(probabilities, order, weights / weights.sum(-1, keepdims=True), -1)
    return probabilities


def drawn(probabilities: NDArray[np.float64], draw: np.random.Generator) -> int:
    """Return a token by inverse transform: one uniform number a token, so that rows do not depend on one another.

    Args:
        probabilities: (classes,).
    """
    cumulative = np.cumsum(probabilities)
    return min(int(np.searchsorted(cumulative, draw.random() * cumulative[-1], "right")), len(probabilities) - 1)


def write_prior(
    model: ARGenerator,
    prompt: Prompt,
    reference_ids: Sequence[Ints],
    grids: tuple[Grid, ...],
    *,
    config: ModelConfig,
    sampling: SamplingConfig,
    seed: int,
    pictures: tuple[int, ...],
    device: str,
    dtype: str,
    step: Callable[..., Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ints:
    """Return the ids (pictures, rows, columns) of the last grid: what the decoder paints from. See `write_tokens`.

    Args:
        prompt: Encoded for these grids.
        reference_ids: The visual tokens (rows, columns) of each reference.
    """
    ids = write_tokens(
        model,
        prompt.with_reference_ids(reference_ids),
        prompt.references,
        grids,
        num_codes=min(config.ar.vq.num_embeddings, config.dit.prior_vq_quantizer_codebook_size),
        sampling=sampling,
        seed=seed,
        pictures=pictures,
        device=device,
        dtype=dtype,
        step=step,
        progress=progress,
    )
    rows, columns = grids[-1]
    return ids[:, ids.shape[1] - rows * columns :].reshape(-1, rows, columns)


def write_tokens(
    model: ARGenerator,
    prompt_ids: Ints,
    references: tuple[tuple[int, Grid], ...],
    grids: tuple[Grid, ...],
    *,
    num_codes: int,
    sampling: SamplingConfig,
    seed: int,
    pictures: tuple[int, ...],
    device: str,
    dtype: str,
    step: Callable[..., Any] | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Ints:
    """Return the ids (pictures, Σ rows·columns) of the grids, in the order they are written.

    Args:
        model: On `device`, in `dtype`.
        prompt_ids: (tokens,), reference ids already in place, image-start token last.
        references: Index of the first token and grid of each reference in the prompt.
        grids: What to write: preview then target for text to image, the target alone with references.
        num_codes: Ids at and above it are closed.
        seed, pictures: Picture number k of a seed gets the same tokens whatever else is in the batch.
        step: What writes one token after another, the model itself or compiled; the model reads the prompt.
        progress: Called with tokens written and tokens in all.
    """
    step = model if step is None else step
    batch, num_prompt = len(pictures), len(prompt_ids)
    total = sum(rows * columns for rows, columns in grids)
    num_slots = num_prompt + total
    prefix, following = positions.prompt_positions(num_prompt, references)
    generated = positions.generated_positions(following, grids)
    cos, sin = (dev.array(t, device) for t in positions.rope_text(prefix[:, None], model.config))
    step_cos, step_sin = (dev.array(t, device) for t in positions.rope_text(generated[:, None], model.config))
    shape = model.cache_shape(batch, num_slots)
    cache = tuple(
        (dev.zeros(shape, device, dtype), dev.zeros(shape, device, dtype)) for _ in model.model.language_model.layers
    )
    # slot s may be read by the token in slot t when s <= t; unwritten slots lie after it
    mask = dev.array(np.arange(num_slots)[None, :] <= np.arange(num_slots)[:, None], device)
    slots = dev.array(np.arange(num_slots), device)
    draws = [noise.generator(seed, "tokens", picture) for picture in pictures]
    written = np.zeros((batch, total), np.int64)
    tokens = dev.array(np.tile(prompt_ids, (batch, 1)), device)
    with dev.no_grad():
        for index in range(total):
            if index == 0:
                logits, cache = model(tokens, cos, sin, mask[None, None, :num_prompt], cache, slots[0], num_logits=1)
            else:
                slot = num_prompt + index - 1
                at = slice(index - 1, index)
                logits, cache = step(
                    tokens,
                    step_cos[:, :, at],
                    step_sin[:, :, at],
                    mask[None, None, slot : slot + 1],
                    cache,
                    slots[slot],
                )
            probabilities = nucleus(dev.to_numpy(logits)[:, -1, :num_codes], sampling)
            for row, draw in enumerate(draws):
                written[row, index] = drawn(probabilities[row], draw)
            tokens = dev.array(written[:, index : index + 1], device)
            if progress is not None:
                progress(index + 1, total)
    return written
