"""One step of the optimizer against arithmetic written out, steps that must not be taken, and what is trained of a module."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from sampan.errors import CheckpointError
from sampan.frameworks.torch import io
from sampan.frameworks.torch.train_step import TrainStep
from unit.frameworks.torch.small_net import SETTINGS, copied, error, examples, wide


def make(ema_decay: float = 0.9) -> tuple[torch.nn.Linear, TrainStep]:
    torch.manual_seed(0)
    module = torch.nn.Linear(3, 2)
    return module, TrainStep(module, ema_decay=ema_decay, **SETTINGS)


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
    updater = TrainStep(module, ema_decay=0.9, **{**SETTINGS, "clip_norm": 1e-3})
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


def test_weights_must_be_what_is_said():
    with pytest.raises(ValueError, match=r"is torch\.bfloat16, and is to be trained as fp32"):
        wide(bf16=True)
    frozen = torch.nn.Linear(2, 2).requires_grad_(False)
    with pytest.raises(ValueError, match="nothing in the module is trained"):
        TrainStep(frozen, ema_decay=0, **SETTINGS)
    with pytest.raises(ValueError, match="`wieght` is not trained"):
        TrainStep(torch.nn.Linear(2, 2), ema_decay=0, frozen_rows={"wieght": 1}, **SETTINGS)


# --- averages ---------------------------------------------------------------------------------------------------------


def test_without_an_average_the_weights_stand_for_it():
    module, updater = wide(ema_decay=0)
    updater.step(error, examples(1), 1e-2)
    state = updater.state()
    assert updater.ema == {} and state["ema"] is state["weights"]
    with updater.averaged():
        assert torch.equal(module[0].weight, state["weights"]["0.weight"])
    _, averaging = wide()  # and are what one begins with that is asked for later
    averaging.load_state({**copied(state), "ema": {}})
    assert torch.equal(averaging.ema["0.weight"], state["weights"]["0.weight"])


@pytest.mark.parametrize("settings", [{}, {"bf16": True, "master": False}, {"frozen_rows": {"0.weight": 10}}])
def test_the_average_is_in_the_module_only_for_a_while(settings: dict[str, Any]):
    module, updater = wide(**settings)
    for batch in examples(3):
        updater.step(error, [batch], 1e-1)
    state = copied(updater.state())
    batch = examples(1)[0]
    now = updater.evaluate(error, batch)
    with updater.averaged():
        for name, parameter in module.named_parameters():
            assert torch.equal(parameter.detach(), state["ema"][name].to(parameter.dtype))
        assert updater.evaluate(error, batch) != now
    with pytest.raises(KeyError), updater.averaged():
        raise KeyError
    for name, parameter in module.named_parameters():
        assert torch.equal(parameter.detach(), state["weights"][name])
    assert updater.evaluate(error, batch) == now
    assert not updater.step(error, [batch], 1e-1).skipped


# --- what is trained ----------------------------------------------------------------------------------------------------


class Words(torch.nn.Module):
    """A table and a matrix."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(10, 4)
        self.matrix = torch.nn.Linear(4, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.matrix(self.table(ids))


def size(module: torch.nn.Module, ids: torch.Tensor) -> torch.Tensor:
    return module(ids).float().square().mean()


@pytest.mark.parametrize("bf16", [False, True])
def test_frozen_rows_stay_bit_for_bit_and_have_no_state(bf16: bool):
    module = Words().to(torch.bfloat16 if bf16 else torch.float32)
    updater = TrainStep(module, ema_decay=0.9, master=not bf16, frozen_rows={"table.weight": 6}, **SETTINGS)
    before = module.table.weight.detach().clone()
    free = TrainStep(Words().to(before.dtype), ema_decay=0.9, master=not bf16, **SETTINGS)
    ids = torch.arange(10)
    lengths = [one.step(size, [(ids[:5],), (ids[5:],)], 0.01).grad_norm for one in (updater, free)]
    assert lengths[0] < lengths[1]  # the frozen rows' gradient is no part of the length that is clipped
    for _ in range(2):
        updater.step(size, [(ids[:5],), (ids[5:],)], 0.01)
    assert torch.equal(module.table.weight[6:], before[6:])
    assert bool((module.table.weight[:6] != before[:6]).any())
    state = updater.state()
    assert updater.ema["table.weight"].shape == state["optimizer"]["table.weight.exp_avg"].shape == (6, 4)
    assert state["ema"]["table.weight"].shape == (10, 4)
    assert torch.equal(state["ema"]["table.weight"][6:].to(before.dtype), before[6:])
    assert module.table.weight.grad is None  # nothing of the table's gradient outlives the step


def test_a_state_with_frozen_rows_goes_on_bit_for_bit():
    def make_one() -> tuple[Words, TrainStep]:
        module = Words()
        return module, TrainStep(module, ema_decay=0.9, frozen_rows={"table.weight": 6}, **SETTINGS)

    (one, updater), (other, fresh) = make_one(), make_one()
    for _ in range(2):
        updater.step(size, [(torch.arange(10),)], 0.01)
    assert fresh.load_state(copied(updater.state())) == ()
    updater.step(size, [(torch.arange(10),)], 0.01)
    fresh.step(size, [(torch.arange(10),)], 0.01)
    assert torch.equal(one.table.weight, other.table.weight) and torch.equal(one.matrix.weight, other.matrix.weight)
    assert torch.equal(updater.ema["table.weight"], fresh.ema["table.weight"])


@pytest.mark.parametrize("moments", ["fp32", "8bit"])
def test_delayed_parameters_begin_later_and_from_their_own_beginning(moments: str):
    def make_one(**settings: Any) -> tuple[Any, TrainStep]:
        return wide(moments=moments, delayed={"0.weight": 2, "0.bias": 2}, **settings)

    module, updater = make_one()
    batches = examples(5)
    before = module[0].weight.detach().clone()
    for batch in batches[:2]:
        assert updater.step(error, [batch], 1e-2).grad_norm > 0
    assert torch.equal(module[0].weight, before)
    assert not any(name.startswith("0.weight.exp_avg") for name in updater.state()["optimizer"])
    alone = torch.autograd.grad(error(module, *batches[2]), list(module[2].parameters()))
    third = updater.step(error, [batches[2]], 1e-2)
    assert third.grad_norm > float(torch.stack([g.norm() for g in alone]).norm())  # from now on all of it counts
    moved = (module[0].bias.detach() - make_one()[0][0].bias.detach()).abs()
    # a first step is as long as the rate, whatever the gradient: the correction begins with it too
    assert float(moved.max()) == pytest.approx(1e-2, rel=1e-2)
    state = copied(updater.state())
    assert int(state["optimizer"]["0.bias.step"]) == 1 and "2.bias.step" not in state["optimizer"]
    again, fresh = make_one()
    assert fresh.load_state(state) == ()
    for batch in batches[3:]:
        assert updater.step(error, [batch], 1e-2) == fresh.step(error, [batch], 1e-2)
    assert torch.equal(module[0].weight, again[0].weight)


def test_the_state_of_what_is_trained_only():
    module = Words()
    module.table.requires_grad_(False)
    updater = TrainStep(module, ema_decay=0.9, trained_only=True, **SETTINGS)
    updater.step(size, [(torch.arange(10),)], 0.01)
    state = copied(updater.state())
    assert state["weights"].keys() == state["ema"].keys() == {"matrix.weight", "matrix.bias"}
    other = Words()
    other.table.requires_grad_(False)
    fresh = TrainStep(other, ema_decay=0.9, trained_only=True, **SETTINGS)
    assert fresh.load_state(state) == ()
    assert torch.equal(other.matrix.weight, module.matrix.weight)
    del state["weights"]["matrix.bias"]
    with pytest.raises(CheckpointError) as caught:
        fresh.load_state(state)
    assert str(caught.value) == (
        "error: the saved weights are not those of what is trained\n  because `matrix.bias` is missing there and (3,) here"
    )


def test_the_micro_batches_that_were_not_finite_are_named():
    module, updater = wide()
    good, bad = examples(2)
    worse = (bad[0], torch.full_like(bad[1], float("nan")))
    report = updater.step(error, [good, worse, good, worse], 1e-2)
    assert report.skipped and report.bad_micro == (1, 3)
    assert all(p.grad is None for p in module.parameters())

    def root(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return ((module(x) * 0).square().sum() + y.sum() * 0).sqrt() if bool(y.sum() == 0) else error(module, x, y)

    zero = (bad[0], torch.zeros_like(bad[1]))  # a finite loss with a gradient that is not
    report = updater.step(root, [good, zero], 1e-2)
    assert report.skipped and math.isfinite(report.loss) and report.bad_micro == (1,)
    assert updater.step(root, [good], 1e-2).bad_micro == ()


# --- first weights ------------------------------------------------------------------------------------------------------


def test_weights_go_from_files_and_arrays_straight_to_their_dtypes(tmp_path):
    file = tmp_path / "part.safetensors"
    table, matrix = torch.randn(10, 4), torch.randn(3, 4).bfloat16()
    io.save_tensors(file, {"table.weight": table, "matrix.weight": matrix}, {})
    with torch.device("meta"):
        module: Any = torch.nn.ModuleDict({"part": Words(), "head": torch.nn.Linear(3, 1, bias=False)})
    head = np.ones((1, 3), np.float32)
    io.load_weights(
        module,
        {"part.table.weight": file, "part.matrix.weight": file},
        arrays={"part.matrix.bias": np.arange(3, dtype=np.float32), "head.weight": head},
        device="cpu", dtype=lambda name: "bf16" if name == "part.table.weight" else "fp32",
        trainable=lambda name: name != "part.table.weight", prefix="part.",
    )  # fmt: skip
    assert torch.equal(module["part"].table.weight, table.bfloat16())
    assert not module["part"].table.weight.requires_grad
    assert torch.equal(module["part"].matrix.weight, matrix.float()) and module["part"].matrix.weight.requires_grad
    assert module["part"].matrix.bias.tolist() == [0, 1, 2] and module["head"].weight.dtype == torch.float32
    head[:] = 5
    assert module["head"].weight.detach().tolist() == [[1, 1, 1]]  # a copy
    assert updates_one_step(module)


def updates_one_step(module: torch.nn.Module) -> bool:
    updater = TrainStep(module, ema_decay=0, trained_only=True, **{**SETTINGS, "autocast": "bf16"})

    def loss(module: Any, ids: torch.Tensor) -> torch.Tensor:
        return module["head"](module["part"](ids)).float().square().mean()

    return not updater.step(loss, [(torch.arange(10),)], 1e-2).skipped


def test_a_weight_that_nobody_has_is_named():
    with torch.device("meta"):
        module = Words()
    arrays = {name: np.zeros(tuple(p.shape), np.float32) for name, p in module.named_parameters()}
    del arrays["matrix.bias"]
    with pytest.raises(CheckpointError, match=r"1 missing: `matrix\.bias`"):
        io.load_weights(module, {}, arrays=arrays, device="cpu", dtype="fp32")
    wrong = arrays | {"matrix.bias": np.zeros(4, np.float32)}
    with pytest.raises(ValueError, match=r"`matrix.bias` is \(4,\), not \(3,\)"):
        io.load_weights(module, {}, arrays=wrong, device="cpu", dtype="fp32")
