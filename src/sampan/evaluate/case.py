"""One question of a suite as a value: the prompt, and what a right picture has."""

from __future__ import annotations

from dataclasses import dataclass, field

from PIL import Image

from sampan.synthetic.signs.colors import RGB

Box = tuple[float, float, float, float]  # left, top, right, bottom, in shares of the sides
WHOLE: Box = (0.0, 0.0, 1.0, 1.0)


@dataclass(frozen=True)
class EvalCase:
    """One picture to paint, and what it should have; what is None is not asked for.

    Args:
        slice: The part of the suite it is counted in; the first slice of a suite is the one that bars are about.
        truth: The true picture, where there is one: its measure is the upper bound.
        references: Pictures to edit.
        seed: Of the painting.
        words: Lines to be read.
        plate, ink: Colours by their names in sampan.synthetic.signs.colors, as far as the prompt says them.
        box: Where letters stand on the true picture: colours are judged there.
        on_plate: There are only letters, on a plate of one colour, so that it can be said where they stand.
        emoji: File stem of the emoji meant, among the candidates of the suite.
        emoji_box: Where in the picture it is.
        backdrop: The colour that candidates are drawn on.
        background: Its name in sampan.synthetic.emoji.COLORS, where the prompt says it.
        edit: Which one thing was to change: "plate", "word" or "ink".
        groups: What it is counted under beside its slice, as ("font", "oswald").
    """

    prompt: str
    slice: str
    seed: int
    truth: Image.Image | None = None
    references: tuple[Image.Image, ...] = ()
    words: tuple[str, ...] | None = None
    plate: str | None = None
    ink: str | None = None
    box: Box = WHOLE
    on_plate: bool = False
    emoji: str | None = None
    emoji_box: Box = WHOLE
    backdrop: RGB = (255, 255, 255)
    background: str | None = None
    edit: str | None = None
    groups: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Suite:
    """Questions, and among which pictures emoji are looked for.

    Args:
        main: The slice whose numbers stand at the top of the record.
        emoji: File stems of the candidates, and their glyphs (RGBA).
        notes: What a reader must know of it.
    """

    name: str
    main: str
    cases: tuple[EvalCase, ...]
    emoji: dict[str, Image.Image] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
