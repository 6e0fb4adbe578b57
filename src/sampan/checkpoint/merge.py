"""A model with LoRAs merged into its weights, or taken out of them again, as a folder of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sampan.checkpoint import hub, lora, own_file
from sampan.checkpoint.folder import open_with_lora
from sampan.checkpoint.write import write_folder
from sampan.errors import CheckpointError
from sampan.models.build import PARTS


def merge(
    model: Path,
    directory: Path,
    loras: Sequence[tuple[Path, float]],
    *,
    subtract: bool = False,
    dtype: str | None = None,
    progress: Callable[[int, int], None] | None = None,
    verified: bool = True,
    say: Callable[[str], None] = lambda note: None,
) -> Path:
    """Write a model with LoRA adapters in its weights to a new folder, and return that folder.

    Weights are read one file's worth at a time. Those of layers without an adapter are written as they are;
    to the others the adapters are added in fp32, and the sum is cast once to what is written. Taking the same adapters out
    again gives fp32 weights back but for their last bits, and bf16 weights but for theirs.

    Args:
        model: A model folder, or a run; the adapter of a run that trained one counts first.
        loras: LoRA files or folders, each with the factor on its own scale.
        subtract: Take the adapters out.
        dtype: "fp32" or "bf16" to convert, None to keep what each weight is stored as.
        progress: Called with the weight files written and their number.
        verified: Hold the model's files against the hashes that sampan recorded when it wrote them, where it did.
        say: Called with what a LoRA file leaves open and how it was taken, in words.

    Raises:
        CheckpointError: There is nothing to merge, a file cannot be used, or the folder is there already.
    """
    folder, own = open_with_lora(model)
    asked = [*([(own, 1.0)] if own else []), *loras]
    if not asked:
        raise CheckpointError(
            f"there is nothing to merge into `{model}`", "it is a whole model, and no LoRA is given", "pass --lora FILE"
        )
    if verified:
        folder.check_written()  # what is written gets new hashes
    adapters = [adapter for path, strength in asked for adapter in lora.read(path, folder.config, strength)]
    before = own_file.read(folder.path).get("provenance")
    for note in lora.notes(adapters):
        say(note)
    provenance: dict[str, Any] = {
        "subtracted" if subtract else "merged": lora.provenance_records(adapters),
        "base": {
            "name": hub.name_of(folder.path) or folder.path.resolve().name,
            "hash": folder.hash,
            "provenance": before,
        },
    }
    return write_folder(
        directory,
        folder.config,
        {part: lora.merge(folder.unread(part), part, adapters, subtract=subtract, dtype=dtype) for part in PARTS},
        folder.path / "processor",
        dtype=dtype,
        provenance=provenance,
        knows=folder.knows,  # the adapters add to it
        progress=progress,
    )
