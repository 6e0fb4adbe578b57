"""Layer classes on MindSpore, with the parameter names of PyTorch's and weights as [out, in, …].

MindSpore's own layers are not used: they name their parameters otherwise (`embedding_table`, `gamma`). A layer calls the
interface's functions through their module, so that replacing one of them (to count, to compare) reaches the layers too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import mindspore as ms
from mindspore import Parameter, Tensor
from mindspore import nn as cells
from mindspore.common.initializer import initializer

from sampan.frameworks.mindspore import ops
from sampan.frameworks.mindspore.device import DTYPES

__all__ = [
    "Conv2d",
    "Embedding",
    "GroupNorm",
    "Identity",
    "Linear",
    "Module",
    "ModuleList",
    "add_low_rank",
    "find_cell",
    "linear_layers",
    "ones_param",
    "put_parameter",
    "token_tables",
    "zeros_param",
]

if TYPE_CHECKING:  # to a type checker, a part of a model is what the model put there
    from collections.abc import Iterator

    class Module(cells.Cell):
        def __getattr__(self, name: str) -> Any: ...

    class ModuleList(cells.CellList):
        def __getitem__(self, index: Any) -> Any: ...
        def __iter__(self) -> Iterator[Any]: ...
else:

    class Module(cells.Cell):
        """A Cell whose `construct` is its `forward`; its parameters have dotted names as soon as it has them."""

        def __init_subclass__(cls, **options: Any):
            super().__init_subclass__(**options)
            if "forward" in cls.__dict__:
                cls.construct = cls.__dict__["forward"]

    ModuleList = cells.CellList


def ones_param(*shape: int) -> Parameter:
    """Return a trainable array of ones."""
    return Parameter(initializer("ones", shape, ms.float32))


def zeros_param(*shape: int) -> Parameter:
    """Return a trainable array of zeros."""
    return Parameter(initializer("zeros", shape, ms.float32))


class Linear(Module):
    """y = Wx + b, and with a LoRA adapter (`add_low_rank`) y = Wx + b + B(A x)·scale."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        super().__init__()
        self.in_features, self.out_features = in_features, out_features
        self.weight = zeros_param(out_features, in_features)
        self.bias = zeros_param(out_features) if bias else None
        self.scale: float | None = None

    def forward(self, x: Any) -> Any:
        result = ops.linear(x, self.weight, self.bias)
        if self.scale is None:
            return result
        return result + ops.cast(self.lora_B(self.lora_A(x)) * self.scale, result.dtype)


class _Factor(Linear):
    """A or B of a LoRA adapter."""


class Embedding(Module):
    """Rows of a table at integer ids."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        super().__init__()
        self.weight = zeros_param(num_embeddings, embedding_dim)

    def forward(self, ids: Any) -> Any:
        return ops.take(self.weight, ids)


class Conv2d(Module):
    """Convolution of (batch, channels, rows, columns) with a square kernel, zeros around."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.weight = zeros_param(out_channels, in_channels, kernel_size, kernel_size)
        self.bias = zeros_param(out_channels)
        self.stride, self.padding = stride, padding

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.weight, self.bias, self.stride, self.padding)


class GroupNorm(Module):
    """Normalise groups of channels of each picture to zero mean and unit variance, then scale and shift each channel."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        super().__init__()
        self.num_groups, self.eps = num_groups, eps
        self.weight, self.bias = ones_param(num_channels), zeros_param(num_channels)

    def forward(self, x: Any) -> Any:
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Identity(Module):
    """Returns what it is given."""

    def forward(self, x: Any) -> Any:
        return x


def linear_layers(module: cells.Cell) -> dict[str, tuple[int, int]]:
    """Return the linear layers of a module by name, each with its (width out, width in)."""
    return {
        name: (layer.out_features, layer.in_features)
        for name, layer in module.cells_and_names()
        if isinstance(layer, Linear) and not isinstance(layer, _Factor)
    }


def add_low_rank(
    module: cells.Cell,
    layers: Mapping[str, tuple[int, float]],
    *,
    device: str | None = None,
    dtype: str = "fp32",
) -> None:
    """Give linear layers a LoRA adapter: from then on y = Wx + b + B(A x)·scale.

    The layer keeps its own names; beside them stand `lora_A.weight` (rank, in) and `lora_B.weight` (out, rank), which are
    PEFT's names for them. Both are zero until they are given values, and take part in training; whether W does is not
    changed.

    Args:
        layers: Name of a linear layer to (rank, scale).
        device: Taken for the other frameworks' sake: MindSpore moves arrays where they are used.
        dtype: "fp32", "bf16" or "fp16", that of A and B; the addition is computed in it, whatever W is in.

    Raises:
        ValueError: A name is not that of a linear layer without an addition.
    """
    found = dict(module.cells_and_names())
    for name, (rank, scale) in layers.items():
        layer = found.get(name)
        if layer is None:
            raise ValueError(f"there is no layer `{name}`")
        if not name or type(layer) is not Linear or layer.scale is not None:
            raise ValueError(f"`{name}` is a {type(layer).__name__}, not a linear layer without an addition")
        layer.lora_A = _Factor(layer.in_features, rank, bias=False)
        layer.lora_B = _Factor(rank, layer.out_features, bias=False)
        layer.scale = scale
        for factor in ("lora_A", "lora_B"):
            put_parameter(module, f"{name}.{factor}.weight", None, DTYPES[dtype])


def put_parameter(
    module: cells.Cell, name: str, value: Tensor | None, dtype: Any, trainable: bool | None = None
) -> None:
    """Put a new parameter in the place of one, since a parameter's dtype cannot be changed.

    Args:
        name: Dotted name of the parameter.
        value: Its new value; None keeps the old one, or keeps it unmade.
        dtype: MindSpore's dtype of the new one.
        trainable: Whether it takes part in training; None keeps what was.
    """
    cell, leaf = find_cell(module, name), name.rpartition(".")[2]
    before = cell._params[leaf]
    if value is None:
        value = initializer("zeros", before.shape, dtype) if before.has_init else before.value().astype(dtype)
    made = Parameter(value, name=name, requires_grad=before.requires_grad if trainable is None else trainable)
    cell._params[leaf] = made


def find_cell(module: Any, name: str) -> Any:
    """Return the cell that owns a parameter of that dotted name."""
    cell = module
    for step in name.split(".")[:-1]:
        cell = cell._cells[step]
    return cell


def token_tables(module: Any) -> set[str]:
    """Return the names of a module's embedding tables."""
    return {
        f"{name}.weight" if name else "weight" for name, cell in module.cells_and_names() if isinstance(cell, Embedding)
    }
