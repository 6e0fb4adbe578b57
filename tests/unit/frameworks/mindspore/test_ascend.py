"""What goes to the operators of Ascend chips, on MindSpore: accepted by their rules, and the plain result.

Stand-ins (stand_ins.py) take the operators' places here. The tests marked `npu` compare with the operators themselves.
"""

from __future__ import annotations

from typing import Any

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, mint
from mindspore import ops as own
from mindspore.mint.nn import functional as F

from sampan.frameworks.mindspore import ascend, device, ops
from unit.frameworks.mindspore import stand_ins

# one unit in the last place of a value near 1, times two: results are rounded once, and q·scale once on the plain side
TOLERANCE = {ms.float32: 2e-6, ms.float16: 2e-3, ms.bfloat16: 1.6e-2}
HALF = (ms.float16, ms.bfloat16)


class Calls(list[dict[str, Any]]):
    """What the operator for attention was called with."""

    def __call__(self, *parts: Any, **settings: Any) -> Any:
        self.append({"shapes": [part.shape for part in parts], **settings})
        return stand_ins.flash_attention_score(*parts, **settings)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Put the stand-ins in the operators' places, and say that this is an Ascend chip."""
    recorded = Calls()
    monkeypatch.setattr(own, "flash_attention_score", recorded)
    for name in ("rms_norm", "layer_norm"):
        monkeypatch.setattr(own, name, getattr(stand_ins, name))
    for name in ("gelu", "embedding", "cross_entropy"):
        monkeypatch.setattr(F, name, getattr(stand_ins, name))
    monkeypatch.setattr(ops, "is_ascend", lambda: True)
    return recorded


@pytest.fixture(scope="session")
def npu() -> str:
    """The Ascend chip of this machine, made the device of the process."""
    if not ms.device_context.ascend.is_available():
        pytest.skip("MindSpore finds no Ascend device here, so there is no operator to compare with")
    return device.resolve("npu")


def drawn(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32)


def arrays(batch: int, heads: int, kv_heads: int, queries: int, keys: int, head_dim: int, dtype: Any) -> list[Tensor]:
    shapes = ((batch, heads, queries, head_dim), *[(batch, kv_heads, keys, head_dim)] * 2)
    return [Tensor(drawn(*shape, seed=index)).astype(dtype) for index, shape in enumerate(shapes)]


def values(tensor: Tensor) -> np.ndarray:
    return tensor.astype(ms.float32).asnumpy().astype(np.float64)


def reference(q: Tensor, k: Tensor, v: Tensor, mask: np.ndarray | None = None) -> np.ndarray:
    """Return attention in fp64 of the values that the arrays hold; True in the mask is open."""
    query, key, value = (values(part) for part in (q, k, v))
    groups = query.shape[1] // key.shape[1]
    key, value = (np.repeat(part, groups, axis=1) for part in (key, value))
    scores = query @ key.swapaxes(2, 3) / np.sqrt(query.shape[3])
    scores = scores if mask is None else np.where(mask, scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True) @ value


def far(result: Tensor, expected: np.ndarray) -> float:
    return float(np.abs(values(result) - expected).max())


def open_pairs(*shape: int) -> np.ndarray:
    """Return a mask that closes about half of the pairs and leaves every query the first key."""
    mask = np.random.default_rng(len(shape)).random(shape) < 0.5
    mask[..., 0] = True
    return mask


SHAPES = {  # batch, heads, heads of keys, queries, keys, head_dim
    "of the released size": (1, 2, 2, 6, 6, 128),
    "grouped": (2, 4, 2, 5, 5, 32),
    "one head of keys": (2, 4, 1, 5, 5, 16),
    "head of 40": (2, 2, 2, 5, 5, 40),
    "grouped heads of 8": (1, 4, 2, 3, 3, 8),
}


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_attention_is_the_plain_one(calls, shape, causal, dtype):
    q, k, v = arrays(*shape, dtype)
    result = ops.attention(q, k, v, causal=causal)
    assert len(calls) == 1 and result.shape == q.shape and result.dtype == dtype
    assert calls[0]["head_num"] == shape[1] and calls[0]["input_layout"] == "BNSD"
    mask = np.tril(np.ones((shape[3], shape[4]), bool)) if causal else None
    assert far(result, reference(q, k, v, mask)) < TOLERANCE[dtype]
    plain = ops.plain_attention(*[part.astype(ms.float32) for part in (q, k, v)], None, causal)
    assert far(result, values(plain)) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("keys", [5, 9], ids=["self", "longer keys"])
@pytest.mark.parametrize(
    "shape",
    [(2, 4, 5, 0), (2, 1, 5, 0), (1, 1, 5, 0), (2, 1, 1, 0), (1, 1, 1, 0), (1, 4, 5, 0), (1, 4, 1, 0), (2, 1, 5, 1)],
    ids=lambda shape: "x".join(str(side) for side in shape),
)
def test_masks_of_every_broadcast_are_the_plain_ones(calls, shape, keys, dtype):
    q, k, v = arrays(2, 4, 2, 5, keys, 24, dtype)
    mask = open_pairs(*shape[:3], shape[3] or keys)
    result = ops.attention(q, k, v, mask=Tensor(mask))
    assert len(calls) == 1
    assert far(result, reference(q, k, v, mask)) < TOLERANCE[dtype]


def test_a_mask_that_all_rows_share_takes_no_memory_for_each(calls):
    q, k, v = arrays(2, 4, 2, 5, 5, 16, ms.float16)
    ops.attention(q, k, v, mask=Tensor(open_pairs(1, 1, 5, 5)))
    ops.attention(q, k, v, mask=Tensor(open_pairs(2, 1, 1, 5)))
    assert [call["attn_mask"].shape for call in calls] == [(5, 5), (2, 1, 5, 5)]


def test_gradients_are_the_plain_ones(calls):
    parts = arrays(2, 4, 2, 5, 5, 40, ms.float16)
    mask, pull = Tensor(open_pairs(2, 1, 1, 5)), Tensor(drawn(2, 4, 5, 40, seed=9))

    def pulled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return mint.sum(ops.attention(q, k, v, mask=mask).astype(ms.float32) * pull)

    def plainly(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return mint.sum(ops.plain_attention(q, k, v, mask, False) * pull)

    mine = ms.grad(pulled, (0, 1, 2))(*parts)
    theirs = ms.grad(plainly, (0, 1, 2))(*[part.astype(ms.float32) for part in parts])
    assert len(calls) == 1
    for one, other in zip(mine, theirs, strict=True):
        assert one.shape == other.shape and far(one, values(other)) < 5e-3


@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
def test_stretches_do_not_see_each_other(calls, causal, dtype):
    lengths = [3, 2, 4]
    q, k, v = arrays(2, 4, 2, 9, 9, 40, dtype)
    result = ops.attention(q, k, v, causal=causal, segments=lengths)
    stretch = np.repeat(np.arange(3), lengths)
    mask = stretch[:, None] == stretch[None, :]
    mask = np.tril(mask) if causal else mask
    assert far(result, reference(q, k, v, mask)) < TOLERANCE[dtype]
    if causal:  # one call, whose rows are the stretches of both rows of the batch
        assert [call["input_layout"] for call in calls] == ["TND"]
        assert list(calls[0]["actual_seq_qlen"]) == [3, 5, 9, 12, 14, 18]
    else:
        assert [call["input_layout"] for call in calls] == ["BNSD"] * 3


def test_more_stretches_than_the_operator_takes_are_one_call_each(calls, monkeypatch):
    monkeypatch.setattr(ascend, "_MAX_ROWS", 5)
    q, k, v = arrays(2, 2, 2, 9, 9, 16, ms.float16)
    ops.attention(q, k, v, causal=True, segments=[3, 2, 4])
    assert [call["input_layout"] for call in calls] == ["BNSD"] * 3


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [((2, 4, 2, 5, 5, 16), ms.float32), ((1, 1, 1, 3, 3, 528), ms.float16), ((2, 4, 2, 1, 9, 16), ms.float16)],
    ids=["fp32", "head of 528", "one query"],
)
def test_what_the_operator_does_not_take_is_computed_plainly(calls, shape, dtype):
    q, k, v = arrays(*shape, dtype)
    mask = open_pairs(shape[0], 1, 1, shape[4])
    result = ops.attention(q, k, v, mask=Tensor(mask))
    assert not calls and result.dtype == dtype
    assert far(result, reference(q, k, v, mask)) < TOLERANCE[dtype]


@pytest.mark.parametrize("what", ["results", pytest.param("gradients", marks=pytest.mark.slow)])
def test_a_compiled_step_reaches_the_operators(calls, monkeypatch, what):
    """A step is compiled from the source of what it calls; stand-ins that look into arrays cannot be, so these are simple."""

    def simple(q, k, v, head_num=1, attn_mask=None, scalar_value=1.0, input_layout="", sparse_mode=0, **lengths):
        return (q + mint.mean(k, -2, True) + mint.mean(v, -2, True)) * scalar_value

    def simple_norm(x, *rest):
        return (x * 3, x)

    def always() -> bool:
        return True

    def step(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
        masked, causal = ops.attention(q, k, v, mask), ops.attention(q, k, v, None, True)
        packed, apart = ops.attention(q, k, v, None, True, (3, 2)), ops.attention(q, k, v, None, False, (3, 2))
        return masked, causal, packed, apart, ops.rms_norm(q, q[0, 0, 0], 1e-5), ops.attention(q[:, :, :1], k, v, mask)

    monkeypatch.setattr(own, "flash_attention_score", simple)
    monkeypatch.setattr(own, "rms_norm", simple_norm)
    monkeypatch.setattr(ops, "is_ascend", always)
    given = *arrays(2, 4, 4, 5, 5, 40, ms.float16), Tensor(open_pairs(2, 1, 1, 5))

    def loss(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
        return sum([mint.sum(each.astype(ms.float32) ** 2) for each in step(q, k, v, mask)])

    function = step if what == "results" else ms.grad(loss, (0, 1, 2))
    for one, other in zip(ms.jit(function)(*given), function(*given), strict=True):
        np.testing.assert_allclose(values(one), values(other), rtol=2e-3, atol=2e-3)


# ------------------------------------------------------------------------------------------------- the rules have teeth


def call(**changes: Any) -> Tensor:
    """Call the stand-in as the adapter does for causal attention of two rows, but for what is given."""
    q, k, v = arrays(2, 4, 2, 5, 5, 16, ms.float16)
    given = {"query": q, "key": k, "value": v, "head_num": 4, "input_layout": "BNSD", "attn_mask": ascend._LATER}
    return stand_ins.flash_attention_score(**{**given, "scalar_value": 0.25, "sparse_mode": 2, **changes})


def of(*shape: int, dtype: Any = ms.float16) -> Tensor:
    return Tensor(drawn(*shape)).astype(dtype)


ROWS = {"query": of(8, 4, 16), "key": of(8, 2, 16), "value": of(8, 2, 16), "input_layout": "TND", "next_tokens": 0}
WRONG = {
    "fp32": ({name: of(2, 2, 5, 16, dtype=ms.float32) for name in ("query", "key", "value")}, "float16 or bfloat16"),
    "mixed dtypes": ({"query": of(2, 4, 5, 16, dtype=ms.bfloat16)}, "same dtype"),
    "head of 40": ({name: of(2, 4, 5, 40) for name in ("query", "key", "value")}, "multiple of 16"),
    "head of 528": ({name: of(2, 4, 5, 528) for name in ("query", "key", "value")}, "multiple of 16"),
    "head_num of the keys": ({"head_num": 2}, "head_num 2"),
    "heads that do not divide": ({name: of(2, 3, 5, 16) for name in ("key", "value")}, "3 of keys"),
    "unknown layout": ({"input_layout": "BSND"}, "input_layout"),
    "unknown mode": ({"sparse_mode": 9}, "sparse_mode 9"),
    "causal without its mask": ({"attn_mask": None}, "2048 by 2048"),
    "causal with a mask of the lengths": ({"attn_mask": Tensor(np.triu(np.ones((5, 5), bool), 1))}, "2048 by 2048"),
    "causal with the lower triangle": ({"attn_mask": mint.logical_not(ascend._LATER)}, "not the upper triangle"),
    "mask to be broadcast over queries": ({"sparse_mode": 0, "attn_mask": Tensor(open_pairs(2, 1, 1, 5))}, "not valid"),
    "mask to be broadcast over rows": ({"sparse_mode": 0, "attn_mask": Tensor(open_pairs(1, 4, 5, 5))}, "not valid"),
    "additive mask": ({"sparse_mode": 0, "attn_mask": of(5, 5)}, "not bool or uint8"),
    "rows without lengths": (ROWS, "needs the lengths"),
    "rows that are not causal": (
        {**ROWS, "actual_seq_qlen": [3, 8], "actual_seq_kvlen": [3, 8], "sparse_mode": 0, "attn_mask": None},
        "causal",
    ),
    "rows by lengths, not ends": ({**ROWS, "actual_seq_qlen": [3, 5], "actual_seq_kvlen": [3, 5]}, "running sums"),
    "a row without keys": ({**ROWS, "actual_seq_qlen": [3, 3, 8], "actual_seq_kvlen": [3, 3, 8]}, "without keys"),
    "rows with next_tokens": (
        {**ROWS, "actual_seq_qlen": [3, 8], "actual_seq_kvlen": [3, 8], "next_tokens": stand_ins.INT_MAX},
        "next_tokens 0",
    ),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_a_broken_rule_is_an_error(changes, says):
    assert call().shape == (2, 4, 5, 16)
    with pytest.raises((TypeError, ValueError, RuntimeError), match=says):
        call(**changes)


BROKEN = {
    "a mask that is not inverted": ("_closed", lambda mask, *sizes: mint.broadcast_to(mask, (2, 1, 5, 5))),
    "a mask that is left out": ("_closed", lambda *_: None),
    "heads that are padded in front": (
        "_padded",
        lambda x: mint.cat((own.zeros((*x.shape[:-1], 8), x.dtype), x), -1),
    ),
}


@pytest.mark.parametrize(("name", "broken"), BROKEN.values(), ids=BROKEN)
def test_what_the_operator_would_compute_without_an_error_is_found(calls, monkeypatch, name, broken):
    q, k, v = arrays(2, 4, 2, 5, 5, 40, ms.float16)
    mask = open_pairs(2, 1, 1, 5)
    expected = reference(q, k, v, mask)
    assert far(ops.attention(q, k, v, mask=Tensor(mask)), expected) < TOLERANCE[ms.float16]
    monkeypatch.setattr(ascend, name, broken)
    assert far(ops.attention(q, k, v, mask=Tensor(mask)), expected) > 50 * TOLERANCE[ms.float16]


def test_a_scale_of_the_padded_head_is_found():
    """Zeros behind a head of 40 make it 48 wide; the scale stays that of 40."""
    parts = arrays(2, 4, 2, 5, 5, 40, ms.float16)
    padded = [ascend._padded(part) for part in parts]
    right, wrong = (
        call(**dict(zip(("query", "key", "value"), padded, strict=True)), scalar_value=side**-0.5) for side in (40, 48)
    )
    expected = reference(*parts, np.tril(np.ones((5, 5), bool)))
    assert (
        far(right[..., :40], expected)
        < TOLERANCE[ms.float16]
        < 10 * TOLERANCE[ms.float16]
        < far(wrong[..., :40], expected)
    )


# ------------------------------------------------------------------------------------------------- norms and the others


@pytest.mark.parametrize("dtype", [*HALF, ms.float32], ids=str)
def test_rms_norm_rounds_before_it_multiplies(calls, monkeypatch, dtype):
    x, weight = of(3, 5, 48, dtype=dtype), (of(48, dtype=ms.float32) + 1).astype(dtype)
    mine, naive = ops.rms_norm(x, weight, 1e-5), stand_ins.rms_norm(x, weight, 1e-5)[0]
    monkeypatch.setattr(ops, "is_ascend", lambda: False)
    plain = ops.rms_norm(x, weight, 1e-5)
    assert mine.dtype == plain.dtype and np.array_equal(values(mine), values(plain))
    if dtype != ms.float32:
        assert not np.array_equal(values(naive), values(plain))


@pytest.mark.parametrize("weighted", [False, True], ids=["bare", "weighted"])
@pytest.mark.parametrize("weight_dtype", [ms.float16, ms.float32], ids=str)
@pytest.mark.parametrize("dtype", [*HALF, ms.float32], ids=str)
def test_layer_norm_is_the_plain_one(calls, monkeypatch, dtype, weight_dtype, weighted):
    x = of(3, 5, 48, dtype=dtype)
    scale = (of(48, dtype=weight_dtype), of(1, 48, dtype=weight_dtype).reshape((48,))) if weighted else ()
    mine = ops.layer_norm(x, 1e-5, *scale)
    monkeypatch.setattr(ops, "is_ascend", lambda: False)
    plain = ops.layer_norm(x, 1e-5, *scale)
    assert mine.dtype == plain.dtype == dtype
    assert np.array_equal(values(mine), values(plain))


@pytest.mark.parametrize("tanh", [False, True])
def test_gelu_rows_and_cross_entropy_are_the_plain_ones(calls, monkeypatch, tanh):
    x, table, ids = (
        of(4, 7, dtype=ms.float32),
        of(11, 6, dtype=ms.float32),
        Tensor(np.array([[3, 0], [10, 3]], np.int64)),
    )
    labels, weights = Tensor(np.array([6, 0, 2, 2], np.int64)), Tensor(np.array([1, 0, 2, 1], np.float32))

    def results() -> list[np.ndarray]:
        return [values(one) for one in (ops.gelu(x, tanh), ops.take(table, ids), ops.cross_entropy(x, labels, weights))]

    mine = results()
    monkeypatch.setattr(ops, "is_ascend", lambda: False)
    for one, other in zip(mine, results(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)


# ---------------------------------------------------------------------------------------------------- on the chip itself


@pytest.mark.npu
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["all", "causal", "masked", "packed"])
def test_the_operator_gives_the_plain_attention(npu, shape, kind, dtype):
    q, k, v = arrays(*shape, dtype)
    mask = open_pairs(shape[0], 1, 1, shape[4]) if kind == "masked" else None
    segments = [2, shape[3] - 2] if kind == "packed" else None
    result = ops.attention(q, k, v, None if mask is None else Tensor(mask), kind in ("causal", "packed"), segments)
    seen = np.tril(np.ones((shape[3], shape[4]), bool))
    if segments is not None:
        seen[2:, :2] = False
    assert (
        far(result, reference(q, k, v, mask if kind == "masked" else None if kind == "all" else seen))
        < 2 * TOLERANCE[dtype]
    )


@pytest.mark.npu
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_operators_give_the_plain_norms_and_the_others(npu, monkeypatch, dtype):
    x, weight, bias = of(3, 5, 48, dtype=dtype), of(48, dtype=dtype), of(1, 48, dtype=dtype).reshape((48,))
    table, ids, labels = of(48, 6, dtype=dtype), Tensor(np.array([3, 0, 47])), Tensor(np.array([3, 0, 47]))

    def results() -> list[np.ndarray]:
        norms = ops.rms_norm(x, weight, 1e-5), ops.layer_norm(x, 1e-5), ops.layer_norm(x, 1e-5, weight, bias)
        loss = ops.cross_entropy(x[0, :3], labels, Tensor(np.array([1, 2, 1], np.float32)))
        return [values(one) for one in (*norms, ops.gelu(x, True), ops.gelu(x, False), ops.take(table, ids), loss)]

    fused = results()
    monkeypatch.setattr(ops, "is_ascend", lambda: False)
    for one, other in zip(fused, results(), strict=True):
        np.testing.assert_allclose(one, other, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])
