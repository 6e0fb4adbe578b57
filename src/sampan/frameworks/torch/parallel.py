"""The ranks of a run, on PyTorch: processes that torchrun starts, over NCCL on CUDA, HCCL on Ascend and gloo on a CPU.

What ranks tell each other besides tensors is JSON over gloo, on the host: nothing is unpickled. A rank's device is its place
on its node (LOCAL_RANK).
"""

from __future__ import annotations

import json
import os
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.rendezvous import rendezvous

from sampan.errors import DeviceError, JobError
from sampan.frameworks import rank_watch

SHARES_UNEVENLY = True  # a step's micro-batches need not divide by the ranks
SAVES_BESIDE = True  # the thread that saves has a process group of its own
AXES = ("dp_replicate", "dp_shard")
# who is late is found out by `rank_watch`; this only ends what it does not see
_TIMEOUT = timedelta(days=7)
_UNSET = "start several ranks by torchrun, as in docs/distributed.md; for one, unset WORLD_SIZE"
_state: dict[str, Any] = {"rank": 0, "ranks": 1}


def start(device: str, timeout_s: float) -> str:
    """Join the ranks that torchrun started, and return this rank's device; without torchrun there is one rank.

    Args:
        device: As it was resolved on this machine; without a number, the rank's own is taken.
        timeout_s: After so long without a sign of life from a rank the others end.

    Raises:
        DeviceError: The ranks do not find each other, the node has fewer devices than ranks, or the variables of torchrun
            are not whole.
    """
    world = _number_of_environment("WORLD_SIZE", 1, least=1)
    if world == 1:
        return device
    _check_environment(world)
    device = own_device(device, _number_of_environment("LOCAL_RANK", 0))
    if "store" in _state:
        return device
    kind = device.split(":", maxsplit=1)[0]
    backend = {"cuda": "cpu:gloo,cuda:nccl", "npu": "cpu:gloo,npu:hccl"}.get(kind, "gloo")
    try:
        store, rank, ranks = next(iter(rendezvous("env://", timeout=timedelta(seconds=timeout_s))))
        dist.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=_TIMEOUT)
    except (RuntimeError, ValueError, dist.DistError) as error:  # in torch's words
        place = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise DeviceError(
            f"the {world} ranks of torchrun do not find each other at {place}",
            str(error).strip().splitlines()[0],
            "is the port taken by another run? --rdzv-endpoint=HOST:PORT (or --master-port) names another",
        ) from error
    _state.update(rank=rank, ranks=ranks, store=store, saving=dist.new_group(backend="gloo"))
    own: Any = store  # its stubs lack `clone`
    _state["watch"] = rank_watch.RankWatch(_Board(own.clone()), rank, ranks, timeout_s)
    return device


def pretend(ranks: int, nodes: int, rank: int = 0) -> None:
    """Let this process be one of so many ranks, without the others: weights can be shared, and nothing is sent.

    What a rank would tell the others comes back as if all had said it. `stop` ends it.

    Raises:
        JobError: The ranks do not divide by the nodes.
    """
    if ranks % nodes:
        raise JobError(
            f"{ranks} ranks do not lie evenly on {nodes} nodes",
            "every node starts the same number",
            f"take a multiple of {nodes} ranks",
        )
    if ranks > 1:
        # PyTorch's own stand-in for a backend, in use by its tests and its memory tracker
        from torch.testing._internal.distributed.fake_pg import FakeStore

        dist.init_process_group("fake", store=FakeStore(), rank=rank, world_size=ranks)
        _state.update(rank=rank, ranks=ranks, ranks_per_node=ranks // nodes)


def _number_of_environment(name: str, otherwise: int, least: int = 0) -> int:
    text = os.environ.get(name, str(otherwise))
    if not (text.isascii() and text.isdigit()) or int(text) < least:
        raise DeviceError(
            f"the variable {name} of the environment is `{text}`, and no whole number from {least}", (), _UNSET
        )
    return int(text)


def _check_environment(world: int) -> None:
    """Raise DeviceError unless the environment has all that torchrun sets for one of several ranks."""
    if missing := [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        raise DeviceError(
            f"the environment has WORLD_SIZE = {world}, and not {' and '.join(missing)}",
            "torchrun sets all of them for each rank that it starts",
            _UNSET,
        )
    if (rank := _number_of_environment("RANK", 0)) >= world:
        raise DeviceError(
            f"the environment has RANK = {rank}, and WORLD_SIZE = {world}", f"ranks are from 0 to {world - 1}", _UNSET
        )


def own_device(device: str, local_rank: int) -> str:
    """Return the device of a rank on its node, and make it the current one.

    Raises:
        DeviceError: The node has no such device, or the job names one for all ranks.
    """
    kind = device.partition(":")[0]
    if kind not in ("cuda", "npu"):
        return device
    check_unnumbered(device)
    module = getattr(torch, kind)
    if local_rank >= module.device_count():
        raise DeviceError(
            f"there is no `{kind}:{local_rank}` for rank {os.environ.get('RANK')}",
            f"this node has {module.device_count()} devices",
            "start no more ranks a node than it has devices: torchrun --nproc-per-node",
        )
    module.set_device(local_rank)
    return f"{kind}:{local_rank}"


def check_unnumbered(device: str) -> None:
    """Check that a device can be that of several ranks.

    Raises:
        DeviceError: It is one for all of them.
    """
    kind, _, number = device.partition(":")
    if kind in ("cuda", "npu") and number:
        raise DeviceError(
            f"`{device}` cannot be the device of several ranks", "every rank has one of its own", f"use device {kind}"
        )


def watch() -> rank_watch.RankWatch | None:
    """Return what looks after the other ranks; None where there are none."""
    return _state.get("watch")


def stop() -> None:
    """Leave the ranks, so that a process can end."""
    if "store" in _state or _is_pretended():
        if not _is_pretended():
            _state["watch"].close()
        dist.destroy_process_group()
        _state.clear()
        _state.update(rank=0, ranks=1)


def rank() -> int:
    """Return this process's number, from 0."""
    return _state["rank"]


def num_ranks() -> int:
    """Return how many processes share a step."""
    return _state["ranks"]


def barrier() -> None:
    """Wait for all ranks."""
    gathered(None)


def gathered(value: Any, *, saving: bool = False) -> list[Any]:
    """Return every rank's plain value (JSON), in order.

    Args:
        saving: The caller is the thread that saves, which does not wait in line with the steps.
    """
    if num_ranks() == 1 or _is_pretended():
        return [value] * num_ranks()
    group = _state["saving"] if saving else None
    text = torch.tensor(list(json.dumps(value).encode()), dtype=torch.uint8)
    sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(num_ranks())]
    dist.all_gather(sizes, torch.tensor([len(text)]), group=group)
    most = max(int(size) for size in sizes)
    rows = [torch.zeros(most, dtype=torch.uint8) for _ in range(num_ranks())]
    dist.all_gather(rows, torch.nn.functional.pad(text, (0, most - len(text))), group=group)
    return [json.loads(bytes(row[: int(size)].tolist())) for row, size in zip(rows, sizes, strict=True)]


def from_rank(source: int, arrays: dict[str, np.ndarray[Any, Any]]) -> dict[str, np.ndarray[Any, Any]]:
    """Return a rank's host arrays on every rank."""
    if num_ranks() == 1 or _is_pretended():
        return arrays
    facts = gathered({name: [list(a.shape), a.dtype.str] for name, a in arrays.items()})[source]
    found = {}
    for name, (shape, dtype) in facts.items():
        mine = arrays[name] if rank() == source else np.empty(shape, dtype)
        tensor = torch.from_numpy(np.ascontiguousarray(mine).reshape(-1).view(np.uint8))
        if tensor.numel():
            dist.broadcast(tensor, source)
        found[name] = tensor.numpy().view(dtype).reshape(shape)
    return found


def layout(parallel: str, replicate: int | None, shard: int | None) -> tuple[int, int]:
    """Return the degrees (dp_replicate, dp_shard) of this run.

    Args:
        parallel: "auto" (shard inside a node, replicate across nodes), or "ddp", "fsdp", "hsdp".
        replicate, shard: As the job has them; None follows from the other and the number of ranks.

    Raises:
        JobError: Their product is not the number of ranks.
    """
    return degrees(num_ranks(), ranks_per_node(), parallel, replicate, shard)


def ranks_per_node() -> int:
    """Return how many ranks each node has."""
    return _state.get("ranks_per_node") or _number_of_environment("LOCAL_WORLD_SIZE", num_ranks(), least=1)


def _is_pretended() -> bool:
    return "ranks_per_node" in _state


def degrees(
    ranks: int, ranks_per_node: int, parallel: str, replicate: int | None, shard: int | None
) -> tuple[int, int]:
    """Return (dp_replicate, dp_shard) for so many ranks; arguments and errors as of `layout`."""
    asked = replicate is not None or shard is not None
    if parallel == "ddp" and not asked:
        return ranks, 1
    if parallel == "fsdp" and not asked:
        return 1, ranks
    if not asked:
        within = ranks_per_node if ranks % ranks_per_node == 0 else ranks
        return ranks // within, within
    found_replicate = replicate or max(1, ranks // (shard or 1))
    found_shard = shard or max(1, ranks // found_replicate)
    if found_replicate * found_shard != ranks:
        raise JobError(
            f"the job's mesh is not that of {ranks} rank{'s' if ranks != 1 else ''}",
            f"place.dp_replicate = {found_replicate} times place.dp_shard = {found_shard} is "
            f"{found_replicate * found_shard}",
            f'start {found_replicate * found_shard} ranks, or leave both out: place.parallel = "auto" follows the ranks',
        )
    return found_replicate, found_shard


def mesh(device: str, replicate: int, shard: int) -> DeviceMesh:
    """Return the mesh of the ranks, made once for each shape: neighbouring ranks share shards.

    Args:
        device: Of this rank; "meta" where weights take no memory.
    """
    key = f"mesh {replicate} {shard}"
    if key not in _state:
        kind = "cpu" if device == "meta" else device.split(":", maxsplit=1)[0]
        _state[key] = init_device_mesh(kind, (replicate, shard), mesh_dim_names=AXES)
    return _state[key]


class _Board:
    """The store that the ranks of torchrun share, as `rank_watch` wants it: a connection of its own."""

    def __init__(self, store: Any):
        self._store = store

    def put(self, key: str, text: str) -> None:
        self._store.set(key, text)

    def get(self, key: str) -> str | None:
        return self._store.get(key).decode() if self._store.check([key]) else None

    def claim(self, key: str, text: str) -> str:
        """Set a key that is not set; return what it is then."""
        return self._store.compare_set(key, "", text).decode()
