"""One framework in a process of its own: it reads requests as lines of JSON on stdin and answers each with one on stdout.

    python -m sampan.bench.worker FRAMEWORK

A request names what is to be done in `do`; the rest are the arguments of the method of that name. What frameworks print goes
to stderr, so that the answers stay readable.

AdamW runs with β1 = 0. Its first moment is then the gradient itself, taken on the very way that is timed: compiled where the
step is compiled, in the dtype in which it computes.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sampan import frameworks, host
from sampan.bench.backends import PACKAGES
from sampan.errors import SampanError

LR = 1e-3


class Worker:
    """What one process holds: a module with weights, an updater and a batch on the device."""

    def __init__(self) -> None:
        self.device = self.dtype = "unknown"
        self.module: Any = None
        self.loss: Any = None
        self.updater: Any = None
        self.batch: list[Any] = []
        self.arrays: list[Any] = []
        self.recorder: Any = None

    def describe(self, device: str, dtype: str, threads: int | None) -> dict[str, Any]:
        """Choose a device and a dtype; return what they are, and the framework's version."""
        from sampan.frameworks import device as dev

        self.device = dev.resolve(device)
        self.dtype = dev.resolve_dtype(dtype, self.device)
        return {
            "version": getattr(sys.modules[frameworks.chosen()], "__version__", None),
            "device": self.device,
            "device_name": frameworks.device_name(self.device),
            "dtype": self.dtype,
            "threads": dev.set_threads(threads),
        }

    def load(
        self, part: str, batch: str, seed: int, compiled: bool, model: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Make a module with weights and put a batch on the device.

        Args:
            batch: File that sampan.bench.shapes.save wrote.
            model: `preset` and `override` of a whole part; None makes one block of the released size.
        """
        from sampan.bench import blocks, shapes
        from sampan.frameworks import device as dev
        from sampan.frameworks import io, train_step
        from sampan.models import presets
        from sampan.models.build import build_on_meta

        if model is None:
            self.module, self.loss = blocks.block(part), blocks.BLOCK_LOSSES[part]
        else:
            self.module = build_on_meta(part, presets.get(model["preset"], model["override"]))
            self.loss = blocks.LOSSES[part]
        arrays = blocks.NonZeroInit(io.shapes(self.module), seed)
        io.load_weights(self.module, {}, device=self.device, dtype="fp32", arrays=arrays)
        self.updater = train_step.TrainStep(
            self.module, lr=LR, beta1=0.0, beta2=0.95, weight_decay=0.01, clip_norm=1e30, ema_decay=0.0,
            autocast=self.dtype, compiled=compiled,
        )  # fmt: skip
        self.arrays = shapes.load(Path(batch))
        self.batch = [a if isinstance(a, tuple) else dev.array(a, self.device) for a in self.arrays]
        return {"num_parameters": int(sum(np.prod(shape) for shape in io.shapes(self.module).values()))}

    def step(self, lr: float = LR, gradients: str | None = None) -> dict[str, Any]:
        """Take one step and return its loss and the seconds it took, of the clock and of the process's cores.

        Args:
            gradients: File to write the gradients to, by name.
        """
        report, seconds = self._timed(lambda: self.updater.step(self.loss, [self.batch], lr))
        if gradients is not None:
            np.savez(gradients, **self._gradients())
        return {"loss": report.loss, "skipped": report.skipped, **seconds}

    def evaluate(self) -> dict[str, Any]:
        """Compute the loss alone; return it and the seconds it took."""
        loss, seconds = self._timed(lambda: self.updater.evaluate(self.loss, self.batch))
        return {"loss": loss, **seconds}

    def trace(self, folder: str, record: bool) -> dict[str, Any]:
        """Take one step and write what came of it into a folder: `gradients.npz`, `weights.npz`, and every operation's
        output in the order of the calls, which are returned as [operation, layer, number of arrays].

        Args:
            record: Also watch operations. In a compiled step there are none to be seen.
        """
        from sampan.bench.trace import Recorder

        if record and self.recorder is None:
            self.recorder = Recorder(self.module)
            self.loss = self.recorder.watched(self.loss)
        into = Path(folder)
        calls: list[tuple[str, str, int]] = []
        if self.recorder is not None:
            self.recorder.into, self.recorder.calls = into, calls
        report = self.updater.step(self.loss, [self.batch], LR)
        if self.recorder is not None:
            self.recorder.into = None
        np.savez(into / "gradients.npz", **self._gradients())
        self.weights(str(into / "weights.npz"))
        return {"loss": report.loss, "skipped": report.skipped, "calls": calls}

    def weights(self, path: str) -> dict[str, Any]:
        """Write the weights to a file; return their names in order."""
        found = _on_host(self.updater.state()["weights"])
        np.savez(path, **found)
        return {"names": list(found)}

    def memory(self) -> dict[str, Any]:
        """Return the most memory this process had: in RAM, and on a device that has its own."""
        from sampan.frameworks import device as dev

        on_device = None if self.device == "cpu" else dev.peak_memory_bytes(self.device)
        return {"peak_rss_bytes": host.peak_memory_bytes(), "peak_device_bytes": on_device}

    def flops(self) -> dict[str, Any]:
        """Count the arithmetic of the loss and of a step, nothing computed twice."""
        from sampan.frameworks import meter

        found = meter.measure(
            self.module, self.loss, self.arrays, device=self.device, dtype="fp32", autocast=self.dtype
        )  # fmt: skip
        return {"forward_flops": found.forward_flops, "step_flops": found.useful_flops}

    def rate(self) -> dict[str, Any]:
        """Measure how fast the device multiplies matrices."""
        from sampan.frameworks import device as dev

        return {"flops_per_s": dev.matmul_flops_per_s(self.device, self.dtype)}

    def _timed(self, call: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
        from sampan.frameworks import device as dev

        dev.synchronize(self.device)
        begun_s, cpu_begun_s = time.perf_counter(), time.process_time()
        result = call()
        dev.synchronize(self.device)
        return result, {"seconds": time.perf_counter() - begun_s, "cpu_seconds": time.process_time() - cpu_begun_s}

    def _gradients(self) -> dict[str, np.ndarray]:
        moments = self.updater.state()["optimizer"]
        return _on_host({n.removesuffix(".exp_avg"): t for n, t in moments.items() if n.endswith(".exp_avg")})


def serve(worker: Worker, requests: TextIO, answers: TextIO) -> None:
    """Answer requests until there are none. An error is an answer: `error`, with `what`, `because` and `hint`."""
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(worker, request.pop("do"))(**request)
        except SampanError as error:
            answer = {"error": {"what": error.what, "because": list(error.because), "hint": error.hint}}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main(framework: str) -> int:
    """Serve the process that started this one."""
    # stdin and stdout are kept for the two of them before a framework is loaded, which may print and start processes
    requests, answers = os.fdopen(os.dup(0), encoding="utf-8"), os.fdopen(os.dup(1), "w", encoding="utf-8")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)
    worker = Worker()
    try:
        frameworks.use(framework, package=PACKAGES[framework], switch="--frameworks {}")
    except SampanError as error:
        answers.write(json.dumps({"error": {"what": error.what, "because": error.because, "hint": error.hint}}) + "\n")
        return 1
    serve(worker, requests, answers)
    return 0


def _on_host(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    from sampan.frameworks import device as dev

    return {n: t if isinstance(t, np.ndarray) else dev.to_numpy(t) for n, t in tensors.items()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
