"""What a pass of a real module costs, counted on shapes: FLOPs and bytes, and the operators one by one where that is wanted.

This is the one count of this project's models: plans, the memory estimate before a run and MFU are made of it. The module
may be of any framework. While it is counted, arrays without values stand in the place of its parameters, and the functions
of `sampan.frameworks.shapes` in the place of its framework's; afterwards everything is as before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

from sampan.frameworks.records import ParameterCount, PassCost
from sampan.frameworks.shapes import ops
from sampan.frameworks.shapes.array import Blank, of_batch, weight
from sampan.frameworks.shapes.tape import CostTape

Slots = Iterable[tuple[str, Any, dict[str, Any]]]
"""The modules in a module by dotted name, each with the dictionary in which its own parameters are."""


def count_parameters(
    slots: Slots, tables: Iterable[str], trainable: Callable[[str], bool], frozen_rows: Mapping[str, int] | None
) -> tuple[ParameterCount, int]:
    """Count the values of a module's parameters; return them and the values of the largest trained one.

    Args:
        tables: Names of embedding tables.
        trainable: Says of a parameter's name whether it is trained.
        frozen_rows: Name of a parameter to the first of its rows that is never changed.
    """
    from sampan.frameworks.quantized import is_quantized  # here, because a plan needs no NumPy, which it loads

    tables, trained, coded, frozen, in_rows, largest = set(tables), 0, 0, 0, 0, 0
    for name, _, _, parameter in parameters(slots):
        values = prod(parameter.shape)
        if not trainable(name):
            frozen += values
            continue
        rows = parameter.shape[0] if parameter.shape else 1
        used = values // rows * min((frozen_rows or {}).get(name, rows), rows)
        trained, in_rows, largest = trained + used, in_rows + values - used, max(largest, used)
        coded += used if is_quantized(used, name in tables) else 0
    return ParameterCount(trained, coded, frozen, in_rows), largest


def count_pass(
    tape: CostTape,
    slots: Slots,
    substitutes: Mapping[tuple[Any, str], Any],
    weight_dtype: Callable[[str], tuple[str, bool]],
    call: Callable[..., Any],
    arrays: Sequence[Any],
) -> PassCost:
    """Count a loss, forward and backward.

    Args:
        slots: Of the module that `call` computes with.
        substitutes: As `on_shapes` takes them.
        weight_dtype: Returns a parameter's dtype, and whether it is trained, by its name.
        call: Takes the arrays; returns a scalar, or a tuple that begins with one. It may not look at values.
        arrays: Blank ones take part as arrays; the rest stays as it is.

    Raises:
        TypeError: The loss looks at values.
        ValueError: Nothing that is trained takes part in it.
    """
    with on_shapes(tape, slots, substitutes, weight_dtype):
        batch = of_batch(tape, tuple(arrays))
        num_bytes = sum(each.nbytes for each in arrays if isinstance(each, Blank))
        return tape.measure(lambda: call(*batch), batch_bytes=num_bytes)


@contextmanager
def on_shapes(
    tape: CostTape,
    slots: Slots,
    substitutes: Mapping[tuple[Any, str], Any],
    weight_dtype: Callable[[str], tuple[str, bool]],
) -> Iterator[None]:
    """Let a module compute on shapes while the block runs.

    Args:
        substitutes: (class or module, name of a function of it) to what takes its place.
    """
    modules = list(slots)
    held = list(parameters(modules))
    before = {key: vars(key[0]).get(key[1]) for key in substitutes}
    tape.paths = {id(module): path for path, module, _ in modules}
    try:
        for (owner, attribute), replacement in substitutes.items():
            setattr(owner, attribute, replacement)
        for name, leaf, holder, parameter in held:
            dtype, is_trained = weight_dtype(name)
            holder[leaf] = weight(tape, parameter.shape, dtype, trained=is_trained)
        yield
    finally:
        for (owner, attribute), function in before.items():
            if function is None:
                delattr(owner, attribute)
            else:
                setattr(owner, attribute, function)
        for _, leaf, holder, parameter in held:
            holder[leaf] = parameter


def calling(tape: CostTape) -> Callable[..., Any]:
    """Return what calls a module's `forward` and tells the tape whose operations follow."""

    def call(self: Any, *arguments: Any, **named: Any) -> Any:
        with tape.inside(self):
            return self.forward(*arguments, **named)

    return call


def functions(owner: Any) -> dict[tuple[Any, str], Any]:
    """Return substitutes for the functions of a framework's `ops`."""
    return {(owner, name): getattr(ops, name) for name in ops.__all__ if name in vars(owner)}


def parameters(slots: Slots) -> Iterator[tuple[str, str, dict[str, Any], Any]]:
    """Yield a module's parameters: dotted name, name in its holder, the holder, and what is there."""
    for path, _, holder in slots:
        for leaf, parameter in holder.items():
            if parameter is not None:
                yield f"{path}.{leaf}" if path else leaf, leaf, holder, parameter
