"""What the modules promise beyond the oracle: masks of training, recomputation, caches, shapes and initial weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sampan.frameworks import device as dev
from sampan.models import positions, presets
from sampan.models.ar import ARGenerator
from sampan.models.build import PARTS, build
from sampan.models.dit import DiT, join_references
from sampan.models.init import initial_weights
from sampan.models.vision import VectorQuantizer

NANO = presets.get(
    "nano",
    {
        "dit": {"num_layers": 2, "attention_head_dim": 8},
        "text": {"num_hidden_layers": 2},
        "vision": {"depth": 1},
        "glyph": {"num_layers": 1},
    },
)


def awake(part: str) -> Any:
    """Return a module in which every parameter matters."""
    torch.manual_seed(0)
    module = build(part, NANO)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return module


@pytest.fixture(scope="module")
def decoder() -> DiT:
    return awake("decoder")


@pytest.fixture(scope="module")
def generator() -> ARGenerator:
    return awake("ar")


def decoder_inputs(grid: tuple[int, int] = (4, 4), num_text: int = 3, batch: int = 2) -> list[Tensor]:
    dit = NANO.dit
    rng = np.random.default_rng(0)
    made = [
        rng.standard_normal((batch, dit.in_channels, *(dit.patch_size * side for side in grid)), np.float32),
        rng.standard_normal((batch, num_text, dit.text_embed_dim), np.float32),
        rng.integers(0, 64, (batch, grid[0] * grid[1])),
        np.ones(batch, np.float32),
        positions.sinusoid([500.0] * batch, dit.time_embed_dim),
        positions.size_features((0, 0), (64, 64), dit.condition_dim, batch),
        *positions.rope_image(grid, dit.attention_head_dim, num_text),
    ]
    return [torch.from_numpy(np.ascontiguousarray(a)) for a in made]


def reference(decoder: DiT, grid: tuple[int, int] = (2, 4)) -> tuple[tuple[Tensor, Tensor], ...]:
    latent, _, *rest = decoder_inputs(grid, num_text=0)
    return decoder.reference_kv(latent, *rest)


def test_a_closed_reference_is_no_reference(decoder: DiT):
    inputs, kv = decoder_inputs(), reference(decoder)
    tokens = 8 + 3 + 16
    closed = torch.ones(2, 1, 1, tokens, dtype=torch.bool)
    closed[0, :, :, :8] = False  # of the first sample only, as training drops them
    with torch.no_grad():
        without, with_it = decoder(*inputs), decoder(*inputs, kv)
        mixed = decoder(*inputs, kv, closed)
    torch.testing.assert_close(mixed[0], without[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(mixed[1], with_it[1], rtol=0, atol=1e-5)
    assert (without[0] - with_it[0]).abs().max() > 1e-3


def test_closed_padding_of_text_is_as_if_it_were_not_there(decoder: DiT):
    inputs = decoder_inputs(num_text=3)
    longer = decoder_inputs(num_text=5)
    longer[1][:, 2:], longer[2] = inputs[1], inputs[2]  # the same picture, two rows of anything in front of the text
    mask = (torch.arange(5 + 16) >= 2)[None, None, None]
    with torch.no_grad():
        torch.testing.assert_close(decoder(*longer, None, mask), decoder(*inputs), rtol=0, atol=1e-5)


def test_references_are_joined_along_their_tokens(decoder: DiT):
    first, second = reference(decoder), reference(decoder, (4, 4))
    joined = join_references([first, second])
    assert len(joined) == NANO.dit.num_layers
    for layer, (one, two) in zip(joined, zip(first, second, strict=True), strict=True):
        for which in range(2):
            assert torch.equal(layer[which], torch.cat((one[which], two[which]), 2))


def gradients(module: Any, loss: Tensor) -> dict[str, Tensor]:
    named = dict(module.named_parameters())
    found = torch.autograd.grad(loss, list(named.values()), allow_unused=True)
    return {n: torch.zeros_like(p) if g is None else g for (n, p), g in zip(named.items(), found, strict=True)}


def test_recomputing_changes_no_gradient_of_the_decoder(decoder: DiT):
    inputs = decoder_inputs()
    plain = gradients(decoder, decoder(*inputs, reference(decoder)).square().mean())
    again = gradients(decoder, decoder(*inputs, reference(decoder), None, True).square().mean())
    for name, wanted in plain.items():
        torch.testing.assert_close(again[name], wanted, msg=name)


def test_recomputing_changes_no_gradient_of_the_generator(generator: ARGenerator):
    ids, cos, sin = generator_inputs(9)
    plain = gradients(generator, generator(ids, cos, sin)[0].square().mean())
    again = gradients(generator, generator(ids, cos, sin, recompute=True)[0].square().mean())
    for name, wanted in plain.items():
        torch.testing.assert_close(again[name], wanted, msg=name)


def generator_inputs(num_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    ids = torch.arange(2 * num_tokens).reshape(2, num_tokens) % 97
    given, _ = positions.prompt_positions(num_tokens)
    cos, sin = positions.rope_text(given[:, None], NANO.ar.text)
    return ids, torch.from_numpy(cos), torch.from_numpy(sin)


def test_the_head_is_computed_where_it_is_asked_for(generator: ARGenerator):
    ids, cos, sin = generator_inputs(7)
    with torch.no_grad():
        every, cache = generator(ids, cos, sin)
        last, _ = generator(ids, cos, sin, num_logits=2)
    assert cache is None
    assert every.shape == (2, 7, NANO.ar.text.vision_vocab_size)
    torch.testing.assert_close(last, every[:, -2:])


def test_a_cache_without_a_mask_is_our_own_bug(generator: ARGenerator):
    ids, cos, sin = generator_inputs(3)
    shape = generator.cache_shape(2, 8)
    cache = tuple((torch.zeros(shape), torch.zeros(shape)) for _ in range(2))
    with pytest.raises(AssertionError, match="unwritten slots"):
        generator(ids, cos, sin, None, cache, torch.tensor(0))


def test_slots_that_are_not_written_are_not_read(generator: ARGenerator):
    ids, cos, sin = generator_inputs(5)
    shape = generator.cache_shape(2, 12)
    mask = torch.tril(torch.ones(12, 12, dtype=torch.bool))[None, None, :5]
    with torch.no_grad():
        wanted, _ = generator(ids, cos, sin)
        for content in (0.0, 1e4):
            cache = tuple((torch.full(shape, content), torch.full(shape, content)) for _ in range(2))
            got, _ = generator(ids, cos, sin, mask, cache, torch.tensor(0))
            torch.testing.assert_close(got, wanted, rtol=0, atol=2e-5)


def test_the_autoencoder_trains_on_samples_and_works_on_the_mode():
    vae = awake("vae")
    image = torch.randn(2, 3, 32, 48).clamp(-1, 1)
    noise = torch.randn(2, NANO.vae.latent_channels, 32 // NANO.vae.factor, 48 // NANO.vae.factor)
    with torch.no_grad():
        reconstruction, mean, log_variance = vae(image, noise)
        assert reconstruction.shape == image.shape
        assert mean.shape == log_variance.shape == noise.shape
        torch.testing.assert_close(reconstruction, vae.decoder(mean + torch.exp(0.5 * log_variance) * noise))
        shift, scale = (torch.full((1, noise.shape[1], 1, 1), value) for value in (0.3, 2.0))
        torch.testing.assert_close(vae.encode(image, shift, scale), (mean - 0.3) / 2)
        torch.testing.assert_close(vae.decode((mean - 0.3) / 2, shift, scale), vae.decoder(mean))


def test_the_nearest_code_is_the_nearest_direction():
    quantizer = VectorQuantizer(NANO.ar.vq)
    with torch.no_grad():
        quantizer.quant_conv.bias.zero_()  # with it, longer features point elsewhere
        features = torch.randn(3, 5, NANO.ar.vq.latent_channels)
        ids = quantizer(features)
        wanted = (quantizer.project(features) @ quantizer.codebook().T).argmax(-1)
        assert torch.equal(ids, wanted)
        assert torch.equal(quantizer.project(5 * features).argmax(-1), quantizer.project(features).argmax(-1))
    assert ids.shape == (3, 5)


@pytest.mark.parametrize("part", PARTS)
def test_initial_weights_cover_every_parameter_and_depend_on_seed_and_name_only(part: str):
    with dev.on_meta():
        shapes = {name: tuple(p.shape) for name, p in build(part, NANO).named_parameters()}
    made = initial_weights(shapes, seed=3)
    assert {name: value.shape for name, value in made.items()} == shapes
    assert all(value.dtype == np.float32 and np.isfinite(value).all() for value in made.values())
    some = sorted(shapes)[::7]
    alone = initial_weights({name: shapes[name] for name in some}, seed=3)
    assert all(np.array_equal(alone[name], made[name]) for name in some)
    others = initial_weights(shapes, seed=4)
    same = "relative_attention_bias.weight"  # slopes, the same for every seed
    drawn = [name for name, value in made.items() if value.ndim > 1 and np.ptp(value) > 0 and not name.endswith(same)]
    assert drawn
    assert all(not np.array_equal(made[name], others[name]) for name in drawn)


def test_a_fresh_decoder_is_silent():
    shapes = {name: tuple(p.shape) for name, p in build("decoder", NANO).named_parameters()}
    decoder = build("decoder", NANO)
    decoder.load_state_dict({name: torch.from_numpy(v) for name, v in initial_weights(shapes, seed=0).items()})
    with torch.no_grad():
        assert decoder(*decoder_inputs()).abs().max() == 0
