"""The training step on MindSpore beside PyTorch's: the same small network, weights and batches in both."""

from __future__ import annotations

import math
from typing import Any

import mindspore as ms
import numpy as np
import pytest
import torch

from sampan.errors import CheckpointError, DeviceError
from sampan.frameworks.mindspore import device, io, nn, ops, parallel, train_step
from sampan.frameworks.torch import train_step as torch_train_step

SETTINGS = {"lr": 0.02, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.9}
TOLERANCE = 2e-5  # relative, after a dozen steps in fp32: sums are made in another order


class Net(nn.Module):
    """A table, a matrix large enough for codes, and a second one."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 64)
        self.first, self.second = nn.Linear(64, 96), nn.Linear(96, 8)

    def forward(self, x: Any, ids: Any) -> Any:
        return self.second(ops.gelu(self.first(x + self.table(ids)), tanh=True))


class TorchNet(torch.nn.Module):
    """The same on PyTorch."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(10, 64)
        self.first, self.second = torch.nn.Linear(64, 96), torch.nn.Linear(96, 8)

    def forward(self, x: Any, ids: Any) -> Any:
        return self.second(torch.nn.functional.gelu(self.first(x + self.table(ids)), approximate="tanh"))


def loss(module: Any, x: Any, ids: Any, wanted: Any) -> Any:
    error = module(x, ids) - wanted
    return (error * error).mean(), {"size": (error * error).sum(), "ids": ids}


def weights() -> dict[str, np.ndarray[Any, Any]]:
    random = np.random.default_rng(0)
    shapes = {"table.weight": (10, 64), "first.weight": (96, 64), "first.bias": (96,)}
    shapes |= {"second.weight": (8, 96), "second.bias": (8,)}
    return {name: random.standard_normal(shape).astype(np.float32) / 8 for name, shape in shapes.items()}


def batches(count: int, seed: int = 1, *, scale: float = 1.0) -> list[tuple[Any, ...]]:
    """Return host batches: numbers, ids of the first 7 rows, and what is wanted."""
    random = np.random.default_rng(seed)
    return [
        (
            scale * random.standard_normal((16, 64)).astype(np.float32),
            random.integers(0, 7, 16),
            random.standard_normal((16, 8)).astype(np.float32),
        )
        for _ in range(count)
    ]


def make(**settings: Any) -> tuple[Net, train_step.TrainStep]:
    device.resolve("cpu")
    with device.on_meta():
        module = Net()
    io.load_weights(module, {}, arrays=weights(), device="cpu", dtype="fp32")
    return module, train_step.TrainStep(module, **{**SETTINGS, "autocast": "fp32", **settings})


def torch_twin(**settings: Any) -> tuple[TorchNet, torch_train_step.TrainStep]:
    module = TorchNet()
    module.load_state_dict({name: torch.from_numpy(value.copy()) for name, value in weights().items()})
    return module, torch_train_step.TrainStep(module, **{**SETTINGS, "autocast": "fp32", **settings})


def on_mindspore(batch: Any) -> tuple[Any, ...]:
    return tuple(device.array(array, "cpu") for array in batch)


def on_torch(batch: Any) -> tuple[Any, ...]:
    return tuple(torch.from_numpy(array) for array in batch)


def train(updater: Any, place: Any, count: int = 12, first: int = 0) -> list[Any]:
    """Take steps of two micro-batches each, with a rate that changes."""
    return [
        updater.step(loss, [place(b) for b in batches(2, seed=step)], 0.02 * (1 - step / 40))
        for step in range(first, first + count)
    ]


def as_arrays(state: Any) -> dict[str, np.ndarray[Any, Any]]:
    return {
        f"{group}/{name}": np.asarray(to_host(value)) for group, own in state.items() for name, value in own.items()
    }


def to_host(value: Any) -> Any:
    return value.detach().numpy() if isinstance(value, torch.Tensor) else device.to_numpy(value)


def assert_same(mine: Any, theirs: Any, tolerance: float = TOLERANCE) -> None:
    found, wanted = as_arrays(mine), as_arrays(theirs)
    assert found.keys() == wanted.keys()
    for name, value in wanted.items():
        if name.endswith(".codes"):  # a number on the border of two codes may fall to either side
            assert np.abs(found[name].astype(int) - value.astype(int)).max() <= 1
        else:
            np.testing.assert_allclose(found[name], value, rtol=0, atol=tolerance * max(np.abs(value).max(), 1e-3))


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="plain"),
        pytest.param({"ema_decay": 0.0}, id="no-average"),
        pytest.param({"frozen_rows": {"table.weight": 5}}, id="frozen-rows"),
        pytest.param({"delayed": {"first.weight": 4, "first.bias": 4}}, id="delayed"),
        pytest.param({"moments": "8bit"}, id="8bit"),
    ],
)
def test_steps_and_their_state_are_those_of_pytorch(settings: dict[str, Any]):
    (_, mine), (_, theirs) = make(**settings), torch_twin(**settings)
    for report, wanted in zip(train(mine, on_mindspore), train(theirs, on_torch), strict=True):
        assert math.isclose(report.loss, wanted.loss, rel_tol=TOLERANCE)
        assert math.isclose(report.grad_norm, wanted.grad_norm, rel_tol=TOLERANCE)
        assert math.isclose(report.values["size"], wanted.values["size"], rel_tol=TOLERANCE)
        assert np.array_equal(report.arrays["ids"], wanted.arrays["ids"])
    # a scale is the largest of 256 numbers, each rounded to a code before: it may move by a code's width
    assert_same(mine.state(), theirs.state(), 2e-2 if "moments" in settings else TOLERANCE)


@pytest.mark.parametrize("settings", [{}, {"moments": "8bit"}, {"delayed": {"first.weight": 9}}])
def test_a_run_goes_from_one_to_the_other_and_back(settings: dict[str, Any]):
    (_, straight), (_, begun) = torch_twin(**settings), torch_twin(**settings)
    wanted = train(straight, on_torch, 15)
    train(begun, on_torch, 5)
    _, between = make(**settings)
    between.load_state({g: {n: ms.Tensor(to_host(v)) for n, v in own.items()} for g, own in begun.state().items()})
    middle = train(between, on_mindspore, 5, first=5)
    _, ended = torch_twin(**settings)
    ended.load_state(
        {g: {n: torch.from_numpy(np.array(to_host(v))) for n, v in own.items()} for g, own in between.state().items()}
    )
    for report, expected in zip([*middle, *train(ended, on_torch, 5, first=10)], wanted[5:], strict=True):
        assert math.isclose(report.loss, expected.loss, rel_tol=1e-3 if "moments" in settings else TOLERANCE)


def test_its_own_state_goes_into_a_fresh_updater_bit_for_bit():
    _, one = make()
    train(one, on_mindspore, 3)
    _, other = make()
    assert other.load_state(one.state()) == ()
    assert [r.loss for r in train(one, on_mindspore, 3, 3)] == [r.loss for r in train(other, on_mindspore, 3, 3)]
    for name, value in as_arrays(one.state()).items():
        assert np.array_equal(as_arrays(other.state())[name], value)


def test_moments_change_between_8_bits_and_fp32_and_it_is_said():
    _, coded = make(moments="8bit")
    train(coded, on_mindspore, 2)
    _, plain = make()
    assert plain.load_state(coded.state()) == ("2 moments go on in fp32",)
    _, again = make(moments="8bit")
    assert again.load_state(plain.state()) == ("2 moments go on in 8 bits",)


def test_half_precision_keeps_master_weights_and_scales_the_loss():
    module, low = make(autocast="fp16")
    _, full = make()
    losses = [(a.loss, b.loss) for a, b in zip(train(low, on_mindspore), train(full, on_mindspore), strict=True)]
    assert all(math.isclose(a, b, rel_tol=5e-3) for a, b in losses)  # fp16 has three digits
    assert module.first.weight.dtype == ms.float16 and low.loss_scale > 1
    state = low.state()
    assert str(state["weights"]["first.weight"].dtype) == "Float32"
    difference = device.to_numpy(state["weights"]["first.weight"]) - device.to_numpy(module.first.weight)
    assert 0 < np.abs(difference).max() < 1e-3  # the master weights know more than the working ones
    _, fresh = make(autocast="fp16")
    fresh.load_state(state)
    assert fresh.loss_scale == low.loss_scale
    assert train(low, on_mindspore, 1, 12)[0].loss == train(fresh, on_mindspore, 1, 12)[0].loss


def test_an_overflow_of_the_scaled_loss_halves_the_scale_and_loses_no_step():
    _, updater = make(autocast="fp16")
    updater.loss_scale = 2.0**24
    report = updater.step(loss, [on_mindspore(b) for b in batches(1)], 0.01)
    assert not report.skipped and updater.num_updates == 1 and updater.loss_scale < 2.0**24


def test_what_is_not_finite_changes_nothing_and_says_which_micro_batch():
    module, updater = make()
    before = device.to_numpy(module.first.weight)
    bad = list(batches(1)[0])
    bad[0] = bad[0] * np.float32("inf")
    report = updater.step(loss, [on_mindspore(batches(1)[0]), on_mindspore(bad)], 0.1)
    assert report.skipped and report.bad_micro == (1,)
    assert np.array_equal(device.to_numpy(module.first.weight), before)
    assert not updater.step(loss, [on_mindspore(batches(1)[0])], 0.1).skipped


def test_the_average_is_in_the_module_only_for_a_while():
    module, updater = make(frozen_rows={"table.weight": 5})
    train(updater, on_mindspore, 3)
    now, table = device.to_numpy(module.first.weight), device.to_numpy(module.table.weight)
    with updater.averaged():
        average = updater.state()["ema"]["first.weight"]
        assert np.array_equal(device.to_numpy(module.first.weight), device.to_numpy(average))
        assert not np.array_equal(device.to_numpy(module.first.weight), now)
        assert np.array_equal(device.to_numpy(module.table.weight)[5:], table[5:])
    assert np.array_equal(device.to_numpy(module.first.weight), now)
    assert not train(updater, on_mindspore, 1, 3)[0].skipped


@pytest.mark.parametrize("autocast", ["fp32", "fp16"])
def test_overwritten_rows_stay_overwritten(autocast: str):
    module, updater = make(autocast=autocast)
    updater.assign_rows("table.weight", np.array([8, 9]), np.full((2, 64), 0.5, np.float32))
    train(updater, on_mindspore, 2)  # no batch has these ids, and tables have no decay
    assert np.array_equal(device.to_numpy(module.table.weight)[8:], np.full((2, 64), 0.5, np.float32))


def test_batches_of_another_length_are_another_pass():
    _, updater = make()

    def either(module: Any, x: Any, ids: Any, wanted: Any, *more: Any) -> Any:
        error = module(x, ids) - wanted
        return (error * error).mean() + sum((extra.sum() for extra in more), ms.Tensor(0.0))

    batch = on_mindspore(batches(1)[0])
    short = updater.step(either, [batch], 0.0).loss
    long = updater.step(either, [(*batch, device.array(np.full(4, 2.0, np.float32), "cpu"))], 0.0).loss
    assert math.isclose(long, short + 8, rel_tol=1e-6)


def test_a_long_model_lies_in_several_vectors(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sampan.frameworks.mindspore.flat.MOST_VALUES", 1000)
    (_, mine), (_, theirs) = make(), torch_twin()
    assert len(mine.vectors) == 3  # two without it
    train(mine, on_mindspore, 3)
    train(theirs, on_torch, 3)
    assert_same(mine.state(), theirs.state())


@pytest.mark.parametrize("count", [2, 4])
def test_a_rank_holds_its_share_of_everything_but_the_working_weights(monkeypatch: pytest.MonkeyPatch, count: int):
    monkeypatch.setitem(parallel._state, "ranks", count)
    monkeypatch.setattr(parallel, "scattered", lambda x: x[: x.shape[0] // count])
    monkeypatch.setattr(parallel, "whole", lambda x: ms.mint.cat([x] * count))
    monkeypatch.setattr(parallel, "gathered", lambda value: [value] * count)
    monkeypatch.setattr(parallel, "from_last", lambda arrays: arrays)
    _, updater = make(autocast="fp16")
    train(updater, on_mindspore, 1)
    values = sum(value.size for value in weights().values())
    padded = sum(vector.size for vector in updater.vectors)
    assert padded - values < count * len(updater.vectors)
    assert num_bytes(updater.parameters.values()) == 2 * values
    for kept in ("master", "exp_avg", "exp_avg_sq", "average"):
        assert num_bytes(vector.kept[kept] for vector in updater.vectors) == 4 * padded // count


def num_bytes(tensors: Any) -> int:
    return sum(tensor.size * tensor.itemsize for tensor in tensors)


def test_what_cannot_be_trained_is_refused():
    with pytest.raises(DeviceError, match=r'train\.weights = "bf16" cannot be trained on MindSpore'):
        make(master=False)
    with pytest.raises(ValueError, match="`wieght` is not trained"):
        make(frozen_rows={"wieght": 1})
    module, updater = make()
    train_step.freeze(module)
    with pytest.raises(ValueError, match="nothing in the module is trained"):
        train_step.TrainStep(module, **SETTINGS, autocast="fp32")
    with pytest.raises(CheckpointError, match="the saved weights are not those of what is trained"):
        updater.load_state({"weights": {}, "ema": {}, "optimizer": {"num_updates": np.array(0)}})


def test_a_module_is_built_without_memory_and_takes_weights_of_any_dtype():
    with device.on_meta():
        module = Net()
    assert io.shapes(module)["first.weight"] == (96, 64) and module.first.weight.has_init
    io.load_weights(module, {}, device="cpu", dtype="fp16", keep_fp32=("second",), arrays=weights())
    assert module.first.weight.dtype == ms.float16 and module.second.bias.dtype == ms.float32


@pytest.mark.slow  # a graph takes a while to compile
def test_a_compiled_step_is_the_same_step():
    (_, eager), (_, compiled) = make(), make(compiled=True)
    for one, other in zip(train(eager, on_mindspore, 4), train(compiled, on_mindspore, 4), strict=True):
        assert math.isclose(one.loss, other.loss, rel_tol=TOLERANCE)
    assert_same(compiled.state(), eager.state())
