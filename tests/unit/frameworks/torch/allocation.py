"""What a pass takes on real tensors: every operation is seen below autograd and autocast, and every storage followed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from sampan.frameworks.records import PassCost


def watch(module: torch.nn.Module, loss: Callable[..., Any], batch: Sequence[Any], *, autocast: str) -> PassCost:
    """Run a loss forward and backward on the tensors that are given, fake or real, and return what it costs.

    Gradients of the module's parameters are gone afterwards.
    """
    parameters = [p for p in module.parameters() if p.requires_grad]
    device = parameters[0].device.type
    known = [*module.parameters(), *module.buffers(), *(a for a in batch if isinstance(a, torch.Tensor))]
    watcher = _Watch(known)
    hooks = [p.register_post_accumulate_grad_hook(watcher.accumulated) for p in parameters]
    try:
        with watcher:
            with torch.autocast(device, torch.bfloat16, enabled=autocast == "bf16", cache_enabled=False):
                result = loss(module, *batch)
            value = result[0] if isinstance(result, tuple) else result
            forward, kept = watcher.flops["forward"], watcher.live
            value.backward()
    finally:
        for hook in hooks:
            hook.remove()
        for parameter in parameters:
            parameter.grad = None
    flops = watcher.flops
    return PassCost(
        forward_flops=forward,
        useful_flops=forward + flops["backward"],
        executed_flops=forward + flops["backward"] + flops["again"],
        kept_bytes=kept,
        activation_bytes=watcher.activation_peak,
        peak_bytes=watcher.peak,
        batch_bytes=sum(a.untyped_storage().nbytes() for a in batch if isinstance(a, torch.Tensor)),
    )


class _Watch(TorchDispatchMode):
    """Sees every operation: adds up its FLOPs, and follows the storage of what comes out of it until it is freed."""

    def __init__(self, known: Sequence[torch.Tensor]):
        super().__init__()
        self.flops = {"forward": 0, "backward": 0, "again": 0}
        self.live = self.peak = self.gradients = self.activation_peak = 0
        self._seen: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        for tensor in known:
            storage = tensor.untyped_storage()
            self._seen[id(storage)] = storage
        self._kept = [tensor.untyped_storage() for tensor in known]  # so that their numbers stay theirs

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        phase = "forward"
        if (
            torch._C._current_graph_task_id() != -1
        ):  # within the backward pass; there, what is computed again has gradients
            phase = "again" if torch.is_grad_enabled() else "backward"
        useful, again = _flops(func, args, kwargs or {}, out)
        self.flops[phase] += useful
        self.flops["again"] += again
        for tensor in tree_leaves(out):
            if isinstance(tensor, torch.Tensor):
                self._follow(tensor.untyped_storage())
        return out

    def accumulated(self, parameter: torch.Tensor) -> None:
        """Count a parameter's gradient as such from here on."""
        assert parameter.grad is not None, "the hook is called when it is there"
        self.gradients += parameter.grad.untyped_storage().nbytes()

    def _follow(self, storage: Any) -> None:
        if self._seen.get(id(storage)) is storage:
            return
        self._seen[id(storage)] = storage
        num_bytes = storage.nbytes()
        self.live += num_bytes
        self.peak = max(self.peak, self.live)
        self.activation_peak = max(self.activation_peak, self.live - self.gradients)
        weakref.finalize(storage, self._freed, num_bytes).atexit = False

    def _freed(self, num_bytes: int) -> None:
        self.live -= num_bytes


def _flops(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any], out: Any) -> tuple[int, int]:
    """Return the FLOPs of an operation, and those by which it repeats what was computed before."""
    name = func._overloadpacket.__name__
    if "attention" in name and "scaled_dot_product" in name:
        named = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | dict(kwargs)
        q, k, v = named["query"], named["key"], named["value"]
        queries, keys = q.shape[-2], k.shape[-2]
        pairs = queries * (queries + 1) // 2 if named.get("is_causal") else queries * keys
        product = 2 * q.shape[0] * q.shape[1] * pairs
        if "backward" not in name:
            return product * (q.shape[-1] + v.shape[-1]), 0
        # gradients of q, k, v and of the weights; the weights themselves were not kept and are computed again
        return product * 2 * (q.shape[-1] + v.shape[-1]), product * q.shape[-1]
    formula = flop_registry.get(func._overloadpacket)
    return (int(formula(*args, **kwargs, out_val=out)), 0) if formula else (0, 0)
