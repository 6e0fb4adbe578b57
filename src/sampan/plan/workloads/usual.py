"""Language models of which only sizes are known: shapes as they are usual for so many parameters.

A shape is a guess, and its workload says so; what follows from it has the interval of runs whose sizes were assumed.
"""

from __future__ import annotations

from dataclasses import replace

from sampan.plan.records import Workload
from sampan.plan.workloads.language import ExpertsShape, LanguageShape, language_model

_HEAD_DIM = 128
_VOCAB = 128_000
_FFN_RATIO = 8 / 3  # of a feed-forward layer with a gate, so that it has 8 h² values
_PER_LAYER = 10.5  # h² values: attention with a quarter of the keys and values has 2.5, the feed-forward layer 8
_PER_TOKEN = 8  # experts that a token goes to
NOTE = "layers and width are not given: what is usual for so many parameters is taken"


def usual_model(
    name: str, params: float, seq_len: float, *, active_params: float | None = None, method: str = "full"
) -> Workload:
    """Return a language model with so many parameters: as many layers as its width has heads of 128.

    Args:
        params: All of them; `active_params` those that a token meets, for a model with experts.
        seq_len: Tokens of a sample.
    """
    width = _width(active_params or params)
    layers = max(1, width // _HEAD_DIM)
    shape = LanguageShape(
        layers=layers, hidden=width, ffn=_FFN_RATIO * width, heads=layers, kv_heads=max(1, layers // 4), vocab=_VOCAB
    )
    if active_params is not None and params > active_params:
        # of a layer's 8 h² feed-forward values a token meets those of eight experts; the others make up the rest
        num = max(_PER_TOKEN, round((params - active_params) / (layers * width**2) + _PER_TOKEN))
        shape = replace(shape, experts=ExpertsShape(num=num, per_token=_PER_TOKEN, ffn=_FFN_RATIO * width / _PER_TOKEN))
    made = language_model(name, shape, seq_len, method=method)
    return replace(made, notes=(*made.notes, NOTE))


def _width(params: float) -> int:
    """Return the multiple of 128 whose model comes nearest: h / 128 layers, embedding and head."""
    width = _HEAD_DIM
    while _params(width + _HEAD_DIM) <= params:
        width += _HEAD_DIM
    return width if params - _params(width) <= _params(width + _HEAD_DIM) - params else width + _HEAD_DIM


def _params(width: int) -> float:
    return _PER_LAYER * width**3 / _HEAD_DIM + 2 * _VOCAB * width
