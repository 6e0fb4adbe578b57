"""What goes to torch_npu on Ascend chips: accepted by the operators' rules, and the plain result.

A stand-in takes torch_npu's place here. The tests marked `npu` compare with the operators themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sampan.errors import DeviceError
from sampan.frameworks.torch import ascend, device, ops

# one unit in the last place of a value near 1, times two
TOLERANCE = {torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
HALF = (torch.float16, torch.bfloat16)
INT_MAX = 2147483647


def npu_fusion_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    input_layout: str,
    pse: Any = None,
    padding_mask: Any = None,
    atten_mask: Tensor | None = None,
    scale: float = 1.0,
    keep_prob: float = 1.0,
    pre_tockens: int = INT_MAX,
    next_tockens: int = INT_MAX,
    inner_precise: int = 0,
    prefix: Any = None,
    actual_seq_qlen: Sequence[int] | None = None,
    actual_seq_kvlen: Sequence[int] | None = None,
    sparse_mode: int = 0,
) -> tuple[Tensor, None, None, None, int, int, int]:
    """`torch_npu.npu_fusion_attention`, for the layouts BNSD and TND and the modes 0, 2 and 3.

    It refuses what the page refuses. It is stricter in two things, which MindSpore's page on the same operator asks for:
    half precision, and heads of multiples of 16.
    """
    assert pse is padding_mask is prefix is None and keep_prob == 1.0 and pre_tockens == next_tockens == INT_MAX
    if query.dtype not in HALF or not query.dtype == key.dtype == value.dtype:
        raise RuntimeError(f"dtypes {query.dtype}, {key.dtype}, {value.dtype}: not one of fp16 and bf16")
    if key.shape != value.shape:
        raise RuntimeError(f"key {tuple(key.shape)} and value {tuple(value.shape)} differ")
    if input_layout not in ("BNSD", "TND") or sparse_mode not in (0, 2, 3):
        raise RuntimeError(f"layout {input_layout} or sparse_mode {sparse_mode} is none of this stand-in's")
    _saved(query, atten_mask)
    varlen = input_layout == "TND"
    if query.ndim != (3 if varlen else 4):
        raise RuntimeError(f"query has {query.ndim} axes in layout {input_layout}")
    head_dim, heads, kv_heads = query.shape[-1], query.shape[1], key.shape[1]
    if head_dim % 16 or head_dim > 512 or key.shape[-1] != head_dim:
        raise RuntimeError(f"head size {head_dim} is not a multiple of 16 up to 512 that all three share")
    if head_num != heads or heads % kv_heads:
        raise RuntimeError(f"head_num {head_num} for {heads} heads of queries and {kv_heads} of keys")
    if atten_mask is not None and atten_mask.dtype not in (torch.bool, torch.uint8):
        raise RuntimeError(f"atten_mask is {atten_mask.dtype}, not bool or uint8")
    if sparse_mode:
        if atten_mask is None or atten_mask.shape != (2048, 2048):
            raise RuntimeError(f"sparse_mode {sparse_mode} needs the mask of 2048 by 2048")
        if not torch.equal(atten_mask.bool(), torch.ones(2048, 2048, dtype=torch.bool).triu(1)):
            raise RuntimeError(f"the mask of sparse_mode {sparse_mode} is not the upper triangle")
    if varlen:
        if actual_seq_qlen is None or actual_seq_kvlen is None:
            raise RuntimeError("layout TND needs the lengths")
        if atten_mask is not None and not sparse_mode:
            raise RuntimeError("this stand-in's rows have no mask but the triangle")
        lengths = [_lengths(ends, len(part)) for ends, part in ((actual_seq_qlen, query), (actual_seq_kvlen, key))]
        if len(lengths[0]) != len(lengths[1]) or len(lengths[0]) > 1024:
            raise RuntimeError("layout TND takes up to 1024 rows, as many of queries as of keys")
        pieces = zip(query.split(lengths[0]), key.split(lengths[1]), value.split(lengths[1]), strict=True)
        rows = [_plain(*(part.transpose(0, 1)[None] for part in piece), None, sparse_mode, scale) for piece in pieces]
        return torch.cat(rows, 2)[0].transpose(0, 1), None, None, None, 0, 0, 0
    if actual_seq_qlen is not None or actual_seq_kvlen is not None:
        raise RuntimeError("lengths belong to layout TND")
    sizes = (query.shape[2], key.shape[2])
    if atten_mask is not None and not sparse_mode:
        allowed = ((len(query), heads, *sizes), (len(query), 1, *sizes), (1, 1, *sizes), sizes)
        if atten_mask.shape not in allowed:
            raise RuntimeError(f"get unsupported atten_mask shape, the shape is {tuple(atten_mask.shape)}: {allowed}")
    mask = None if sparse_mode else atten_mask
    return _plain(query, key, value, mask, sparse_mode, scale), None, None, None, 0, 0, 0


def npu_rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """`torch_npu.npu_rms_norm`: multiplies by gamma before it rounds, and returns what the backward pass needs."""
    if x.dtype not in TOLERANCE or gamma.dtype != x.dtype or gamma.shape != x.shape[-1:]:
        raise RuntimeError(f"x is {x.dtype} {tuple(x.shape)}, gamma {gamma.dtype} {tuple(gamma.shape)}")
    _saved(x, gamma)
    rstd = torch.rsqrt(x.float().square().mean(-1, keepdim=True) + epsilon)
    return (x.float() * rstd * gamma.float()).to(x.dtype), rstd


def _saved(x: Tensor, kept: Tensor | None) -> None:
    """Refuse what PyTorch refuses when an operator keeps an array for its backward pass."""
    if x.requires_grad and torch.is_grad_enabled() and kept is not None and kept.is_inference():
        raise RuntimeError("Inference tensors cannot be saved for backward")


def _lengths(ends: Sequence[int], total: int) -> list[int]:
    lengths = np.diff([0, *ends]).tolist()
    if min(lengths) < 0 or ends[-1] != total:
        raise RuntimeError(f"{list(ends)} are not the running sums of lengths of {total} positions")
    return lengths


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sparse_mode: int, scale: float) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    key, value = (part.float().repeat_interleave(groups, 1) for part in (k, v))
    scores = q.float() @ key.transpose(2, 3) * scale
    queries, keys = scores.shape[2:]
    if sparse_mode:  # 2 counts from the first key, 3 from the last
        mask = torch.ones(queries, keys).triu(1 + (keys - queries if sparse_mode == 3 else 0))
    if mask is not None:
        scores = scores.masked_fill(mask.bool(), -1e30)
    return (torch.softmax(scores, -1) @ value).to(q.dtype)


class Calls(list[dict[str, Any]]):
    """What the operator for attention was called with."""

    def npu_fusion_attention(self, *parts: Any, **settings: Any) -> Any:
        self.append({"shapes": [tuple(part.shape) for part in parts], "dtype": parts[0].dtype, **settings})
        return npu_fusion_attention(*parts, **settings)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    """Put the stand-in in the place of torch_npu."""
    recorded = Calls()
    vendor = SimpleNamespace(npu_fusion_attention=recorded.npu_fusion_attention, npu_rms_norm=npu_rms_norm)
    monkeypatch.setitem(sys.modules, "torch_npu", vendor)
    return recorded


@pytest.fixture(scope="session")
def npu() -> str:
    """The Ascend chip of this machine."""
    if "npu" not in device.available():
        pytest.skip(
            "torch_npu is not installed here or finds no Ascend device, so there is no operator to compare with"
        )
    return "npu"


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape, np.float32))


def arrays(batch: int, heads: int, kv_heads: int, queries: int, keys: int, head_dim: int, dtype: Any) -> list[Tensor]:
    shapes = ((batch, heads, queries, head_dim), *[(batch, kv_heads, keys, head_dim)] * 2)
    return [drawn(*shape, seed=index).to(dtype) for index, shape in enumerate(shapes)]


def open_pairs(*shape: int) -> Tensor:
    """Return a mask that closes about half of the pairs and leaves every query the first key."""
    mask = torch.from_numpy(np.random.default_rng(len(shape)).random(shape) < 0.5)
    mask[..., 0] = True
    return mask


def far(result: Tensor, expected: Tensor) -> float:
    return float((result.double() - expected.double()).abs().max())


def plainly(q: Tensor, k: Tensor, v: Tensor, *rest: Any) -> Tensor:
    """Return what `ops.attention` gives on this machine, in fp32."""
    return ops.attention(q.float(), k.float(), v.float(), *rest)


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
    result = ascend.attention(q, k, v, None, causal)
    assert len(calls) == 1 and result.shape == q.shape and result.dtype == dtype
    assert far(result, plainly(q, k, v, None, causal)) < TOLERANCE[dtype]


@pytest.mark.parametrize("keys", [5, 9], ids=["self", "longer keys"])
@pytest.mark.parametrize(
    "shape",
    [(2, 4, 5, 0), (2, 1, 5, 0), (1, 1, 5, 0), (2, 1, 1, 0), (1, 1, 1, 0), (1, 4, 5, 0), (1, 4, 1, 0), (2, 1, 5, 1)],
    ids=lambda shape: "x".join(str(side) for side in shape),
)
def test_masks_of_every_broadcast_are_the_plain_ones(calls, shape, keys):
    q, k, v = arrays(2, 4, 2, 5, keys, 24, torch.bfloat16)
    mask = open_pairs(*shape[:3], shape[3] or keys)
    result = ascend.attention(q, k, v, mask, False)
    assert len(calls) == 1
    assert far(result, plainly(q, k, v, mask)) < TOLERANCE[torch.bfloat16]


@pytest.mark.parametrize("causal", [False, True], ids=["all", "causal"])
@pytest.mark.parametrize("max_rows", [1024, 5], ids=["one call", "one call a stretch"])
def test_stretches_do_not_see_each_other(calls, monkeypatch, causal, max_rows):
    monkeypatch.setattr(ascend, "_MAX_ROWS", max_rows)
    q, k, v = arrays(2, 4, 2, 9, 9, 40, torch.float16)
    result = ascend.attention(q, k, v, None, causal, [3, 2, 4])
    assert far(result, plainly(q, k, v, None, causal, [3, 2, 4])) < TOLERANCE[torch.float16]
    assert [call["input_layout"] for call in calls] == (["TND"] if max_rows == 1024 else ["BNSD"] * 3)
    if max_rows == 1024:
        assert calls[0]["actual_seq_qlen"] == calls[0]["actual_seq_kvlen"] == [3, 5, 9, 12, 14, 18]


def test_gradients_are_the_plain_ones_also_after_use_in_inference_mode(calls):
    """What is kept between calls (the triangle) is made once, and must serve training also when painting made it."""
    ascend._later.cache_clear()
    ascend._ones.cache_clear()
    parts = [part.requires_grad_() for part in arrays(2, 4, 2, 5, 5, 40, torch.float16)]
    with torch.inference_mode():
        ascend.rms_norm(ascend.attention(*parts, None, True), torch.ones(40), 1e-5)
    pull = drawn(2, 4, 5, 40, seed=9)
    mine = torch.autograd.grad(
        (ascend.rms_norm(ascend.attention(*parts, None, True), torch.ones(40), 1e-5) * pull).sum(), parts
    )
    theirs = torch.autograd.grad((ops.rms_norm(plainly(*parts, None, True), torch.ones(40), 1e-5) * pull).sum(), parts)
    for one, other in zip(mine, theirs, strict=True):
        assert far(one, other) < 2e-2


@pytest.mark.parametrize(
    ("shape", "dtype"),
    [
        ((2, 4, 2, 5, 5, 40), torch.float32),
        ((1, 2, 1, 3, 3, 528), torch.float16),
        ((2, 4, 2, 1, 9, 16), torch.bfloat16),
    ],
    ids=["fp32", "head of 528", "one query"],
)
def test_what_the_operator_does_not_take_is_computed_plainly(calls, shape, dtype):
    q, k, v = arrays(*shape, dtype)
    mask = open_pairs(shape[0], 1, 1, shape[4])
    cases: list[tuple[Any, ...]] = [(mask, False), (None, False)]
    if shape[3] == shape[4]:
        cases += [(None, True), (None, True, [1, shape[3] - 1]), (None, False, [1, shape[3] - 1])]
    for case in cases:
        result = ascend.attention(q, k, v, *case)
        assert result.dtype == dtype and far(result, plainly(q, k, v, *case)) < TOLERANCE[dtype]
    assert not calls


def test_autocast_casts_as_it_does_for_pytorchs_own_attention(calls):
    """Layer norms return fp32 under autocast; without a cast a whole training in bf16 would miss the operator."""
    q, k, v = arrays(2, 4, 2, 5, 5, 16, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        mine, theirs = ascend.attention(q, k, v.bfloat16(), None, True), ops.attention(q, k, v.bfloat16(), None, True)
    assert [call["dtype"] for call in calls] == [torch.bfloat16]
    assert mine.dtype == theirs.dtype == torch.bfloat16 and far(mine, theirs) < TOLERANCE[torch.bfloat16]


def test_ops_asks_where_the_arrays_lie(monkeypatch):
    seen = []
    monkeypatch.setattr(ascend, "attention", lambda *given: seen.append(given[3:]) or "attention")
    monkeypatch.setattr(ascend, "rms_norm", lambda *given: seen.append(given[1:]) or "norm")
    there: Any = SimpleNamespace(
        device=torch.device("npu", 0) if hasattr(torch, "npu") else SimpleNamespace(type="npu")
    )
    assert ops.attention(there, there, there, None, True, [1, 2]) == "attention"
    assert ops.rms_norm(there, "weight", 1e-5) == "norm"  # type: ignore[arg-type, comparison-overlap]
    ops.attention(*arrays(1, 1, 1, 2, 2, 8, torch.float32), None, True)
    ops.rms_norm(drawn(2, 8), drawn(8), 1e-5)
    assert seen == [(None, True, [1, 2]), ("weight", 1e-5)]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_rms_norm_rounds_before_it_multiplies(calls, dtype):
    x, weight = drawn(3, 5, 48).to(dtype), (drawn(48) + 1).to(dtype)
    mine, naive, plain = (
        ascend.rms_norm(x, weight, 1e-5),
        npu_rms_norm(x, weight, 1e-5)[0],
        ops.rms_norm(x, weight, 1e-5),
    )
    assert mine.dtype == plain.dtype == dtype
    torch.testing.assert_close(mine, plain, rtol=1e-6, atol=0)
    if dtype != torch.float32:
        assert not torch.equal(naive, plain)


# ------------------------------------------------------------------------------------------------- the rules have teeth


def call(**changes: Any) -> Tensor:
    """Call the stand-in as the adapter does for causal attention of two rows, but for what is given."""
    q, k, v = arrays(2, 4, 2, 5, 5, 16, torch.float16)
    given = {"query": q, "key": k, "value": v, "head_num": 4, "input_layout": "BNSD", "scale": 0.25, "sparse_mode": 2}
    return npu_fusion_attention(**{**given, "atten_mask": ascend._later(torch.device("cpu")), **changes})[0]


def of(*shape: int, dtype: Any = torch.float16) -> Tensor:
    return drawn(*shape).to(dtype)


ROWS = {"query": of(8, 4, 16), "key": of(8, 2, 16), "value": of(8, 2, 16), "input_layout": "TND"}
WRONG = {
    "fp32": ({name: of(2, 2, 5, 16, dtype=torch.float32) for name in ("query", "key", "value")}, "not one of fp16"),
    "mixed dtypes": ({"query": of(2, 4, 5, 16, dtype=torch.bfloat16)}, "not one of fp16"),
    "head of 40": ({name: of(2, 4, 5, 40) for name in ("query", "key", "value")}, "multiple of 16"),
    "head_num of the keys": ({"head_num": 2}, "head_num 2"),
    "heads that do not divide": ({name: of(2, 3, 5, 16) for name in ("key", "value")}, "3 of keys"),
    "unknown layout": ({"input_layout": "BSND"}, "layout BSND"),
    "causal without its mask": ({"atten_mask": None}, "2048 by 2048"),
    "causal with a mask of the lengths": ({"atten_mask": torch.ones(5, 5).triu(1).bool()}, "2048 by 2048"),
    "causal with the lower triangle": ({"atten_mask": torch.ones(2048, 2048).tril().bool()}, "not the upper triangle"),
    "mask to be broadcast over queries": ({"sparse_mode": 0, "atten_mask": open_pairs(2, 1, 1, 5)}, "unsupported"),
    "mask to be broadcast over rows": ({"sparse_mode": 0, "atten_mask": open_pairs(1, 4, 5, 5)}, "unsupported"),
    "additive mask": ({"sparse_mode": 0, "atten_mask": of(5, 5)}, "not bool or uint8"),
    "rows without lengths": (ROWS, "needs the lengths"),
    "rows by lengths, not ends": ({**ROWS, "actual_seq_qlen": [3, 5], "actual_seq_kvlen": [3, 5]}, "running sums"),
}


@pytest.mark.parametrize(("changes", "says"), WRONG.values(), ids=WRONG)
def test_a_broken_rule_is_an_error(changes, says):
    assert call().shape == (2, 4, 5, 16)
    with pytest.raises(RuntimeError, match=says):
        call(**changes)


BROKEN = {
    "a mask that is not inverted": ("_closed", lambda mask, *sizes: mask.expand(2, 1, 5, 5)),
    "a mask that is left out": ("_closed", lambda *_: None),
    "heads that are padded in front": ("_padded", lambda x: torch.nn.functional.pad(x, (8, 0))),
}


@pytest.mark.parametrize(("name", "broken"), BROKEN.values(), ids=BROKEN)
def test_what_the_operator_would_compute_without_an_error_is_found(calls, monkeypatch, name, broken):
    q, k, v = arrays(2, 4, 2, 5, 5, 40, torch.float16)
    mask = open_pairs(2, 1, 1, 5)
    expected = plainly(q, k, v, mask)
    assert far(ascend.attention(q, k, v, mask, False), expected) < TOLERANCE[torch.float16]
    monkeypatch.setattr(ascend, name, broken)
    assert far(ascend.attention(q, k, v, mask, False), expected) > 50 * TOLERANCE[torch.float16]


# ------------------------------------------------------------------------------------------------------------ the device


def test_an_npu_by_number_is_there_and_is_the_one_waited_for(monkeypatch):
    waited: list[str] = []
    chips = SimpleNamespace(is_available=lambda: True, device_count=lambda: 2, synchronize=waited.append)
    monkeypatch.setitem(sys.modules, "torch_npu", SimpleNamespace())
    monkeypatch.setattr(torch, "npu", chips, raising=False)
    assert device.resolve("npu") == "npu" and device.resolve("npu:1") == "npu:1"
    with pytest.raises(DeviceError) as caught:
        device.resolve("npu:2")
    assert str(caught.value) == "error: there is no `npu:2` device\n  because this machine has 2 NPUs"
    device.synchronize("npu:1")
    assert waited == ["npu:1"]


# ---------------------------------------------------------------------------------------------------- on the chip itself


@pytest.mark.npu
@pytest.mark.parametrize("dtype", HALF, ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("kind", ["all", "causal", "masked", "packed", "packed causal"])
def test_the_operator_gives_the_plain_attention(npu, shape, kind, dtype):
    parts = arrays(*shape, dtype)
    mask = open_pairs(shape[0], 1, 1, shape[4]) if kind == "masked" else None
    rest = ("causal" in kind, [2, shape[3] - 2] if "packed" in kind else None)
    result = ops.attention(*(part.to(npu) for part in parts), None if mask is None else mask.to(npu), *rest)
    assert far(result.cpu(), plainly(*parts, mask, *rest)) < 2 * TOLERANCE[dtype]


@pytest.mark.npu
@pytest.mark.parametrize("dtype", HALF, ids=str)
def test_the_operators_gradients_and_norm_are_the_plain_ones(npu, dtype):
    parts, weight = [part.requires_grad_() for part in arrays(2, 4, 2, 5, 5, 40, dtype)], (drawn(40) + 1).to(dtype)
    pull = drawn(2, 4, 5, 40, seed=9)
    there = [part.detach().to(npu).requires_grad_() for part in parts]
    result = ops.rms_norm(ops.attention(*there, None, True), weight.to(npu), 1e-5)
    mine = torch.autograd.grad((result.float() * pull.to(npu)).sum(), there)
    theirs = torch.autograd.grad((ops.rms_norm(plainly(*parts, None, True), weight.float(), 1e-5) * pull).sum(), parts)
    for one, other in zip(mine, theirs, strict=True):
        assert far(one.cpu(), other) < 20 * TOLERANCE[dtype]
