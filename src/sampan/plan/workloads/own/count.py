"""This project's own models as blocks of operators: the real module runs on shapes, and its operators are put together.

An operator belongs to the layer within which it is called; layers that cost the same are one block with repeats. How tensor
parallelism divides a layer is said by its name. What multiplies nothing is one operator from one product to the next.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from typing import Any, cast

from sampan.frameworks.shapes import count
from sampan.frameworks.shapes.tape import CostTape, Kernels, Operation
from sampan.plan.records import Grad, Op, Split, WorkloadBlock, attention, memory_op, product

_KERNELS = Kernels(result="tokens")
_VALUE_BYTES = 4  # of the fp32 arrays that are counted here; what a value takes is a matter of the convention
_LAYER = re.compile(r"(.*?\b(?:layers|transformer_blocks|blocks|encoder\.block|down_blocks|up_blocks))\.(\d+)(?=\.|$)")
# lists of layers between which a pipeline may cut
_TRUNKS = ("language_model.layers", "transformer_blocks", "visual.blocks", "encoder.block")
_DIVISION = {
    "columns": r"[qkv]_proj|gate_up_proj|lm_head|to_[qkv]|ff\.net\.0\.proj|qkv|fc1|SelfAttention\.[qkv]|wi_[01]",
    "rows": r"o_proj|down_proj|to_out\.0|ff\.net\.2|attn\.proj|fc2|SelfAttention\.o|wo",
}
_DIVIDED = {split: re.compile(rf"(?:^|\.)(?:{names})$") for split, names in _DIVISION.items()}
MOST_LAYERS = 3  # first, middle, last: the middle one stands for all between


def count_blocks(
    module: Any,
    call: Callable[..., Any],
    arrays: Sequence[Any],
    *,
    grad: Grad = "full",
    trainable: Callable[[str], bool] = lambda name: True,
    num_layers: int = MOST_LAYERS,
    batch: int = 1,
) -> list[WorkloadBlock]:
    """Return what one sample costs.

    Args:
        call: Takes the arrays and computes with the module; where something is trained it returns a loss.
        arrays: `Blank` ones take part as arrays.
        grad: As of a block.
        trainable: Says of a parameter's name whether it is trained, where something is.
        num_layers: Layers that the second of a list with MOST_LAYERS stands for, its neighbours included.
        batch: Samples of the arrays.
    """
    from sampan.frameworks import meter  # here, because it loads a framework

    tape = CostTape(_KERNELS, records=True, division=_division)
    slots = list(meter.parameter_slots(module))

    def weight_dtype(name: str) -> tuple[str, bool]:
        return "fp32", grad != "none" and trainable(name)

    with count.on_shapes(tape, slots, meter.substitutes(tape), weight_dtype):
        given = count.of_batch(tape, tuple(arrays))
        if grad == "none":
            call(*given)
        else:
            tape.measure(lambda: call(*given), batch_bytes=0)
    sizes = {name: float(prod(parameter.shape)) for name, _, _, parameter in count.parameters(slots)}
    groups = _groups(tape)
    _weigh(groups, sizes, trainable if grad != "none" else lambda name: False)
    blocks = (block for group in groups for block in group.blocks(grad, num_layers, batch))
    return fold(blocks)


def fold(blocks: Iterable[WorkloadBlock]) -> list[WorkloadBlock]:
    """Return blocks with equal neighbours put together."""
    folded: list[WorkloadBlock] = []
    for block in blocks:
        if folded and replace(folded[-1], repeat=block.repeat) == block:
            folded[-1] = replace(folded[-1], repeat=folded[-1].repeat + block.repeat)
        else:
            folded.append(block)
    return folded


def _division(name: str) -> str:
    return next((split for split, names in _DIVIDED.items() if names.search(name)), "none")


@dataclass
class _Group:
    """The operators of one call of a layer, or of what is called between layers.

    Args:
        layers: Dotted name of the list that the layer is in; empty between layers.
        number: The layer's place there.
        is_last: Its weights are counted here and not with a later call.
        stands_for_more: It is the one between the first and the last.
    """

    layers: str
    number: int
    operations: list[Operation] = field(default_factory=list)
    kept: float = 0.0
    kept_whole: float = 0.0
    params: float = 0.0
    trained: float = 0.0
    is_last: bool = True
    stands_for_more: bool = False

    @property
    def name(self) -> str:
        """Dotted name of the layer; empty between layers."""
        return f"{self.layers}.{self.number}" if self.layers else ""

    def blocks(self, grad: Grad, num_layers: int, batch: int) -> list[WorkloadBlock]:
        """Return the group as a block, and what of it no gradient goes through as another."""
        silent = [one for one in self.operations if _is_silent(one, grad)]
        main = [one for one in self.operations if one not in silent]
        repeat = num_layers - MOST_LAYERS + 1 if self.stands_for_more else 1
        name = self.layers or "between layers"
        products = [one for one in main if one.kind != "memory"]
        entry = next((one for one in products if _division(_path(one)) == "columns"), None) if self.layers else None
        last = products[-1] if products else None
        wide = (entry.rows, entry.inner) if entry else (last.rows, last.cols) if last else (0, 0)
        ops = tuple(_ops(main, self.name, grad, batch))
        block = WorkloadBlock(
            name=name if self.is_last else f"earlier pass: {name}", ops=ops, repeat=repeat, grad=grad,
            params=self.params, trained_params=self.trained, tokens=wide[0] / batch, width=wide[1],
            sums=sum(_division(_path(one)) == "rows" for one in products) if self.layers else 0,
            kept=self.kept / batch, kept_whole=self.kept_whole / batch,
            is_trunk=self.is_last and self.layers.endswith(_TRUNKS), num_kernels=2.0 * len(ops),
        )  # fmt: skip
        if not silent:
            return [block]
        ops = tuple(_ops(silent, self.name, "none", batch))
        rest = replace(
            block, name=f"{block.name}, without gradient", ops=ops, grad="none", params=0.0, trained_params=0.0,
            sums=0, kept=0.0, kept_whole=0.0, is_trunk=False, num_kernels=2.0 * len(ops),
        )  # fmt: skip
        return [block, rest]


def _is_silent(one: Operation, grad: Grad) -> bool:
    """Say whether no gradient goes through a product, which a block's `grad` would say of it otherwise."""
    return one.kind != "memory" and not one.is_visited and (grad == "full" or (grad == "through" and not one.weights))


def _groups(tape: CostTape) -> list[_Group]:
    """Return the operators by call of a layer, in the order in which they are called."""
    groups: list[_Group] = []
    before: tuple[str, int] | None = None
    seen: dict[str, _Group] = {}
    of_operation = []
    for operation in tape.operations:
        layer = next((one for one in operation.calls if _LAYER.fullmatch(one[0])), None)
        if not groups or layer != before:
            match = _LAYER.fullmatch(layer[0]) if layer else None
            groups.append(_Group(match[1], int(match[2])) if match else _Group("", 0))
            if layer:
                if layer[0] in seen:
                    seen[layer[0]].is_last = False
                seen[layer[0]] = groups[-1]
            before = layer
        groups[-1].operations.append(operation)
        of_operation.append(groups[-1])
    lengths = {group.layers: group.number + 1 for group in groups}
    for group in groups:
        group.stands_for_more = group.number == 1 and lengths[group.layers] == MOST_LAYERS
    for (first, last, is_divided), num_bytes in tape.kept_forward.items():
        group = of_operation[first]
        if group is not of_operation[last] and group.layers:  # the condition, say, which all layers read
            group = groups[max(0, groups.index(group) - 1)]
        if is_divided:
            group.kept += num_bytes / _VALUE_BYTES
        else:
            group.kept_whole += num_bytes / _VALUE_BYTES
    return groups


def _weigh(groups: Sequence[_Group], sizes: dict[str, float], trainable: Callable[[str], bool]) -> None:
    """Give each group its parameters: a layer's to its last call, others to where their module is called last."""
    layers = {group.name: group for group in groups if group.layers}
    callers = {path: group for group in groups for one in group.operations for path, _ in one.calls if not group.layers}
    for name, size in sizes.items():
        match = _LAYER.match(name)
        group = layers.get(match[0]) if match else None
        path = name
        while group is None and path:
            path = path.rpartition(".")[0]
            group = callers.get(path)
        group = group or groups[-1]
        group.params += size
        group.trained += size if trainable(name) else 0.0


def _ops(operations: Sequence[Operation], layer: str, grad: Grad, batch: int) -> list[Op]:
    """Return operators of one sample; what moves values from one product to the next is one."""
    ops: list[Op] = []

    def place(one: Operation) -> tuple[bool, str]:
        numbered = (path for path, _ in reversed(one.calls) if path.rpartition(".")[2].isdecimal())
        return one.kind != "memory", next(numbered, "")

    for (is_product, _), run in itertools.groupby(operations, place):
        parts = list(run)
        if is_product:
            for one in parts:
                ops += _product(one, layer, grad, batch)
        else:
            split: Split = "columns" if parts[-1].is_divided else "none"
            ops.append(memory_op("between products", sum(one.moved for one in parts) / batch, split=split))
    return _with_attention(ops)


def _product(one: Operation, layer: str, grad: Grad, batch: int) -> list[Op]:
    """Return an operator that multiplies, so that its backward pass costs what was counted."""
    path = _path(one)
    name = (path[len(layer) :].removeprefix(".") if one.weights else "") or one.name
    copies, rows = (one.copies / batch, one.rows) if one.copies > 1 else (one.copies, one.rows / batch)
    if one.kind == "attention":
        whole = attention(name, rows, one.cols, copies, one.inner, kv_heads=one.kv_heads / batch, causal=one.is_causal)
        return _apart(whole, one.needs) if grad != "none" and not all(one.needs) else [whole]
    own_weights = float(one.weights or one.copies * one.inner * one.cols)
    num_full = 1 if grad == "full" else 0
    weights = 0.0 if one.gradients == 2 and not (num_full and one.weights) else own_weights
    input_grad = one.gradients > num_full if grad != "none" else True
    if grad == "none" and not one.weights:
        weights = 0.0
    if one.kind == "conv":
        return [
            Op(
                name=name, kind="conv", flops=2.0 * rows * one.inner * one.cols, rows=rows, inner=one.inner, cols=one.cols,
                values=one.cells_in / batch + rows * one.cols, weights=weights, input_grad=input_grad,
            )
        ]  # fmt: skip
    split = "heads" if one.copies > 1 and one.is_divided else _division(path) if one.weights else "none"
    made = product(name, rows, one.inner, one.cols, copies=copies, split=cast(Split, split), input_grad=input_grad)
    return [replace(made, weights=weights)]


def _apart(whole: Op, needs: tuple[bool, ...]) -> list[Op]:
    """Return scores and weighted sum, each with a product for each of its two sides that needs a gradient."""
    q, k, v = needs
    return [
        replace(
            whole, name=f"attention, {name}", kind="matmul", flops=whole.flops / 2, values=whole.values / 2,
            weights=0.0 if sides == 2 else 1.0, input_grad=sides == 1,
        )
        for name, sides in (("scores", q + k), ("weighted sum", (q or k) + v))
    ]  # fmt: skip


def _with_attention(ops: list[Op]) -> list[Op]:
    """Return operators with one attention for scores and weighted sum that are written as two products."""
    found = list(ops)
    for first, second in itertools.combinations([op for op in ops if op.split == "heads" and op.kind == "matmul"], 2):
        if first.copies > 1 and (first.rows, first.inner, first.cols) == (second.rows, second.cols, second.inner):
            whole = attention(first.name, first.rows, first.cols, first.copies, first.inner)
            found[found.index(first)] = whole
            found.remove(second)
    return found


def _path(one: Operation) -> str:
    return one.calls[-1][0] if one.calls else ""
