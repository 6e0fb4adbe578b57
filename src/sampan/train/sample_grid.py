"""What a stage does, as one picture: a grid of examples with captions, and what makes the examples.

The default font of Pillow draws little more than ASCII: accents are left out and other signs are question marks, while the
whole text goes along as the picture's `info["Description"]`, which the file keeps.
"""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from sampan.data.pictures import to_uint8
from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.models import pixels, positions
from sampan.models.config import ModelConfig
from sampan.models.encoders import decode_latents
from sampan.pipeline.denoise import DenoiseInputs, Denoiser

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Cell = Floats | Image.Image | None  # (3, height, width) in about [-1, 1], a picture, or nothing

NUM_STEPS = 20  # of Euler, in a look at what a decoder does
GUIDANCE = 1.5
SMALLEST_CELL_PX, LARGEST_CELL_PX = 96, 256
_CAPTION_PX, _FONT_PX, _GAP_PX = 150, 12, 6
_LEAST_SIGN_PX = 2  # no sign of the font is narrower: more text than that fills a caption
_PAPER, _INK, _NOTHING = (255, 255, 255), (60, 60, 60), (236, 239, 243)


# --- the grid ----------------------------------------------------------------------------------------------------------


def grid(
    rows: Sequence[Sequence[Cell]], row_names: Sequence[str], column_names: Sequence[str], *, cell_px: int | None = None
) -> Image.Image:
    """Return pictures in rows, the rows' names on the left and the columns' on top.

    Args:
        rows: Of the same length each; sizes may differ. A picture is scaled so that its longer side fills its cell.
        row_names: In any language and of any length; what does not fit is cut.
        cell_px: Side of a cell; without it, the longest side of any picture, within 96 and 256.

    Raises:
        ValueError: Rows and names are not as many, or there are none.
    """
    if not rows or len(rows) != len(row_names) or any(len(row) != len(column_names) for row in rows):
        raise ValueError(f"{len(rows)} rows, {len(row_names)} and {len(column_names)} names")
    pictures = [[None if cell is None else _picture(cell) for cell in row] for row in rows]
    longest = max((max(p.size) for row in pictures for p in row if p), default=SMALLEST_CELL_PX)
    side = cell_px or min(LARGEST_CELL_PX, max(SMALLEST_CELL_PX, longest))
    line = _line_px()
    top = (line + _GAP_PX if any(column_names) else 0) + _GAP_PX
    left = (_CAPTION_PX + _GAP_PX if any(row_names) else 0) + _GAP_PX
    width, height = left + len(column_names) * (side + _GAP_PX), top + len(rows) * (side + _GAP_PX)
    sheet = Image.new("RGB", (width, height), _PAPER)
    pen = ImageDraw.Draw(sheet)
    for column, name in enumerate(column_names):
        _write(pen, (left + column * (side + _GAP_PX), _GAP_PX), name, side, 1)
    for number, (row, name) in enumerate(zip(pictures, row_names, strict=True)):
        y = top + number * (side + _GAP_PX)
        _write(pen, (_GAP_PX, y), name, _CAPTION_PX, side // line)
        for column, picture in enumerate(row):
            x = left + column * (side + _GAP_PX)
            if picture is None:
                pen.rectangle((x, y, x + side - 1, y + side - 1), fill=_NOTHING)
                continue
            fitted = _fitted(picture, side)
            sheet.paste(fitted, (x + (side - fitted.width) // 2, y + (side - fitted.height) // 2))
    sheet.info["Description"] = "\n".join([" | ".join(column_names), *row_names])
    return sheet


def pairs(
    originals: Sequence[Cell],
    others: Sequence[Cell],
    names: Sequence[str],
    *,
    columns: tuple[str, str] = ("original", "again"),
) -> Image.Image:
    """Return pictures with what was made of each beside it; see `grid`."""
    return grid([list(pair) for pair in zip(originals, others, strict=True)], names, columns)


def drawable(text: str) -> str:
    """Return a text in signs that the font has: without accents, and "?" for what it cannot draw."""
    plain = unicodedata.normalize("NFKD", " ".join(text.split()))
    return "".join(sign if _draws(sign) else "?" for sign in plain if not unicodedata.combining(sign))


def wrapped(text: str, width_px: int, max_lines: int) -> list[str]:
    """Return a text's lines, at most so many and so wide; an end that is left out shows as dots."""
    lines: list[str] = []
    for word in drawable(text[: max_lines * width_px // _LEAST_SIGN_PX]).split():
        joined = f"{lines[-1]} {word}" if lines else word
        if lines and _font().getlength(joined) <= width_px:
            lines[-1] = joined
            continue
        while _font().getlength(word) > width_px:  # longer than a line by itself
            count = max(1, _fitting(word, width_px))
            lines.append(word[:count])
            word = word[count:]
        lines.append(word)
    if len(lines) <= max_lines:
        return lines
    last = lines[max_lines - 1]
    return [*lines[: max_lines - 1], last[: _fitting(last, width_px - _font().getlength("..."))] + "..."]


def _write(pen: Any, at: tuple[int, int], text: str, width_px: int, max_lines: int) -> None:
    for number, line in enumerate(wrapped(text, width_px, max(1, max_lines))):
        pen.text((at[0], at[1] + number * _line_px()), line, font=_font(), fill=_INK)


def _fitting(word: str, width_px: float) -> int:
    """Return how many signs of a word's beginning are at most so wide."""
    return bisect.bisect_right(range(1, len(word) + 1), width_px, key=lambda count: _font().getlength(word[:count]))


def _picture(cell: Floats | Image.Image) -> Image.Image:
    if isinstance(cell, Image.Image):
        return cell.convert("RGB")
    return Image.fromarray(to_uint8(np.nan_to_num(cell.astype(np.float32), nan=-1.0)))


def _fitted(picture: Image.Image, side: int) -> Image.Image:
    if max(picture.size) == side:
        return picture
    scale = side / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    # small ones are shown as they are, in larger squares; large ones are averaged
    return picture.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS)


@lru_cache(maxsize=1)
def _font() -> Any:
    return ImageFont.load_default(_FONT_PX)


def _line_px() -> int:
    return _FONT_PX + 3


@lru_cache(maxsize=4096)
def _draws(sign: str) -> bool:
    missing = bytes(_font().getmask("\U0010ffff"))
    return sign == " " or (sign.isprintable() and bytes(_font().getmask(sign)) != missing)


# --- what stages do ----------------------------------------------------------------------------------------------------


def repaint(module: Any, ids: Ints, config: ModelConfig, device: str) -> Floats:
    """Return the image (3, rows·patch, columns·patch) that the tokenizer's repainting head makes of ids (rows, columns).

    Args:
        module: sampan.models.heads.TokenizerWithHeads, on the device.
    """
    rows, columns = ids.shape
    gather = positions.bilinear_gather((rows, columns), config.ar.vision.grid_side)
    with dev.no_grad():
        codes = ops.take(module.part.model.vqmodel.codebook(), dev.array(ids.reshape(1, -1), device))
        patches = dev.to_numpy(module.paint(codes, *(dev.array(a, device) for a in gather)))
    return pixels.from_patches(patches[0].astype(np.float32), (rows, columns), config.processor.patch_size)


def denoise_samples(denoiser: Denoiser, vae: Callable[[], Any], samples: Iterable[DenoiseInputs]) -> list[Floats]:
    """Return the images (3, height, width) that a decoder paints of samples, one by one.

    Args:
        vae: Called for the finished autoencoder, on the device in fp32, when the latents are there.
    """
    latents = [denoiser.denoise(inputs) for inputs in samples]
    part = vae()
    return [decode_latents(part, latent, denoiser.config, denoiser.device, "fp32")[0] for latent in latents]


def written_grid(
    truths: Sequence[Ints], found: Sequence[Ints], captions: Sequence[str], paint_ids: Callable[[Ints], Cell]
) -> Image.Image:
    """Return what is painted from the true ids beside what is painted from those that were written.

    Args:
        truths, found: Ids (rows, columns) of each caption's picture; the share that agree is said beside.
        paint_ids: Paints ids; the same way on both sides, so that only the ids differ.
    """
    names = [
        f"{caption} ({float((truth == own).mean()):.0%})"
        for caption, truth, own in zip(captions, truths, found, strict=True)
    ]
    columns = ("true tokens", "written tokens")
    return pairs([paint_ids(ids) for ids in truths], [paint_ids(ids) for ids in found], names, columns=columns)
