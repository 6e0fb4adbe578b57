"""Which model is opened for a call, and how: one value for `generate`, `eval` and `serve`. Loads no framework."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    """What `open_pipeline` is told.

    Args:
        model: A model folder, the name of a shipped one, or a run, whose own additions come before `loras`.
        device: As `frameworks.device.resolve` takes it.
        dtype: fp32, bf16, fp16, or auto for what suits the device.
        offload: Keep on the device only the part that works.
        loras: LoRA files or folders, each with what its own scale is multiplied with.
        compiled: Compile the step that writes a token: worth it for large pictures, and for several in one call.
        verified: Hold the model's files against the hashes that sampan recorded when it wrote them, where it did.
        threads: CPU threads; None takes what the model's size and other programs leave use for.
    """

    model: str
    device: str
    dtype: str
    offload: bool = False
    loras: Sequence[tuple[Path, float]] = ()
    compiled: bool = False
    verified: bool = True
    threads: int | None = None
