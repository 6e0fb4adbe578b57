"""The oracle's side of every comparison: transformers and diffusers, called the way their own pipeline calls them."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from diffusers.models.transformers.transformer_glm_image import GlmImageKVCache
from diffusers.pipelines.glm_image.pipeline_glm_image import calculate_shift, retrieve_timesteps
from PIL.Image import Image
from torch import Tensor
from transformers import DynamicCache

Grid = tuple[int, int]
PARTS = ("vision_language_encoder", "transformer", "vae", "text_encoder")


@dataclass(frozen=True)
class Reference:
    """A reference picture as the decoder sees it.

    Args:
        latent: Normalised, (1, channels, h, w).
        prior: Its own ids at decoder tokens, (rows, columns).
        size: (height, width) in pixels.
    """

    latent: Tensor
    prior: np.ndarray
    size: Grid


class Theirs:
    """The published implementation, in fp32 or bf16."""

    def __init__(self, pipeline: Any, dtype: torch.dtype = torch.float32):
        self.dtype = dtype
        self.pipeline = pipeline
        if dtype != torch.float32:
            # parameters only: the library keeps its own frequency buffers in fp32 when it loads a folder in bf16
            self.pipeline = copy.copy(pipeline)
            for name in PARTS:
                part = copy.deepcopy(getattr(pipeline, name))
                for parameter in part.parameters():
                    parameter.data = parameter.data.to(dtype)
                setattr(self.pipeline, name, part)
        self.ar = self.pipeline.vision_language_encoder
        self.decoder = self.pipeline.transformer
        self.vae = self.pipeline.vae
        self.processor = self.pipeline.processor

        config = self.ar.config
        self.placeholder, self.num_codes = config.image_token_id, config.vq_config.num_embeddings
        self.pad = config.text_config.pad_token_id

    def parameters(self, part: str) -> dict[str, Tensor]:
        """Return the trainable parameters of "ar" or "decoder" by name."""
        if part == "decoder":
            return dict(self.decoder.named_parameters())
        kept = ("model.language_model.", "lm_head.")
        return {name: p for name, p in self.ar.named_parameters() if name.startswith(kept)}

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
        batch = len(latent)
        caches = None
        if references:
            caches = GlmImageKVCache(num_layers=self.decoder.config.num_layers)
            caches.set_mode("write")
            for sample in references:
                for reference in sample:
                    ids = torch.from_numpy(reference.prior.reshape(-1))
                    self.decoder(
                        hidden_states=reference.latent.to(self.dtype),
                        encoder_hidden_states=torch.zeros_like(glyph.to(self.dtype))[:1, :0],
                        prior_token_id=ids,
                        prior_token_drop=torch.full_like(ids, False, dtype=torch.bool),
                        timestep=torch.zeros((1,)),
                        target_size=torch.tensor([reference.size]),
                        crop_coords=torch.zeros((1, 2)),
                        kv_caches=caches,
                    )
                caches.next_sample()
            caches.set_mode("skip" if skip else "read")
        return self.decoder(
            hidden_states=latent.to(self.dtype),
            encoder_hidden_states=glyph.to(self.dtype),
            prior_token_id=prior.reshape(batch, -1),
            prior_token_drop=~torch.tensor(keep)[:, None].expand(batch, prior[0].numel()),
            timestep=torch.tensor(t, dtype=torch.float32),
            target_size=torch.tensor([size] * batch, dtype=self.dtype),
            crop_coords=torch.tensor([crop] * batch, dtype=self.dtype),
            return_dict=False,
            kv_caches=caches,
        )[0]

    def schedule(self, num_steps: int, num_image_tokens: int) -> tuple[np.ndarray, np.ndarray]:
        """Return what the network is told and the noise levels, as the pipeline sets them up."""
        config = self.pipeline.scheduler.config
        timesteps = np.linspace(config.num_train_timesteps, 1.0, num_steps + 1)[:-1].astype(np.int64).astype(np.float32)
        mu = calculate_shift(num_image_tokens, config.base_image_seq_len, config.base_shift, config.max_shift)
        sigmas = timesteps / config.num_train_timesteps
        given, _ = retrieve_timesteps(self.pipeline.scheduler, num_steps, "cpu", timesteps, sigmas, mu=mu)
        return given.numpy() - 1, self.pipeline.scheduler.sigmas.numpy()

    def walk(self, latent: Tensor, velocity: Any, num_steps: int, num_image_tokens: int) -> Tensor:
        """Return the end of an Euler walk; `velocity(latent, t)` is given the network's time."""
        self.schedule(num_steps, num_image_tokens)
        scheduler = self.pipeline.scheduler
        for t in scheduler.timesteps:
            latent = scheduler.step(velocity(latent, float(t) - 1), t, latent, return_dict=False)[0]
        return latent

    # --- generator ---------------------------------------------------------------------------------------------------

    def logits(self, ids: np.ndarray, positions: np.ndarray, lengths: Sequence[int] | None = None) -> Tensor:
        """Return logits (batch, tokens, classes); `lengths` are those of left-padded rows."""
        mask = None
        if lengths is not None:
            mask = torch.from_numpy(np.arange(ids.shape[1])[None] >= ids.shape[1] - np.asarray(lengths)[:, None]).long()
        return self.ar(
            input_ids=torch.from_numpy(ids),
            position_ids=torch.from_numpy(positions),
            attention_mask=mask,
            use_cache=False,
        ).logits

    def cached_logits(self, ids: np.ndarray, positions: np.ndarray, num_prompt: int) -> Tensor:
        """Return the logits of the last prompt token and of each one after it, one token a call."""
        cache = DynamicCache(config=self.ar.config.text_config)
        pieces = [(0, num_prompt), *((i, i + 1) for i in range(num_prompt, ids.shape[1]))]
        out = []
        for first, last in pieces:
            answer = self.ar(
                input_ids=torch.from_numpy(ids[:, first:last]),
                position_ids=torch.from_numpy(positions[:, :, first:last]),
                past_key_values=cache,
                use_cache=True,
            )
            out.append(answer.logits[:, -1:])
        return torch.cat(out, 1)

    def weighted_loss(self, logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
        """Return Σ w·CE / Σ w; the library's own `labels=` reshapes by the wrong vocabulary and cannot be used."""
        losses = torch.nn.functional.cross_entropy(logits.float().transpose(1, 2), labels, reduction="none")
        return (losses * weights).sum() / weights.sum()

    def inputs(self, prompts: Sequence[str], size: Grid, images: Sequence[Image] = ()) -> Any:
        """Return what the processor makes of prompts that share a size and their references."""
        pictures = [{"type": "image", "image": image} for image in images]
        messages = [[{"role": "user", "content": [*pictures, {"type": "text", "text": prompt}]}] for prompt in prompts]
        return self.processor.apply_chat_template(
            messages,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": len(prompts) > 1, "target_h": size[0], "target_w": size[1]},
        )

    def prompt_ids(self, prompt: str, size: Grid, images: Sequence[Image] = ()) -> np.ndarray:
        """Return the ids of one prompt, with placeholders for reference tokens."""
        return self.inputs([prompt], size, images)["input_ids"][0].numpy()

    def positions(
        self, prompts: Sequence[str], size: Grid, images: Sequence[Image] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the positions of the prompts (3, batch, tokens) and of what is generated (batch, 3, tokens)."""
        inputs = self.inputs(prompts, size, images)
        given, _ = self.ar.model.get_rope_index(
            inputs["input_ids"],
            image_grid_thw=inputs["image_grid_thw"],
            images_per_sample=inputs["images_per_sample"],
            attention_mask=inputs["attention_mask"],
        )
        return given.numpy(), self.ar.model._cached_decode_position_ids.numpy()

    def greedy(self, prompts: Sequence[str], size: Grid, num_tokens: int, images: Sequence[Image] = ()) -> np.ndarray:
        """Return `num_tokens` ids a prompt from the library's own `generate`, the ids past the codebook suppressed."""
        inputs = self.inputs(prompts, size, images)
        config = self.ar.config
        with torch.no_grad():
            out = self.ar.generate(
                **inputs,
                do_sample=False,
                temperature=None,
                top_p=None,
                suppress_tokens=list(range(config.vq_config.num_embeddings, config.text_config.vision_vocab_size)),
                min_new_tokens=num_tokens,
                max_new_tokens=num_tokens,
            )
        return out[:, inputs["input_ids"].shape[1] :].numpy()

    # --- tokenizer ---------------------------------------------------------------------------------------------------

    def patches(self, image: Image) -> tuple[np.ndarray, Grid]:
        """Return pixel values and grid of one picture."""
        out = self.processor.image_processor(image, return_tensors="np")
        _, rows, columns = out["image_grid_thw"][0].tolist()
        return out["pixel_values"], (rows, columns)

    def features(self, patches: Sequence[np.ndarray], grids: Sequence[Grid]) -> list[Tensor]:
        """Return features (rows·columns, hidden) of each picture, computed in one call."""
        thw = torch.tensor([[1, *grid] for grid in grids])
        packed = torch.from_numpy(np.concatenate(list(patches))).to(self.dtype)
        out = self.ar.model.visual(packed, grid_thw=thw).last_hidden_state
        return list(torch.split(out, [math.prod(grid) for grid in grids]))

    def ids(self, patches: Sequence[np.ndarray], grids: Sequence[Grid]) -> list[np.ndarray]:
        """Return visual ids (rows·columns,) of each picture."""
        thw = torch.tensor([[1, *grid] for grid in grids])
        packed = torch.from_numpy(np.concatenate(list(patches)))
        maps = self.ar.get_image_features(packed, thw).pooler_output
        return [self.ar.get_image_tokens([one]).numpy() for one in maps]

    def quantize(self, features: Tensor) -> np.ndarray:
        """Return ids (n,) of features (n, channels), as one column of a picture."""
        return self.ar.get_image_tokens([features.T[:, :, None]]).numpy()

    # --- autoencoder and glyphs --------------------------------------------------------------------------------------

    def latent_statistics(self) -> tuple[Tensor, Tensor]:
        config = self.vae.config
        mean, std = (
            torch.tensor(v).view(1, -1, 1, 1).to(self.dtype) for v in (config.latents_mean, config.latents_std)
        )
        return mean, std

    def encode(self, image: Tensor) -> Tensor:
        """Return normalised latents."""
        mean, std = self.latent_statistics()
        return (self.vae.encode(image.to(self.dtype)).latent_dist.mode() - mean) / std

    def decode(self, latent: Tensor) -> Tensor:
        """Return images of normalised latents."""
        mean, std = self.latent_statistics()
        return self.vae.decode(latent.to(self.dtype) * std + mean, return_dict=False)[0]

    def glyph_texts(self, prompt: str) -> list[str]:
        """Return the words to be drawn."""
        return self.pipeline.get_glyph_texts(prompt)[0]

    def glyph(self, prompt: str) -> Tensor:
        """Return (1, bytes, width) of a prompt's quoted words."""
        return self.pipeline._get_glyph_embeds(prompt, device="cpu")

    # --- the whole ---------------------------------------------------------------------------------------------------

    def paint(
        self,
        prompt: str,
        size: Grid,
        *,
        prior: np.ndarray,
        noise: Tensor,
        images: Sequence[Image] = (),
        num_steps: int = 4,
        guidance_scale: float = 1.5,
        glyph: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the latent and the image, before clipping, that the library's pipeline paints from injected prior ids.

        The library's way from reference pictures to their ids does not fit together in these versions, so the ids are
        read with its own parts and handed in.
        """
        seen = [self.patches(image) for image in images]
        ids = [self.ids([patches], [grid])[0].reshape(grid) for patches, grid in seen]
        given: dict[str, Any] = {}
        if images:
            given = {
                "image": list(images),
                "prior_token_image_ids": [torch.from_numpy(np.concatenate([twice(one).reshape(-1) for one in ids]))],
                "source_image_grid_thw": [torch.tensor([[1, 2 * rows, 2 * columns] for _, (rows, columns) in seen])],
            }
        latent = self.pipeline(
            prompt if glyph is None else None,
            prompt_embeds=None if glyph is None else glyph.to(self.dtype),
            height=size[0],
            width=size[1],
            num_inference_steps=num_steps,
            guidance_scale=guidance_scale,
            latents=noise,
            prior_token_ids=torch.from_numpy(twice(prior).reshape(1, -1)),
            output_type="latent",
            return_dict=False,
            **given,
        )[0]
        with torch.no_grad():
            return latent, self.decode(latent)


def twice(ids: np.ndarray) -> np.ndarray:
    """Return ids at decoder tokens, as the library's nearest upsampling makes them."""
    return np.kron(ids, np.ones((2, 2), ids.dtype))
