"""A model folder, ready to generate: prompt → prior tokens → latent → image → PNG.

Parts are read from the folder when their turn comes. With `offload` only the part at work is on the device; without it
parts stay, which is what a second picture wants.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from PIL.Image import Image, Resampling

from sampan import __version__, host
from sampan.checkpoint import lora
from sampan.checkpoint.folder import ModelFolder, load_part, open_with_lora
from sampan.checkpoint.lora import LoraAdapter
from sampan.data.transforms import grid_patches
from sampan.frameworks import device as dev
from sampan.frameworks.memory import memory_for
from sampan.models import encoders, pixels
from sampan.models.build import PARTS
from sampan.models.config import ModelConfig
from sampan.models.positions import Grid
from sampan.models.text import PromptTokenizer
from sampan.pipeline import output
from sampan.pipeline.batch import IMAGES_AT_ONCE, Progress, generate_images
from sampan.pipeline.denoise import Denoiser
from sampan.pipeline.options import PipelineOptions
from sampan.pipeline.prepare import Floats, Ints, Pixels, ReferenceImage, prepare
from sampan.pipeline.prompt import note_on, painted_prompt
from sampan.pipeline.request import FEWER, ImageRequest
from sampan.pipeline.tokens import BatchedDecoder
from sampan.progress import bars


class Pipeline:
    """A model folder, ready to paint.

    Args:
        folder: In the released layout.
        device: A resolved device name.
        dtype: "fp32" or "bf16".
        offload: Keep only the part at work on the device.
        loras: Low-rank additions, put beside the weights; these stay as they are.
        compiled: Compile the step that writes a token.
    """

    def __init__(
        self,
        folder: ModelFolder,
        device: str,
        dtype: str,
        offload: bool = False,
        progress: Progress | None = None,
        loras: Sequence[LoraAdapter] = (),
        compiled: bool = False,
    ):
        self.folder, self.device, self.dtype, self.offload = folder, device, dtype, offload
        self.loras, self.compiled = tuple(loras), compiled
        self.config: ModelConfig = folder.config
        self.progress: Progress = progress or (lambda what, done, total: None)
        self._parts: dict[str, Any] = {}
        self._step: tuple[Any, Any] = (None, None)  # the generator, and it compiled

    def part(self, name: str) -> Any:
        """Return a part on the device, read from the folder if it is not there."""
        if name not in self._parts:
            if self.offload:
                self._parts.clear()
                self._step = (None, None)
                dev.release(self.device)
            self.progress(f"loading {name}", 0, 1)
            with memory_for(f"the weights of {name}", FEWER):
                self._parts[name] = load_part(self.folder, name, device=self.device, dtype=self.dtype, loras=self.loras)
            self.progress(f"loading {name}", 1, 1)
        return self._parts[name]

    def close(self) -> None:
        """Free every part."""
        self._parts.clear()
        self._step = (None, None)
        dev.release(self.device)

    @cached_property
    def prompt_tokenizer(self) -> PromptTokenizer:
        """The folder's prompt tokenizer; errors as `ModelFolder.prompt_tokenizer`."""
        return self.folder.prompt_tokenizer()

    # --- what each part does -------------------------------------------------------------------------------------------

    def read_reference(self, image: Image) -> ReferenceImage:
        """Bring an image to a size the model takes and read its visual tokens."""
        config = self.config
        height, width = pixels.reference_size(image.height, image.width, config.processor, config.geometry.prior_px)
        if (height, width) != (image.height, image.width):
            image = image.resize((width, height), Resampling.BICUBIC)
        patches, grid = pixels.to_patches(image, config.processor, config.token_scale)
        return ReferenceImage(image, self._tokens(patches, grid))

    def prior_of(self, image: Image, size: Grid) -> Ints:
        """Return the tokens (rows, columns) of an image at a size in pixels, as the generator learned to write them."""
        grid = self.config.geometry.prior_grid(*size)
        return self._tokens(grid_patches(image, grid, self.config.ar.vision.patch_size), grid)

    def token_decoder(self) -> BatchedDecoder:
        """Return the AR generator, ready to write tokens."""
        model = self.part("ar")
        if self.compiled and self._step[0] is not model:
            self._step = (model, dev.compiled(model))
        return BatchedDecoder(model, self.device, self.dtype, self._step[1])

    @memory_for("the glyph encoder", FEWER)
    def glyph_embeds(self, texts: Sequence[str]) -> Floats:
        """Return (1, bytes, width) of the words to be drawn, one after another; of no words, the empty string's."""
        return encoders.embed_glyphs(self.part("glyph"), texts, self.config, self.device)[None]

    @memory_for("the VAE's encoder", FEWER)
    def encode(self, images: Floats) -> Floats:
        """Return normalised latents (n, channels, h, w) of images (n, 3, H, W) in [-1, 1]."""
        return encoders.encode_latents(self.part("vae"), images, self.config, self.device, self.dtype)

    def denoiser(self) -> Denoiser:
        """Return the diffusion decoder, ready to denoise."""
        return Denoiser(self.part("decoder"), self.config, self.device, self.dtype)

    @memory_for("the VAE's decoder", FEWER)
    def decode(self, latents: Any) -> Floats:
        """Return images (n, 3, H, W) in about [-1, 1] of normalised latents."""
        return encoders.decode_latents(self.part("vae"), latents, self.config, self.device, self.dtype)

    @memory_for("the image tokenizer", FEWER)
    def _tokens(self, patches: Floats, grid: Grid) -> Ints:
        ids = encoders.encode_tokens(self.part("tokenizer"), patches[None], grid, self.config, self.device, self.dtype)
        return ids[0].reshape(grid)

    # --- the whole -----------------------------------------------------------------------------------------------------

    def __call__(self, request: ImageRequest, images: Sequence[Image] | None = None) -> list[Pixels]:
        """Return the images (H, W, 3) of a request.

        Args:
            images: The references, already opened; without them the request's files are read.

        Raises:
            RequestError, DataError: What was asked cannot be done, before anything long begins where that can be known.
        """
        return generate_images(self, [prepare(self, request, images)])[0]


def open_pipeline(options: PipelineOptions, *, progress: Progress | None = None, together: int = 1) -> Pipeline:
    """Return a model ready to paint.

    Args:
        together: Pictures that are made side by side.

    Raises:
        SampanError: It cannot be used, or the device is not there.
    """
    load = host.CpuLoad()
    folder, own = open_with_lora(Path(options.model))
    folder.check()  # a missing shard is said now, not after the part before it has worked
    if options.verified:
        folder.check_written(progress)
    asked = [*([(own, 1.0)] if own else []), *options.loras]
    lows = [low for path, strength in asked for low in lora.read(path, folder.config, strength)]
    where = dev.resolve(options.device)
    if options.threads is not None:
        dev.set_threads(options.threads)
    elif where == "cpu":
        largest = max(sum(tensor.num_elements for tensor in folder.stored(part).values()) for part in PARTS)
        dev.default_threads(host.choose_threads(largest * together, load))
    dtype = dev.resolve_dtype(options.dtype, where)
    return Pipeline(folder, where, dtype, options.offload, progress, lows, options.compiled)


def generate(
    request: ImageRequest, options: PipelineOptions, *, out: Path | None, console: Any
) -> list[dict[str, Any]]:
    """Paint a request's pictures, write them as PNG and return one record a picture.

    Args:
        out: File of the first picture; further ones get -2, -3 … Without one, `sampan-SEED.png` in the current folder.
        console: A rich console for progress.

    Raises:
        SampanError: With nothing written, or saying what was.
    """
    (target, free_bytes), begun = output.check_target(request, out), time.perf_counter()
    with bars(console) as progress:
        pipeline = open_pipeline(options, progress=progress, together=min(request.count, IMAGES_AT_ONCE))
        side = pipeline.config.geometry.default_px
        num_pixels = request.count * (request.width_px or side) * (request.height_px or side)
        output.check_room(target, free_bytes, num_pixels)
        for note in lora.notes(pipeline.loras):
            console.print(note, highlight=False, markup=False, soft_wrap=True)
        for words in prompt_notes(pipeline, request, options.model):
            console.print(words, markup=False, highlight=False, soft_wrap=True)
        return write_images(pipeline, request, target, begun)


def prompt_notes(pipeline: Pipeline, request: ImageRequest, model: str) -> list[str]:
    """Return what to say of a prompt: that it is read otherwise than written, or outside of what the model says it knows."""
    note = note_on(request.prompt, pipeline.config)
    notes = [] if note is None else [f"note: {note}"]
    if not (request.references or pipeline.loras):  # an edit names what is to change
        hint = pipeline.folder.knows.hint(painted_prompt(request.prompt, pipeline.config), model)
        notes += [] if hint is None else [hint]
    return notes


def write_images(pipeline: Pipeline, request: ImageRequest, target: Path, begun: float) -> list[dict[str, Any]]:
    """Generate the images of a request, write them as PNG and return one record an image.

    Args:
        target: File of the first one; of several each has its number behind the name.
        begun: Where the seconds of the records begin, by time.perf_counter.
    """
    pictures = pipeline(request)
    seconds = time.perf_counter() - begun
    records = []
    for index, image in enumerate(pictures):
        path = target if len(pictures) == 1 else target.with_stem(f"{target.stem}-{index + 1}")
        facts: dict[str, Any] = {
            "seed": request.seed,
            "picture": index,
            "width_px": image.shape[1],
            "height_px": image.shape[0],
            "num_inference_steps": request.steps(pipeline.config.painting),
            "guidance_scale": request.guidance(pipeline.config.painting),
            "num_references": len(request.references),
            "model_hash": pipeline.folder.hash,
            "dtype": pipeline.dtype,
            "version": __version__,
        }
        if pipeline.loras:
            facts["loras"] = lora.provenance_records(pipeline.loras)
        if request.prompt_metadata:
            facts["prompt"] = request.prompt
            if (painted := painted_prompt(request.prompt, pipeline.config)) != request.prompt:
                facts["revised_prompt"] = painted
        output.write_picture(path, image, facts, records, len(pictures))
        where = {"device": pipeline.device, "threads": dev.set_threads(None)}
        records.append({"file": str(path), **facts, **where, "seconds": round(seconds / len(pictures), 3)})
    return records
