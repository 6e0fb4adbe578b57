"""A case or more for every name in OPS_NAMES, and for the layers in NN_NAMES."""

from __future__ import annotations

from typing import Any

import numpy as np

from contract.case import Case, Inputs, away_from, normal
from sampan.frameworks import nn, ops


def _x(*shape: int, **more: Any) -> Any:
    return lambda random: {"x": normal(random, *shape), **more}


def _of(name: str) -> Any:
    return lambda module, given: getattr(ops, name)(given["x"])


def _layer(module: Any, given: Inputs) -> Any:
    return module(given["x"])


def _attention(**options: Any) -> Any:
    def compute(module: Any, given: Inputs) -> Any:
        return ops.attention(given["q"], given["k"], given["v"], mask=given.get("mask"), **options)

    return compute


def _qkv(queries: int, keys: int, heads: int = 4, kv_heads: int = 4, mask: tuple[int, ...] | None = None) -> Any:
    def draw(random: np.random.Generator) -> Inputs:
        given: Inputs = {
            "q": normal(random, 2, heads, queries, 6),
            "k": normal(random, 2, kv_heads, keys, 6),
            "v": normal(random, 2, kv_heads, keys, 6),
        }
        if mask is not None:
            given["mask"] = random.random(mask) < 0.6
            given["mask"][..., 0] = True  # every query sees something
        return given

    return draw


def _norm_inputs(random: np.random.Generator) -> Inputs:
    return {"x": 2 * normal(random, 2, 3, 8) + 1, "weight": normal(random, 8), "bias": normal(random, 8)}


def _linear_inputs(random: np.random.Generator) -> Inputs:
    return {"x": normal(random, 2, 3, 5), "weight": normal(random, 4, 5), "bias": normal(random, 4)}


def _scores(random: np.random.Generator) -> Inputs:
    weights = np.array([1, 0, 2, 0.5, 1, 0], np.float32)
    return {"x": 3 * normal(random, 6, 7), "labels": random.integers(0, 7, 6), "weights": weights}


def _cache(random: np.random.Generator) -> Inputs:
    return {"cache": normal(random, 2, 2, 7, 3), "new": normal(random, 2, 2, 3, 3), "start": np.array(2)}


def _ties(random: np.random.Generator) -> Inputs:
    return {"x": random.integers(0, 3, (6, 12)).astype(np.float32)}


def _written(module: Any, given: Inputs) -> Any:
    # a copy, because a framework may write into the cache that it is given
    return ops.cache_write(given["cache"] * 1.0, given["new"], given["start"])


def _straight(module: Any, given: Inputs) -> Any:
    x = given["x"]
    return x * ops.stop_gradient(ops.exp(x))


def _checkpointed(module: Any, given: Inputs) -> Any:
    return ops.checkpoint(lambda a, b: ops.silu(a) * b, given["x"], given["y"])


def _passed_on(module: Any, given: Inputs) -> Any:
    """Split an array whose axes were exchanged, and join its parts again, one of them as it is: what a rotation does."""
    first, second, rest = ops.split(ops.permute(given["x"], (0, 2, 1, 3)), (2, 2, 4), -1)
    return ops.concat((second * 2, first * 3, rest), -1)


def _where(module: Any, given: Inputs) -> tuple[Any, Any]:
    return ops.where(given["is_left"], given["x"], given["y"]), ops.where(given["is_left"], given["x"], -1.5)


def _op(name: str, inputs: Any, compute: Any, **more: Any) -> Case:
    return Case(name, "op", inputs, compute, **more)


def _positive(*shape: int) -> Any:
    return lambda random: {"x": np.exp(normal(random, *shape))}


def _pair(random: np.random.Generator) -> Inputs:
    return {"x": normal(random, 2, 3, 4), "y": normal(random, 2, 3, 4)}


OPS = [
    # an integer that becomes fp32 is exact, and fp32 that becomes int32 loses what is after the point
    _op("float32", lambda r: {"x": r.integers(-9, 9, (3, 4))}, lambda m, g: ops.cast(g["x"], ops.float32)),
    _op("int32", _x(3, 4), lambda m, g: ops.cast(g["x"] * 4, ops.int32), has_gradient=False, is_exact=True),
    _op("cast", _x(3, 4), lambda m, g: ops.cast(g["x"], ops.float32)),
    _op("permute", _x(2, 3, 4, 5), lambda m, g: ops.permute(g["x"], (2, 0, 3, 1))),
    _op("concat", _pair, lambda m, g: (ops.concat((g["x"], g["y"]), 1), ops.concat([g["y"], g["x"]], -1))),
    _op("chunk", _x(2, 6, 4), lambda m, g: (*ops.chunk(g["x"], 3, 1), *ops.chunk(g["x"], 2, -1))),
    _op("split", _x(2, 6, 4), lambda m, g: (*ops.split(g["x"], (1, 3, 2), 1), *ops.split(g["x"], [3, 1], -1))),
    _op("split/passed on", _x(2, 5, 3, 8), _passed_on),
    _op("where", lambda r: {**_pair(r), "is_left": r.random((2, 3, 4)) < 0.5}, _where),
    _op("mean/all", _x(2, 3, 4), _of("mean")),
    _op("mean/axis", _x(2, 3, 4), lambda m, g: (ops.mean(g["x"], 1), ops.mean(g["x"], -1))),
    _op("mean/axes", _x(2, 3, 4, 5), lambda m, g: ops.mean(g["x"], (1, 3))),
    _op("sum/all", _x(2, 3, 4), _of("sum")),
    _op("sum/axis", _x(2, 3, 4), lambda m, g: (ops.sum(g["x"], 0), ops.sum(g["x"], -1))),
    _op("sum/axes", _x(2, 3, 4, 5), lambda m, g: ops.sum(g["x"], (1, 2, 3))),
    _op("exp", _x(3, 5), _of("exp")),
    _op("abs", lambda r: {"x": away_from((0,), normal(r, 3, 5))}, _of("abs")),
    _op("sqrt", _positive(3, 5), _of("sqrt")),
    _op("clip", lambda r: {"x": away_from((-0.7, 0.4), normal(r, 4, 6))}, lambda m, g: ops.clip(g["x"], -0.7, 0.4)),
    _op("linear/bias", _linear_inputs, lambda m, g: ops.linear(g["x"], g["weight"], g["bias"])),
    _op("linear/plain", _linear_inputs, lambda m, g: ops.linear(g["x"], g["weight"]), constants=("bias",)),
    _op(
        "take",
        lambda r: {"table": normal(r, 6, 4), "ids": r.integers(0, 6, (3, 5))},  # some rows more than once, some never
        lambda m, g: ops.take(g["table"], g["ids"]),
    ),
    _op("argmin/axis", _x(5, 9), lambda m, g: ops.argmin(g["x"], 0), has_gradient=False, is_exact=True),
    _op("argmin/ties", _ties, lambda m, g: ops.argmin(g["x"], -1), has_gradient=False, is_exact=True),
    _op("softmax/last", lambda r: {"x": 4 * normal(r, 2, 3, 6)}, lambda m, g: ops.softmax(g["x"], -1)),
    _op("softmax/middle", _x(2, 6, 3), lambda m, g: ops.softmax(g["x"], 1)),
    _op("softmax/far", lambda r: {"x": normal(r, 3, 4) + 500}, lambda m, g: ops.softmax(g["x"], -1)),
    _op("silu", lambda r: {"x": 3 * normal(r, 4, 5)}, _of("silu")),
    _op("gelu/tanh", lambda r: {"x": 2 * normal(r, 4, 5)}, lambda m, g: ops.gelu(g["x"], tanh=True)),
    _op("gelu/erf", lambda r: {"x": 2 * normal(r, 4, 5)}, lambda m, g: ops.gelu(g["x"], tanh=False)),
    _op("rms_norm", _norm_inputs, lambda m, g: ops.rms_norm(g["x"], g["weight"], 1e-2), constants=("bias",)),
    _op(
        "layer_norm/plain", _norm_inputs, lambda m, g: ops.layer_norm(g["x"], 1e-2), constants=("weight", "bias")
    ),
    _op("layer_norm/affine", _norm_inputs, lambda m, g: ops.layer_norm(g["x"], 1e-2, g["weight"], g["bias"])),
    _op("normalize", _x(2, 4, 5), _of("normalize")),
    _op("normalize/zero", lambda r: {"x": np.zeros((2, 3), np.float32)}, _of("normalize"), has_gradient=False),
    _op("attention/plain", _qkv(3, 5), _attention()),
    _op("attention/grouped", _qkv(4, 4, kv_heads=2), _attention()),
    _op("attention/causal", _qkv(5, 5, kv_heads=2), _attention(causal=True)),
    _op("attention/mask", _qkv(3, 5, mask=(2, 1, 3, 5)), _attention()),
    _op("attention/key mask", _qkv(3, 5, kv_heads=1, mask=(2, 1, 1, 5)), _attention()),
    _op("attention/segments", _qkv(6, 6, kv_heads=2), _attention(segments=(2, 3, 1))),
    _op("attention/causal segments", _qkv(6, 6, kv_heads=2), _attention(segments=(2, 3, 1), causal=True)),
    _op(
        "cross_entropy", _scores, lambda m, g: ops.cross_entropy(g["x"], g["labels"], g["weights"]),
        constants=("weights",),
    ),
    _op("upsample_nearest", _x(2, 3, 2, 4), lambda m, g: (ops.upsample_nearest(g["x"], 2), ops.upsample_nearest(g["x"], 3))),
    _op("pad_right_bottom", _x(2, 3, 2, 4), _of("pad_right_bottom")),
    _op("cache_write", _cache, _written),
    _op("stop_gradient", _x(3, 4), _straight, needs=("exp",)),
    _op("checkpoint", _pair, _checkpointed),
]  # fmt: skip

LAYERS = [
    Case("Linear", "layer", _x(2, 3, 6), _layer, lambda: nn.Linear(6, 4)),
    Case("Linear/no bias", "layer", _x(2, 3, 6), _layer, lambda: nn.Linear(6, 4, bias=False)),
    Case("Embedding", "layer", lambda r: {"x": r.integers(0, 7, (2, 5))}, _layer, lambda: nn.Embedding(7, 4)),
    Case("Conv2d/padded", "layer", _x(2, 3, 6, 5), _layer, lambda: nn.Conv2d(3, 4, 3, padding=1)),
    Case("Conv2d/stride", "layer", _x(2, 3, 7, 6), _layer, lambda: nn.Conv2d(3, 4, 3, stride=2)),
    Case("Conv2d/stride padded", "layer", _x(2, 1, 8, 6), _layer, lambda: nn.Conv2d(1, 4, 5, stride=2, padding=2)),
    Case("Conv2d/pointwise", "layer", _x(2, 3, 4, 4), _layer, lambda: nn.Conv2d(3, 5, 1)),
    Case("GroupNorm", "layer", _x(2, 6, 3, 4), _layer, lambda: nn.GroupNorm(3, 6, eps=1e-3)),
    Case("Identity", "layer", _x(2, 3), _layer, nn.Identity),
    Case(
        "ModuleList", "layer", _x(2, 6), lambda m, g: m[1](m[0](g["x"])),
        lambda: nn.ModuleList([nn.Linear(6, 5), nn.Linear(5, 4)]),
    ),
]  # fmt: skip
