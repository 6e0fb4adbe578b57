"""The LoRA in a checkpoint in the middle of a training, `RUN/stages/decoder/step-20`, which has no file of its own yet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from sampan.checkpoint import run
from sampan.checkpoint.run_metadata import read_record
from sampan.errors import CheckpointError
from sampan.frameworks import device as dev
from sampan.frameworks import io
from sampan.models.lora import FACTORS, PARTS

_FILE = "ema.safetensors"  # the average, which the finished LoRA has too


@dataclass(frozen=True)
class StepAdapter:
    """What a checkpoint has of a LoRA.

    Args:
        factors: A (rank, in) and B (out, rank) by the layer's name in the model.
        alpha: The adapter is scaled by alpha / rank; None for alpha = rank.
    """

    part: str
    file: Path
    factors: dict[str, tuple[NDArray[np.float32], NDArray[np.float32]]]
    alpha: float | None


def read_step(path: Path) -> StepAdapter | None:
    """Return the LoRA of a run's checkpoint folder; None of every other path.

    Raises:
        CheckpointError: The checkpoint is not whole, or its training is none of a LoRA.
    """
    folder = run.step_folder(path)
    if folder is None:
        return None
    out, part = folder.parent.parent.parent, folder.parent.name
    if (wrong := run.defect(folder)) is not None:
        raise CheckpointError(f"the checkpoint `{folder}` is not whole", wrong, "name another one")
    record, state = read_record(out), run.read_state(folder)
    if record.get("method") != "lora" or part not in PARTS:
        raise CheckpointError(
            f"`{path}` holds no LoRA",
            f"the run in `{out}` trains all weights of `{part}`",
            f"`sampan checkpoint export {out} DIR --step {part}={state['step']}` writes a model of it",
        )
    tensors = {
        name.removeprefix(state["prefix"]): np.asarray(dev.to_numpy(value), np.float32)
        for name, value in io.read_tensors(folder / _FILE, "cpu").items()
        if name.endswith(FACTORS)
    }
    layers = dict.fromkeys(name.removesuffix(FACTORS[0]) for name in tensors if name.endswith(FACTORS[0]))
    return StepAdapter(
        part,
        folder / _FILE,
        {layer: (tensors[layer + FACTORS[0]], tensors[layer + FACTORS[1]]) for layer in layers},
        (record.get("lora") or {}).get("alpha"),
    )
