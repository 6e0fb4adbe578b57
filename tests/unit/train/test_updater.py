"""One step of the optimizer against arithmetic written out, and a step that must not be taken."""

import math

import torch

from sampan.frameworks.torch.update import Updater

SETTINGS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.5, "clip_norm": 1e9, "autocast": "fp32"}


def make(ema_decay: float = 0.9) -> tuple[torch.nn.Linear, Updater]:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    return module, Updater(module, ema_decay=ema_decay, **SETTINGS)


def loss(module: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    y = module(x)
    return (y * y).mean(), {"size": y.abs().mean()}


def test_a_step_is_adamw_with_bias_correction_and_decay_on_matrices_only():
    module, updater = make()
    x = torch.randn(4, 3)
    before = {n: p.detach().clone() for n, p in module.named_parameters()}
    gradients = dict(zip(before, torch.autograd.grad(loss(module, x)[0], list(module.parameters())), strict=True))
    updater.step(loss, [(x,)], 0.1)
    for name, parameter in module.named_parameters():
        g, w = gradients[name], before[name]
        decayed = w * (1 - 0.1 * 0.5) if name == "weight" else w
        wanted = decayed - 0.1 * g / (g.abs() + 1e-8)  # after one step both corrections leave g and g²
        torch.testing.assert_close(parameter.detach(), wanted, rtol=1e-5, atol=1e-6)


def test_the_average_follows_with_its_ramp():
    module, updater = make(ema_decay=0.9)
    before = module.weight.detach().clone()
    updater.step(loss, [(torch.randn(4, 3),)], 0.1)
    torch.testing.assert_close(updater.ema["weight"], before + 0.9 * (module.weight.detach() - before))


def test_two_micro_batches_are_one_batch_of_both():
    x = torch.randn(8, 3)
    (one, updater_one), (two, updater_two) = make(), make()
    whole = updater_one.step(loss, [(x,)], 0.1)
    halves = updater_two.step(loss, [(x[:4],), (x[4:],)], 0.1)
    assert math.isclose(whole.loss, halves.loss, rel_tol=1e-5)
    assert math.isclose(whole.grad_norm, halves.grad_norm, rel_tol=1e-5)
    torch.testing.assert_close(one.weight, two.weight)


def test_a_gradient_that_is_not_finite_changes_nothing_and_is_said():
    module, updater = make()
    before = module.weight.detach().clone()
    report = updater.step(loss, [(torch.full((4, 3), float("inf")),)], 0.1)
    assert report.skipped and not math.isfinite(report.loss)
    torch.testing.assert_close(module.weight.detach(), before)
    assert not updater.step(loss, [(torch.randn(4, 3),)], 0.1).skipped


def test_a_long_gradient_is_shortened():
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    updater = Updater(module, ema_decay=0.9, **{**SETTINGS, "clip_norm": 1e-3})
    assert updater.step(loss, [(torch.randn(4, 3) * 100,)], 0.1).grad_norm > 1
    # AdamW forgets the scale; the first moment does not
    moment = updater.state()["optimizer"]
    length = math.sqrt(sum(float((v**2).sum()) for k, v in moment.items() if k.endswith("exp_avg")))
    assert math.isclose(length, 0.1 * 1e-3, rel_tol=1e-3)


def test_state_goes_into_a_fresh_updater_bit_for_bit():
    x = [torch.randn(4, 3) for _ in range(4)]
    module, updater = make()
    for batch in x[:2]:
        updater.step(loss, [(batch,)], 0.1)
    kept = {group: {k: v.clone() for k, v in tensors.items()} for group, tensors in updater.state().items()}
    other, fresh = make()
    fresh.load_state(kept)
    for batch in x[2:]:
        assert updater.step(loss, [(batch,)], 0.1) == fresh.step(loss, [(batch,)], 0.1)
    assert torch.equal(module.weight, other.weight) and torch.equal(updater.ema["weight"], fresh.ema["weight"])
