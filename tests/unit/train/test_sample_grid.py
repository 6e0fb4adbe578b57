"""Grids of examples: any size, any language, and what makes the examples out of real parts with random weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from sampan.models import presets
from sampan.models.build import build
from sampan.models.config import ModelConfig
from sampan.models.heads import TokenizerWithHeads
from sampan.pipeline.denoise import DenoiseInputs, Denoiser, initial_noise, latent_shape
from sampan.train import sample_grid

CONFIG: ModelConfig = presets.get(
    "nano",
    {
        "vision": {"depth": 1},
        "text": {"num_hidden_layers": 1},
        "dit": {"num_layers": 1},
        "glyph": {"num_layers": 1},
        "vq": {"num_embeddings": 50},
        "geometry": {"default_px": 64, "prior_px": 16, "preview_side": 2},
    },
)
RED, BLUE = Image.new("RGB", (40, 20), (255, 0, 0)), Image.new("RGB", (100, 300), (0, 0, 255))


def share(image: Image.Image, color: tuple[int, int, int]) -> int:
    return int((np.asarray(image) == color).all(-1).sum())


# --- the grid


def test_pictures_of_any_size_fill_their_cells():
    green = np.stack([np.full((8, 8), v, np.float32) for v in (-1, 1, -1)])
    sheet = sample_grid.grid([[RED, BLUE], [green, None]], ["a", "b"], ["one", "two"], cell_px=100)
    assert share(sheet, (255, 0, 0)) == 100 * 50
    assert share(sheet, (0, 0, 255)) == 33 * 100
    assert share(sheet, (0, 255, 0)) == 100 * 100
    assert share(sheet, (236, 239, 243)) == 100 * 100
    assert sheet.size == (6 + 150 + 6 + 2 * 106, 6 + 15 + 6 + 2 * 106)
    alone = sample_grid.grid([[RED]], [""], [""])
    assert alone.size == (6 + 96 + 6, 6 + 96 + 6)  # no room is kept for names that are not there


def test_names_of_any_length_and_language_are_drawn_and_kept():
    names = ["um limão", "红苹果 🍎", "long " * 200, "x" * 5000, "", "tab\tand\nbreak"]
    sheet = sample_grid.grid([[RED]] * len(names), names, ["a column with a name that is far too long for it"])
    assert sheet.info["Description"].split("\n", 3)[1:3] == names[:2]
    margin = np.asarray(sheet.convert("L"))[:, 156:162]
    assert (margin == 255).all()  # no letter runs into the pictures


def test_what_the_font_cannot_draw_is_replaced():
    assert sample_grid.drawable("São João ﬁn") == "Sao Joao fin"
    assert sample_grid.drawable("红 apple 🍎\x07") == "? apple ??"
    assert sample_grid.drawable("a\n b\t c") == "a b c"


def test_lines_are_wrapped_and_cut():
    lines = sample_grid.wrapped("the quick brown fox jumps over the lazy dog", 80, 9)
    assert " ".join(lines) == "the quick brown fox jumps over the lazy dog"
    assert len(lines) > 2
    assert all(sample_grid._font().getlength(line) <= 80 for line in lines)
    cut = sample_grid.wrapped("the quick brown fox jumps over the lazy dog", 80, 2)
    assert len(cut) == 2
    assert cut[1].endswith("...")
    assert all(sample_grid._font().getlength(line) <= 80 for line in cut)
    assert "".join(sample_grid.wrapped("w" * 50, 60, 99)) == "w" * 50
    assert sample_grid.wrapped("", 80, 2) == []


def test_values_beyond_and_not_finite_are_pictures_too():
    image = np.full((3, 4, 4), 7.0, np.float32)
    image[:, 0, 0] = np.nan
    image[:, 0, 1] = -np.inf
    assert share(sample_grid.grid([[image]], [""], [""], cell_px=4), (0, 0, 0)) == 2


def test_rows_that_do_not_fit_are_an_error_of_the_caller():
    for rows, names, columns in (([], [], ["a"]), ([[RED]], [], ["a"]), ([[RED, RED]], ["a"], ["a"])):
        with pytest.raises(ValueError):
            sample_grid.grid(rows, names, columns)


def test_pairs_stand_side_by_side():
    sheet = sample_grid.pairs([RED, RED], [BLUE, BLUE], ["a", "b"])
    row = np.asarray(sheet)[6 + 15 + 6 + 128]
    kinds = [tuple(c) for c in row if tuple(c) in ((255, 0, 0), (0, 0, 255))]
    assert kinds == sorted(kinds, reverse=True)
    assert len(set(kinds)) == 2
    assert sheet.info["Description"] == "original | again\na\nb"


# --- real parts


def awake(module: Any, seed: int = 0) -> Any:
    """Return a module off the meta device with random weights."""
    module = module.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, weight in module.state_dict().items():
            weight.normal_(1.0 if "norm" in name and name.endswith("weight") else 0.0, 0.05, generator=generator)
    return module.eval()


def test_the_head_repaints_ids_of_any_grid():
    with torch.device("meta"):
        outline = TokenizerWithHeads(CONFIG, CONFIG.ar.text.vocab_size)
    module = awake(outline)
    ids = np.arange(6).reshape(2, 3)
    image = sample_grid.repaint(module, ids, CONFIG, "cpu")
    patch = CONFIG.processor.patch_size
    assert image.shape == (3, 2 * patch, 3 * patch)
    assert np.array_equal(image, sample_grid.repaint(module, ids, CONFIG, "cpu"))
    assert not np.array_equal(image, sample_grid.repaint(module, ids + 1, CONFIG, "cpu"))


def test_samples_are_painted_the_same_each_time():
    denoiser, vae = Denoiser(awake(build("decoder", CONFIG)), CONFIG, "cpu", "fp32"), awake(build("vae", CONFIG))
    random = np.random.default_rng(0)

    def words(count: int) -> np.ndarray:
        return random.standard_normal((1, count, CONFIG.dit.text_embed_dim)).astype(np.float32)

    def told(number: int, size: tuple[int, int], **settings: Any) -> DenoiseInputs:
        ids = random.integers(0, 50, (1, *CONFIG.geometry.prior_grid(*size)))
        return DenoiseInputs(ids, initial_noise(0, number, size, CONFIG)[None], words(3), size, 2, **settings)

    def paint(*samples: DenoiseInputs) -> list[np.ndarray]:
        return sample_grid.denoise_samples(denoiser, lambda: vae, samples)

    plain, wide = told(0, (64, 64)), told(1, (64, 96))
    latent = random.standard_normal((1, *latent_shape((64, 64), CONFIG))).astype(np.float32)
    references = denoiser.reference_kv([(latent, plain.prior_ids[0], (64, 64))])
    edited = replace(plain, references=references)
    first, second, third = paint(plain, wide, edited)
    assert [image.shape for image in (first, second, third)] == [(3, 64, 64), (3, 64, 96), (3, 64, 64)]
    assert np.array_equal(paint(plain)[0], first)  # beside which others makes no difference
    assert not np.array_equal(third, first)
    others = (
        {"noise": -plain.noise},
        {"prior_ids": (plain.prior_ids + 1) % 50},
        {"guidance_scale": 2.0, "no_glyph_embeds": words(1)},
    )
    for change in others:
        assert not np.array_equal(paint(replace(plain, **change))[0], first)


def test_ids_that_were_written_are_painted_beside_the_true_ones():
    truth, found = np.zeros((2, 2), np.int64), np.array([[0, 1], [0, 1]])
    sheet = sample_grid.written_grid(
        [truth], [found], ["a boat"], lambda ids: np.full((3, 8, 8), 1.0 if ids.any() else -1.0, np.float32)
    )
    assert sheet.info["Description"] == "true tokens | written tokens\na boat (50%)"
    assert share(sheet, (0, 0, 0)) >= 96 * 96
