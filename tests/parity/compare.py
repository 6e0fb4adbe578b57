"""What is compared with the oracle, and how a difference is measured.

A case is one function of a side. It is run on both sides and the answers are compared, so that neither side can be
given an easier question. The tests and the table in the README read the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from parity.theirs import Grid, Reference

FP32_TOLERANCE = 1e-5  # of the greatest element: some hundred roundings of fp32 (6e-8), none of a mistake
BF16_RATIO = 2.0  # of the library's own bf16 error: see test_bf16.py
PROMPTS = ("a red apple on a table", "uma maçã vermelha, ação!", "桌子上的一个红苹果")

Side = Any  # Ours or Theirs: the same methods
Bites = Callable[[str, Callable[[Any], Any]], None]  # the fixture of the trap tests, see conftest.py


@dataclass(frozen=True)
class Case:
    """One comparison.

    Args:
        part: A row of the table.
        name: What is special about it.
        answer: Called with a side; returns tensors (compared by relative error) or integer arrays (compared exactly).
    """

    part: str
    name: str
    answer: Callable[[Side], Any]

    @property
    def label(self) -> str:
        return f"{self.part}: {self.name}"


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Return max|got - wanted| / max|wanted|; two zeros agree, and what is not a number is infinitely wrong."""
    assert got.shape == wanted.shape, f"{tuple(got.shape)} is not {tuple(wanted.shape)}"
    got, wanted = got.detach().double(), wanted.detach().double()
    difference, scale = (got - wanted).abs().max().item(), wanted.abs().max().item()
    if not np.isfinite(difference):
        return float("inf")
    return 0.0 if difference == 0 else difference / scale if scale else float("inf")


def deviation(got: Any, wanted: Any) -> float:
    """Return the greatest relative error over an answer; integers that differ are infinitely wrong."""
    if isinstance(wanted, (list, tuple)):
        if len(got) != len(wanted):
            return float("inf")
        return max((deviation(g, w) for g, w in zip(got, wanted, strict=True)), default=0.0)
    if isinstance(wanted, np.ndarray) and np.issubdtype(wanted.dtype, np.floating):
        return deviation(torch.from_numpy(np.asarray(got)), torch.from_numpy(wanted))
    if isinstance(wanted, Tensor):
        return relative_error(got, wanted) if got.shape == wanted.shape else float("inf")
    return 0.0 if np.array_equal(np.asarray(got), np.asarray(wanted)) else float("inf")


def error(case: Case, ours: Side, theirs: Side) -> float:
    """Return how far our answer is from the oracle's."""
    with torch.no_grad():
        return deviation(case.answer(ours), case.answer(theirs))


@dataclass(frozen=True)
class HalfPrecision:
    """Errors of bf16 against the oracle in fp32, in units of its greatest element.

    Args:
        ours, theirs: How far each side's bf16 is from the oracle's fp32.
        between: How far the two bf16 answers are apart.
    """

    ours: float
    theirs: float
    between: float


def half_precision(case: Case, ours: Side, theirs: Side, exact: Side) -> HalfPrecision:
    """Run a case in bf16 on both sides, and in fp32 on the oracle's."""
    with torch.no_grad():
        answers = [_flat(case.answer(side)) for side in (ours, theirs, exact)]
    scale = answers[2].abs().max()
    distance = lambda a, b: ((a - b).abs().max() / scale).item()  # noqa: E731
    return HalfPrecision(distance(answers[0], answers[2]), distance(answers[1], answers[2]), distance(*answers[:2]))


def _flat(answer: Any) -> Tensor:
    pieces = answer if isinstance(answer, (list, tuple)) else [answer]
    return torch.cat([piece.detach().double().reshape(-1) for piece in pieces])


# --- inputs ----------------------------------------------------------------------------------------------------------


def draw(seed: int, *shape: int) -> Tensor:
    """Return normal numbers that depend on the seed and shape only."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape, np.float32))


def picture(height: int, width: int, seed: int = 0, mode: str = "RGB") -> Image.Image:
    """Return a picture with soft and hard edges."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    noise = np.random.default_rng(seed).uniform(0, 60, (height, width, 3))
    waves = [np.sin(rows / (5 + 3 * c + seed)) + np.cos(columns / (7 + c)) for c in range(3)]
    pixels = 128 + 45 * np.stack(waves, -1) + noise - 30 + 40 * ((rows + columns) % 37 < 9)[..., None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).convert(mode)


def decoder_inputs(
    side: Side,
    grid: Grid,
    keep: Sequence[bool] = (True,),
    num_text: int = 5,
    t: Sequence[float] | None = None,
    crop: Grid = (0, 0),
    references: Sequence[Sequence[Grid]] = (),
    **more: Any,
) -> dict[str, Any]:
    """Return arguments of `velocity` for a picture of `grid` decoder tokens; references are given by their grids."""
    config, batch = side_config(side), len(keep)
    cell, codes = 2 * config["factor"], config["codes"]
    ids = np.random.default_rng(7).integers(0, codes, (batch, *grid))
    made = [
        [
            Reference(
                draw(31 + 7 * i + j, 1, config["channels"], 2 * rows, 2 * columns),
                np.random.default_rng(53 + 7 * i + j).integers(0, codes, (rows, columns)),
                (rows * cell, columns * cell),
            )
            for j, (rows, columns) in enumerate(sample)
        ]
        for i, sample in enumerate(references)
    ]
    return {
        "latent": draw(1, batch, config["channels"], 2 * grid[0], 2 * grid[1]),
        "glyph": draw(2, batch, num_text, config["glyph_width"]),
        "prior": torch.from_numpy(ids),
        "keep": keep,
        "t": t or [999.0 - 250 * i for i in range(batch)],
        "size": (grid[0] * cell, grid[1] * cell),
        "crop": crop,
        "references": made,
        **more,
    }


def side_config(side: Side) -> dict[str, int]:
    """Return the few sizes that inputs need, from the decoder's own config on either side."""
    config = side.decoder.config
    return {
        "channels": config.in_channels,
        "glyph_width": config.text_embed_dim,
        "codes": config.prior_vq_quantizer_codebook_size,
        "factor": 8,
    }


def _painting(size: Grid, references: Sequence[Grid] = (), **more: Any) -> Callable[[Side], Any]:
    """Return the whole way from injected prior ids and noise to latent and image; references are given by size."""

    def answer(side: Side) -> Any:
        channels = side_config(side)["channels"]
        return side.paint(
            "a boat that says \"olá\" and '你好'",
            size,
            prior=np.random.default_rng(5).integers(0, side.num_codes, (size[0] // 32, size[1] // 32)),
            noise=draw(6, 1, channels, size[0] // 8, size[1] // 8),
            images=[picture(*given, seed=i) for i, given in enumerate(references)],
            **more,
        )

    return answer


def _velocity(grid: Grid, **more: Any) -> Callable[[Side], Tensor]:
    return lambda side: side.velocity(**decoder_inputs(side, grid, **more))


@dataclass(frozen=True)
class Sequences:
    """Token ids with their positions, for teacher forcing.

    Args:
        ids: (batch, tokens).
        given: (3, batch, tokens).
        num_prompt: Tokens before the first written one.
    """

    ids: np.ndarray
    given: np.ndarray
    num_prompt: int


def sequences(side: Side, prompt: str, size: Grid, images: Sequence[Image.Image] = ()) -> Sequences:
    """Return a prompt with random ids for its references and grids, and the positions that the side gives them."""
    ids = side.prompt_ids(prompt, size, images)
    before, after = side.positions([prompt], size, images)
    drawn = np.random.default_rng(17).integers(0, side.num_codes, len(ids))  # in bf16 a picture's own ids would differ
    ids = np.where(ids == side.placeholder, drawn, ids)
    written = np.random.default_rng(3).integers(0, side.num_codes, after.shape[-1])
    return Sequences(
        np.concatenate([ids, written])[None],
        np.concatenate([before, after.transpose(1, 0, 2)], axis=2),
        len(ids),
    )


def _logits(prompt: str, size: Grid, images: Sequence[Image.Image] = ()) -> Callable[[Side], Tensor]:
    def answer(side: Side) -> Tensor:
        given = sequences(side, prompt, size, images)
        return side.logits(given.ids, given.given)

    return answer


def _cached(prompt: str, size: Grid, images: Sequence[Image.Image] = ()) -> Callable[[Side], Tensor]:
    def answer(side: Side) -> Tensor:
        given = sequences(side, prompt, size, images)
        return side.cached_logits(given.ids, given.given, given.num_prompt)

    return answer


def padded_batch(side: Side) -> tuple[np.ndarray, np.ndarray, list[int]]:
    """Return ids (rows, tokens), positions (3, rows, tokens) and lengths of left-padded prompts of one size."""
    laid = [side.prompt_ids(prompt, (64, 96)) for prompt in PROMPTS]
    lengths = [len(ids) for ids in laid]
    given, _ = side.positions(PROMPTS, (64, 96))
    ids = np.stack([np.pad(row, (max(lengths) - len(row), 0), constant_values=side.pad) for row in laid])
    return ids, given, lengths


def _padded(side: Side) -> list[Tensor]:
    ids, given, lengths = padded_batch(side)
    logits = side.logits(ids, given, lengths)
    return [row[-length:] for row, length in zip(logits, lengths, strict=True)]


def _vision(*grids: Grid) -> Callable[[Side], list[Tensor]]:
    patches = [draw(11 + i, rows * columns, 3 * 16 * 16).numpy() for i, (rows, columns) in enumerate(grids)]
    return lambda side: side.features(patches, grids)


def _vision_ids(*grids: Grid) -> Callable[[Side], list[np.ndarray]]:
    patches = [draw(11 + i, rows * columns, 3 * 16 * 16).numpy() for i, (rows, columns) in enumerate(grids)]
    return lambda side: side.ids(patches, grids)


def field(latent: Tensor, t: float) -> Tensor:
    """Return a velocity that depends on the latent and on the time the network is told, curved in both."""
    return torch.sin(3 * latent) + 0.5 * latent + t / 700 * torch.cos(latent)


_GRIDS: tuple[tuple[Grid, ...], ...] = (((4, 4),), ((3, 5),), ((8, 2), (2, 7)), ((6, 6),), ((9, 11),), ((5, 3), (5, 3)))
_ONE, _TWO = [picture(96, 128, seed=1)], [picture(96, 128, seed=1), picture(160, 70, seed=2)]
GLYPHS = (
    "no quotes",
    'one "word"',
    "two 'words' and \"more\"",
    "three 'a' “bb” \"ccc\"",
    "「你好，世界」 and “再见”",
    'an empty ""',
    "It's Bob's",
)

CASES: tuple[Case, ...] = (
    Case("DiT", "one picture", _velocity((8, 8))),
    Case("DiT", "not square, two samples at two times", _velocity((6, 10), keep=(True, True))),
    Case("DiT", "prior dropped", _velocity((4, 6), keep=(False,))),
    Case("DiT", "prior dropped for one of two, cropped", _velocity((4, 6), keep=(True, False), crop=(32, 64))),
    Case("DiT", "projected words", lambda side: side.decoder.glyph_projector(draw(9, 2, 30, 24).to(side.dtype))),
    Case("DiT", "long text", _velocity((4, 4), num_text=40)),
    Case("DiT with references", "one", _velocity((4, 6), references=[[(6, 4)]])),
    Case("DiT with references", "two", _velocity((4, 6), references=[[(6, 4), (2, 8)]])),
    Case(
        "DiT with references",
        "one for both of two samples",
        _velocity((4, 6), keep=(True, True), references=[[(4, 2)]]),
    ),
    Case(
        "DiT with references",
        "one each for two samples",
        _velocity((4, 6), keep=(True, True), references=[[(4, 2)], [(2, 4)]]),
    ),
    Case("DiT with references", "skipped", _velocity((4, 6), keep=(False,), references=[[(6, 4)]], skip=True)),
    Case("AR, teacher-forced", "text to image", _logits(PROMPTS[0], (128, 96))),
    Case("AR, teacher-forced", "one reference", _logits(PROMPTS[1], (64, 96), _ONE)),
    Case("AR, teacher-forced", "two references", _logits(PROMPTS[2], (96, 64), _TWO)),
    Case("AR, teacher-forced", "left-padded batch", _padded),
    Case("AR, cached", "text to image", _cached(PROMPTS[0], (32, 64))),
    Case("AR, cached", "two references", _cached(PROMPTS[2], (96, 128), _TWO)),
    *(Case("Vision features", f"grids {grids}", _vision(*grids)) for grids in _GRIDS),
    Case("VAE encode", "square", lambda side: side.encode(draw(21, 2, 3, 64, 64).clamp(-1, 1))),
    Case("VAE encode", "not square", lambda side: side.encode(draw(22, 1, 3, 48, 80).clamp(-1, 1))),
    Case("VAE decode", "square", lambda side: side.decode(draw(23, 2, side_config(side)["channels"], 8, 8))),
    Case("VAE decode", "not square", lambda side: side.decode(draw(24, 1, side_config(side)["channels"], 6, 10))),
    *(Case("Glyph encoder", prompt, lambda side, prompt=prompt: side.glyph(prompt)) for prompt in GLYPHS),
    *(
        Case("Scheduler", f"{steps} steps, {tokens} tokens", lambda side, s=steps, n=tokens: side.schedule(s, n))
        for steps in (1, 4, 30, 50)
        for tokens in (1024, 4096, 16384)
    ),
    Case("Scheduler", "a walk of 20 steps", lambda side: side.walk(draw(25, 1, 4, 8, 8), field, 20, 4096)),
    Case("Text to image", "square", _painting((128, 128))),
    Case("Text to image", "not square, one step", _painting((96, 160), num_steps=1)),
    Case("Text to image", "without guidance", _painting((96, 64), guidance_scale=1.0)),
    Case("Text to image", "injected glyph embeddings", _painting((64, 64), glyph=draw(8, 1, 11, 24))),
    Case("Image to image", "one reference", _painting((96, 128), [(96, 128)])),
    Case("Image to image", "two references of other sizes", _painting((128, 64), [(96, 160), (128, 64)])),
    Case("Image to image", "without guidance", _painting((64, 64), [(64, 96)], guidance_scale=1.0)),
)

ID_CASES: tuple[Case, ...] = (
    *(Case("VQ ids", f"grids {grids}", _vision_ids(*grids)) for grids in _GRIDS),
    *(
        Case(
            "Prompt ids",
            f"{prompt!r} at {size}, {len(images)} references",
            lambda s, p=prompt, z=size, i=images: s.prompt_ids(p, z, i),
        )
        for prompt in PROMPTS
        for size in ((128, 128), (96, 160), (1152, 768), (1024, 1152), (512, 2048))
        for images in ([], _ONE, _TWO)
    ),
    *(
        Case(
            "Position ids", f"{size}, {len(images)} references", lambda s, z=size, i=images: s.positions(PROMPTS, z, i)
        )
        for size in ((128, 128), (96, 160), (512, 2048))
        for images in ([], _ONE, _TWO)
    ),
    Case("Quoted words", "all", lambda side: [side.glyph_texts(prompt) for prompt in GLYPHS]),
    *(
        Case("Patches", f"{height}x{width} {mode}", lambda s, h=height, w=width, m=mode: s.patches(picture(h, w, 4, m)))
        for height, width, mode in (
            (96, 128, "RGB"),
            (101, 67, "RGB"),
            (208, 144, "RGB"),
            (300, 90, "L"),
            (64, 64, "RGBA"),
            (513, 260, "P"),
        )
    ),
    Case("Greedy tokens", "text to image", lambda side: side.greedy(PROMPTS[:1], (96, 128), 13 * 18 + 12)),
    Case("Greedy tokens", "one reference", lambda side: side.greedy(PROMPTS[1:2], (128, 96), 12, _ONE)),
    Case("Greedy tokens", "two references", lambda side: side.greedy(PROMPTS[2:], (64, 160), 10, _TWO)),
)
