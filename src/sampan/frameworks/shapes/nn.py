"""Layer classes without values, with the parameter names of PyTorch's and weights as [out, in, …].

A parameter is a shape until a pass is counted; then it is an array of that shape (`sampan.frameworks.shapes.meter`). Other
frameworks' layers compute on shapes by the `forward` of these.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from sampan.frameworks.shapes import ops
from sampan.frameworks.shapes.tape import Shape

__all__ = [
    "Conv2d", "Embedding", "GroupNorm", "Identity", "Linear", "LowRankLinear", "Module", "ModuleList", "Parameter",
    "add_low_rank", "linear_layers", "ones_param", "parameter_slots", "zeros_param",
]  # fmt: skip


class Parameter:
    """The shape of a weight."""

    __slots__ = ("shape",)

    def __init__(self, *shape: int):
        self.shape: Shape = shape


ones_param = zeros_param = Parameter


class Module:
    """Something with parameters and parts, found in the order in which they were set."""

    forward: Any
    _parameters: dict[str, Any]

    def __setattr__(self, name: str, value: Any) -> None:
        if isinstance(value, Parameter):
            vars(self).setdefault("_parameters", {})[name] = value
        else:
            super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:  # of what is not found otherwise
        try:
            return vars(self).get("_parameters", {})[name]
        except KeyError:
            raise AttributeError(f"{type(self).__name__} has no `{name}`") from None

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        return self.forward(*arguments, **named)

    def parts(self) -> Iterator[tuple[str, Module]]:
        """Yield what the module is made of, by name."""
        return ((name, part) for name, part in vars(self).items() if isinstance(part, Module))


class ModuleList(Module):
    """Modules named by their number."""

    def __init__(self, modules: list[Any]):
        self._modules = list(modules)

    def __getitem__(self, index: int) -> Any:
        return self._modules[index]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)

    def parts(self) -> Iterator[tuple[str, Module]]:
        """Yield the modules, by number."""
        return ((str(number), part) for number, part in enumerate(self._modules))


class Linear(Module):
    """y = Wx + b."""

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        self.in_features, self.out_features = in_features, out_features
        self.weight: Any = Parameter(out_features, in_features)
        self.bias: Any = Parameter(out_features) if bias else None

    def forward(self, x: Any) -> Any:
        return ops.linear(x, self.weight, self.bias)


class LowRankLinear(Linear):
    """y = Wx + b + B(A x)·scale; it takes the place of a plain layer and keeps its weights."""

    def __init__(self, layer: Linear, rank: int, scale: float):
        vars(self).update(vars(layer))
        self.scale = scale
        self.lora_A = _Factor(layer.in_features, rank, bias=False)
        self.lora_B = _Factor(rank, layer.out_features, bias=False)

    def forward(self, x: Any) -> Any:
        result = ops.linear(x, self.weight, self.bias)
        return ops.cast(result + self.lora_B(self.lora_A(x)) * self.scale, result.dtype)


class _Factor(Linear):
    """A or B of a low-rank addition."""


class Embedding(Module):
    """Rows of a table at integer ids."""

    def __init__(self, num_embeddings: int, embedding_dim: int):
        self.weight: Any = Parameter(num_embeddings, embedding_dim)

    def forward(self, ids: Any) -> Any:
        return ops.take(self.weight, ids)


class Conv2d(Module):
    """Convolution of (batch, channels, rows, columns) with a square kernel, zeros around."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int = 1, padding: int = 0):
        self.weight: Any = Parameter(out_channels, in_channels, kernel_size, kernel_size)
        self.bias: Any = Parameter(out_channels)
        self.stride, self.padding = (stride, stride), (padding, padding)

    def forward(self, x: Any) -> Any:
        return ops.conv2d(x, self.weight, self.bias, self.stride[0], self.padding[0])


class GroupNorm(Module):
    """Normalise groups of channels of each picture to zero mean and unit variance, then scale and shift each channel."""

    def __init__(self, num_groups: int, num_channels: int, eps: float = 1e-5):
        self.num_groups, self.eps = num_groups, eps
        self.weight: Any = Parameter(num_channels)
        self.bias: Any = Parameter(num_channels)

    def forward(self, x: Any) -> Any:
        return ops.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class Identity(Module):
    """Returns what it is given."""

    def forward(self, x: Any) -> Any:
        return x


def named_modules(module: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """Yield a module and all in it, each with its dotted name."""
    yield path, module
    for name, part in module.parts():
        yield from named_modules(part, f"{path}.{name}" if path else name)


def parameter_slots(module: Module) -> Iterator[tuple[str, Module, dict[str, Any]]]:
    """Yield a module and all in it by dotted name, each with the dictionary in which its own parameters are."""
    return ((path, part, vars(part).get("_parameters", {})) for path, part in named_modules(module))


def linear_layers(module: Module) -> dict[str, tuple[int, int]]:
    """Return the linear layers of a module by name, each with its (width out, width in)."""
    return {
        name: (layer.out_features, layer.in_features)
        for name, layer in named_modules(module)
        if isinstance(layer, Linear) and not isinstance(layer, _Factor)
    }


def add_low_rank(
    module: Module, layers: Mapping[str, tuple[int, float]], *, device: str | None = None, dtype: str = "fp32"
) -> None:
    """Give linear layers a low-rank addition, as the other frameworks' function of this name does.

    Args:
        layers: Name of a linear layer to (rank, scale).
        device, dtype: Taken for the other frameworks' sake: here nothing has either before a pass is counted.

    Raises:
        ValueError: A name is not that of a linear layer without an addition.
    """
    found = dict(named_modules(module))
    for name, (rank, scale) in layers.items():
        layer = found.get(name)
        if type(layer) is not Linear or not name:
            raise ValueError(f"`{name}` is not a linear layer without an addition")
        parent, _, leaf = name.rpartition(".")
        added = LowRankLinear(layer, rank, scale)
        holder = found[parent]
        if isinstance(holder, ModuleList):
            holder._modules[int(leaf)] = added
        else:
            setattr(holder, leaf, added)
