"""An array without values has the shapes that PyTorch's arrays have, and an operation on it costs what it costs there."""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from sampan.frameworks import OPS_NAMES
from sampan.frameworks.records import PassCost
from sampan.frameworks.shapes import array
from sampan.frameworks.shapes import ops as on_shapes
from sampan.frameworks.shapes.array import Blank, ShapeArray
from sampan.frameworks.shapes.tape import CostTape, Kernels
from sampan.frameworks.torch import meter
from sampan.frameworks.torch import ops as real
from unit.frameworks.torch.allocation import watch

TORCH = meter.kernels("cpu")
WRITTEN_OUT = Kernels(attention=False, norms=False)
B, H, T, D = 2, 4, 6, 8
C = H * D


class WithLayers:
    """PyTorch's functions, with the two that its layers call by themselves."""

    conv2d = staticmethod(F.conv2d)
    group_norm = staticmethod(F.group_norm)

    def __getattr__(self, name: str) -> Any:
        return getattr(real, name)


class Weights(torch.nn.Module):
    def __init__(self, shapes: tuple[tuple[int, ...], ...]):
        super().__init__()
        self.all = torch.nn.ParameterList(torch.nn.Parameter(torch.zeros(shape)) for shape in shapes)


def on_torch(function: Callable[..., Any], shapes: Any, arrays: Any, trained: Any) -> PassCost:
    def loss(module: Any, *batch: Any) -> Any:
        return function(WithLayers(), *module.all, *batch)

    module = Weights(shapes)
    for parameter, is_trained in zip(module.all, trained, strict=True):
        parameter.requires_grad_(is_trained)
    batch = [torch.from_numpy(a.copy()) if isinstance(a, np.ndarray) else a for a in arrays]
    return watch(module, loss, batch, autocast="fp32")


def count_on_shapes(
    function: Callable[..., Any], shapes: Any, arrays: Any, trained: Any, kernels: Kernels = TORCH
) -> PassCost:
    tape = CostTape(kernels)
    weights = [array.weight(tape, s, "fp32", trained=t) for s, t in zip(shapes, trained, strict=True)]
    batch = [blank(tape, a) if isinstance(a, np.ndarray) else a for a in arrays]
    num_bytes = sum(a.nbytes for a in arrays if isinstance(a, np.ndarray))
    return tape.measure(lambda: function(on_shapes, *weights, *batch), batch_bytes=num_bytes)


def blank(tape: CostTape, values: Any) -> ShapeArray:
    return array.of_batch(tape, Blank(values.shape, str(values.dtype)))


def flops(found: PassCost) -> tuple[int, int, int]:
    return found.forward_flops, found.useful_flops, found.executed_flops


def zeros(*shape: int, dtype: Any = np.float32) -> Any:
    return np.zeros(shape, dtype)


# --- what is compared: functions of (ops, weights…, batch…), the weights' shapes, the batch -----------------------------


def linear(ops: Any, w: Any, b: Any, v: Any, x: Any) -> Any:
    return ops.mean(ops.linear(ops.linear(x, w, b), v))


def matmul(ops: Any, w: Any, v: Any, x: Any) -> Any:
    y = ops.linear(x, w)
    return ops.sum(y @ ops.permute(ops.linear(x, v), (0, 2, 1)))


def convolution(ops: Any, w: Any, b: Any, v: Any, c: Any, x: Any) -> Any:
    y = ops.silu(ops.conv2d(ops.pad_right_bottom(x), w, b, 2, 0))
    return ops.mean(ops.conv2d(ops.upsample_nearest(y, 2), v, c, 1, 1))


def group_norm(ops: Any, w: Any, b: Any, g: Any, h: Any, x: Any) -> Any:
    return ops.mean(ops.group_norm(ops.conv2d(x, w, b, 1, 1), 2, g, h, 1e-5))


def heads(ops: Any, x: Any, num_heads: int = H) -> Any:
    return ops.permute(x.reshape((*x.shape[:2], num_heads, x.shape[2] // num_heads)), (0, 2, 1, 3))


def attention(ops: Any, q: Any, k: Any, v: Any, x: Any, mask: Any, causal: bool, segments: Any) -> Any:
    q, k, v = heads(ops, ops.linear(x, q)), *(heads(ops, ops.linear(x, w), 2) for w in (k, v))
    return ops.mean(ops.attention(q, k, v, mask=mask, causal=causal, segments=segments))


def norms(ops: Any, w: Any, g: Any, h: Any, b: Any, x: Any) -> Any:
    y = ops.rms_norm(ops.linear(x, w), g, 1e-6)
    y = ops.layer_norm(y + x, 1e-5, h, b)
    return ops.mean(ops.layer_norm(y, 1e-5))


def elementwise(ops: Any, w: Any, v: Any, x: Any) -> Any:
    y, z = ops.linear(x, w), ops.linear(x, v)
    y = 2 * ops.exp(y) * z - ops.abs(z) / (1 + ops.exp(z))
    y = ops.gelu(ops.clip(y, -1.0, 1.0), True) + ops.gelu(z, False) - 1
    return ops.mean(ops.sqrt(y * y + 1)) + ops.sum(ops.softmax(3 - y, -1), (0, 2))[0] / 4


def pieces(ops: Any, w: Any, x: Any) -> Any:
    one, two = ops.chunk(ops.linear(x, w), 2, -1)
    first, rest = ops.split(one, (2, T - 2), 1)
    whole = ops.concat((rest, first), 1) * two[:, :1] + ops.stop_gradient(two)
    return ops.mean(whole[:, 1:-1, None, ::2].reshape((8, -1)))


def tables(ops: Any, w: Any, head: Any, ids: Any, labels: Any, weights: Any, is_open: Any) -> Any:
    picked = ops.where(is_open[:, :, None], ops.normalize(ops.take(w, ids)), 0.5)
    logits = ops.linear(picked[0], head)
    return ops.cross_entropy(logits, labels, weights), {"best": ops.argmin(logits, -1)}


def repeated(ops: Any, w: Any, u: Any, d: Any, x: Any) -> Any:
    def layer(x: Any, scale: Any) -> Any:
        y = ops.rms_norm(ops.linear(ops.silu(ops.linear(x, u)), d), scale, 1e-6)
        return x + y, y

    for _ in range(3):
        x, _ = ops.checkpoint(layer, x, w)
    return ops.mean(x)


CASES: dict[str, tuple[Any, tuple[tuple[int, ...], ...], tuple[Any, ...]]] = {
    "linear": (linear, ((8, C), (8,), (3, 8)), (zeros(B, T, C),)),
    "matmul": (matmul, ((8, C), (8, C)), (zeros(B, T, C),)),
    "convolution": (convolution, ((6, 3, 3, 3), (6,), (4, 6, 3, 3), (4,)), (zeros(B, 3, 8, 8),)),
    "group_norm": (group_norm, ((6, 3, 3, 3), (6,), (6,), (6,)), (zeros(B, 3, 8, 8),)),
    "attention": (attention, ((C, C), (16, C), (16, C)), (zeros(B, T, C), None, False, None)),
    "masked": (attention, ((C, C), (16, C), (16, C)), (zeros(B, T, C), np.ones((B, 1, 1, T), bool), False, None)),
    "causal": (attention, ((C, C), (16, C), (16, C)), (zeros(B, T, C), None, True, None)),
    "segments": (attention, ((C, C), (16, C), (16, C)), (zeros(1, T, C), None, True, (2, 4))),
    "norms": (norms, ((C, C), (C,), (C,), (C,)), (zeros(B, T, C),)),
    "elementwise": (elementwise, ((C, C), (C, C)), (zeros(B, T, C),)),
    "pieces": (pieces, ((2 * C, C),), (zeros(B, T, C),)),
    "tables": (
        tables,
        ((50, C), (9, C)),
        (zeros(1, T, dtype=np.int64), zeros(T, dtype=np.int64), zeros(T), zeros(1, T, dtype=bool)),
    ),
    "again": (repeated, ((C,), (64, C), (C, 64)), (zeros(B, T, C),)),
}


def choices(shapes: Any) -> list[tuple[bool, ...]]:
    """Return which weights may be trained: every choice but none."""
    return [chosen for chosen in itertools.product((True, False), repeat=len(shapes)) if any(chosen)]


@pytest.mark.parametrize("case", CASES)
def test_an_operation_costs_what_it_costs_on_pytorch(case: str):
    function, shapes, arrays = CASES[case]
    for trained in choices(shapes):
        theirs, ours = (on(function, shapes, arrays, trained) for on in (on_torch, count_on_shapes))
        assert flops(ours) == flops(theirs), trained
        # PyTorch keeps a scalar more, the one that divides the mean
        assert ours.kept_bytes == pytest.approx(theirs.kept_bytes, rel=0.02, abs=64), trained
        assert ours.batch_bytes == theirs.batch_bytes
        assert 0.6 * theirs.peak_bytes < ours.peak_bytes <= (1.02 if all(trained) else 2) * theirs.peak_bytes, trained
        if all(trained) and case != "again":  # there weights are used thrice
            assert ours.activation_bytes == pytest.approx(theirs.activation_bytes, rel=0.1)


def test_every_function_of_the_framework_interface_is_there_and_takes_the_same_arguments():
    assert set(on_shapes.__all__) == {*OPS_NAMES, "conv2d", "group_norm"}
    for name in OPS_NAMES:
        function = getattr(on_shapes, name)
        try:
            theirs = [p.name for p in inspect.signature(getattr(real, name)).parameters.values()]
        except (TypeError, ValueError):  # a constant, or a function without a signature
            continue
        if name in ("float32", "int32", "silu"):  # PyTorch's own silu may write in place
            continue
        ours = [p.name for p in inspect.signature(function).parameters.values()]
        assert ours[: len(theirs)] == theirs, name


def constant(tape: CostTape, *shape: int) -> ShapeArray:
    return array.of_batch(tape, Blank(shape))


def test_views_are_views_where_pytorchs_are():
    random = np.random.default_rng(0)
    seen = {True: 0, False: 0}
    for _ in range(300):
        shape = tuple(int(n) for n in random.choice([1, 2, 3, 4, 6], 4))
        theirs, ours = torch.empty(shape), constant(CostTape(), *shape)
        axes = tuple(int(a) for a in random.permutation(4))
        index = tuple(slice(int(random.integers(0, n)), None, int(random.integers(1, 3))) for n in shape)
        theirs, ours = theirs[index].permute(axes), on_shapes.permute(ours[index], axes)
        assert ours.shape == tuple(theirs.shape)
        new: list[int] = [1]
        for n in theirs.shape:  # put together with what stands before, or not, or taken apart
            kind = random.random()
            if kind < 0.4:
                new[-1] *= n
            elif kind < 0.6 and n % 2 == 0:
                new += [2, n // 2]
            else:
                new.append(n)
        new[int(random.integers(0, len(new)))] = -1
        theirs, before = theirs.reshape(new), theirs.untyped_storage().data_ptr()
        reshaped = ours.reshape(tuple(new))
        is_view = theirs.untyped_storage().data_ptr() == before
        assert reshaped.shape == tuple(theirs.shape)
        if theirs.numel() > 1:
            assert (reshaped.buffer is ours.buffer) == is_view, (shape, index, axes, new)
            seen[is_view] += 1
    assert min(seen.values()) > 30


@pytest.mark.parametrize(
    "index",
    [0, -1, (slice(None), 1), (..., None), (..., 2), (None, slice(1, 3)), (slice(None), None, 0, slice(None, -1))],
)
def test_an_index_gives_numpys_shape(index: Any):
    assert constant(CostTape(), 3, 4, 5)[index].shape == np.zeros((3, 4, 5))[index].shape


def test_arithmetic_has_the_shape_and_dtype_of_arrays():
    tape = CostTape()
    x, y = constant(tape, 3, 1, 5), constant(tape, 4, 1)
    half, brain = (on_shapes.cast(x, name) for name in ("fp16", "bf16"))
    for z in (x + y, x - y, x * y, x / y, 2 - x * y, 1 / (x + y), -x + y, 1 + y - x):
        assert z.shape == (3, 4, 5) and z.dtype == "fp32" and z.ndim == 3 and z.size == 60
    assert [(half * 2.5).dtype, (half + brain).dtype, (half + x).dtype] == ["fp16", "fp32", "fp32"]
    assert (on_shapes.argmin(x, -1).dtype, on_shapes.argmin(x, 0).shape) == ("int64", (1, 5))


def test_what_is_kept_twice_is_there_once_and_goes_with_its_last_user():
    tape = CostTape()
    w = array.weight(tape, (8, 8), "fp32", trained=True)
    x = on_shapes.linear(constant(tape, 4, 8), w)
    assert tape.live == 4 * 8 * 4
    y = on_shapes.silu(x) + on_shapes.gelu(x, True) + x * x  # four times x
    assert tape.live == 2 * 4 * 8 * 4
    del x
    assert tape.live == 2 * 4 * 8 * 4
    del y
    assert tape.live == 0


def test_only_gradients_of_weights_are_left_after_the_pass():
    function, shapes, arrays = CASES["again"]
    tape = CostTape()
    weights = [array.weight(tape, shape, "fp32", trained=True) for shape in shapes]
    found = tape.measure(lambda: function(on_shapes, *weights, blank(tape, arrays[0])), batch_bytes=0)
    assert tape.live == tape.gradients == sum(4 * w.size for w in weights)
    assert found.kept_bytes < found.activation_bytes <= found.peak_bytes


def test_attention_written_out_keeps_all_pairs_and_computes_none_again():
    function, shapes, arrays = CASES["causal"]
    trained = (True, True, True)
    fused, plain = (count_on_shapes(function, shapes, arrays, trained, kernels=k) for k in (Kernels(), WRITTEN_OUT))
    seen = B * H * T * (T + 1) // 2 * D * 2
    assert fused.executed_flops - fused.useful_flops == seen
    assert plain.executed_flops == plain.useful_flops == fused.useful_flops
    pairs, statistics, closed, scaled = B * H * T * T * 4, B * H * T * 4, T * T, B * T * C * 4
    # kept instead: the weights and the closed pairs, scaled queries instead of what came out
    assert plain.kept_bytes - fused.kept_bytes == pairs + closed - statistics - scaled


def test_written_out_norms_keep_what_their_products_keep():
    def one(norm: Callable[..., Any]) -> int:
        def loss(ops: Any, w: Any, g: Any, x: Any) -> Any:
            return ops.mean(norm(ops, ops.linear(x, w), g))

        both = [
            count_on_shapes(loss, ((C, C), (C,)), (zeros(B, T, C),), (True, True), kernels=k)
            for k in (Kernels(), WRITTEN_OUT)
        ]
        assert flops(both[0]) == flops(both[1])
        return both[1].kept_bytes - both[0].kept_bytes

    rows = B * T * 4
    assert one(lambda ops, x, g: ops.rms_norm(x, g, 1e-6)) == 0
    assert one(lambda ops, x, g: ops.layer_norm(x, 1e-5, g, g)) == rows * C - rows


@pytest.mark.parametrize("look", [bool, float, int, lambda x: x if x else -x])
def test_a_loss_that_looks_at_values_is_refused(look: Callable[..., Any]):
    with pytest.raises(TypeError, match="an array without values cannot be looked at"):
        look(constant(CostTape()))


def test_what_arrays_refuse_is_refused():
    tape = CostTape()
    x = constant(tape, 3, 4)
    refused: list[tuple[Callable[[], Any], type[Exception], str]] = [
        (lambda: x.reshape((5, -1)), ValueError, r"\(3, 4\) cannot be reshaped to \(5, -1\)"),
        (lambda: x @ x, ValueError, "cannot be multiplied"),
        (lambda: on_shapes.linear(x, constant(tape, 2, 3)), ValueError, "does not go into a linear map"),
        (lambda: on_shapes.split(x, (1, 1), 0), ValueError, "do not make up axis 0"),
        (lambda: x[np.zeros(3, bool)], TypeError, "is not indexed with"),
        (lambda: x + "1", TypeError, "is not combined with"),
        (lambda: x + constant(tape, 5), ValueError, "broadcast"),
        (lambda: tape.measure(lambda: on_shapes.mean(x), batch_bytes=0), ValueError, "nothing that is trained"),
    ]
    for call, error, words in refused:
        with pytest.raises(error, match=words):
            call()
