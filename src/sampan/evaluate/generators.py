"""Who paints: a model folder here; a server in endpoint.py. Both take questions and give pictures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from statistics import median
from typing import Any, Protocol

import numpy as np
from PIL import Image

from sampan.checkpoint import lora
from sampan.checkpoint.folder import ModelFolder
from sampan.evaluate.case import EvalCase
from sampan.frameworks import device as dev
from sampan.frameworks import io
from sampan.models.build import PARTS
from sampan.pipeline.batch import StageClock, generate_images
from sampan.pipeline.inject import InjectedInputs
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.prepare import Pixels, Prepared
from sampan.pipeline.request import ImageRequest

Report = Callable[[str, int, int], None]
ABLATIONS = {
    "prior": "tokens of the true picture instead of written ones",
    "glyph": "no words in quotes for the decoder",
    "preview": "no preview before the tokens",
    "decoder": "all weights of the decoder zero",
}
_IMAGES_AT_ONCE = 16  # latents denoised side by side
_ALONE = 4  # pictures painted one by one for the speed; the first one is left out


def zero_decoder(pipeline: Pipeline) -> None:
    """Set all weights of the decoder to zero."""
    decoder = pipeline.part("decoder")
    io.put_weights(decoder, {name: np.zeros(shape, np.float32) for name, shape in io.shapes(decoder).items()})


def prepare_without(
    ablate: frozenset[str],
    pipeline: Pipeline,
    request: ImageRequest,
    images: Sequence[Image.Image] = (),
    truth: Image.Image | None = None,
) -> Prepared:
    """Return a request with parts of the model left out, to see what each brings.

    Args:
        ablate: Names in ABLATIONS; `decoder` is for `zero_decoder`, once.
        truth: The true image, whose tokens are used where `prior` is left out.
    """
    prepared = Prepared(
        pipeline, request, images, with_preview="preview" not in ablate, with_words="glyph" not in ablate
    )
    if "prior" in ablate:
        assert truth is not None, "there is a true image"
        prepared.injected = InjectedInputs(pipeline.prior_of(truth, prepared.size))
    return prepared


class ImageGenerator(Protocol):
    """Paints questions.

    Args:
        name: Names who paints, the weights included; safe as a folder's name.
        chunk: Questions that it likes to have at once.
        size_px: Side of the pictures.
    """

    name: str
    chunk: int
    size_px: int

    def settings(self) -> dict[str, Any]:
        """Return everything that a picture depends on beside the question, as JSON."""
        ...

    def facts(self) -> dict[str, Any]:
        """Return what a report says of it."""
        ...

    def paint(self, cases: Sequence[EvalCase], report: Report) -> list[tuple[Image.Image, float]]:
        """Return each question's picture and the seconds it took."""
        ...


class ModelGenerator:
    """A model folder on a device of this machine.

    Args:
        folder: In the released layout.
        size_px: Side of the pictures.
        ablate: Names in ABLATIONS.
        batch: Questions painted together.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        size_px: int,
        num_steps: int,
        guidance_scale: float,
        ablate: frozenset[str],
        batch: int,
    ):
        self.pipeline, self.size_px, self.num_steps = pipeline, size_px, num_steps
        self.guidance_scale, self.ablate = guidance_scale, ablate
        self.chunk = batch
        self.folder: ModelFolder = pipeline.folder
        self.name = self.folder.hash
        self.clock, self.num_painted = StageClock(), 0
        if "decoder" in ablate:
            zero_decoder(pipeline)

    def settings(self) -> dict[str, Any]:
        """Return what a picture depends on beside the folder's weights; the size of batches changes last bits at most."""
        found: dict[str, Any] = {
            "num_inference_steps": self.num_steps,
            "guidance_scale": self.guidance_scale,
            "size_px": self.size_px,
            "ablate": sorted(self.ablate),
            "device": self.pipeline.device,
            "dtype": self.pipeline.dtype,
        }
        if (marks := self.pipeline.config.prompt.quotation_marks) != "as written":
            found["quotation_marks"] = marks
        if self.pipeline.loras:
            found["loras"] = lora.provenance_records(self.pipeline.loras)
        if self.folder.hash_covers != "contents":  # other weights of the same sizes have the same hash
            stored = (path for part in PARTS for path in self.folder.files(part).values())
            found["weights_changed_ns"] = max(path.stat().st_mtime_ns for path in stored)
        return found

    def facts(self) -> dict[str, Any]:
        """Return the model by folder, hash and what the hash covers, and how it reads quotation marks."""
        return {
            "model": self.folder.name,
            "model_hash": self.folder.hash,
            "hash_covers": self.folder.hash_covers,
            "quotation_marks": self.pipeline.config.prompt.quotation_marks,
        }

    def paint(self, cases: Sequence[EvalCase], report: Report) -> list[tuple[Image.Image, float]]:
        """Return each question's picture, and the same share of the seconds for each."""
        begun = time.perf_counter()
        images = self._generate(cases, self.clock, report)
        seconds = (time.perf_counter() - begun) / len(cases)
        self.num_painted += len(cases)
        return [(Image.fromarray(image), seconds) for image in images]

    def alone(self, cases: Sequence[EvalCase], report: Report) -> dict[str, Any]:
        """Return seconds by stage of one picture alone, loading left out, and the most memory that was taken until then.

        Memory is that of the whole process on a CPU, of tensors on an accelerator.
        """
        runs, some = [], cases[:_ALONE]
        for number, case in enumerate(some, start=1):
            clock, begun = StageClock(), time.perf_counter()
            self._generate([case], clock, lambda what, done, total: None)
            runs.append(clock.seconds | {"whole": time.perf_counter() - begun})
            report("pictures alone", number, len(some))
        kept = runs[1:] or runs  # the first one loads and warms
        seconds = {name: round(median(run[name] for run in kept), 4) for name in kept[0]}
        return {"seconds": seconds, "peak_memory_bytes": dev.peak_memory_bytes(self.pipeline.device)}

    def in_batches(self) -> dict[str, float] | None:
        """Return seconds a picture by stage of what was painted in batches; None where nothing was."""
        if not self.num_painted:
            return None
        shares = {name: seconds / self.num_painted for name, seconds in self.clock.seconds.items()}
        return {name: round(share, 4) for name, share in (shares | {"whole": sum(shares.values())}).items()}

    def _generate(self, cases: Sequence[EvalCase], clock: StageClock, report: Report) -> list[Pixels]:
        with clock.charge("tokens"):
            requests = [self._prepare(case) for case in cases]
        made = generate_images(self.pipeline, requests, images_at_once=_IMAGES_AT_ONCE, clock=clock, progress=report)
        return [image for (image,) in made]

    def _prepare(self, case: EvalCase) -> Prepared:
        request = ImageRequest(
            case.prompt,
            width_px=self.size_px,
            height_px=self.size_px,
            seed=case.seed,
            num_inference_steps=self.num_steps,
            guidance_scale=self.guidance_scale,
        )
        return prepare_without(self.ablate, self.pipeline, request, case.references, case.truth)
