"""The vendor's operators for Ascend chips, on MindSpore. `ops` calls them where `device.is_ascend()` holds, and nowhere else.

Written from the vendor's documentation and not run on an Ascend chip by us; docs/ascend.md says what that means. Each
function gives what its plain form in `ops` gives. On machines without an Ascend chip the tests put a stand-in in the place
of each operator, which refuses what the documentation refuses and computes the plain result.

Rules taken from the reference pages of MindSpore 2.10 (https://www.mindspore.cn/docs/en/master/api_python/ops/, page
`mindspore.ops.flash_attention_score` for those of attention), which are also the docstrings of the installed package:

- query, key and value are fp16 or bf16; the size of a head is a multiple of 16 and at most 512;
- fewer heads of keys than of queries are allowed where they divide them;
- True in a mask *closes* a pair, the opposite of `ops.attention`; a mask is (batch, heads, queries, keys),
  (batch, 1, queries, keys) or (queries, keys), and is not broadcast over queries or keys;
- causal is `sparse_mode` 2 with one upper triangle of 2048×2048, whatever the lengths;
- rows of several lengths lie one after another in the layout "TND", which has only the causal modes 2 and 3, up to 1024
  rows, and the running sums of their lengths.
"""

from __future__ import annotations

from collections.abc import Sequence

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint
from mindspore import ops as own
from mindspore.mint.nn import functional as F

from sampan.frameworks.mindspore import ops

_HEAD_DIM_STEP, _MAX_HEAD_DIM = 16, 512
_MAX_ROWS = 1024
_LATER = Tensor(np.triu(np.ones((2048, 2048), np.bool_), 1))  # made here because a compiled step takes it as a constant


def attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool) -> Tensor:
    """Return what `ops.attention` does without segments.

    One operator for fp16 and bf16, with zeros behind heads whose size is no multiple of 16. Three cases are computed
    plainly: fp32, which the operator does not take; heads larger than 512; and a single query (`decode_attention`). Every
    query must have a key that is open to it, as `ops.attention` asks.
    """
    if q.shape[2] == 1:
        return decode_attention(q, k, v, mask)
    if not _is_fused(q):
        return ops.plain_attention(q, k, v, mask, causal)
    head_dim = q.shape[3]
    closed = _LATER if causal else None if mask is None else _closed(mask, q.shape[0], q.shape[2], k.shape[2])
    result = own.flash_attention_score(
        *[_padded(part) for part in (q, k, v)],
        head_num=q.shape[1],
        attn_mask=closed,
        scalar_value=head_dim**-0.5,
        input_layout="BNSD",
        sparse_mode=2 if causal else 0,
    )
    return result[..., :head_dim]


def decode_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Return the attention of one query per row, computed plainly.

    The vendor has operators for this (`incre_flash_attention`, `fused_infer_attention_score`), and they are not used: the
    reference page of the first does not say which value of a mask closes a key, and of the second's twin in torch_npu it is
    reported that masks are ignored beyond key 512 without an error (github.com/vllm-project/vllm-ascend, issue 15503, open
    when this was written). One row of scores needs no fused operator to fit into memory.
    """
    return ops.plain_attention(q, k, v, mask, False)


def packed_attention(q: Tensor, k: Tensor, v: Tensor, segments: Sequence[int], causal: bool) -> Tensor:
    """Return what `ops.attention` does with segments: stretches that do not see each other.

    One call in the layout "TND" where the stretches are causal and there are up to 1024 of them in all rows, as the
    operator asks; the vendor calls that layout experimental. Otherwise one call a stretch.
    """
    batch, heads, positions, head_dim = q.shape
    if not causal or not _is_fused(q) or batch * len(segments) > _MAX_ROWS:
        qs, ks, vs = ops.split(q, segments, 2), ops.split(k, segments, 2), ops.split(v, segments, 2)
        return ops.concat([attention(qs[i], ks[i], vs[i], None, causal) for i in range(len(segments))], 2)
    ends, end = [], 0
    for length in list(segments) * batch:
        end += length
        ends.append(end)
    result = own.flash_attention_score(
        *[_in_one_row(_padded(part)) for part in (q, k, v)],
        head_num=heads,
        attn_mask=_LATER,
        actual_seq_qlen=ends,
        actual_seq_kvlen=ends,
        scalar_value=head_dim**-0.5,
        next_tokens=0,
        input_layout="TND",
        sparse_mode=2,
    )
    return mint.permute(result.reshape((batch, positions, heads, -1)), (0, 2, 1, 3))[..., :head_dim]


def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Return what `ops.rms_norm` does.

    The operator multiplies by its weight before it rounds to the dtype of `x`, and `ops.rms_norm` afterwards: it gets
    ones, in the dtype of `x` as it asks, and the weight comes after it. `eps` is in (0, 1].
    """
    return own.rms_norm(x, own.ones((x.shape[-1],), x.dtype), eps)[0] * weight


def layer_norm(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
    """Return what `ops.layer_norm` does. The operator wants all three in one dtype: unequal ones meet in fp32."""
    if weight is None or bias is None or weight.dtype == bias.dtype == x.dtype:
        return own.layer_norm(x, (x.shape[-1],), weight, bias, eps)
    wide = [ops.cast(part, ms.float32) for part in (x, weight, bias)]
    return ops.cast(own.layer_norm(wide[0], (x.shape[-1],), wide[1], wide[2], eps), x.dtype)


def gelu(x: Tensor, tanh: bool) -> Tensor:
    """Return GELU: the tanh approximation or the exact erf form."""
    return F.gelu(x, approximate="tanh" if tanh else "none")


def take(table: Tensor, ids: Tensor) -> Tensor:
    """Return rows of `table` at int32 or int64 ids. An id that is not there gives an unpredictable row and no error."""
    return F.embedding(ids, table)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the cross-entropy (n,) of fp32 logits (n, classes) and int32 labels (n,)."""
    return F.cross_entropy(logits, labels, reduction="none")


def _is_fused(q: Tensor) -> bool:
    return q.dtype in (ms.float16, ms.bfloat16) and q.shape[3] <= _MAX_HEAD_DIM


def _padded(x: Tensor) -> Tensor:
    """Return x with zeros behind the last axis up to a multiple of 16: they add nothing to a score or to another channel."""
    missing = -x.shape[-1] % _HEAD_DIM_STEP
    return mint.cat((x, own.zeros((*x.shape[:-1], missing), x.dtype)), -1) if missing else x


def _closed(mask: Tensor, batch: int, queries: int, keys: int) -> Tensor:
    """Return the operator's mask, True where a pair is closed: (queries, keys) where all rows and heads share it."""
    closed = mint.logical_not(mask)
    if mask.shape[0] == mask.shape[1] == 1:
        return mint.broadcast_to(closed.reshape(mask.shape[2:]), (queries, keys))
    return mint.broadcast_to(closed, (batch, mask.shape[1], queries, keys))


def _in_one_row(x: Tensor) -> Tensor:
    """Return (batch, heads, positions, head_dim) as (batch·positions, heads, head_dim)."""
    batch, heads, positions, head_dim = x.shape
    return mint.permute(x, (0, 2, 1, 3)).reshape((batch * positions, heads, head_dim))
