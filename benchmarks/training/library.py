"""A training step as scripts on diffusers and transformers take it: what benchmarks/train_step.py holds ours against.

The plain form is that of the widely used fine-tuning scripts: every step runs the frozen encoders without gradients, the
model, the loss, `backward`, clipping, `torch.optim.AdamW` as it is by default, a schedule, `zero_grad` and diffusers'
`EMAModel`; rows of the generator are padded to the longest, with an attention mask, and give logits at every position.
The other two forms are what the same libraries give to those who look for it.

Opening, cropping and cutting pictures, words to ids, positions and padding are done beforehand and not timed: here they are
given to the step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers.training_utils import EMAModel
from torch import Tensor


@dataclass(frozen=True)
class Form:
    """How a script is written.

    Args:
        cached: What the frozen encoders make was kept, and the step does without them.
        careful: Fused AdamW, the average in one call over all weights, and no generator logits nor attention mask that
            the loss does not need (rows are padded on the right, so that a causal token never sees padding).
    """

    cached: bool
    careful: bool


FORMS = {"plain": Form(False, False), "cached": Form(True, False), "careful": Form(True, True)}


@dataclass(frozen=True)
class Optimizer:
    """Hyper-parameters; `lr_at` is the schedule, and decay acts on matrices outside of embedding tables."""

    lr: float
    beta1: float
    beta2: float
    weight_decay: float
    clip_norm: float
    ema_decay: float
    lr_at: Callable[[int], float]


@dataclass(frozen=True)
class Views:
    """Pictures as the vision encoder takes them: patches of all, one after another, and grids (pictures, 3)."""

    patches: Tensor
    grids: Tensor


@dataclass(frozen=True)
class DecoderBatch:
    """One micro-batch of pictures of one size.

    Args:
        pixels: (batch, 3, height, width) in [-1, 1].
        glyph_ids, glyph_mask: (batch, bytes), all of one length.
        noise: As the latent.
        sigma, t: (batch,), the noise level and what the network is told.
        drop: (batch,), True where the prior is dropped.
        replaced, replacement: (batch, tokens): where prior ids are replaced for robustness, and by what.
        size, crop: (batch, 2) in pixels.
        encoded: Latents, prior ids and glyph embeddings, for the forms that have them cached.
    """

    pixels: Tensor
    views: Views
    glyph_ids: Tensor
    glyph_mask: Tensor
    noise: Tensor
    sigma: Tensor
    t: Tensor
    drop: Tensor
    replaced: Tensor
    replacement: Tensor
    size: Tensor
    crop: Tensor
    encoded: tuple[Tensor, Tensor, Tensor] | None = None


@dataclass(frozen=True)
class ARBatch:
    """One micro-batch of sequences, padded on the right.

    Args:
        views: References and what is to be written, in the order of their tokens.
        ids: (batch, tokens) with a placeholder at every visual token, the end token included.
        mask: (batch, tokens), 1 where a token is no padding.
        positions: (3, batch, tokens).
        weights: (batch, tokens), of each token as a label; 0 where it is not predicted.
        encoded: The visual ids, for the forms that have them cached.
    """

    views: Views
    ids: Tensor
    mask: Tensor
    positions: Tensor
    weights: Tensor
    encoded: Tensor | None = None


class Script:
    """What both training scripts have in common: optimizer, schedule and average over what is trained."""

    def __init__(self, trained: Sequence[torch.nn.Module], form: Form, settings: Optimizer):
        self.form, self.clip_norm = form, settings.clip_norm
        tables = {id(m.weight) for part in trained for m in part.modules() if isinstance(m, torch.nn.Embedding)}
        self.parameters = [p for part in trained for p in part.parameters()]
        for parameter in self.parameters:
            parameter.requires_grad_(True)
        decayed = [p for p in self.parameters if p.ndim >= 2 and id(p) not in tables]
        others = [p for p in self.parameters if p.ndim < 2 or id(p) in tables]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": settings.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=settings.lr,
            betas=(settings.beta1, settings.beta2),
            eps=1e-8,
            fused=True if form.careful else None,
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: settings.lr_at(step) / settings.lr
        )
        self.ema = EMAModel(self.parameters, decay=settings.ema_decay, foreach=form.careful)

    def update(self, loss: Tensor) -> float:
        """Take the step and return the loss."""
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        self.ema.step(self.parameters)
        return loss.item()


class DecoderScript(Script):
    """Text to image, as diffusers' example scripts train it."""

    def __init__(self, pipeline: Any, form: Form, settings: Optimizer):
        self.pipeline = pipeline
        self.model = copy.deepcopy(pipeline.transformer).train()
        self.vae, self.vision = pipeline.vae, pipeline.vision_language_encoder
        shape = (1, -1, 1, 1)
        self.mean = torch.tensor(self.vae.config.latents_mean).view(shape)
        self.std = torch.tensor(self.vae.config.latents_std).view(shape)
        super().__init__([self.model], form, settings)

    @torch.no_grad()
    def encode(self, batch: DecoderBatch) -> tuple[Tensor, Tensor, Tensor]:
        """Return latents, prior ids at decoder tokens (batch, tokens) and glyph embeddings."""
        latents = (self.vae.encode(batch.pixels).latent_dist.mode() - self.mean) / self.std
        ids = visual_ids(self.vision, batch.views)
        rows, columns = batch.views.grids[0, 1:].tolist()
        maps = ids.view(-1, 1, rows, columns).float()
        prior = F.interpolate(maps, scale_factor=2, mode="nearest").to(torch.long).flatten(1)
        glyph = self.pipeline.text_encoder(batch.glyph_ids, attention_mask=batch.glyph_mask).last_hidden_state
        return latents, prior, glyph

    def step(self, batch: DecoderBatch) -> float:
        """Take a training step and return its loss."""
        latents, prior, glyph = batch.encoded if batch.encoded and self.form.cached else self.encode(batch)
        prior = torch.where(batch.replaced, batch.replacement, prior)
        sigma = batch.sigma.view(-1, 1, 1, 1)
        velocity = self.model(
            hidden_states=(1 - sigma) * latents + sigma * batch.noise,
            encoder_hidden_states=glyph,
            prior_token_id=prior,
            prior_token_drop=batch.drop[:, None].expand_as(prior),
            timestep=batch.t,
            target_size=batch.size,
            crop_coords=batch.crop,
            return_dict=False,
        )[0]
        return self.update(F.mse_loss(velocity.float(), (batch.noise - latents).float()))


class ARScript(Script):
    """The generator, as language models are trained."""

    def __init__(self, pipeline: Any, form: Form, settings: Optimizer):
        self.model = copy.deepcopy(pipeline.vision_language_encoder).requires_grad_(False)
        self.model.model.language_model.train()
        self.placeholder = self.model.config.image_token_id
        super().__init__([self.model.model.language_model, self.model.lm_head], form, settings)

    def encode(self, batch: ARBatch) -> Tensor:
        """Return the ids of all visual tokens."""
        return visual_ids(self.model, batch.views)

    def step(self, batch: ARBatch) -> float:
        """Take a training step and return its loss."""
        tokens = batch.encoded if batch.encoded is not None and self.form.cached else self.encode(batch)
        ids = batch.ids.masked_scatter(batch.ids == self.placeholder, tokens)
        labels, weights = ids[:, 1:], batch.weights[:, 1:]
        if self.form.careful:
            hidden = self.model.model(input_ids=ids, position_ids=batch.positions, use_cache=False)[0]
            predicted = weights > 0
            logits = self.model.lm_head(hidden[:, :-1][predicted])
            labels, weights = labels[predicted], weights[predicted]
        else:
            logits = self.model(
                input_ids=ids, position_ids=batch.positions, attention_mask=batch.mask, use_cache=False
            ).logits[:, :-1]
            # what is not predicted is no class of the head: the label that the loss leaves out
            labels = labels.masked_fill(weights == 0, -100)
        losses = F.cross_entropy(logits.float().flatten(0, -2), labels.flatten(), reduction="none")
        return self.update((losses * weights.flatten()).sum() / weights.sum())


@torch.no_grad()
def visual_ids(model: Any, views: Views) -> Tensor:
    """Return the visual ids of pictures, one after another."""
    maps = model.get_image_features(views.patches, views.grids).pooler_output
    return model.get_image_tokens(maps)
