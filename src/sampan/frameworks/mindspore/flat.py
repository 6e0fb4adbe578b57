"""Trained tensors as flat fp32 vectors, of which each rank holds a slice (ZeRO-1, Rajbhandari et al. 2020).

Tensors that are updated alike lie one after another in one vector: those with the same decay, the same number of updates
and the same kind of moments. Its length divides by the number of ranks, so that rank r holds the r-th equal part of master
weights, moments and average, updates it, and gathers the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Any

import mindspore as ms
import numpy as np
from mindspore import Tensor, mint

from sampan.frameworks.mindspore import blockwise, parallel
from sampan.frameworks.optimizer import MOMENTS
from sampan.frameworks.quantized import BLOCK, num_blocks

MOST_VALUES = 2**28  # of a vector with more than one tensor: in a step every rank has one or two of them whole


@dataclass(frozen=True)
class VectorKind:
    """What tensors of one vector have in common.

    Args:
        decay: Weight decay.
        count: Updates so far.
        starts: Updates of the whole before theirs begin.
        quantized: Moments are held in 8 bits.
    """

    decay: float
    count: int
    starts: int
    quantized: bool


@dataclass
class FlatVector:
    """One vector: where its tensors lie, and this rank's slice of what is kept of them.

    Args:
        shapes: Of its tensors, in order.
        kept: "exp_avg", "exp_avg_sq" (or these with ".codes" and ".scales"), "average", and "master" where working
            weights are not fp32.
    """

    kind: VectorKind
    shapes: dict[str, tuple[int, ...]]
    kept: dict[str, Tensor] = field(default_factory=dict)
    count: int = 0

    def __post_init__(self) -> None:
        self.count = self.kind.count
        step = BLOCK if self.kind.quantized else 1
        self.sizes = {name: prod(shape) for name, shape in self.shapes.items()}
        self.rooms = {name: -(-size // step) * step for name, size in self.sizes.items()}
        whole = sum(self.rooms.values())
        self.slice_size = -(-whole // (parallel.num_ranks() * step)) * step
        self.size = self.slice_size * parallel.num_ranks()

    def joined(self, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return tensors, by name, as the whole vector in fp32."""
        pieces = []
        for name, size in self.sizes.items():
            pieces.append(tensors[name].reshape(-1).astype(ms.float32))
            if gap := self.rooms[name] - size:
                pieces.append(_zeros(gap))
        if gap := self.size - sum(self.rooms.values()):
            pieces.append(_zeros(gap))
        return mint.cat(pieces) if len(pieces) > 1 else pieces[0]

    def parted(self, vector: Tensor) -> dict[str, Tensor]:
        """Return the tensors, by name, that a whole vector holds."""
        rest = self.size - sum(self.rooms.values())
        pieces = mint.split(vector, (*self.rooms.values(), *([rest] if rest else [])), 0)
        return {
            name: piece[: self.sizes[name]].reshape(shape)
            for (name, shape), piece in zip(self.shapes.items(), pieces, strict=False)
        }

    def own(self, vector: Tensor) -> Tensor:
        """Return this rank's slice of a whole vector."""
        if parallel.num_ranks() == 1:
            return vector
        first = parallel.rank() * self.slice_size
        return vector[first : first + self.slice_size]

    def moment(self, name: str) -> Tensor:
        """Return this rank's slice of a moment in fp32; zeros before the first update."""
        if f"{name}.codes" in self.kept:
            return blockwise.decode(self.kept[f"{name}.codes"], self.kept[f"{name}.scales"], MOMENTS[name])
        return self.kept[name] if name in self.kept else _zeros(self.slice_size)

    def keep_moment(self, name: str, values: Tensor) -> None:
        """Keep this rank's slice of a moment."""
        if self.kind.quantized:
            codes, scales = blockwise.encode(values, MOMENTS[name])
            self.kept[f"{name}.codes"], self.kept[f"{name}.scales"] = codes, scales
        else:
            self.kept[name] = values

    def moments_by_name(self) -> dict[str, Any]:
        """Return whole moments as a checkpoint holds them, on the host; gathers from every rank."""
        found: dict[str, Any] = {}
        for key in sorted(self.kept.keys() - {"average", "master"}):
            vector = _whole_on_host(self.kept[key])
            step = 1
            if key.endswith(".scales"):
                step = BLOCK
            first = 0
            for name, shape in self.shapes.items():
                size = num_blocks(self.sizes[name]) if step > 1 else self.sizes[name]
                piece = vector[first : first + size]
                found[f"{name}.{key}"] = piece if step > 1 else piece.reshape(shape)
                first += self.rooms[name] // step
        return found

    def load_moments(self, moments: Mapping[str, Any]) -> dict[str, int]:
        """Take over moments, given whole by name on the host; return how many were converted, by what they are now."""
        converted = {"8 bits": 0, "fp32": 0}
        for moment, signed in MOMENTS.items():
            pieces = {}
            for name in self.shapes:
                key = f"{name}.{moment}"
                was_quantized = f"{key}.codes" in moments
                if was_quantized != self.kind.quantized:
                    converted["8 bits" if self.kind.quantized else "fp32"] += 1
                pieces[name] = _decoded(moments, key, signed) if was_quantized else Tensor(moments[key])
            self.keep_moment(moment, self.own(self.joined(pieces)))
        return converted


def vectors(shapes: Mapping[str, tuple[int, ...]], kinds: Mapping[str, VectorKind]) -> list[FlatVector]:
    """Return tensors sorted into vectors, none much longer than MOST_VALUES unless one tensor is.

    Args:
        shapes, kinds: By name of a tensor.
    """
    grouped: dict[VectorKind, list[dict[str, tuple[int, ...]]]] = {}
    for name, shape in shapes.items():
        groups = grouped.setdefault(kinds[name], [{}])
        if groups[-1] and sum(map(prod, groups[-1].values())) + prod(shape) > MOST_VALUES:
            groups.append({})
        groups[-1][name] = shape
    return [FlatVector(kind, members) for kind, groups in grouped.items() for members in groups]


def _decoded(moments: Mapping[str, Any], key: str, signed: bool) -> Tensor:
    codes, scales = moments[f"{key}.codes"], moments[f"{key}.scales"]
    flat = np.zeros(len(scales) * BLOCK, np.uint8)
    flat[: codes.size] = codes.reshape(-1)
    return blockwise.decode(Tensor(flat), Tensor(scales), signed)[: codes.size].reshape(codes.shape)


def _whole_on_host(part: Tensor) -> np.ndarray[Any, Any]:
    values = part if part.dtype != ms.uint8 else part.astype(ms.float32)  # what every backend gathers
    return parallel.whole(values).asnumpy().astype(part.asnumpy().dtype)


def _zeros(size: int) -> Tensor:
    return Tensor(np.zeros(size, np.float32))
