"""Gradients of the two trainable parts, of one loss on both sides, for every parameter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from parity.compare import PROMPTS, Side, decoder_inputs, draw, picture, relative_error, sequences

GRADIENT_TOLERANCE = 1e-4  # of each tensor's greatest element; sums over tokens cancel, which costs a digit


def decoder_gradients(side: Side, **given: Any) -> dict[str, Tensor]:
    """Return the gradient of the flow loss for every parameter of the decoder."""
    inputs = decoder_inputs(side, (4, 6), **given)
    clean = draw(41, *inputs["latent"].shape)
    velocity = side.velocity(**inputs)
    return _gradients(side, "decoder", ((velocity - (inputs["latent"] - clean)) ** 2).mean())


def generator_gradients(side: Side, images: Sequence[Image.Image] = ()) -> dict[str, Tensor]:
    """Return the gradient of the weighted cross-entropy of the written tokens for every parameter."""
    given = sequences(side, PROMPTS[0], (64, 96), images)
    logits = side.logits(given.ids, given.given)[:, given.num_prompt - 1 : -1]
    labels = torch.from_numpy(given.ids[:, given.num_prompt :])
    weights = torch.linspace(0.5, 2.0, labels.shape[1])[None]
    return _gradients(side, "ar", side.weighted_loss(logits, labels, weights))


def _gradients(side: Side, part: str, loss: Tensor) -> dict[str, Tensor]:
    parameters = side.parameters(part)
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(parameters.items(), found, strict=True)}


GRADIENTS: dict[str, tuple[str, Callable[[Side], dict[str, Tensor]]]] = {
    "DiT: prior kept": ("DiT", decoder_gradients),
    "DiT: prior dropped": ("DiT", lambda side: decoder_gradients(side, keep=(False,))),
    "DiT: prior dropped for one of two": ("DiT", lambda side: decoder_gradients(side, keep=(True, False))),
    "DiT: through two references": (
        "DiT with references",
        lambda side: decoder_gradients(side, references=[[(4, 4), (2, 6)]]),
    ),
    "AR: text to image": ("AR, teacher-forced", generator_gradients),
    "AR: one reference": ("AR, teacher-forced", lambda side: generator_gradients(side, [picture(96, 128, seed=1)])),
}


def gradient_errors(name: str, ours: Side, theirs: Side) -> dict[str, float]:
    """Return the relative error of each parameter's gradient."""
    _, gradients = GRADIENTS[name]
    got, wanted = gradients(ours), gradients(theirs)
    assert got.keys() == wanted.keys(), "a parameter has no gradient on one side"
    return {key: relative_error(got[key], wanted[key]) for key in wanted}
