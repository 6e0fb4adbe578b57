"""Our side of every comparison: the modules of sampan.models with the oracle's weights, and their host-side tables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import Image
from safetensors.numpy import save_file
from torch import Tensor

import masks
from parity.theirs import Grid, Reference
from sampan.checkpoint.folder import open_folder
from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.losses.tokens import token_loss
from sampan.models import pixels, positions
from sampan.models.build import PARTS, build
from sampan.models.config import (
    ARConfig,
    DiTConfig,
    GlyphConfig,
    ImageProcessorConfig,
    ModelConfig,
    SamplingConfig,
    SchedulerConfig,
    VAEConfig,
)
from sampan.models.dit import join_references
from sampan.models.text import PromptTokenizer, glyph_batch, glyph_texts
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.request import ImageRequest
from sampan.pipeline.tokens import BatchedDecoder, TokenSequence, generate_tokens
from sampan.samplers import euler

GREEDY = SamplingConfig(temperature=0)


def config_of(pipeline: Any) -> ModelConfig:
    """Return our config, read from what the library's config objects write into their files."""
    ar, glyph = (
        json.loads(getattr(pipeline, n).config.to_json_string()) for n in ("vision_language_encoder", "text_encoder")
    )
    return ModelConfig(
        ar=ARConfig.from_json(ar),
        dit=DiTConfig.from_json(json.loads(pipeline.transformer.to_json_string())),
        vae=VAEConfig.from_json(json.loads(pipeline.vae.to_json_string())),
        glyph=GlyphConfig.from_json(glyph),
        scheduler=SchedulerConfig.from_json(json.loads(pipeline.scheduler.to_json_string())),
        processor=ImageProcessorConfig.from_json(json.loads(pipeline.processor.image_processor.to_json_string())),
    )


def prompt_tokenizer(pipeline: Any) -> PromptTokenizer:
    """Return our tokenizer from the library's own tokenizer.json and named tokens."""
    tokenizer = pipeline.processor.tokenizer
    names = ("bos_token", "eos_token", "pad_token", "image_token", "grid_bos_token", "grid_eos_token")
    return PromptTokenizer(tokenizer.backend_tokenizer.to_str(), {name: getattr(tokenizer, name) for name in names})


def module_of(pipeline: Any, part: str, config: ModelConfig) -> Any:
    """Return one of our modules holding the library's weights; every name and shape must fit."""
    theirs = {"ar": "vision_language_encoder", "tokenizer": "vision_language_encoder", "decoder": "transformer"}
    source = getattr(pipeline, theirs.get(part, {"vae": "vae", "glyph": "text_encoder"}.get(part, part)))
    prefixes = PARTS[part].prefixes or ("",)
    weights = {k: v for k, v in source.state_dict().items() if k.startswith(prefixes)}
    weights.pop("encoder.embed_tokens.weight", None)  # the same tensor as shared.weight
    module = build(part, config)
    module.load_state_dict(weights, strict=True)
    return module.eval()


class Ours:
    """Our modules, in fp32 or bf16.

    Args:
        folder: The same model, written by the library; `paint` runs our whole pipeline on it.
    """

    def __init__(self, pipeline: Any, folder: Path | None = None, dtype: torch.dtype = torch.float32):
        self.dtype = dtype
        self.painter = None
        if folder is not None:
            self.painter = Recorder(open_folder(folder), "cpu", "bf16" if dtype == torch.bfloat16 else "fp32")
        self.config = config_of(pipeline)
        self.tokenizer = prompt_tokenizer(pipeline)
        parts = {part: module_of(pipeline, part, self.config).to(dtype) for part in PARTS}
        self.ar, self.vision = parts["ar"], parts["tokenizer"]
        self.decoder, self.vae, self.glyphs = parts["decoder"], parts["vae"], parts["glyph"]

        self.placeholder, self.num_codes = self.config.ar.image_token_id, self.config.ar.vq.num_embeddings
        self.pad = self.config.ar.text.pad_token_id

    def parameters(self, part: str) -> dict[str, Tensor]:
        """Return the trainable parameters of "ar" or "decoder" by name."""
        return dict(getattr(self, part).named_parameters())

    # --- decoder -----------------------------------------------------------------------------------------------------

    def velocity(
        self,
        latent: Tensor,
        glyph: Tensor,
        prior: Tensor,
        keep: Sequence[bool],
        t: Sequence[float],
        size: Grid,
        crop: Grid = (0, 0),
        references: Sequence[Sequence[Reference]] = (),
        skip: bool = False,
    ) -> Tensor:
        """Return the velocity; `references` is one list for the whole batch, or one a sample."""
        joined = None
        if references and not skip:
            each = [join_references([self.reference_kv(r) for r in sample]) for sample in references]
            each *= len(latent) // len(each)
            joined = tuple(
                (ops.concat([kv[0] for kv in layer], 0), ops.concat([kv[1] for kv in layer], 0))
                for layer in zip(*each, strict=True)
            )
        inputs = self.decoder_inputs(latent, prior, keep, t, size, crop, glyph.shape[1])
        return self.decoder(inputs[0], glyph.to(self.dtype), *inputs[1:], joined)

    def reference_kv(self, reference: Reference) -> tuple[tuple[Tensor, Tensor], ...]:
        """Return keys and values per layer of one reference."""
        prior = torch.from_numpy(reference.prior)[None]
        return self.decoder.reference_kv(
            *self.decoder_inputs(reference.latent, prior, [True], [0.0], reference.size, (0, 0), 0)
        )

    def decoder_inputs(
        self,
        latent: Tensor,
        prior: Tensor,
        keep: Sequence[bool],
        t: Sequence[float],
        size: Grid,
        crop: Grid,
        num_text: int,
    ) -> tuple[Any, ...]:
        dit, batch = self.config.dit, len(latent)
        grid = (latent.shape[2] // dit.patch_size, latent.shape[3] // dit.patch_size)
        return (
            latent.to(self.dtype),
            prior.reshape(batch, -1),
            torch.tensor(keep, dtype=torch.float32),
            torch.from_numpy(positions.sinusoid(t, dit.time_embed_dim)),
            torch.from_numpy(positions.size_features(crop, size, dit.condition_dim, batch)),
            *(torch.from_numpy(table) for table in positions.rope_image(grid, dit.attention_head_dim, num_text)),
        )

    def schedule(self, num_steps: int, num_image_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what the network is told and the noise levels."""
        return euler.schedule(num_steps, num_image_tokens, self.config.scheduler)

    def walk(self, latent: Tensor, velocity: Any, num_steps: int, num_image_tokens: int) -> Tensor:
        """Return the end of an Euler walk; `velocity(latent, t)` is given the network's time."""
        times, sigmas = self.schedule(num_steps, num_image_tokens)
        for step, t in enumerate(times):
            latent = euler.euler_step(latent, velocity(latent, float(t)), sigmas, step)
        return latent

    # --- generator ---------------------------------------------------------------------------------------------------

    def logits(self, ids: np.ndarray, given: np.ndarray, lengths: Sequence[int] | None = None) -> Tensor:
        """Return logits (batch, tokens, classes); `lengths` are those of left-padded rows."""
        cos, sin = (torch.from_numpy(table) for table in positions.rope_text(given, self.config.ar.text))
        mask = None if lengths is None else torch.from_numpy(masks.left_padded_mask(lengths, ids.shape[1]))
        return self.ar(torch.from_numpy(ids), cos, sin, mask)[0]

    def cached_logits(self, ids: np.ndarray, given: np.ndarray, num_prompt: int) -> Tensor:
        """Return the logits of the last prompt token and of each one after it, one token a call on a static cache."""
        batch, total = ids.shape
        cos, sin = (torch.from_numpy(table) for table in positions.rope_text(given, self.config.ar.text))
        shape = self.ar.cache_shape(batch, total)
        name = "bf16" if self.dtype == torch.bfloat16 else "fp32"
        cache = tuple(
            (dev.zeros(shape, "cpu", name), dev.zeros(shape, "cpu", name)) for _ in self.ar.model.language_model.layers
        )
        causal = torch.tril(torch.ones(total, total, dtype=torch.bool))[None, None]
        out = []
        for first, last in [(0, num_prompt), *((i, i + 1) for i in range(num_prompt, total))]:
            at = slice(first, last)
            logits, cache = self.ar(
                torch.from_numpy(ids[:, at]),
                cos[:, :, at],
                sin[:, :, at],
                causal[:, :, at],
                cache,
                torch.tensor(first),
                num_logits=1,
            )
            out.append(logits)
        return torch.cat(out, 1)

    def weighted_loss(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Return the loss that training minimises."""
        return token_loss(logits, labels, weights)

    def grids(self, size: Grid, images: Sequence[Image] = ()) -> tuple[Grid, ...]:
        """Return the grids that are written, in that order."""
        target = self.config.geometry.prior_grid(*size)
        return (target,) if images else (self.config.geometry.preview_grid(*size), target)

    def prompt(self, prompt: str, size: Grid, images: Sequence[Image] = ()) -> Any:
        """Return a prompt as ids with the places of its references."""
        grids = self.grids(size, images)
        references = [self.patches(image)[1] for image in images]
        return self.tokenizer.encode(prompt, grids[-1], None if images else grids[0], references)

    def prompt_ids(self, prompt: str, size: Grid, images: Sequence[Image] = ()) -> np.ndarray:
        """Return the ids of one prompt, with placeholders for reference tokens."""
        return self.prompt(prompt, size, images).ids

    def positions(
        self, prompts: Sequence[str], size: Grid, images: Sequence[Image] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the prompts (3, batch, tokens) and of what is generated (batch, 3, tokens)."""
        laid = [self.prompt(prompt, size, images) for prompt in prompts]
        each = [positions.prompt_positions(len(p.ids), p.references) for p in laid]
        width = max(len(p.ids) for p in laid)
        # the library's number for padding, which nothing attends to
        padded = [np.concatenate([np.ones((3, width - p.shape[1]), np.int64), p], 1) for p, _ in each]
        written = [positions.generated_positions(following, self.grids(size, images)) for _, following in each]
        return np.stack(padded, 1), np.stack(written)

    def greedy(self, prompts: Sequence[str], size: Grid, num_tokens: int, images: Sequence[Image] = ()) -> np.ndarray:
        """Return the ids each prompt is followed by at temperature 0."""
        seen = [self.patches(image) for image in images]
        references = [self.ids([patches], [grid])[0] for patches, grid in seen]
        grids = self.grids(size, images)
        assert sum(math.prod(grid) for grid in grids) == num_tokens
        laid = [self.prompt(prompt, size, images) for prompt in prompts]
        sequences = [
            TokenSequence(
                one.with_reference_ids(references),
                one.references,
                grids,
                num_codes=self.config.ar.vq.num_embeddings,
                sampling=GREEDY,
                seed=0,
                picture=0,
                config=self.config.ar.text,
            )
            for one in laid
        ]
        for sequence in sequences:
            generate_tokens(BatchedDecoder(self.ar, "cpu", "fp32"), [sequence])
        return np.array([sequence.written for sequence in sequences])

    # --- tokenizer ---------------------------------------------------------------------------------------------------

    def patches(self, image: Image) -> tuple[np.ndarray, Grid]:
        """Return pixel values and grid of one picture."""
        return pixels.to_patches(image, self.config.processor, self.config.token_scale)

    def vision_inputs(self, patches: np.ndarray, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
        gather_ids, weights = positions.bilinear_gather(grid, self.config.ar.vision.grid_side)
        return torch.from_numpy(patches).to(self.dtype), torch.from_numpy(gather_ids), torch.from_numpy(weights)

    def features(self, patches: Sequence[np.ndarray], grids: Sequence[Grid]) -> list[Tensor]:
        """Return features (rows·columns, hidden) of each picture; pictures of one grid in one batch."""
        model = self.vision.model.visual
        if len(set(grids)) == 1:
            return list(model(*self.vision_inputs(np.stack(patches), grids[0])))
        return [model(*self.vision_inputs(p[None], g))[0] for p, g in zip(patches, grids, strict=True)]

    def ids(self, patches: Sequence[np.ndarray], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Return visual ids (rows·columns,) of each picture."""
        with torch.no_grad():
            return [
                self.vision(*self.vision_inputs(p[None], g))[0].numpy() for p, g in zip(patches, grids, strict=True)
            ]

    def quantize(self, features: Tensor) -> np.ndarray:
        """Return ids (n,) of features (n, channels)."""
        with torch.no_grad():
            return self.vision.model.vqmodel(features).numpy()

    # --- autoencoder and glyphs --------------------------------------------------------------------------------------

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        config = self.config.vae
        mean, std = (
            torch.tensor(v).view(1, -1, 1, 1).to(self.dtype) for v in (config.latents_mean, config.latents_std)
        )
        return mean, std

    def encode(self, image: Tensor) -> Tensor:
        """Return normalised latents."""
        return self.vae.encode(image.to(self.dtype), *self.latent_statistics())

    def decode(self, latent: Tensor) -> Tensor:
        """Return images of normalised latents."""
        return self.vae.decode(latent.to(self.dtype), *self.latent_statistics())

    def glyph_texts(self, prompt: str) -> list[str]:
        """Return the words to be drawn."""
        return glyph_texts(prompt)

    def glyph(self, prompt: str) -> Tensor:
        """Return (1, bytes, width) of a prompt's quoted words."""
        ids, mask = glyph_batch(glyph_texts(prompt))
        glyph = self.config.glyph
        buckets = positions.relative_buckets(
            ids.shape[1], glyph.relative_attention_num_buckets, glyph.relative_attention_max_distance
        )
        embeds = self.glyphs(*(torch.from_numpy(a) for a in (ids, mask, buckets)))
        return embeds[torch.from_numpy(mask)][None]

    # --- the whole ---------------------------------------------------------------------------------------------------

    def paint(
        self,
        prompt: str,
        size: Grid,
        *,
        prior: np.ndarray | None,
        noise: Tensor,
        images: Sequence[Image] = (),
        num_steps: int = 4,
        guidance_scale: float = 1.5,
        glyph: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the latent and the image, before clipping, that our pipeline paints from an injected file."""
        injected = {
            "prior_token_ids": prior,
            "noise": noise.numpy(),
            "glyph_embeds": None if glyph is None else glyph.numpy(),
        }
        assert self.painter is not None, "painting needs the folder"
        file = self.painter.folder.path.with_suffix(".inject")
        save_file({name: value for name, value in injected.items() if value is not None}, file)
        request = ImageRequest(
            prompt,
            height_px=size[0],
            width_px=size[1],
            num_inference_steps=num_steps,
            guidance_scale=guidance_scale,
            temperature=0,
            inject=file,
        )
        self.painter(request, list(images))
        return self.painter.seen


class Recorder(Pipeline):
    """The pipeline, keeping the last latent and image in full precision."""

    seen: tuple[Tensor, Tensor]

    def decode(self, latents: Any) -> np.ndarray:
        image = super().decode(latents)
        self.seen = (latents, torch.from_numpy(image))
        return image
