"""Sampling loops: counters, nucleus, schedule, and a flow that can be followed by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.models.config import SamplingConfig, SchedulerConfig
from sampan.samplers import euler, noise
from sampan.samplers.top_p import sample_token, top_p_probabilities


def test_a_draw_depends_on_its_name_only():
    first = noise.generator(7, "latent", 3).standard_normal(4)
    noise.generator(7, "latent", 2).standard_normal(100)
    np.testing.assert_array_equal(first, noise.generator(7, "latent", 3).standard_normal(4))
    for other in (noise.generator(8, "latent", 3), noise.generator(7, "tokens", 3), noise.generator(7, "latent", 3, 0)):
        assert not np.array_equal(first, other.standard_normal(4))


def test_nucleus_keeps_the_token_that_crosses():
    logits = np.log(np.array([[0.5, 0.3, 0.15, 0.05]], np.float32))
    kept = top_p_probabilities(logits, SamplingConfig(temperature=1, top_p=0.75, top_k=0))
    np.testing.assert_allclose(kept, [[0.625, 0.375, 0, 0]], atol=1e-6)
    tiny = top_p_probabilities(logits, SamplingConfig(temperature=1, top_p=0.01, top_k=0))
    np.testing.assert_allclose(tiny, [[1, 0, 0, 0]], atol=1e-6)


def test_temperature_comes_before_top_k_before_top_p():
    logits = np.log(np.array([[0.4, 0.3, 0.2, 0.1]], np.float32))
    cold = np.array([0.4, 0.3, 0.2]) ** 2  # temperature one half, then the best three
    cold /= cold.sum()
    found = top_p_probabilities(logits, SamplingConfig(temperature=0.5, top_p=0.8, top_k=3))
    np.testing.assert_allclose(found[0, :2], cold[:2] / cold[:2].sum(), rtol=1e-5)
    assert found[0, 2:].tolist() == [0, 0]


def test_no_temperature_takes_the_greatest():
    logits = np.array([[0.0, 3.0, 2.9]], np.float32)
    assert top_p_probabilities(logits, SamplingConfig(temperature=0)).tolist() == [[0, 1, 0]]


@given(st.integers(1, 100), st.sampled_from([64, 256, 1024, 4096, 16384]))
def test_levels_fall_to_nothing_and_the_network_hears_whole_numbers(num_steps: int, num_tokens: int):
    times, sigmas = euler.schedule(num_steps, num_tokens, SchedulerConfig())
    assert len(times) == num_steps and len(sigmas) == num_steps + 1
    assert times[0] == 999 and sigmas[0] == 1 and sigmas[-1] == 0
    assert (np.diff(sigmas) < 0).all() and (times == np.round(times)).all()


@pytest.mark.parametrize(("side_px", "mu"), [(512, 1.75), (1024, 3.25), (2048, 6.25)])
def test_the_shift_of_the_released_sizes(side_px: int, mu: float):
    assert euler.shift((side_px // 16) ** 2, SchedulerConfig()) == mu


def test_a_straight_flow_is_followed_exactly():
    clean, start = np.float32([[[[3.0, -1.0]]]]), np.float32([[[[0.5, 2.0]]]])
    times, sigmas = euler.schedule(4, 256, SchedulerConfig())
    latent = start
    for step in range(len(times)):
        latent = euler.euler_step(latent, start - clean, sigmas, step)
    np.testing.assert_allclose(latent, clean, atol=1e-6)


def test_a_curved_flow_is_followed_with_first_order():
    def end(num_steps: int) -> float:
        sigmas = np.linspace(1, 0, num_steps + 1).astype(np.float32)
        latent = np.ones((1, 1, 1, 1), np.float32)
        for step in range(num_steps):
            latent = euler.euler_step(latent, latent, sigmas, step)
        return float(latent[0, 0, 0, 0])

    errors = [abs(end(n) - np.exp(-1)) for n in (20, 40, 80)]
    assert 1.9 < errors[0] / errors[1] < 2.1 and 1.9 < errors[1] / errors[2] < 2.1


def test_guidance_of_one_is_the_conditional_branch():
    three, one = np.full((1, 1, 1, 1), 3.0), np.ones((1, 1, 1, 1))
    assert euler.apply_guidance(three, one, 1.0) == 3.0
    assert euler.apply_guidance(three, one, 1.5) == 4.0


def test_the_shift_of_a_schedule_is_that_of_training():
    times, sigmas = euler.schedule(30, 4096, SchedulerConfig())
    mu = euler.shift(4096, SchedulerConfig())
    np.testing.assert_allclose(euler.shift_time((times + 1) / 1000, mu), sigmas[:-1], rtol=1e-6)
    assert euler.shift_time(np.float32([0, 1]), mu).tolist() == [0, 1]


def test_a_token_is_drawn_as_often_as_it_is_likely():
    draw, probabilities = noise.generator(0, "tokens", 0), np.array([0.2, 0.0, 0.5, 0.3])
    counts = np.bincount([sample_token(probabilities, draw) for _ in range(4000)], minlength=4)
    assert counts[1] == 0
    np.testing.assert_allclose(counts / 4000, probabilities, atol=0.03)


def test_shapes_that_do_not_fit_are_refused_by_the_name_of_their_axis():
    latent, sigmas = np.zeros((2, 4, 8, 6), np.float32), np.float32([1, 0])
    with pytest.raises(ValueError, match="`velocity` has 1 on the axis height, and `latent` has 8"):
        euler.euler_step(latent, latent[:, :, :1], sigmas, 0)
    with pytest.raises(ValueError, match="`unconditional` has 1 on the axis batch, and `conditional` has 2"):
        euler.apply_guidance(latent, latent[:1], 2.0)
    with pytest.raises(ValueError, match=r"`velocity` has the shape \(4, 8, 6\), and should have the axes"):
        euler.euler_step(latent, latent[0], sigmas, 0)
    with pytest.raises(ValueError, match=r"`logits` has the shape \(5,\) and must be \(sequences, classes\)"):
        top_p_probabilities(np.zeros(5, np.float32), SamplingConfig())
    with pytest.raises(ValueError, match=r"`probabilities` has the shape \(1, 2\) and must be \(classes,\)"):
        sample_token(np.ones((1, 2)), noise.generator(0, "tokens", 0))
