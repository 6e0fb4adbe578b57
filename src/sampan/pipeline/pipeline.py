"""The whole way of one picture: prompt → prior tokens → latent → pixels → PNG.

Parts are read from the folder when their turn comes. With `offload` only the part at work is on the device; without it
parts stay, which is what a second picture wants.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image

from sampan import __version__
from sampan.checkpoint import lora
from sampan.checkpoint.folder import ModelFolder, load_part, open_with_lora
from sampan.checkpoint.lora import LoraAdapter
from sampan.data import encode
from sampan.data.pictures import load_rgb, to_array, to_uint8
from sampan.errors import RequestError
from sampan.frameworks import device as dev
from sampan.models import pixels, positions
from sampan.models.config import ModelConfig
from sampan.models.dit import KV
from sampan.models.positions import Grid
from sampan.models.text import PromptTokenizer, glyph_batch, glyph_texts
from sampan.pipeline import ar_decode
from sampan.pipeline.denoise import Denoiser
from sampan.pipeline.inject import read_injected
from sampan.pipeline.png import save_png
from sampan.pipeline.request import ImageRequest, check_length, check_size
from sampan.progress import bars
from sampan.samplers import noise

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Progress = Callable[[str, int, int], None]  # what is under way, how much is done, how much there is
MICRO_BATCH = 4  # pictures painted side by side; more only costs memory


@dataclass(frozen=True)
class ReferenceImage:
    """A reference picture at a size on which tokenizer and autoencoder agree.

    Args:
        image: RGB.
        ids: Its visual tokens (rows, columns).
    """

    image: Image
    ids: Ints


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
        self._progress: Progress = progress or (lambda what, done, total: None)
        self._parts: dict[str, Any] = {}
        self._step: tuple[Any, Any] = (None, None)  # the generator, and it compiled

    def part(self, name: str) -> Any:
        """Return a part on the device, read from the folder if it is not there."""
        if name not in self._parts:
            if self.offload:
                self._parts.clear()
                self._step = (None, None)
                dev.release(self.device)
            self._progress(f"loading {name}", 0, 1)
            self._parts[name] = load_part(self.folder, name, device=self.device, dtype=self.dtype, loras=self.loras)
            self._progress(f"loading {name}", 1, 1)
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

    # --- steps, each usable alone ------------------------------------------------------------------------------------

    def read_reference(self, image: Image) -> ReferenceImage:
        """Bring a picture to a size the model takes and read its visual tokens."""
        config = self.config
        height, width = pixels.reference_size(image.height, image.width, config.processor, config.geometry.prior_px)
        if (height, width) != (image.height, image.width):
            from PIL import Image as pil

            image = image.resize((width, height), pil.Resampling.BICUBIC)
        patches, grid = pixels.to_patches(image, config.processor, config.token_scale)
        ids = encode.token_ids(self.part("tokenizer"), patches[None], grid, config, self.device, self.dtype)[0]
        return ReferenceImage(image, ids.reshape(grid))

    def write_prior(
        self, request: ImageRequest, size: Grid, references: Sequence[ReferenceImage], tokenizer: PromptTokenizer
    ) -> Ints:
        """Return prior ids (count, rows, columns), written by the AR model."""
        config = self.config
        target = config.geometry.prior_grid(*size)
        preview = None if references else config.geometry.preview_grid(*size)
        grids = (target,) if preview is None else (preview, target)
        prompt = tokenizer.encode(request.prompt, target, preview, [positions.grid_of(r.ids) for r in references])
        check_length(len(prompt.ids), sum(r * c for r, c in grids) + 1, config)
        model = self.part("ar")
        if self.compiled and self._step[0] is not model:
            self._step = (model, dev.compiled(model))
        return ar_decode.write_prior(
            model,
            prompt,
            [r.ids for r in references],
            grids,
            config=config,
            sampling=request.sampling(config.sampling),
            seed=request.seed,
            pictures=tuple(range(request.count)),
            device=self.device,
            dtype=self.dtype,
            step=self._step[1],
            progress=lambda done, total: self._progress("writing tokens", done, total),
        )

    def glyph_embeds(self, texts: Sequence[str]) -> Floats:
        """Return (1, bytes, width) of the words to be drawn, one after another; of no words, the empty string's."""
        return encode.glyph_embeds(self.part("glyph"), texts, self.config, self.device)[None]

    def reference_kv(self, references: Sequence[ReferenceImage]) -> tuple[KV, ...] | None:
        """Return the references' keys and values per decoder layer, or None without references."""
        if not references:
            return None
        latents = [self.encode(to_array(r.image)[None]) for r in references]  # before the decoder takes the device
        sizes = [(r.image.height, r.image.width) for r in references]
        return self.painter().reference_kv(latents, [r.ids for r in references], sizes)

    def encode(self, images: Floats) -> Floats:
        """Return normalised latents (n, channels, h, w) of images (n, 3, H, W) in [-1, 1]."""
        return encode.latents(self.part("vae"), images, self.config, self.device, self.dtype)

    def decode(self, latents: Any) -> Floats:
        """Return images (n, 3, H, W) in about [-1, 1] of normalised latents."""
        return encode.images(self.part("vae"), latents, self.config, self.device, self.dtype)

    def paint(
        self,
        prior_ids: Ints,
        noise_latent: Floats,
        glyph: Floats,
        unconditional_glyph: Floats | None,
        references: tuple[KV, ...] | None,
        size: Grid,
        num_steps: int,
        guidance_scale: float,
    ) -> Any:
        """Return normalised latents (n, channels, h, w), on the device in fp32.

        Args:
            prior_ids: (n, rows, columns).
            noise_latent: (n, channels, h, w).
            glyph: (1, tokens, width).
            unconditional_glyph: Of the empty string; None switches guidance off.
        """
        return self.painter().paint(
            prior_ids,
            noise_latent,
            glyph,
            unconditional_glyph,
            references,
            size,
            num_steps,
            guidance_scale,
            lambda done, total: self._progress("painting", done, total),
        )

    def painter(self) -> Denoiser:
        """Return the decoder, ready to paint."""
        return Denoiser(self.part("decoder"), self.config, self.device, self.dtype)

    # --- the whole -----------------------------------------------------------------------------------------------------

    def __call__(self, request: ImageRequest, images: Sequence[Image] | None = None) -> list[NDArray[np.uint8]]:
        """Return the pictures (H, W, 3) of a request.

        Args:
            images: The references, already opened; without them the request's files are read.

        Raises:
            RequestError, DataError: What was asked cannot be done, before anything long begins where that can be known.
        """
        config = self.config
        opened = [load_rgb(path) for path in request.references] if images is None else list(images)
        size = self.size_of(request, opened)
        injected = read_injected(request, size, config)
        texts = glyph_texts(request.prompt)
        glyph_batch(texts)  # an over-long word fails now
        tokenizer = None if injected.prior_ids is not None else self.prompt_tokenizer
        references = [self.read_reference(image) for image in opened]
        if injected.prior_ids is not None:
            prior = np.repeat(injected.prior_ids[None], request.count, axis=0)
        else:
            assert tokenizer is not None, "opened above"
            prior = self.write_prior(request, size, references, tokenizer)
        glyph = injected.glyph_embeds if injected.glyph_embeds is not None else self.glyph_embeds(texts)
        guidance_scale = request.guidance(config.painting)
        unconditional = self.glyph_embeds([""]) if guidance_scale > 1 else None
        shape = (config.vae.latent_channels, size[0] // config.vae.factor, size[1] // config.vae.factor)
        latents = (
            [injected.noise[0]]
            if injected.noise is not None
            else [
                noise.generator(request.seed, "latent", k).standard_normal(shape, np.float32)
                for k in range(request.count)
            ]
        )
        kv = self.reference_kv(references)
        painted = [
            self.paint(
                prior[first : first + MICRO_BATCH],
                np.stack(latents[first : first + MICRO_BATCH]),
                glyph,
                unconditional,
                kv,
                size,
                request.steps(config.painting),
                guidance_scale,
            )
            for first in range(0, request.count, MICRO_BATCH)
        ]
        return [to_uint8(image) for latent in painted for image in self.decode(latent)]

    def size_of(self, request: ImageRequest, references: Sequence[Image]) -> Grid:
        """Return height and width of a request's pictures.

        Raises:
            RequestError: The model cannot paint that size.
        """
        geometry = self.config.geometry
        height, width = request.height_px, request.width_px
        if height is None or width is None:
            height = width = geometry.default_px
            if references:
                first = references[0]
                height, width = pixels.reference_size(
                    first.height, first.width, self.config.processor, geometry.prior_px
                )
        check_size(height, width, self.config)
        return height, width


def open_pipeline(
    model: str,
    *,
    device: str,
    dtype: str,
    offload: bool = False,
    progress: Progress | None = None,
    loras: Sequence[tuple[Path, float]] = (),
    compiled: bool = False,
) -> Pipeline:
    """Return a model folder, or a run, ready to paint; arguments as `generate`.

    Raises:
        SampanError: It cannot be used, or the device is not there.
    """
    folder, own = open_with_lora(Path(model))
    folder.check()  # a missing shard is said now, not after the part before it has worked
    asked = [*([(own, 1.0)] if own else []), *loras]
    lows = [low for path, strength in asked for low in lora.read(path, folder.config, strength)]
    where = dev.resolve(device)
    return Pipeline(folder, where, dev.resolve_dtype(dtype, where), offload, progress, lows, compiled)


def generate(
    request: ImageRequest,
    *,
    model: str,
    device: str,
    dtype: str,
    offload: bool,
    out: Path | None,
    console: Any,
    loras: Sequence[tuple[Path, float]] = (),
    compiled: bool = False,
) -> list[dict[str, Any]]:
    """Paint a request's pictures, write them as PNG and return one record a picture.

    Args:
        model: A model folder, the name of a shipped one, or a run, whose own additions come before `loras`.
        loras: LoRA files or folders, each with what its own scale is multiplied with.
        compiled: Compile the step that writes a token: worth it for large pictures, and for several in one call.
        out: File of the first picture; further ones get -2, -3 … Without one, `sampan-SEED.png` in the current folder.
        console: A rich console for progress.

    Raises:
        SampanError: With nothing written.
    """
    target, begun = check_target(request, out), time.perf_counter()
    with bars(console) as progress:
        pipeline = open_pipeline(
            model, device=device, dtype=dtype, offload=offload, progress=progress, loras=loras, compiled=compiled
        )
        if (hint := prompt_hint(pipeline, request, model)) is not None:
            console.print(hint, markup=False, highlight=False, soft_wrap=True)
        return write_images(pipeline, request, target, begun)


def prompt_hint(pipeline: Pipeline, request: ImageRequest, model: str) -> str | None:
    """Return what to say of a prompt outside of what the model says it knows; None of one inside, and of an edit."""
    knows = pipeline.folder.knows
    return None if request.references or pipeline.loras else knows.hint(request.prompt, model)


def check_target(request: ImageRequest, out: Path | None) -> Path:
    """Return the file of the first image.

    Raises:
        RequestError: It cannot be written, or a reference is not there.
    """
    target = out or Path(f"sampan-{request.seed}.png")
    if target.suffix.lower() != ".png":
        raise RequestError(
            f"cannot write `{target}`", "pictures are written as PNG", "give --out a name that ends in .png"
        )
    if not target.parent.is_dir():
        raise RequestError(f"cannot write `{target}`", f"there is no folder `{target.parent}`", "make it first")
    for path in request.references:
        if not path.is_file():
            raise RequestError(f"there is no reference picture `{path}`")
    return target


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
        save_png(path, image, facts)
        records.append(
            {"file": str(path), **facts, "device": pipeline.device, "seconds": round(seconds / len(pictures), 3)}
        )
    return records
