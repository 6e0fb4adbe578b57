"""The mistakes a re-implementation makes, continued: the whole way from a prompt and references to a picture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import LogitsProcessorList, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import masks
from parity.compare import FP32_TOLERANCE, Bites, draw, padded_batch, picture, relative_error
from parity.ours import Ours
from parity.theirs import Theirs
from sampan.errors import RequestError
from sampan.frameworks import device as dev
from sampan.models import dit, pixels, positions
from sampan.models.config import ModelConfig, SamplingConfig
from sampan.models.vae import VAE
from sampan.pipeline.denoise import Denoiser
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.request import ImageRequest, check_size
from sampan.samplers import euler
from sampan.samplers.top_p import top_p_probabilities

TWO, TEXT, IMAGE = "DiT with references: two", "Text to image: square", "Image to image: one reference"


# --- guidance and references -----------------------------------------------------------------------------------------


def test_trap_20_the_unconditional_branch_has_no_prior_no_words_and_no_references(bites: Bites):
    inputs, forward, embeds = Denoiser.model_inputs, dit.DiT.forward, Pipeline.glyph_embeds

    def prior_kept(self: Any, latent: Any, prior: Any, keep: float, *rest: Any) -> Any:
        return inputs(self, latent, prior, 1.0, *rest)

    def same_words(self: Any, texts: Any) -> Any:
        return embeds(self, texts if texts != [""] else ["olá", "你好"])

    seen: list[Any] = []

    def same_references(self: Any, *arguments: Any) -> Tensor:
        if arguments[8] is not None:
            seen.append(arguments[8])
        return forward(self, *arguments[:8], seen[-1])

    for label in (TEXT, IMAGE):
        bites(label, lambda patch: patch.setattr(Denoiser, "model_inputs", prior_kept))
        bites(label, lambda patch: patch.setattr(Pipeline, "glyph_embeds", same_words))
        bites(label, lambda patch: patch.setattr(euler, "apply_guidance", lambda c, u, scale: c + scale * (c - u)))
    bites(IMAGE, lambda patch: patch.setattr(dit.DiT, "forward", same_references))


def test_trap_21_a_reference_is_written_at_time_0_without_text_from_position_0(bites: Bites):
    inputs, rope = Denoiser.model_inputs, positions.rope_image

    def less_one(self: Any, latent: Any, prior: Any, keep: float, t: float, size: Any, num_text: int) -> Any:
        return inputs(self, latent, prior, keep, t if num_text else -1.0, size, num_text)

    def target_size(self: Any, latent: Any, prior: Any, keep: float, t: float, size: Any, num_text: int) -> Any:
        return inputs(self, latent, prior, keep, t, size if num_text else (64, 64), num_text)

    def running_on(grid: Any, head_dim: int, num_text: int) -> Any:
        if num_text:
            return rope(grid, head_dim, num_text)
        return tuple(t[:, :, grid[0] * grid[1] :] for t in rope((2 * grid[0], grid[1]), head_dim, 0))

    def with_text(self: Any, latent: Tensor, *rest: Tensor) -> Any:
        # one token of the projected zero vector in front, as a pipeline would that pads the empty text to length one
        x, condition = self._embed(latent, *rest[:4])
        x = torch.cat((self.glyph_projector(torch.zeros(1, 1, self.config.text_embed_dim)), x), 1)
        cos, sin = (
            torch.cat((torch.full_like(t[:, :, :1], v), t), 2) for t, v in zip(rest[4:], (1.0, 0.0), strict=True)
        )
        written = []
        for block in self.transformer_blocks:
            x, _, kv = block(x, None, condition, cos, sin, None, None)
            written.append(kv)
        return tuple(written)

    bites(IMAGE, lambda patch: patch.setattr(Denoiser, "model_inputs", less_one))
    bites(IMAGE, lambda patch: patch.setattr(Denoiser, "model_inputs", target_size))
    bites(IMAGE, lambda patch: patch.setattr(positions, "rope_image", running_on))
    bites(IMAGE, lambda patch: patch.setattr(dit.DiT, "reference_kv", with_text))


def test_trap_21_references_do_not_see_one_another(bites: Bites):
    write = Ours.reference_kv
    before: list[Any] = []

    def seeing_the_one_before(self: Ours, reference: Any) -> Any:
        if not before:
            before.append(write(self, reference))
            return before[0]
        prior = torch.from_numpy(reference.prior)[None]
        inputs = self.decoder_inputs(reference.latent, prior, [True], [0.0], reference.size, (0, 0), 0)
        x, condition = self.decoder._embed(*inputs[:5])
        written = []
        for block, seen in zip(self.decoder.transformer_blocks, before.pop(), strict=True):
            x, _, kv = block(x, None, condition, *inputs[5:], seen, None)
            written.append(kv)
        return tuple(written)

    bites(TWO, lambda patch: patch.setattr(Ours, "reference_kv", seeing_the_one_before))


@pytest.mark.parametrize(
    ("height", "width"), [(1016, 1016), (500, 700), (300, 1100), (2500, 2100), (4000, 1000), (31, 40)]
)
def test_trap_22_references_are_brought_to_sizes_on_which_tokens_and_patches_agree(height: int, width: int):
    config = ModelConfig()

    def grids(height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        tokens = pixels.smart_resize(height, width, config.processor, config.token_scale)
        cell = config.vae.factor * config.dit.patch_size
        return (2 * tokens[0] // 16, 2 * tokens[1] // 16), (height // cell, width // cell)

    tokens, patches = grids(height, width)
    assert tokens != patches, "this size is no trap"
    taken = pixels.reference_size(height, width, config.processor, config.geometry.prior_px)
    tokens, patches = grids(*taken)
    assert tokens == patches
    assert all(side % 32 == 0 and 512 <= side <= 2048 for side in taken)


def test_trap_22_the_library_fails_where_ours_paints(ours: Ours, theirs: Theirs):
    odd = picture(120, 120)  # 64 tokens, 49 patches
    given = {"prior": np.zeros((2, 2), np.int64), "noise": draw(1, 1, 4, 8, 8), "images": [odd]}
    with pytest.raises(RuntimeError):
        theirs.paint("a boat", (64, 64), **given)
    assert ours.paint("a boat", (64, 64), **given)[1].shape == (1, 3, 64, 64)


# --- the autoencoder -------------------------------------------------------------------------------------------------


def test_trap_23_latents_are_normalised_per_channel_and_the_mode_is_encoded(bites: Bites, theirs: Theirs):
    assert theirs.vae.config.scaling_factor == pytest.approx(0.18215)

    def scaled(*arguments: Any) -> tuple[Tensor, Tensor]:
        return torch.zeros(1, 4, 1, 1), torch.full((1, 4, 1, 1), 1 / 0.18215)

    def sampled(self: Any, image: Tensor, mean: Tensor, std: Tensor) -> Tensor:
        mode, log_variance = self.encoder(image)
        return (mode + torch.exp(0.5 * log_variance) * draw(3, *mode.shape) - mean) / std

    for label in (TEXT, IMAGE):
        bites(label, lambda patch: patch.setattr("sampan.models.encoders.latent_statistics", scaled))
    bites(IMAGE, lambda patch: patch.setattr(VAE, "encode", sampled))
    bites("VAE encode: square", lambda patch: patch.setattr(VAE, "encode", sampled))
    assert set(dev.DTYPES) == {"fp32", "bf16"}, "the released decoder overflows in fp16"


# --- writing tokens --------------------------------------------------------------------------------------------------


def test_trap_24_the_end_token_cannot_come_early(ours: Ours, theirs: Theirs):
    end, size = ours.config.ar.image_end_token_id, (64, 96)
    hook = lambda module, given, out: out + 50 * torch.nn.functional.one_hot(torch.tensor(end), out.shape[-1])  # noqa: E731
    handles = [side.ar.lm_head.register_forward_hook(hook) for side in (ours, theirs)]
    try:
        inputs = theirs.inputs(["a boat"], size)
        free = theirs.ar.generate(**inputs, max_new_tokens=30, do_sample=False, temperature=None, top_p=None)
        assert free[0, inputs["input_ids"].shape[1] :].tolist() == [end], "the library stops at once"
        grids = ours.grids(size)
        written = ours.greedy(["a boat"], size, sum(r * c for r, c in grids))
    finally:
        for handle in handles:
            handle.remove()
    assert written.shape == (1, sum(r * c for r, c in grids))
    assert 0 <= written.min() <= written.max() < ours.config.ar.vq.num_embeddings


@pytest.mark.parametrize("top_k", [None, 7, 200])
def test_trap_24_the_nucleus_is_the_library_s_with_its_unspoken_top_k(top_k: int | None):
    config = SamplingConfig.from_json({"temperature": 0.9, "top_p": 0.75} | ({} if top_k is None else {"top_k": top_k}))
    assert config.top_k == (top_k or 50)
    logits = 3 * draw(71, 60, 500)
    warpers = LogitsProcessorList(
        [TemperatureLogitsWarper(0.9), TopKLogitsWarper(config.top_k), TopPLogitsWarper(0.75)]
    )
    wanted = torch.softmax(warpers(torch.zeros(60, 1, dtype=torch.long), logits.clone()), -1)
    got = top_p_probabilities(logits.numpy(), config)
    assert np.array_equal(got > 0, wanted.numpy() > 0)
    assert np.abs(got - wanted.numpy()).max() <= 1e-6


def test_trap_25_a_picture_depends_on_its_seed_and_nothing_else(ours: Ours):
    def pictures(seed: int, count: int, global_seed: int) -> list[np.ndarray]:
        assert ours.painter is not None
        torch.manual_seed(global_seed)
        return ours.painter(
            ImageRequest("a boat", height_px=64, width_px=64, seed=seed, count=count, num_inference_steps=1)
        )

    one, again, three, different = pictures(5, 1, 0), pictures(5, 1, 99), pictures(5, 3, 7), pictures(6, 1, 0)
    assert np.array_equal(one[0], again[0])
    assert np.abs(one[0].astype(int) - three[0]).max() <= 1  # a batch may round differently, and draws the same
    assert not np.array_equal(one[0], three[1])
    assert not np.array_equal(one[0], different[0])


def test_trap_26_prompts_of_a_batch_are_padded_on_the_left_and_the_padding_is_closed(bites: Bites, ours: Ours):
    mask = masks.left_padded_mask
    label = "AR, teacher-forced: left-padded batch"

    def open_to_padding(lengths: Any, num_tokens: int) -> np.ndarray:
        return mask([num_tokens] * len(lengths), num_tokens)

    def padded_right(lengths: Any, num_tokens: int) -> np.ndarray:
        return mask(lengths, num_tokens)[:, :, :, ::-1].copy()

    bites(label, lambda patch: patch.setattr(masks, "left_padded_mask", open_to_padding))
    bites(label, lambda patch: patch.setattr(masks, "left_padded_mask", padded_right))
    # and a prompt in a batch is answered as it is alone
    ids, given, lengths = padded_batch(ours)
    assert len(set(lengths)) > 1
    with torch.no_grad():
        together = ours.logits(ids, given, lengths)
        for row, length in enumerate(lengths):
            alone = ours.logits(ids[row : row + 1, -length:], given[:, row : row + 1, -length:])
            assert relative_error(together[row : row + 1, -length:], alone) <= FP32_TOLERANCE


@pytest.mark.parametrize(
    ("height", "width", "nearest"), [(128, 104, "96x128"), (104, 128, "128x96"), (72, 48, "64x64")]
)
def test_trap_27_both_sides_are_multiples_of_the_prior_token(
    height: int, width: int, nearest: str, ours: Ours, theirs: Theirs
):
    if height % 32 == 0:
        theirs.pipeline.check_inputs("a boat", height, width, None)  # the reference's check of the width is weaker
    with pytest.raises(RequestError) as caught:
        check_size(height, width, ours.config)
    assert str(caught.value) == (
        f"error: this model cannot paint {width}x{height} pixels\n"
        "  because both sides must be multiples of 32, the pixels of one prior token\n\n"
        f"hint: the nearest size is --size {nearest}"
    )


def test_trap_28_references_work_end_to_end_where_the_libraries_do_not_fit_together(ours: Ours, theirs: Theirs):
    images, prompt, size = [picture(96, 128, seed=1)], "make it blue", (96, 128)
    with pytest.raises(RuntimeError):
        theirs.pipeline(prompt, image=images, height=size[0], width=size[1], num_inference_steps=1)
    greedy = theirs.greedy([prompt], size, 12, images)
    noise = draw(77, 1, 4, 12, 16)
    wanted = theirs.paint(prompt, size, prior=greedy.reshape(3, 4), noise=noise, images=images)
    got = ours.paint(prompt, size, prior=None, noise=noise, images=images)  # our generator writes the ids itself
    for mine, other in zip(got, wanted, strict=True):
        assert relative_error(mine, other) <= FP32_TOLERANCE


def test_the_whole_way_from_a_prompt_without_references_agrees_too(ours: Ours, theirs: Theirs):
    size, noise = (96, 64), draw(78, 1, 4, 12, 8)
    rows, columns = 3, 2
    num_preview = sum(r * c for r, c in ours.grids(size)) - rows * columns
    greedy = theirs.greedy(["a 'red' boat"], size, num_preview + rows * columns)
    wanted = theirs.paint("a 'red' boat", size, prior=greedy[0, num_preview:].reshape(rows, columns), noise=noise)
    got = ours.paint("a 'red' boat", size, prior=None, noise=noise)
    for mine, other in zip(got, wanted, strict=True):
        assert relative_error(mine, other) <= FP32_TOLERANCE
