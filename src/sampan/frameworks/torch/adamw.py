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
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

import torch

from sampan.frameworks.optimizer import EPS, MOMENTS, conversion_note
from sampan.frameworks.quantized import BLOCK, num_blocks
from sampan.frameworks.torch import blockwise

Tensors = dict[str, torch.Tensor]
Largest = Callable[[torch.Tensor], torch.Tensor]
CHUNK = 2**23  # values computed at once; what is in between is fp32
WORKSPACE_BYTES = 9 * 4 * CHUNK  # the most that is in between


@dataclass(frozen=True)
class Stretch:
    """Which of a tensor's values are here: its rows from some row on, where ranks hold slices of it.

    Args:
        first: Place of the first in the flat tensor.
        whole: Values of the whole tensor.
        cuts: Whether the ranks' slices cut blocks of 8-bit moments: then several hold the same scale.
    """

    first: int
    whole: int
    cuts: bool = False

    @property
    def lead(self) -> int:
        """Values of the first block that another rank has."""
        return self.first % BLOCK


class FusedAdamW:
    """PyTorch's AdamW, moments and weights in fp32.

    Args:
        tensors: What is trained, by name: leaves of a graph.
        decays: Weight decay by name.
        stretches: What of each tensor is here; all of it without.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        decays: Mapping[str, float],
        beta1: float,
        beta2: float,
        stretches: Mapping[str, Stretch] | None = None,
    ):
        self.tensors, self.stretches = tensors, stretches or {}
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
                    lead = self.stretches[name].lead if name in self.stretches else 0
                    kept[moment] = blockwise.decode(codes.view(-1), scales, signed, lead).view(codes.shape)
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
        stretches: What of each tensor is here; all of it without.
        largest: Returns the largest of each value over the ranks that hold other rows.
    """

    def __init__(
        self,
        tensors: Mapping[str, torch.Tensor],
        decays: Mapping[str, float],
        beta1: float,
        beta2: float,
        quantized: Collection[str],
        seed: int,
        stretches: Mapping[str, Stretch] | None = None,
        largest: Largest = lambda values: values,
    ):
        self.largest = largest
        self.stretches = {name: Stretch(0, tensor.numel()) for name, tensor in tensors.items()} | dict(stretches or {})
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
                        numbers = blockwise.decode(codes.view(-1), scales, signed, self.stretches[name].lead)
                        self._write(name, moment, whole, numbers)
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
                blocks = num_blocks(self.stretches[name].lead + tensor.numel())
                self.moments[f"{key}.codes"] = torch.full(tensor.shape, zero, dtype=torch.uint8, device=tensor.device)
                self.moments[f"{key}.scales"] = torch.zeros(blocks, dtype=torch.float32, device=tensor.device)
            else:
                self.moments[key] = torch.zeros(tensor.shape, dtype=torch.float32, device=tensor.device)

    def _update(self, name: str, tensor: torch.Tensor, gradient: torch.Tensor, lr: float, scale: torch.Tensor) -> None:
        count = self.counts[name]
        correction = math.sqrt(1 - self.betas["exp_avg_sq"] ** count)
        rate = lr / (1 - self.betas["exp_avg"] ** count)
        weights, gradients = tensor.detach().view(-1), gradient.reshape(-1)
        stretch = self.stretches[name]
        key = f"{self.seed}/rounding/{name}/{count}"
        draws = None if tensor.dtype == torch.float32 else _draws(key, stretch, len(weights), tensor.device)
        waiting: list[tuple[torch.Tensor, torch.Tensor]] = []
        for part in self._parts(name, len(weights)):
            g = gradients[part].float() * scale
            first, second = self._read(name, "exp_avg", part), self._read(name, "exp_avg_sq", part)
            first.lerp_(g, 1 - self.betas["exp_avg"])
            second.mul_(self.betas["exp_avg_sq"]).addcmul_(g, g, value=1 - self.betas["exp_avg_sq"])
            del g
            if stretch.cuts and name in self.quantized:  # scales are known when all ranks have got here
                waiting.append((first, second))
            else:
                self._write(name, "exp_avg", part, first)
                self._write(name, "exp_avg_sq", part, second)
            held = weights[part]
            w = held if draws is None else held.float()
            w.mul_(1 - lr * self.decays[name])
            w.addcdiv_(first, (second.sqrt() / correction).add_(EPS), value=-rate)
            if draws is not None:
                held.copy_(stochastic_bf16(w, next(draws)))
        if stretch.cuts and name in self.quantized:
            for index, moment in enumerate(MOMENTS):
                numbers = torch.cat([pair[index] for pair in waiting]) if waiting else weights.new_zeros(0).float()
                self._write(name, moment, slice(0, len(weights)), numbers)

    def _parts(self, name: str, count: int) -> Iterator[slice]:
        """Yield what is computed at once of a tensor's values here; none ends within a block."""
        lead = self.stretches[name].lead
        for start in range(0, lead + count if count else 0, CHUNK):
            yield slice(max(start - lead, 0), min(start + CHUNK - lead, count))

    def _read(self, name: str, moment: str, part: slice) -> torch.Tensor:
        """Return a stretch of a moment in fp32: the moment itself where it is held so."""
        key = f"{name}.{moment}"
        if name not in self.quantized:
            return self.moments[key].view(-1)[part]
        codes, scales = self.moments[f"{key}.codes"].view(-1), self.moments[f"{key}.scales"]
        blocks, lead = self._blocks(name, part)
        return blockwise.decode(codes[part], scales[blocks], MOMENTS[moment], lead)

    def _write(self, name: str, moment: str, part: slice, numbers: torch.Tensor) -> None:
        key, stretch = f"{name}.{moment}", self.stretches[name]
        if name in self.quantized:
            blocks, lead = self._blocks(name, part)
            scales = None
            if stretch.cuts:  # then `part` is all there is here
                first = stretch.first // BLOCK
                every = numbers.new_zeros(num_blocks(stretch.whole))
                every[first : first + blocks.stop] = blockwise.block_maxima(numbers, lead)
                scales = self.largest(every)[first : first + blocks.stop]
            codes, scales = blockwise.encode(numbers, MOMENTS[moment], lead, scales)
            self.moments[f"{key}.codes"].view(-1)[part] = codes
            self.moments[f"{key}.scales"][blocks] = scales
        elif numbers.data_ptr() != (held := self.moments[key].view(-1)[part]).data_ptr():
            held.copy_(numbers)

    def _blocks(self, name: str, part: slice) -> tuple[slice, int]:
        """Return the blocks that values lie in, and how many of the first block are before them."""
        lead = self.stretches[name].lead
        if part.stop == 0:
            return slice(0, num_blocks(lead)), lead
        return slice((lead + part.start) // BLOCK, num_blocks(lead + part.stop)), (lead + part.start) % BLOCK


def stochastic_bf16(x: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return fp32 numbers as bf16, each rounded away from 0 with the probability of the part that is cut off.

    Args:
        draws: int32 of the same shape, even in [0, 2**16); used up.
    """
    return (draws.add_(x.view(torch.int32)) & -(2**16)).view(torch.float32).to(torch.bfloat16)


def draw(count: int, generator: torch.Generator) -> torch.Tensor:
    """Return numbers for `stochastic_bf16`."""
    return torch.empty(count, dtype=torch.int32, device=generator.device).random_(0, 2**16, generator=generator)


def _draws(key: str, stretch: Stretch, count: int, device: torch.device) -> Iterator[torch.Tensor]:
    """Yield the draws of a tensor's values here, as many at a time as `TensorwiseAdamW._parts` takes.

    They are those of the whole tensor, drawn from its beginning in the same pieces wherever it is cut.
    """
    generator = _generator(key, device)
    drawn, rest = 0, torch.empty(0, dtype=torch.int32, device=device)
    for start in range(0, stretch.lead + count if count else 0, CHUNK):
        wanted = min(start + CHUNK - stretch.lead, count) - max(start - stretch.lead, 0)
        while len(rest) < wanted:
            size = min(CHUNK, stretch.whole - drawn)
            piece = draw(size, generator)
            rest = (
                torch.cat([rest, piece[max(0, stretch.first - drawn) :]])
                if len(rest)
                else piece[max(0, stretch.first - drawn) :]
            )
            drawn += size
        yield rest[:wanted]
        rest = rest[wanted:]


def token_tables(module: torch.nn.Module) -> set[str]:
    """Return the names of a module's embedding tables."""
    return {
        f"{prefix}.weight" if prefix else "weight"
        for prefix, child in module.named_modules()
        if isinstance(child, torch.nn.Embedding)
    }


def _generator(key: str, device: torch.device) -> torch.Generator:
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "little") >> 1
    return torch.Generator(device).manual_seed(number)
