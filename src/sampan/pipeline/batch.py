"""Images of several requests at once: tokens written side by side, latents denoised side by side.

An image is the one that its request gives alone, up to the order in which a product's terms are added.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from sampan.data.pictures import to_uint8
from sampan.pipeline.denoise import stack_inputs
from sampan.pipeline.prepare import Ints, Pixels, Prepared
from sampan.pipeline.tokens import generate_tokens

if TYPE_CHECKING:
    from sampan.pipeline.pipeline import Pipeline

Progress = Callable[[str, int, int], None]  # what is under way, how much is done, how much there is
STAGES = ("glyph", "tokens", "decoder", "vae")
IMAGES_AT_ONCE = 4  # latents denoised side by side; more only costs memory
_SEQUENCES_AT_ONCE = 32  # sequences of tokens; a step's cost on a CPU hardly grows up to there


@dataclass
class StageClock:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @contextmanager
    def charge(self, stage: str) -> Iterator[None]:
        """Add what passes inside to a stage."""
        begun = time.perf_counter()
        yield
        self.seconds[stage] += time.perf_counter() - begun


def generate_images(
    pipeline: Pipeline,
    requests: Sequence[Prepared],
    *,
    images_at_once: int = IMAGES_AT_ONCE,
    clock: StageClock | None = None,
    progress: Progress | None = None,
) -> list[list[Pixels]]:
    """Return the images (H, W, 3) of each request, in their order.

    Args:
        images_at_once: How many latents are denoised side by side; those of one kind, whatever their requests.

    Raises:
        RequestError: What was asked cannot be done.
    """
    clock, report = clock or StageClock(), progress or pipeline.progress
    with clock.charge("tokens"):
        priors = generate_priors(pipeline, requests, report)
    # the parts take turns on the device: each does its work for all requests before the next is read
    with clock.charge("glyph"):
        words = [request.embed_words(request.guidance_scale)[0] for request in requests]
    with clock.charge("vae"):
        references = [request.reference_latents for request in requests]
    alike: dict[tuple[object, ...], list[tuple[int, int]]] = {}
    for index, request in enumerate(requests):
        shapes = (words[index].shape, tuple(latent.shape for latent in references[index]))
        kind = (request.size, request.num_steps, request.guidance_scale, shapes)
        alike.setdefault(kind, []).extend((index, picture) for picture in range(request.request.count))
    groups = [
        members[first : first + images_at_once]
        for members in alike.values()
        for first in range(0, len(members), images_at_once)
    ]
    done, total = 0, sum(requests[group[0][0]].num_steps for group in groups)
    latents = []
    with clock.charge("decoder"):
        for group in groups:
            inputs = stack_inputs([requests[i].denoise_inputs(priors[i][picture], picture) for i, picture in group])
            latents.append(
                pipeline.denoiser().denoise(inputs, lambda steps, _, done=done: report("painting", done + steps, total))
            )
            done += inputs.num_steps
            for index in {index for index, _ in group} - {group[-1][0]}:  # the last one may go on in the next group
                requests[index].free_references()
    images: dict[tuple[int, int], Pixels] = {}
    with clock.charge("vae"):
        for group, latent in zip(groups, latents, strict=True):
            images.update(zip(group, map(to_uint8, pipeline.decode(latent)), strict=True))
    return [[images[index, picture] for picture in range(r.request.count)] for index, r in enumerate(requests)]


def generate_priors(pipeline: Pipeline, requests: Sequence[Prepared], progress: Progress | None = None) -> list[Ints]:
    """Return each request's prior tokens (count, rows, columns): injected, or written by the AR generator.

    Raises:
        RequestError: What was asked cannot be done.
    """
    report = progress or pipeline.progress
    written = [
        [] if request.injected.prior_ids is not None else [request.sequence(k) for k in range(request.request.count)]
        for request in requests
    ]
    # sequences of a like length waste no slots on one another
    order = sorted((sequences for sequences in written if sequences), key=lambda shared: len(shared[0].prompt_ids))
    done, total = 0, sum(sequence.total for shared in order for sequence in shared)
    while order:
        group = [*order.pop(0)]
        while order and len(group) + len(order[0]) <= _SEQUENCES_AT_ONCE:
            group += order.pop(0)
        generate_tokens(
            pipeline.token_decoder(), group, lambda count, _, done=done: report("writing tokens", done + count, total)
        )
        done += sum(sequence.total for sequence in group)
    priors = []
    for request, sequences in zip(requests, written, strict=True):
        ids = request.injected.prior_ids
        priors.append(
            np.stack([sequence.grid_ids(-1) for sequence in sequences])
            if ids is None
            else np.repeat(ids[None], request.request.count, axis=0)
        )
    return priors
