"""Arithmetic of the released sizes, counted on shapes, is what the published formulas say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sampan.models import presets
from sampan.models.ar import ARGenerator
from sampan.models.dit import DiT
from sampan.models.glyph import GlyphEncoder
from sampan.models.vae import VAE
from sampan.models.vision import ImageTokenizer

CONFIG = presets.get("glm-image")


def counted(module: Any, *arguments: Any) -> int:
    """Return the floating-point operations of a call, multiply and add counted as two."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*arguments)
    return counter.get_total_flops()


def meta(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.empty(shape, dtype=dtype, device="meta")


def ids(*shape: int) -> torch.Tensor:
    return meta(*shape, dtype=torch.int64)


@pytest.fixture(autouse=True)
def _on_meta():
    with torch.device("meta"):
        yield


def generator(num_layers: int, num_tokens: int) -> int:
    config = dataclasses.replace(CONFIG.ar.text, num_hidden_layers=num_layers)
    half = config.rotary_dim // 2
    # a mask, because attention without one is counted as if every token saw all the others, which is the same number
    mask = meta(1, 1, num_tokens, num_tokens, dtype=torch.bool)
    return counted(
        ARGenerator(config), ids(1, num_tokens), meta(1, 1, num_tokens, half), meta(1, 1, num_tokens, half), mask
    )


@pytest.mark.parametrize("s", [1, 100, 1380])
def test_one_layer_of_the_generator_and_its_head(s: int):
    one, two = generator(1, s), generator(2, s)
    linear = 2 * s * (2 * 4096**2 + 2 * 4096 * 256 + 3 * 4096 * 13696)
    attention = 4 * s * s * 4096  # all pairs; the causal half is what is useful
    assert two - one == linear + attention
    assert one - (two - one) == s * 2 * 4096 * 16512


def test_the_generator_at_1024_px():
    s, layers, generated = 1380, 40, 256 + 1024 + 1
    linear = layers * (generator(2, s) - generator(1, s) - 4 * s * s * 4096)
    attention = 2 * 4096 * layers * s * (s + 1)  # the useful half
    assert linear + attention + 2 * 4096 * 16512 * generated == pytest.approx(2.33e13, rel=2e-3)


def decoder(num_layers: int, cells: int, num_text: int) -> int:
    config = dataclasses.replace(CONFIG.dit, num_layers=num_layers)
    n = cells * cells // 4
    half = config.attention_head_dim // 2
    return counted(
        DiT(config),
        meta(1, 16, cells, cells),
        meta(1, num_text, 1472),
        ids(1, n),
        meta(1),
        meta(1, 512),
        meta(1, 1024),
        meta(1, 1, num_text + n, half),
        meta(1, 1, num_text + n, half),
    )


@pytest.mark.parametrize(("cells", "num_text"), [(16, 1), (128, 20), (256, 1)])
def test_one_block_of_the_decoder(cells: int, num_text: int):
    n = cells * cells // 4
    total = n + num_text
    linear = 2 * total * (4 * 4096**2 + 2 * 4096 * 16384)
    attention = 4 * total * total * 4096
    modulation = 2 * 512 * 12 * 4096
    assert decoder(2, cells, num_text) - decoder(1, cells, num_text) == linear + attention + modulation


@pytest.mark.parametrize(("cells", "published"), [(128, 5.80e13), (256, 3.31e14)])
def test_a_forward_pass_of_the_decoder(cells: int, published: float):
    one = decoder(1, cells, 1)
    assert one + 29 * (decoder(2, cells, 1) - one) == pytest.approx(published, rel=5e-3)


@pytest.mark.parametrize(("px", "encode", "decode"), [(1024, 1.91e13, 3.97e13), (2048, 7.62e13, 1.59e14)])
def test_the_autoencoder(px: int, encode: float, decode: float):
    vae = VAE(CONFIG.vae)
    assert counted(vae.encoder, meta(1, 3, px, px)) == pytest.approx(encode, rel=5e-3)
    assert counted(vae.decoder, meta(1, 16, px // 8, px // 8)) == pytest.approx(decode, rel=5e-3)


@pytest.mark.parametrize(("px", "published"), [(1024, 2.6e12), (2048, 1.37e13)])
def test_the_tokenizer_of_a_reference(px: int, published: float):
    n = (px // 32) ** 2
    model = ImageTokenizer(CONFIG.ar.vision, CONFIG.ar.vq)
    blocks = 40 * (2 * n * (4 * 1536**2 + 2 * 1536 * 6144) + 4 * n * n * 1536)
    ends = 2 * n * (768 * 1536 + 1536 * 2048 + 2048 * 16384)
    assert counted(model, meta(1, n, 768), ids(4, n), meta(4, n)) == blocks + ends
    assert blocks + ends == pytest.approx(published, rel=0.025)  # published with two digits


def test_the_glyph_encoder_is_small():
    model = GlyphEncoder(CONFIG.glyph)
    assert counted(model, ids(2, 60), meta(2, 60, dtype=torch.bool), ids(60, 60)) < 1e11
