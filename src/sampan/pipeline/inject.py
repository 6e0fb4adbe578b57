"""Prior tokens, noise and glyph embeddings from a file, so that the decoder can be held against another implementation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from sampan.errors import DamagedFileError, RequestError
from sampan.frameworks.safetensors_header import read_header
from sampan.models.config import ModelConfig
from sampan.models.positions import Grid
from sampan.pipeline.denoise import latent_shape
from sampan.pipeline.request import ImageRequest

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
_DTYPES = ("F16", "F32", "F64", "I8", "I16", "I32", "I64", "U8", "U16", "U32")


@dataclass(frozen=True)
class InjectedInputs:
    """What the user brings instead of letting it be computed."""

    prior_ids: Ints | None = None
    noise: Floats | None = None
    glyph_embeds: Floats | None = None


def read_injected(request: ImageRequest, size: Grid, config: ModelConfig) -> InjectedInputs:
    """Return what the request's file holds, checked against the model and the size in pixels.

    Raises:
        RequestError: The file cannot be read, or holds something else than this model and size need.
    """
    if request.inject is None:
        return InjectedInputs()
    path = request.inject
    wanted: dict[str, tuple[int | None, ...]] = {
        "prior_token_ids": config.geometry.prior_grid(*size),
        "noise": (1, *latent_shape(size, config)),
        "glyph_embeds": (1, None, config.glyph.d_model),
    }
    try:
        tensors = read_header(path).tensors
        if odd := next((name for name, place in tensors.items() if place.dtype not in _DTYPES), None):
            raise TypeError(f"`{odd}` is stored as {tensors[odd].dtype}")
        with safe_open(path, framework="np") as file:
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except FileNotFoundError as error:
        raise RequestError(f"there is no file `{path}` to inject") from error
    except (SafetensorError, DamagedFileError, OSError, TypeError) as error:
        raise RequestError(
            f"`{path}` cannot be injected", f"it is not a readable safetensors file of fp32 and integers: {error}"
        ) from error
    for name, value in found.items():
        if name not in wanted:
            raise RequestError(f"`{path}` cannot be injected", f"it holds `{name}`", f"known are {', '.join(wanted)}")
        shape = wanted[name]
        if len(shape) != value.ndim or any(w not in (None, s) for w, s in zip(shape, value.shape, strict=True)):
            raise RequestError(
                f"`{path}` cannot be injected",
                f"`{name}` has shape {tuple(value.shape)}; this model and size need "
                + str(tuple("any" if w is None else w for w in shape)),
            )
    ids = found.get("prior_token_ids")
    codes = config.dit.prior_vq_quantizer_codebook_size
    if ids is not None and (not np.issubdtype(ids.dtype, np.integer) or ids.min() < 0 or ids.max() >= codes):
        raise RequestError(f"`{path}` cannot be injected", f"`prior_token_ids` must be integers in 0..{codes - 1}")
    if "noise" in found and request.count > 1:
        raise RequestError("one injected noise makes one picture", f"{request.count} were asked for", "use -n 1")
    return InjectedInputs(
        None if ids is None else ids.astype(np.int64),
        None if "noise" not in found else found["noise"].astype(np.float32),
        None if "glyph_embeds" not in found else found["glyph_embeds"].astype(np.float32),
    )
