"""AdamW in two ways: PyTorch's fused one over fp32, and one that holds moments in 8 bits and weights in bf16.

Both read gradients from the tensors' `.grad`, pass over tensors without one, count updates tensor by tensor, and keep their
state under `NAME.exp_avg` and `NAME.exp_avg_sq`, with `.codes` and `.scales` behind it where a moment is held in 8 bits.

A bf16 weight has about three digits, and a step is mostly smaller than the last of them: rounded to the nearest it would
change nothing. It is rounded up or down by a draw, so that it moves by the step in the mean. The draw is keyed by the seed,
the tensor's name and its update.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Collection, Mapping

import torch

from sampan.frameworks.optimizer import EPS, MOMENTS, conversion_note
from sampan.frameworks.quantized import BLOCK, num_blocks
from sampan.frameworks.torch import blockwise

Tensors = dict[str, torch.Tensor]
CHUNK = 2**23  # values computed at once; what is in between is fp32
WORKSPACE_BYTES = 9 * 4 * CHUNK  # the most that is in between


class FusedAdamW:
    """PyTorch's AdamW, moments and weights in fp32.

    Args:
        tensors: What is trained, by name: leaves of a graph.
        decays: Weight decay by name.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], decays: Mapping[str, float], beta1: float, beta2: float):
        self.tensors = tensors
        groups: dict[float, list[torch.Tensor]] = {}
        for name, tensor in tensors.items():
            groups.setdefault(decays[name], []).append(tensor)
        fused = next(iter(tensors.values())).device.type in ("cpu", "cuda")  # others may lack the kernel
        self.optimizer = torch.optim.AdamW(
            [{"params": group, "weight_decay": decay} for decay, group in groups.items()],
            betas=(beta1, beta2), eps=EPS, fused=fused,
        )  # fmt: skip

    def update(self, lr: float, scale: torch.Tensor) -> None:
        """Take one step; the gradients are multiplied by `scale` in their place."""
        gradients = [t.grad for t in self.tensors.values() if t.grad is not None]
        torch._foreach_mul_(gradients, scale)  # pyright: ignore[reportPrivateImportUsage]
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.step()

    def state(self) -> tuple[Tensors, dict[str, int]]:
        """Return the moments by name, and the number of updates of each tensor that had one."""
        moments, counts = {}, {}
        for name, tensor in self.tensors.items():
            kept = self.optimizer.state.get(tensor)
            if kept:
                moments |= {f"{name}.{moment}": kept[moment] for moment in MOMENTS}
                counts[name] = int(kept["step"])
        return moments, counts

    def load(self, moments: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> str | None:
        """Take over what `state` returned, be it that of the other class; return what was converted, in words."""
        converted = 0
        for name, count in counts.items():
            tensor = self.tensors[name]
            kept = {}
            for moment, signed in MOMENTS.items():
                key = f"{name}.{moment}"
                if f"{key}.codes" in moments:
                    converted += 1
                    codes, scales = (moments[f"{key}.{part}"].to(tensor.device) for part in ("codes", "scales"))
                    kept[moment] = blockwise.decode(codes.view(-1), scales, signed).view(codes.shape)
                else:
                    kept[moment] = moments[key].to(tensor.device)
            kept["step"] = torch.tensor(float(count), dtype=torch.float32, device=tensor.device)
            self.optimizer.state[tensor] = kept
        return f"{converted} moments were saved in 8 bits and go on in fp32" if converted else None


class TensorwiseAdamW:
    """AdamW one tensor after another, in fp32 between what is held: moments in 8 bits or fp32, weights in bf16 or fp32.

    Args:
        tensors: What is trained, by name, in fp32 or bf16; contiguous.
        decays: Weight decay by name.
        quantized: Names whose moments are held in 8 bits.
        seed: Key of the draws that round weights.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        decays: Mapping[str, float],
        beta1: float,
        beta2: float,
        quantized: Collection[str],
        seed: int,
    ):
        self.tensors, self.decays, self.quantized, self.seed = tensors, decays, frozenset(quantized), seed
        self.betas = {"exp_avg": beta1, "exp_avg_sq": beta2}
        self.moments: Tensors = {}
        self.counts: dict[str, int] = {}

    @torch.no_grad()
    def update(self, lr: float, scale: torch.Tensor) -> None:
        """Take one step with the gradients multiplied by `scale`."""
        for name, tensor in self.tensors.items():
            if tensor.grad is not None:
                if name not in self.counts:
                    self._begin(name)
                self.counts[name] += 1
                self._update(name, tensor, tensor.grad, lr, scale)

    def state(self) -> tuple[Tensors, dict[str, int]]:
        """Return the moments by name, and the number of updates of each tensor that had one."""
        return dict(self.moments), dict(self.counts)

    def load(self, moments: Mapping[str, torch.Tensor], counts: Mapping[str, int]) -> str | None:
        """Take over what `state` returned, be it that of the other class; return what was converted, in words."""
        converted = {"8 bits": 0, "fp32": 0}
        for name, count in counts.items():
            self._begin(name)
            self.counts[name] = count
            whole = slice(0, self.tensors[name].numel())
            for moment, signed in MOMENTS.items():
                key, device = f"{name}.{moment}", self.tensors[name].device
                is_quantized, was_quantized = name in self.quantized, f"{key}.codes" in moments
                if is_quantized and was_quantized:
                    self.moments |= {
                        f"{key}.{part}": moments[f"{key}.{part}"].to(device) for part in ("codes", "scales")
                    }
                elif is_quantized or was_quantized:
                    converted["8 bits" if is_quantized else "fp32"] += 1
                    if was_quantized:
                        codes, scales = (moments[f"{key}.{part}"].to(device) for part in ("codes", "scales"))
                        self._write(name, moment, whole, blockwise.decode(codes.view(-1), scales, signed))
                    else:
                        self._write(name, moment, whole, moments[key].to(device).view(-1))
                else:
                    self.moments[key] = moments[key].to(device)
        return conversion_note(converted)

    def _begin(self, name: str) -> None:
        tensor = self.tensors[name]
        self.counts[name] = 0
        for moment in MOMENTS:
            key = f"{name}.{moment}"
            if name in self.quantized:
                zero = int(blockwise.encode(torch.zeros(1), MOMENTS[moment])[0])
                blocks = num_blocks(tensor.numel())
                self.moments[f"{key}.codes"] = torch.full(tensor.shape, zero, dtype=torch.uint8, device=tensor.device)
                self.moments[f"{key}.scales"] = torch.zeros(blocks, dtype=torch.float32, device=tensor.device)
            else:
                self.moments[key] = torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device)

    def _update(self, name: str, tensor: torch.Tensor, gradient: torch.Tensor, lr: float, scale: torch.Tensor) -> None:
        count = self.counts[name]
        correction = math.sqrt(1 - self.betas["exp_avg_sq"] ** count)
        rate = lr / (1 - self.betas["exp_avg"] ** count)
        weights, gradients = tensor.detach().view(-1), gradient.reshape(-1)
        draws = (
            None if tensor.dtype == torch.float32 else _generator(f"{self.seed}/rounding/{name}/{count}", tensor.device)
        )
        for start in range(0, len(weights), CHUNK):
            part = slice(start, min(start + CHUNK, len(weights)))
            g = gradients[part].float() * scale
            first, second = self._read(name, "exp_avg", part), self._read(name, "exp_avg_sq", part)
            first.lerp_(g, 1 - self.betas["exp_avg"])
            second.mul_(self.betas["exp_avg_sq"]).addcmul_(g, g, value=1 - self.betas["exp_avg_sq"])
            del g
            self._write(name, "exp_avg", part, first)
            self._write(name, "exp_avg_sq", part, second)
            held = weights[part]
            w = held if draws is None else held.float()
            w.mul_(1 - lr * self.decays[name])
            w.addcdiv_(first, (second.sqrt() / correction).add_(EPS), value=-rate)
            if draws is not None:
                held.copy_(stochastic_bf16(w, draws))

    def _read(self, name: str, moment: str, part: slice) -> torch.Tensor:
        """Return a stretch of a moment in fp32: the moment itself where it is held so."""
        key = f"{name}.{moment}"
        if name not in self.quantized:
            return self.moments[key].view(-1)[part]
        codes, scales = self.moments[f"{key}.codes"].view(-1), self.moments[f"{key}.scales"]
        return blockwise.decode(codes[part], scales[_blocks(part)], MOMENTS[moment])

    def _write(self, name: str, moment: str, part: slice, numbers: torch.Tensor) -> None:
        key = f"{name}.{moment}"
        if name in self.quantized:
            codes, scales = blockwise.encode(numbers, MOMENTS[moment])
            self.moments[f"{key}.codes"].view(-1)[part] = codes
            self.moments[f"{key}.scales"][_blocks(part)] = scales
        elif numbers.data_ptr() != (held := self.moments[key].view(-1)[part]).data_ptr():
            held.copy_(numbers)


def stochastic_bf16(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return fp32 numbers as bf16, each rounded away from 0 with the probability of the part that is cut off."""
    draws = torch.empty(x.shape, dtype=torch.int32, device=x.device).random_(0, 2**16, generator=generator)
    return (draws.add_(x.view(torch.int32)) & -(2**16)).view(torch.float32).to(torch.bfloat16)


def token_tables(module: torch.nn.Module) -> set[str]:
    """Return the names of a module's embedding tables."""
    return {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, child in module.named_modules()
        if isinstance(child, torch.nn.Embedding)
    }


def _blocks(part: slice) -> slice:
    return slice(part.start // BLOCK, num_blocks(part.stop))


def _generator(key: str, device: torch.device) -> torch.Generator:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1
    return torch.Generator(device).manual_seed(number)
