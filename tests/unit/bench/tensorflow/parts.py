"""Tests of the TensorFlow folder; run by test_parts.py in a process of their own.

The first has to stay the first: threads can be chosen only before anything is computed.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from contract import subset
from sampan import frameworks
from sampan.errors import CheckpointError, DeviceError

frameworks.use("tensorflow", package="sampan.bench.tensorflow")

import tensorflow as tf  # noqa: E402  # the package sets what it reads when it is loaded

from sampan.bench.tensorflow import device as dev  # noqa: E402
from sampan.bench.tensorflow import io, nn, ops, train_step  # noqa: E402
from sampan.bench.tensorflow.probe import probe  # noqa: E402

SETTINGS = {"lr": 0.1, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.5, "clip_norm": 1e9, "ema_decay": 0.9}
both_ways = pytest.mark.parametrize("compiled", [False, True])


class Net(nn.Module):
    """A table, a matrix, a vector, and one parameter that a loss may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 4)
        self.layers = nn.ModuleList([nn.Linear(4, 3), nn.Linear(3, 2, bias=False)])
        self.scale = nn.ones_param(2)

    def forward(self, ids: Any) -> Any:
        return self.layers[1](ops.silu(self.layers[0](self.table(ids)))) * self.scale


SHAPES = {
    "table.weight": (5, 4),
    "scale": (2,),
    "layers.0.weight": (3, 4),
    "layers.0.bias": (3,),
    "layers.1.weight": (2, 3),
}


def weights() -> dict[str, Any]:
    random = np.random.default_rng(0)
    return {name: random.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def net(trainable: Callable[[str], bool] = lambda name: True) -> Net:
    with dev.on_meta():
        made = Net()
    io.load_weights(made, {}, device="cpu", arrays=weights(), trainable=trainable)
    return made


def error(module: Any, ids: Any, wanted: Any, factor: tuple[int, ...] = (1,)) -> tuple[Any, dict[str, Any]]:
    painted = module(ids)
    value = factor[0] * tf.reduce_mean((painted - wanted) ** 2)
    return value, {"largest": tf.reduce_max(painted), "painted": painted}


def batch(seed: int = 1, count: int = 6) -> tuple[Any, Any]:
    random = np.random.default_rng(seed)
    return tf.constant(random.integers(0, 5, count)), tf.constant(random.standard_normal((count, 2)).astype(np.float32))


def values(module: nn.Module) -> dict[str, Any]:
    return {name: dev.to_numpy(parameter) for name, parameter in module.named_parameters()}


# ------------------------------------------------------------------------------------------------------------- device


def test_threads_are_chosen_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TF_NUM_INTRAOP_THREADS", "7")
    assert dev.set_threads(None) == 7
    monkeypatch.delenv("TF_NUM_INTRAOP_THREADS")
    assert dev.set_threads(None) >= 1
    assert probe()["threads"] == dev.set_threads(None)
    assert dev.set_threads(2) == 2
    assert tf.config.threading.get_inter_op_parallelism_threads() == 1
    dev.zeros((2,), "cpu", "fp32")
    assert dev.set_threads(2) == dev.set_threads(None) == 2
    with pytest.raises(DeviceError, match="cannot change to 1 threads in this process"):
        dev.set_threads(1)


def test_there_is_the_cpu_and_fp32():
    assert (dev.available(), dev.resolve("auto"), dev.resolve("cpu")) == (["cpu"], "cpu", "cpu")
    assert dev.resolve_dtype("auto", "cpu") == "fp32"
    for call in (lambda: dev.resolve("cuda:0"), lambda: dev.resolve_dtype("bf16", "cpu")):
        with pytest.raises(DeviceError) as refused:
            call()
        assert refused.value.because and refused.value.hint


def test_arrays_go_in_and_out():
    assert dev.array(np.arange(3), "cpu").dtype == tf.int64
    assert dev.array(np.arange(3), "cpu", "fp32").dtype == tf.int64
    assert dev.array(np.ones(3), "cpu", "fp32").dtype == tf.float32
    variable = tf.Variable([1.0, 2.0])
    before = dev.to_numpy(variable)
    variable.assign([3.0, 4.0])
    assert before.tolist() == [1.0, 2.0]  # memory of its own


def test_what_is_measured():
    assert (dev.peak_memory_bytes("cpu") or 0) > 1e8  # TensorFlow alone takes more
    assert dev.matmul_flops_per_s("cpu", "fp32") > 1e8


def test_what_is_seen_is_said_in_plain_values():
    facts = probe()
    json.dumps(facts)
    assert facts["version"] == tf.__version__
    assert [(d["device"], d["dtype"], d["memory_bytes"]) for d in facts["devices"]] == [("cpu", "fp32", None)]


# ---------------------------------------------------------------------------------------------- framework interface


def test_it_offers_what_the_framework_interface_says():
    left_out = subset.left_out("tensorflow")
    for folder, names in ((nn, frameworks.NN_NAMES), (ops, frameworks.OPS_NAMES)):
        assert {name for name in names if not hasattr(folder, name)} == left_out & set(names)
    assert left_out - {*frameworks.NN_NAMES, *frameworks.OPS_NAMES} == {"meter", "weight files"}


def test_no_other_framework_is_loaded():
    assert not {"torch", "mindspore"} & set(sys.modules)


def test_reshape_gives_python_numbers_inside_a_graph():
    seen = []

    @tf.function(autograph=False)
    def graph(x: Any) -> Any:
        rows, columns = x.shape
        seen.append((rows, columns, x.reshape((columns, rows)).shape[0]))
        return x.reshape((-1,))

    assert graph(tf.ones((2, 3))).shape == (6,)
    assert seen == [(2, 3, 3)] and all(type(number) is int for number in seen[0])


def test_dtypes_do_not_mix():
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
        tf.constant([1, 2]) * 0.5
    with pytest.raises((TypeError, tf.errors.InvalidArgumentError)):
        tf.constant([1, 2]) * tf.constant([0.5, 1.0])


@pytest.mark.parametrize("graph", [False, True])
def test_what_is_computed_again_has_the_same_gradient(graph: bool):
    matrix, calls = tf.Variable(np.eye(3, dtype=np.float32) * 2), []

    def layer(x: Any, none: None, mask: Any, numbers: tuple[int, ...], pair: tuple[Any, Any]) -> tuple[Any, None]:
        calls.append((none, numbers))
        return tf.where(mask, x @ matrix * pair[0], numbers[1] * pair[1]), None

    def slopes(x: Any, mask: Any, pair: Any, again: bool) -> Any:
        arguments = (x, None, mask, (1, 3), pair)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch([matrix, x])
            result, nothing = ops.checkpoint(layer, *arguments) if again else layer(*arguments)
            total = tf.reduce_sum(result * result)
        assert nothing is None
        return tape.gradient(total, [matrix, x])

    run = tf.function(slopes, autograph=False) if graph else slopes
    x, mask = tf.constant([[1.0, 2, 3], [4, 5, 6]]), tf.constant([[True], [False]])
    plain = run(x, mask, (x + 1, x - 1), False)
    calls.clear()
    again = run(x, mask, (x + 1, x - 1), True)
    assert calls == [(None, (1, 3))] * 2  # forward, and once more for the gradient
    for one, other in zip(plain, again, strict=True):
        np.testing.assert_array_equal(one, other)


# -------------------------------------------------------------------------------------------------------------- weights


def test_a_module_without_memory_has_names_and_shapes():
    with dev.on_meta():
        made = Net()
    assert io.shapes(made) == SHAPES
    assert all(isinstance(parameter, nn.Unmade) for _, parameter in made.named_parameters())
    assert io.shapes(net()) == SHAPES
    assert train_step.token_tables(made) == {"table.weight"}
    assert [name for name, _ in made.named_modules()] == ["", "table", "layers", "layers.0", "layers.1"]


def test_weights_come_from_files_and_arrays(tmp_path: Path):
    import ml_dtypes

    given = weights()
    low = {name: array.astype(ml_dtypes.bfloat16) for name, array in given.items() if name != "scale"}
    save_file(low, tmp_path / "a.safetensors")
    with dev.on_meta():
        made = Net()
    settings = {"device": "cpu", "trainable": lambda name: name == "scale"}
    files = dict.fromkeys(low, tmp_path / "a.safetensors")
    with pytest.raises(CheckpointError, match="1 missing: `scale`"):
        io.load_weights(made, files, **settings)
    io.load_weights(made, files, arrays={"scale": given["scale"]}, **settings)
    for name, array in values(made).items():
        np.testing.assert_array_equal(array, low[name].astype(np.float32) if name in low else given[name])
        assert array.dtype == np.float32
    assert [name for name, parameter in made.named_parameters() if parameter.trainable] == ["scale"]
    with pytest.raises(CheckpointError, match="there is no file"):
        io.load_weights(made, dict.fromkeys(low, tmp_path / "b"), arrays={"scale": given["scale"]}, **settings)
    with pytest.raises(DeviceError, match="does not compute in bf16"):
        io.load_weights(made, {}, arrays=given, dtype="bf16", **settings)
    with pytest.raises(ValueError, match=r"`scale` is \(3,\), not \(2,\)"):
        io.load_weights(made, {}, arrays={**given, "scale": np.ones(3)}, **settings)


def test_weights_are_put():
    made = net()
    io.put_weights(made, {"scale": np.array([2, 3]), "layers.0.bias": tf.constant([1.0, 2, 3])})
    assert (values(made)["scale"].tolist(), values(made)["layers.0.bias"].tolist()) == ([2.0, 3.0], [1.0, 2.0, 3.0])
    for wrong in ({"scale": np.ones(3)}, {"other": np.ones(2)}):
        with pytest.raises(ValueError, match="the module has no weight"):
            io.put_weights(made, wrong)


def test_something_has_to_be_trained():
    with pytest.raises(ValueError, match="nothing in the module is trained"):
        train_step.TrainStep(net(trainable=lambda name: False), **SETTINGS)


# ----------------------------------------------------------------------------------------------------------------- step


@both_ways
def test_a_step_is_adamw(compiled: bool):
    made = net()
    updater = train_step.TrainStep(made, **{**SETTINGS, "clip_norm": 0.05}, compiled=compiled)
    expected = {name: array.astype(np.float64) for name, array in values(made).items()}
    average = {name: array.copy() for name, array in expected.items()}
    first, second = ({name: np.zeros_like(array) for name, array in expected.items()} for _ in range(2))
    for count, lr in enumerate((0.1, 0.05, 0.2), start=1):
        slopes = updater.gradients(error, batch(count))
        length = np.sqrt(sum((slope.astype(np.float64) ** 2).sum() for slope in slopes.values()))
        assert length > 0.05  # it is clipped
        report = updater.step(error, [batch(count)], lr)
        assert report.grad_norm == pytest.approx(length, rel=1e-5)
        for name, slope in slopes.items():
            slope = slope.astype(np.float64) * 0.05 / (length + 1e-6)
            first[name] = 0.9 * first[name] + 0.1 * slope
            second[name] = 0.99 * second[name] + 0.01 * slope**2
            if name.startswith("layers") and name.endswith("weight"):  # matrices only, and no tables
                expected[name] *= 1 - lr * 0.5
            corrected = np.sqrt(second[name] / (1 - 0.99**count)) + 1e-8
            expected[name] -= lr / (1 - 0.9**count) * first[name] / corrected
            decay = min(0.9, count / (9 + count))
            average[name] = decay * average[name] + (1 - decay) * expected[name]
    state = updater.state()
    assert int(state["optimizer"]["num_updates"]) == updater.num_updates == 3
    for group, wanted in (("weights", expected), ("ema", average)):
        assert set(state[group]) == set(SHAPES)
        for name, tensor in state[group].items():
            np.testing.assert_allclose(dev.to_numpy(tensor), wanted[name], rtol=0, atol=2e-5, err_msg=f"{group} {name}")
    for name in SHAPES:
        np.testing.assert_allclose(state["optimizer"][f"{name}.exp_avg"], first[name], rtol=0, atol=1e-7)
        np.testing.assert_allclose(state["optimizer"][f"{name}.exp_avg_sq"], second[name], rtol=0, atol=1e-8)


@both_ways
def test_micro_batches_are_averaged(compiled: bool):
    ids, wanted = batch(count=8)
    halves = [(ids[:4], wanted[:4]), (ids[4:], wanted[4:])]
    results = []
    for batches in ([(ids, wanted)], halves):
        made = net()
        updater = train_step.TrainStep(made, **{**SETTINGS, "ema_decay": 0.0}, compiled=compiled)
        report = updater.step(error, batches)
        assert updater.state()["ema"] is not None and not updater.ema
        results.append((report, values(made)))
    (one, after_one), (two, after_two) = results
    assert two.loss == pytest.approx(one.loss, rel=1e-6)
    assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-6)
    largest = [float(tf.reduce_max(net()(half[0]))) for half in halves]
    assert two.values == {"largest": pytest.approx(sum(largest) / 2, rel=1e-6)}
    np.testing.assert_allclose(two.arrays["painted"], net()(halves[1][0]), rtol=1e-6)  # of the last one
    for name, array in after_one.items():
        np.testing.assert_allclose(after_two[name], array, rtol=0, atol=1e-5, err_msg=name)


@both_ways
def test_what_is_not_finite_changes_nothing(compiled: bool):
    made = net()
    updater = train_step.TrainStep(made, **SETTINGS, compiled=compiled)
    updater.step(error, [batch(), batch(2)])
    kept = {
        f"{group}/{name}": dev.to_numpy(tensor)
        for group, all_ in updater.state().items()
        for name, tensor in all_.items()
    }
    ids, wanted = batch(2)
    report = updater.step(error, [batch(), (ids, wanted * np.float32("nan"))])
    assert (report.skipped, report.bad_micro, updater.num_updates) == (True, (1,), 1)
    assert np.isnan(report.loss)
    for group, tensors in updater.state().items():
        for name, tensor in tensors.items():
            np.testing.assert_array_equal(dev.to_numpy(tensor), kept[f"{group}/{name}"], err_msg=f"{group}/{name}")
    assert not updater.step(error, [batch(), batch(2)]).skipped


@both_ways
def test_a_gradient_that_is_not_finite_is_found_where_the_loss_is(compiled: bool):
    def cornered(module: Any, ids: Any, at: Any) -> Any:
        return tf.reduce_sum(tf.sqrt(tf.abs(module(ids) - module(ids)) + at))  # 0 at 0, where its slope is not finite

    made = net()
    updater = train_step.TrainStep(made, **SETTINGS, compiled=compiled)
    ids, _ = batch()
    report = updater.step(cornered, [(ids, tf.constant(1.0)), (ids, tf.constant(0.0))])
    assert np.isfinite(report.loss)
    assert (report.skipped, report.bad_micro) == (True, (1,))


@both_ways
def test_a_loss_has_to_reach_all_that_is_trained(compiled: bool):
    def short(module: Any, ids: Any) -> Any:
        return tf.reduce_mean(module.layers[0](module.table(ids)))

    ids, _ = batch()
    with pytest.raises(ValueError, match=r"`scale` is trained, and the loss does not depend on it"):
        train_step.TrainStep(net(), **SETTINGS, compiled=compiled).step(short, [(ids,)])
    frozen = net(lambda name: name.startswith(("table", "layers.0")))
    before = values(frozen)
    train_step.TrainStep(frozen, **SETTINGS, compiled=compiled).step(short, [(ids,)])
    changed = {name for name, array in values(frozen).items() if (array != before[name]).any()}
    assert changed == {"table.weight", "layers.0.weight", "layers.0.bias"}


def test_a_graph_is_traced_once_for_each_set_of_shapes_and_numbers():
    traces = []

    def counted(*arguments: Any) -> Any:
        traces.append(arguments[-1])
        return error(*arguments)

    updater = train_step.TrainStep(net(), **SETTINGS, compiled=True)
    for step in range(4):
        updater.step(counted, [(*batch(step), (1,))], lr=0.1 / (step + 1))
    assert traces == [(1,)]
    updater.step(counted, [(*batch(), (2,))])
    updater.step(counted, [(*batch(count=4), (2,))])
    assert traces == [(1,), (2,), (2,)]


@both_ways
def test_evaluating_changes_nothing(compiled: bool):
    made = net()
    updater = train_step.TrainStep(made, **SETTINGS, compiled=compiled)
    before = values(made)
    assert updater.evaluate(error, batch()) == pytest.approx(float(error(made, *batch())[0]), rel=1e-6)
    assert updater.evaluate(error, (*batch(), (2,))) == pytest.approx(2 * float(error(made, *batch())[0]), rel=1e-6)
    for name, array in values(made).items():
        np.testing.assert_array_equal(array, before[name])


def test_other_dtypes_are_refused():
    with pytest.raises(DeviceError, match="does not compute in bf16"):
        train_step.TrainStep(net(), **SETTINGS, autocast="bf16")
