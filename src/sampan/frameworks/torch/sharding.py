"""How the ranks share a module: whole on every rank (DDP), or each block's weights in slices of rows (FSDP2, HSDP).

With slices a rank holds its rows of every trained fp32 weight and nothing whole. A block is gathered when it is computed,
the next one meanwhile, and given up after it; its gradient is added up over the ranks in fp32 and cut into the same rows.
Rows of a table that are never trained are not cut: every rank has them, and they are neither gathered nor have a gradient.

Source: PyTorch's `fully_shard` (Zhao et al. 2023; FSDP2), and `DistributedDataParallel` (Li et al. 2020).
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from sampan.frameworks import weight_files
from sampan.frameworks.torch import parallel
from sampan.frameworks.torch.device import DTYPES
from sampan.frameworks.torch.io import HeldRows

Shape = tuple[int, ...]
_BLOCKS = ("layers", "transformer_blocks", "blocks")  # lists of what is computed one after another
FROZEN = "frozen_rows"  # parameter of a table for its rows that are not trained


@dataclass(frozen=True)
class ShardPlan:
    """How a module is shared.

    Args:
        replicate, shard: Degrees of the mesh.
        device: Of this rank.
        gathered_dtype: Blocks are gathered in it; None gathers what is held.
    """

    replicate: int
    shard: int
    device: str
    gathered_dtype: torch.dtype | None = None

    @property
    def is_sharded(self) -> bool:
        """Whether weights are held in slices; plain DDP holds them whole."""
        return self.shard > 1


class Pass(torch.nn.Module):
    """A loss over a module, as one call: what a module's root gathers is there for whatever the loss asks it."""

    def __init__(self, module: torch.nn.Module):
        super().__init__()
        self.module = module

    def forward(self, loss: Callable[..., Any], *batch: Any) -> Any:
        return loss(self.module, *batch)


class SplitEmbedding(torch.nn.Embedding):
    """A table of which the first rows are trained and the others are not; they are two parameters."""

    def __init__(self, table: torch.nn.Embedding, num_trained: int):
        torch.nn.Module.__init__(self)  # not Embedding's, which would make weights of its own
        rows = table.weight.detach()
        self.weight = torch.nn.Parameter(rows[:num_trained].clone())
        self.frozen_rows = torch.nn.Parameter(rows[num_trained:].clone(), requires_grad=False)

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002  # the name that torch has for it
        ids, count = input, self.weight.shape[0]
        trained = F.embedding(ids.clamp(max=count - 1), self.weight)
        frozen = F.embedding((ids - count).clamp(min=0), self.frozen_rows)
        return torch.where((ids < count)[..., None], trained, frozen)


def shard(
    module: torch.nn.Module,
    plan: ShardPlan,
    *,
    dtype: Callable[[str], str],
    trainable: Callable[[str], bool],
    frozen_rows: Mapping[str, int],
) -> ShardedModule:
    """Share a module whose weights are on the meta device, by slices, and give this rank memory for its own.

    Args:
        dtype: Returns "fp32" or "bf16" for a parameter's name.
        trainable: Says of a parameter's name whether it is trained.
        frozen_rows: Parameter name of a table to its first row that is not trained.
    """
    for name, parameter in module.named_parameters():
        parameter.data = parameter.data.to(DTYPES[dtype(name)])
        parameter.requires_grad_(trainable(name))
    skeleton = copy.deepcopy(module)  # without memory; filled when the whole module is asked for
    for name, count in frozen_rows.items():
        parent, _, child = name.removesuffix(".weight").rpartition(".")
        table = module.get_submodule(name.removesuffix(".weight"))
        setattr(module.get_submodule(parent), child, SplitEmbedding(table, count))  # pyright: ignore[reportArgumentType]
    kept = {p for name, p in module.named_parameters() if name.endswith(f".{FROZEN}")}
    root = Pass(module)
    mesh = parallel.mesh(plan.device, plan.replicate, plan.shard)
    inner = MixedPrecisionPolicy(plan.gathered_dtype, torch.float32, cast_forward_inputs=False)
    outer = MixedPrecisionPolicy(None, torch.float32, cast_forward_inputs=False)
    # PyTorch warns, on every rank, of views that a block returns, lest they be changed in place; ours changes nothing so
    warnings.filterwarnings("ignore", "FSDP2-wrapped module .* returned a view tensor", UserWarning)
    blocks = list(blocks_of(module))
    for block in blocks:
        fully_shard(block, mesh=mesh, mp_policy=inner)
    for here, after in pairwise(blocks):
        here.set_modules_to_forward_prefetch([after])  # pyright: ignore[reportCallIssue]
        after.set_modules_to_backward_prefetch([here])  # pyright: ignore[reportCallIssue]
    fully_shard(root, mesh=mesh, mp_policy=outer, ignored_params=kept)
    root.to_empty(device=plan.device)
    return ShardedModule(module, root, plan, skeleton, dict(frozen_rows))


def blocks_of(module: torch.nn.Module) -> Iterator[torch.nn.Module]:
    """Yield what a module computes one after another, each by one call."""
    for name, part in module.named_modules():
        if isinstance(part, torch.nn.ModuleList) and name.rpartition(".")[2] in _BLOCKS:
            yield from part


def gathered_bytes(module: torch.nn.Module, block_bytes: int, dtype_bytes: int, frozen_rows: Mapping[str, int]) -> int:
    """Return what a rank has whole at a time of a module that is shared by slices: weights and their gradients.

    Args:
        block_bytes, dtype_bytes: Of a value of a block as it is gathered, and of another one.
        frozen_rows: Parameter name of a table to its first row that is not trained; these are not gathered.
    """
    blocks = [sum(p.numel() for p in block.parameters()) for block in blocks_of(module)]
    rest = sum(p[: frozen_rows.get(name)].numel() if p.ndim else 1 for name, p in module.named_parameters())
    rest -= sum(blocks)
    largest = sum(sorted(blocks)[-2:])  # one is computed, and the next is on its way
    return 2 * (largest * block_bytes + rest * dtype_bytes)


class WholeModule:
    """A module that every rank has whole; gradients are averaged by DistributedDataParallel while they come."""

    def __init__(self, module: torch.nn.Module):
        self.module = module
        self.root: Any = Pass(module)
        if parallel.num_ranks() > 1:
            # no device_ids: what a loss is given stays as it is
            self.root = DistributedDataParallel(self.root, gradient_as_bucket_view=True)

    def call(self, loss: Callable[..., Any], batch: Sequence[Any]) -> Any:
        """Return the loss of a batch."""
        return self.root(loss, *batch)

    def evaluate(self, loss: Callable[..., Any], batch: Sequence[Any]) -> Any:
        """Return the loss of a batch, without gradients."""
        return loss(self.module, *batch)

    def adding(self, is_last: bool) -> Any:
        """Return the context of a pass: gradients are exchanged after the last one of a step."""
        return nullcontext() if is_last or parallel.num_ranks() == 1 else self.root.no_sync()

    def rows(self, name: str, parameter: torch.Tensor) -> HeldRows:
        """Return what this rank holds of a parameter."""
        return HeldRows(parameter.detach(), tuple(parameter.shape), 0, _owner(name) == parallel.rank())

    def collect(self) -> None:
        """Bring gradients to where the optimizer takes them."""

    def sum_shards(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over the ranks that hold different rows."""
        return values

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """Return the largest of each value over the ranks that hold different rows."""
        return values


class ShardedModule:
    """A module of which each rank holds some rows of every weight."""

    def __init__(
        self, module: torch.nn.Module, root: Any, plan: ShardPlan, skeleton: torch.nn.Module, frozen: dict[str, int]
    ):
        self.module, self.root, self.plan, self.skeleton, self.frozen = module, root, plan, skeleton, frozen
        self.has_frozen = any(not p.requires_grad for p in module.parameters())
        mesh = parallel.mesh(plan.device, plan.replicate, plan.shard)
        self.group = mesh["dp_shard"].get_group()
        self.place = mesh["dp_shard"].get_local_rank()
        self.copy = mesh["dp_replicate"].get_local_rank()

    def call(self, loss: Callable[..., Any], batch: Sequence[Any]) -> Any:
        """Return the loss of a batch."""
        if self.has_frozen and torch.is_grad_enabled():
            # a block gives up its weights when the gradients of its inputs are known; where these have none, at the end of
            # the pass: that has to be the same on all ranks, whatever their batches have
            batch = [
                given.detach().requires_grad_()
                if isinstance(given, torch.Tensor) and given.is_floating_point()
                else given
                for given in batch
            ]
        return self.root(loss, *batch)

    def evaluate(self, loss: Callable[..., Any], batch: Sequence[Any]) -> Any:
        """Return the loss of a batch, without gradients; every rank calls it as often."""
        result = self.root(loss, *batch)
        self.root.reshard()  # or the next step would go on with these weights
        return result

    def adding(self, is_last: bool) -> Any:
        """Return the context of a pass: each one's gradient is cut into rows at once."""
        return nullcontext()

    def rows(self, name: str, parameter: torch.Tensor) -> HeldRows:
        """Return what this rank holds of a parameter, all of the table that it may be part of."""
        if not isinstance(parameter, DTensor):
            table = name.removesuffix(FROZEN) + "weight"
            shape = (self.frozen[table] + parameter.shape[0], *parameter.shape[1:])
            return HeldRows(parameter.detach(), shape, self.frozen[table], _owner(name) == parallel.rank())
        length, shape = parameter.shape[0], tuple(parameter.shape)
        size = -(-length // self.plan.shard)
        if name in self.frozen:
            shape = tuple(self.skeleton.get_parameter(name).shape)  # with the rows that are not trained
        local = parameter.detach().to_local()  # pyright: ignore[reportAttributeAccessIssue]  # a DTensor's
        is_writer = _number(name) % self.plan.replicate == self.copy  # the copies take turns
        return HeldRows(local, shape, min(self.place * size, length), is_writer)

    def sum_shards(self, values: torch.Tensor) -> torch.Tensor:
        """Return the sum over the ranks that hold different rows."""
        dist.all_reduce(values, group=self.group)
        return values

    def largest(self, values: torch.Tensor) -> torch.Tensor:
        """Return the largest of each value over the ranks that hold different rows."""
        dist.all_reduce(values, dist.ReduceOp.MAX, group=self.group)
        return values

    @torch.no_grad()
    def load(self, files: Mapping[str, Path], arrays: Mapping[str, Any], *, name: str, prefix: str) -> None:
        """Give this rank's rows their values; arguments and errors as of `io.load_weights`.

        One tensor at a time is whole on the host, and only while its rows are taken.
        """
        shapes = {key: tuple(p.shape) for key, p in self.skeleton.named_parameters()}
        held: dict[str, list[HeldRows]] = {}
        for key, parameter in self.module.named_parameters():
            table = key.removesuffix(FROZEN) + "weight" if key.endswith(f".{FROZEN}") else key
            held.setdefault(table, []).append(self.rows(key, parameter))
        for key, value in weight_files.read_weights(shapes, files, arrays, framework="pt", name=name, prefix=prefix):
            whole = value if isinstance(value, torch.Tensor) else torch.from_numpy(value)
            for rows in held[key]:
                rows.tensor.copy_(whole[rows.first : rows.first + len(rows.tensor)])

    @torch.no_grad()
    def gather(self) -> torch.nn.Module:
        """Return a module with all of the weights on this rank, apart from the shared one; `release` gives it up."""
        whole: dict[str, torch.Tensor] = {}
        for name, parameter in self.module.named_parameters():
            value = parameter.detach()
            if isinstance(value, DTensor):
                value = value.full_tensor()
            if name.endswith(f".{FROZEN}"):
                table = name.removesuffix(FROZEN) + "weight"
                whole[table] = torch.cat([whole[table], value.to(whole[table].dtype)])
            else:
                whole[name] = value
        self.skeleton.load_state_dict(whole, strict=True, assign=True)
        self.skeleton.requires_grad_(False)
        return self.skeleton

    def release(self) -> None:
        """Give up what `gather` returned."""
        self.skeleton.to("meta")


def _number(name: str) -> int:
    return int.from_bytes(name.encode()[-4:], "little") + len(name)


def _owner(name: str) -> int:
    """Return the rank that writes a tensor which every rank has."""
    return _number(name) % parallel.num_ranks()
