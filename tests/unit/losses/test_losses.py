"""Losses against closed forms and NumPy."""

import math

import numpy as np
import torch

from sampan.losses import autoencoder, contrast, flow, quantizer, tokens


def test_the_preview_weighs_as_much_as_the_target_within_bounds():
    assert tokens.preview_weight(256, 1024) == 4
    assert tokens.preview_weight(256, 512) == 2
    assert tokens.preview_weight(256, 64) == 1
    assert tokens.preview_weight(16, 4096) == 4
    assert tokens.preview_weight(0, 64) == 1


def test_token_loss_is_the_weighted_mean_of_cross_entropies():
    random = np.random.default_rng(0)
    logits, labels = random.standard_normal((2, 6, 9)).astype(np.float32), random.integers(0, 9, (2, 6))
    weights = np.tile(tokens.token_weights(2, 3, 3.0), (2, 1))
    assert weights[0].tolist() == [3, 3, 1, 1, 1, 1]
    each = np.log(np.exp(logits).sum(-1)) - np.take_along_axis(logits, labels[..., None], -1)[..., 0]
    found = tokens.token_loss(torch.from_numpy(logits), torch.from_numpy(labels), torch.from_numpy(weights))
    assert math.isclose(float(found), float((each * weights).sum() / weights.sum()), rel_tol=1e-6)


def test_even_logits_cost_the_logarithm_of_the_classes():
    found = tokens.token_loss(torch.zeros(1, 4, 16512), torch.zeros(1, 4, dtype=torch.long), torch.ones(1, 4))
    assert math.isclose(float(found), math.log(16512), rel_tol=1e-6)


def test_flow_times_shift_the_level_and_not_what_the_network_is_told():
    draws = np.array([-1.0, 0.0, 2.0])
    plain, t_plain = flow.flow_times(draws, 0, 1, mu=1.0)
    moved, t_moved = flow.flow_times(draws, 0, 1, mu=3.25)
    unshifted = 1 / (1 + np.exp(-draws))
    np.testing.assert_allclose(plain, unshifted, rtol=1e-6)
    np.testing.assert_allclose(moved, 3.25 / (3.25 + 1 / unshifted - 1), rtol=1e-6)
    np.testing.assert_array_equal(t_plain, t_moved)
    np.testing.assert_allclose(t_moved, 1000 * unshifted - 1, rtol=1e-5)
    assert flow.flow_times(np.array([-20.0]), 0, 1, 2.0)[1][0] == 0  # never below the first trained time


def test_flow_loss_is_nothing_for_the_true_velocity():
    clean, noise = torch.randn(2, 3, 4, 4), torch.randn(2, 3, 4, 4)
    assert float(flow.flow_loss(noise - clean, clean, noise)) == 0
    assert math.isclose(float(flow.flow_loss(noise - clean + 2, clean, noise)), 4, rel_tol=1e-5)
    half = flow.add_noise(clean, noise, torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(half[0], clean[0])
    torch.testing.assert_close(half[1], noise[1])


def test_edge_loss_sees_blur_and_not_brightness():
    image = torch.zeros(1, 1, 16, 16)
    image[..., 8:] = 1
    assert float(autoencoder.edge_loss(image, image + 0.5)) < 1e-6
    blurred = image.clone()
    blurred[..., 6:10] = torch.linspace(0, 1, 4)
    assert float(autoencoder.edge_loss(image, blurred)) > 0.01


def test_divergence_is_nothing_for_the_normal_and_grows_away_from_it():
    zero = torch.zeros(2, 3, 2, 2)
    assert float(autoencoder.kl_divergence(zero, zero)) == 0
    assert math.isclose(float(autoencoder.kl_divergence(zero + 2, zero)), 0.5 * 4 * 12, rel_tol=1e-6)


def test_contrast_falls_when_partners_agree_and_leaves_out_rows_without_weight():
    views, rows = torch.eye(4), torch.arange(4)
    agree = float(contrast.contrast_loss(views, views * 3, rows, torch.ones(4), 0.1))
    differ = float(contrast.contrast_loss(views, views.roll(1, 0), rows, torch.ones(4), 0.1))
    assert agree < 0.01 < 5 < differ
    weights = torch.tensor([1.0, 1, 1, 0])
    broken = views.clone()
    broken[3] = -views[0]
    assert float(contrast.contrast_loss(views, broken, rows, weights, 0.1)) < 0.01


def test_the_quantizer_carries_gradients_to_both_sides_with_their_weights():
    z = torch.randn(5, 4, requires_grad=True)
    codes = torch.randn(3, 4, requires_grad=True)
    ids = torch.tensor([0, 2, 2, 1, 0])
    through, loss = quantizer.quantize_straight(z, codes, ids, 1.0, 0.25)
    torch.testing.assert_close(through, codes[ids])
    loss.backward()
    difference = (z - codes[ids]).detach()
    assert z.grad is not None and codes.grad is not None
    torch.testing.assert_close(z.grad, 2 * difference / difference.numel())
    wanted = torch.zeros_like(codes).index_add_(0, ids, -2 * 0.25 * difference / difference.numel())
    torch.testing.assert_close(codes.grad, wanted)
    z.grad = None
    through, _ = quantizer.quantize_straight(z, codes, ids, 1.0, 0.25)
    through.sum().backward()
    torch.testing.assert_close(z.grad, torch.ones_like(z))  # as if there were no quantizer
