"""Operators of torch_npu for Ascend chips. `ops` calls them for arrays that lie on an `npu` device, and nowhere else.

Written from the vendor's documentation and not run on an Ascend chip by us; docs/ascend.md says what that means. Each
function gives what its plain form in `ops` gives. On machines without an Ascend chip the tests put a stand-in in the place
of torch_npu, which refuses what the documentation refuses and computes the plain result.

`attention` takes the operator by its own name and not through PyTorch's scaled_dot_product_attention: whether that reaches
the operator depends on dtype, mask and version there (github.com/huggingface/transformers, pull request 41143), and boolean
masks had the wrong meaning in one (github.com/Ascend/pytorch, issue 88).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_HEAD_DIM_STEP, _MAX_HEAD_DIM = 16, 512
_MAX_ROWS = 1024


def attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, segments: Sequence[int] | None = None
) -> Tensor:
    """Return what `ops.attention` does, for fp16 and bf16 by torch_npu.npu_fusion_attention.

    The operator's rules (https://gitcode.com/Ascend/op-plugin, docs/zh/custom_APIs/torch_npu): True in a mask closes a pair,
    the opposite of ours; a mask is (batch, heads, queries, keys), (batch, 1, queries, keys), (1, 1, queries, keys) or
    (queries, keys) and is not broadcast over queries or keys; causal is `sparse_mode` 2 with an upper triangle of 2048×2048;
    rows of several lengths lie one after another in the layout "TND", up to 1024 of them, with the running sums of their
    lengths. Sizes of heads are brought to multiples of 16 by zeros, which MindSpore's page on the same operator asks for.
    Every query must have a key that is open to it, as `ops.attention` asks.

    Three cases are computed plainly: fp32, which older releases do not take; heads larger than 512; and a single query, as
    in decoding, since the page is for training and one row of scores needs no fused operator to fit into memory. (Whole
    pictures are painted with the operator, as diffusers does in `_native_npu_attention`.) Where a step runs under
    autocast, all three arrays are cast as PyTorch casts those of its own attention.
    """
    kind = q.device.type
    if torch.is_autocast_enabled(kind):
        q, k, v = (part.to(torch.get_autocast_dtype(kind)) for part in (q, k, v))
    if q.dtype not in (torch.float16, torch.bfloat16) or q.shape[3] > _MAX_HEAD_DIM or q.shape[2] == 1:
        return _plain_attention(q, k, v, mask, causal, segments)
    if segments is None:
        return _fused(q, k, v, mask, causal)
    if q.shape[0] * len(segments) > _MAX_ROWS:
        return _by_stretch(_fused, q, k, v, causal, segments)
    return _fused_rows(q, k, v, causal, segments)


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return what `ops.rms_norm` does, by torch_npu.npu_rms_norm.

    The operator multiplies by its weight before it rounds to the dtype of `x`, and `ops.rms_norm` afterwards: it gets
    ones, in the dtype of `x` as it asks, and the weight comes after it.
    """
    return _vendor().npu_rms_norm(x, _ones(x.shape[-1], x.dtype, x.device), epsilon=eps)[0] * weight


def _fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    head_dim = q.shape[3]
    closed = _later(q.device) if causal else None if mask is None else _closed(mask, q, k)
    result = _vendor().npu_fusion_attention(
        *(_padded(part) for part in (q, k, v)),
        head_num=q.shape[1],
        input_layout="BNSD",
        atten_mask=closed,
        scale=head_dim**-0.5,
        sparse_mode=2 if causal else 0,
    )[0]
    return result[..., :head_dim]


def _fused_rows(q: Tensor, k: Tensor, v: Tensor, causal: bool, segments: Sequence[int]) -> Tensor:
    batch, heads, positions, head_dim = q.shape
    ends = list(accumulate(list(segments) * batch))
    result = _vendor().npu_fusion_attention(
        *(_padded(part).transpose(1, 2).reshape(batch * positions, part.shape[1], -1) for part in (q, k, v)),
        head_num=heads,
        input_layout="TND",
        atten_mask=_later(q.device) if causal else None,
        scale=head_dim**-0.5,
        actual_seq_qlen=ends,
        actual_seq_kvlen=ends,
        sparse_mode=2 if causal else 0,
    )[0]
    return result.reshape(batch, positions, heads, -1).transpose(1, 2)[..., :head_dim]


def _plain_attention(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, segments: Sequence[int] | None = None
) -> Tensor:
    """Return what `ops.attention` does, written out: all pairs are computed, softmax in fp32."""
    if segments is not None:
        return _by_stretch(_plain_attention, q, k, v, causal, segments)
    batch, heads, queries, head_dim = q.shape
    kv_heads, keys = k.shape[1], k.shape[2]
    # the heads of a group are rows of one product, so that keys and values need no copies
    grouped = (q * head_dim**-0.5).reshape(batch, kv_heads, -1, head_dim)
    scores = torch.matmul(grouped, k.transpose(2, 3)).float().reshape(batch, heads, queries, keys)
    if causal:
        mask = torch.ones(queries, keys, dtype=torch.bool, device=q.device).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    weights = torch.softmax(scores, -1).to(v.dtype).reshape(batch, kv_heads, -1, keys)
    return torch.matmul(weights, v).reshape(batch, heads, queries, head_dim)


def _by_stretch(attend: Any, q: Tensor, k: Tensor, v: Tensor, causal: bool, segments: Sequence[int]) -> Tensor:
    pieces = zip(*(torch.split(part, list(segments), 2) for part in (q, k, v)), strict=True)
    return torch.cat([attend(*piece, None, causal) for piece in pieces], dim=2)


def _padded(x: Tensor) -> Tensor:
    """Return x with zeros behind the last axis up to a multiple of 16: they add nothing to a score or to another channel."""
    missing = -x.shape[-1] % _HEAD_DIM_STEP
    return F.pad(x, (0, missing)) if missing else x


def _closed(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """Return the operator's mask, True where a pair is closed: (queries, keys) where all rows and heads share it."""
    queries, keys = q.shape[2], k.shape[2]
    closed = ~mask
    if mask.shape[0] == mask.shape[1] == 1:
        return closed[0, 0].expand(queries, keys).contiguous()
    return closed.expand(q.shape[0], mask.shape[1], queries, keys).contiguous()


@cache
def _later(device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # it is kept, and an array made in that mode cannot take part in training later
        return torch.ones(2048, 2048, dtype=torch.bool, device=device).triu(1)


@cache
def _ones(width: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):
        return torch.ones(width, dtype=dtype, device=device)


def _vendor() -> Any:
    import torch_npu  # type: ignore[import-not-found]

    return torch_npu
