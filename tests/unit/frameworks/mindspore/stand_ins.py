# ruff: noqa: A002  # the names of the operators' own arguments
"""Stand-ins for MindSpore's operators on Ascend: they refuse what the vendor's pages refuse and compute the plain result.

Each takes the names and defaults of the operator it stands for. What a page calls an error is an error here; what the
operator would silently compute otherwise (a mask of the wrong polarity, a forgotten scale) is computed here as the operator
would, so that a comparison with the plain form finds it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint
from mindspore import ops as own

_HALF = (ms.float16, ms.bfloat16)
_FLOATS = (*_HALF, ms.float32)
INT_MAX = 2147483647


def flash_attention_score(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_num: int,
    real_shift: Any = None,
    drop_mask: Any = None,
    padding_mask: Any = None,
    attn_mask: Tensor | None = None,
    prefix: Any = None,
    actual_seq_qlen: Sequence[int] | None = None,
    actual_seq_kvlen: Sequence[int] | None = None,
    keep_prob: float = 1.0,
    scalar_value: float = 1.0,
    pre_tokens: int = INT_MAX,
    next_tokens: int = INT_MAX,
    inner_precise: int = 0,
    input_layout: str = "BSH",
    sparse_mode: int = 0,
) -> Tensor:
    """`mindspore.ops.flash_attention_score`, for the layouts BNSD and TND and the modes 0, 2 and 3."""
    assert real_shift is drop_mask is padding_mask is prefix is None and keep_prob == 1.0 and inner_precise == 0
    if query.dtype not in _HALF:
        raise TypeError(f"dtype of query is {query.dtype}, not float16 or bfloat16")
    if not query.dtype == key.dtype == value.dtype:
        raise TypeError("query, key and value do not have the same dtype")
    if key.shape != value.shape:
        raise RuntimeError(f"key {key.shape} and value {value.shape} differ")
    if attn_mask is not None and attn_mask.dtype not in (ms.bool_, ms.uint8):
        raise TypeError(f"dtype of attn_mask is {attn_mask.dtype}, not bool or uint8")
    if input_layout not in ("BNSD", "TND"):
        raise ValueError(f"input_layout {input_layout} is none of this stand-in's")
    if sparse_mode not in (0, 2, 3):
        raise RuntimeError(f"sparse_mode {sparse_mode} is none of this stand-in's")
    varlen = input_layout == "TND"
    if query.ndim != (3 if varlen else 4):
        raise RuntimeError(f"query has {query.ndim} axes in layout {input_layout}")
    head_dim, heads, kv_heads = query.shape[-1], query.shape[1], key.shape[1]
    if head_dim % 16 or head_dim > 512 or key.shape[-1] != head_dim:
        raise RuntimeError(f"head size {head_dim} is not a multiple of 16 up to 512 that all three share")
    if head_num != heads or heads % kv_heads:
        raise RuntimeError(f"head_num {head_num} for {heads} heads of queries and {kv_heads} of keys")
    if sparse_mode:
        if attn_mask is None or attn_mask.shape != (2048, 2048):
            raise RuntimeError(f"sparse_mode {sparse_mode} needs the mask of 2048 by 2048")
        if not np.array_equal(attn_mask.asnumpy() != 0, np.triu(np.ones((2048, 2048), bool), 1)):
            raise RuntimeError(f"the mask of sparse_mode {sparse_mode} is not the upper triangle")
    if varlen:
        if actual_seq_qlen is None or actual_seq_kvlen is None:
            raise RuntimeError("layout TND needs the lengths")
        if sparse_mode not in (2, 3) or next_tokens != 0:
            raise RuntimeError("layout TND is causal: sparse_mode 2 or 3 and next_tokens 0")
        q_lengths, kv_lengths = _lengths(actual_seq_qlen, query.shape[0]), _lengths(actual_seq_kvlen, key.shape[0])
        if len(q_lengths) != len(kv_lengths) or len(q_lengths) > 1024 or 0 in kv_lengths:
            raise RuntimeError("layout TND takes up to 1024 rows, as many of queries as of keys, none without keys")
        if pre_tokens < max(q_lengths):
            raise RuntimeError("pre_tokens is less than the longest row")
        pieces = zip(
            mint.split(query, q_lengths), mint.split(key, kv_lengths), mint.split(value, kv_lengths), strict=True
        )
        return mint.cat(
            [
                _plain(*[mint.permute(part, (1, 0, 2))[None] for part in piece], None, sparse_mode, scalar_value)
                for piece in pieces
            ],
            2,
        )[0].permute((1, 0, 2))
    if actual_seq_qlen is not None or actual_seq_kvlen is not None:
        raise RuntimeError("lengths belong to layout TND")
    batch, _, queries, _ = query.shape
    keys = key.shape[2]
    if key.shape[0] != batch:
        raise RuntimeError("batches differ")
    if not sparse_mode and attn_mask is not None:
        allowed = ((batch, heads, queries, keys), (batch, 1, queries, keys), (queries, keys))
        if attn_mask.shape not in allowed:
            raise RuntimeError(f"attn_mask shape {attn_mask.shape} is not valid: {allowed}")
    return _plain(query, key, value, None if sparse_mode else attn_mask, sparse_mode, scalar_value)


def rms_norm(x: Tensor, gamma: Tensor, epsilon: float = 1e-6) -> tuple[Tensor, Tensor]:
    """`mindspore.ops.rms_norm` of 2.10: multiplies by gamma before it rounds, and returns what the backward pass needs."""
    if x.dtype not in _FLOATS or gamma.dtype != x.dtype:
        raise TypeError(f"x is {x.dtype} and gamma {gamma.dtype}")
    if not 0 < epsilon <= 1:
        raise ValueError(f"epsilon {epsilon} is not in (0, 1]")
    wide = x.astype(ms.float32)
    rstd = mint.rsqrt(mint.mean(wide * wide, -1, True) + epsilon)
    return (wide * rstd * gamma.astype(ms.float32)).astype(x.dtype), rstd


def layer_norm(
    input: Tensor,
    normalized_shape: tuple[int, ...],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """`mindspore.ops.layer_norm`, over the last axis."""
    for part in (weight, bias):
        if part is not None and (part.dtype != input.dtype or part.shape != tuple(normalized_shape)):
            raise TypeError(f"weight or bias is {part.dtype} {part.shape} for {input.dtype} {normalized_shape}")
    if tuple(normalized_shape) != input.shape[-1:] or not isinstance(eps, float):
        raise TypeError(f"normalized_shape {normalized_shape} of {input.shape}, eps {eps}")
    wide = input.astype(ms.float32)
    centred = wide - mint.mean(wide, -1, True)
    result = centred * mint.rsqrt(mint.mean(centred * centred, -1, True) + eps)
    if weight is not None:
        result = result * weight.astype(ms.float32)
    if bias is not None:
        result = result + bias.astype(ms.float32)
    return result.astype(input.dtype)


def gelu(input: Tensor, *, approximate: str = "none") -> Tensor:
    """`mindspore.mint.nn.functional.gelu`."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"approximate is {approximate}")
    return own.gelu(input, approximate=approximate)


def embedding(input: Tensor, weight: Tensor) -> Tensor:
    """`mindspore.mint.nn.functional.embedding`."""
    if input.dtype not in (ms.int32, ms.int64) or weight.ndim != 2:
        raise TypeError(f"ids are {input.dtype}, the table has {weight.ndim} axes")
    return own.gather(weight, input, 0)


def cross_entropy(input: Tensor, target: Tensor, *, reduction: str = "mean") -> Tensor:
    """`mindspore.mint.nn.functional.cross_entropy` of class indices."""
    if input.dtype not in _FLOATS or target.dtype not in (ms.int32, ms.int64) or target.shape != input.shape[:1]:
        raise TypeError(f"input is {input.dtype} {input.shape}, target {target.dtype} {target.shape}")
    return own.cross_entropy(input, target, reduction=reduction)


def reduce_scatter(rank: int, others: list[np.ndarray]) -> type:
    """Return a class for `mindspore.ops.ReduceScatter` on a rank, whose others hold these vectors."""

    class ReduceScatter:
        def __init__(self, op: str = "sum", group: str = "hccl_world_group"):
            assert op == "sum" and group == "hccl_world_group"

        def __call__(self, input_x: Tensor) -> Tensor:
            ranks = len(others) + 1
            if input_x.shape[0] % ranks:
                raise ValueError(f"the first axis of {input_x.shape} does not divide by {ranks}")
            total = sum(others) + input_x.asnumpy()
            return Tensor(np.split(total, ranks)[rank])

    return ReduceScatter


def _lengths(ends: Sequence[int], total: int) -> list[int]:
    lengths = np.diff([0, *ends]).tolist()
    if min(lengths) < 0 or ends[-1] != total:
        raise RuntimeError(f"{list(ends)} are not the running sums of lengths of {total} positions")
    return lengths


def _plain(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, sparse_mode: int, scale: float) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    wide_q, wide_k, wide_v = (part.astype(ms.float32) for part in (q, k, v))
    wide_k, wide_v = (
        mint.cat([part[:, h // groups : h // groups + 1] for h in range(q.shape[1])], 1) for part in (wide_k, wide_v)
    )
    scores = mint.matmul(wide_q, mint.transpose(wide_k, 2, 3)) * scale
    queries, keys = scores.shape[2:]
    if sparse_mode:  # 2 counts from the first key, 3 from the last
        mask = Tensor(np.triu(np.ones((queries, keys), bool), 1 + (keys - queries if sparse_mode == 3 else 0)))
    if mask is not None:
        scores = own.where(mask.astype(ms.bool_), -1e30, scores)
    return mint.matmul(mint.nn.functional.softmax(scores, -1), wide_v).astype(q.dtype)
