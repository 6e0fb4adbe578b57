"""The whole way in one command: a picture set, a training, pictures from prompts and from a reference.

Calls the `sampan` command as a person would, shows every command line, and leaves all in scratch/. A second call goes on
where the first one stopped. `make scratch` calls it; without make: `python scripts/scratch.py` in the set-up environment.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

ROOT = Path(__file__).resolve().parent.parent
JOB = Path("jobs/scratch.toml")
SCRATCH = Path("scratch")
PICTURES = SCRATCH / "pictures"
RUN = SCRATCH / "run"
SHEET = SCRATCH / "contact-sheet.png"
TILE_PX = 128
GAP_PX = 12
NAME_PX = 16


@dataclass(frozen=True)
class Painting:
    """One picture to ask for; `reference` is a picture of the set, by file name, that the prompt edits."""

    name: str
    prompt: str
    reference: str | None = None


# The three languages of the captions; backgrounds that the training has shown for this emoji (pink, blue) and one that it
# has not (red); an edit of a picture of the set.
PAINTINGS = (
    Painting("apple", "red apple"),
    Painting("apple-portuguese", "maçã vermelha"),
    Painting("pizza-chinese", "披萨"),
    Painting("cat", "cat face"),
    Painting("face-on-pink", "grinning face on a pink background"),
    Painting("castle-on-blue", "castle on a blue background"),
    Painting("pizza-on-red", "pizza on a red background"),
    Painting("apple-edited", "make the background green", reference="images/1f34e.png"),
)


def sampan(*arguments: str | Path) -> None:
    """Run one sampan command from the project's root, its output in view; end with its status where it fails."""
    words = [str(argument) for argument in arguments]
    shown = " ".join(f'"{word}"' if " " in word else word for word in words)
    print(f"\n$ sampan {shown}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "sampan", *words], cwd=ROOT, check=False).returncode:
        print(f"error: the training stops here: `sampan {shown}` ended with status {status}", file=sys.stderr)
        raise SystemExit(1)


def paint(painting: Painting) -> Path:
    """Generate one picture into scratch/ and return its path, relative to the project's root."""
    out = SCRATCH / f"{painting.name}.png"
    reference = ["--reference", PICTURES / painting.reference] if painting.reference else []
    sampan("generate", painting.prompt, *reference, "--model", RUN, "--seed", "1", "--out", out)
    return out


def contact_sheet(rows: Sequence[tuple[str, Path | None, Path]]) -> Image.Image:
    """Return one picture of all: the reference, where there is one, over what was painted, over its name.

    Args:
        rows: Name, reference or None, painted picture; paths relative to the project's root.
    """
    cell_px, height_px = TILE_PX + GAP_PX, 2 * (TILE_PX + GAP_PX) + NAME_PX + GAP_PX
    sheet = Image.new("RGB", (cell_px * len(rows) + GAP_PX, height_px), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, reference, painted) in enumerate(rows):
        left_px = GAP_PX + column * cell_px
        for row, path in enumerate((reference, painted)):
            if path is not None:
                with Image.open(ROOT / path) as picture:
                    tile = ImageOps.contain(picture.convert("RGB"), (TILE_PX, TILE_PX))
                sheet.paste(tile, (left_px, GAP_PX + row * cell_px))
        draw.text((left_px, GAP_PX + 2 * cell_px), name, fill="black")
    return sheet


def main() -> int:
    """Do the parts that are not done yet, tell how long each took, and return 0."""
    took_s: list[tuple[str, float]] = []

    def timed(part: str, start_s: float) -> None:
        took_s.append((part, time.monotonic() - start_s))

    start_s = time.monotonic()
    if not (ROOT / PICTURES / "metadata.jsonl").is_file():
        sampan("data", "emoji", PICTURES, "--count", "32", "--size", "128", "--edits", "1")
        timed("pictures", start_s)

    start_s = time.monotonic()
    sampan("train", JOB, *(["--resume"] if (ROOT / RUN).is_dir() else []))
    timed("training", start_s)

    start_s = time.monotonic()
    rows = []
    for painting in PAINTINGS:
        reference = PICTURES / painting.reference if painting.reference else None
        rows.append((painting.name, reference, paint(painting)))
    contact_sheet(rows).save(ROOT / SHEET)
    timed("painting", start_s)

    print("\n" + ", ".join(f"{part} {duration_s:.0f} s" for part, duration_s in took_s))
    print(f"all of it on one sheet: {SHEET}; ask for another:")
    print(
        f'  .venv/bin/sampan generate "banana on a yellow background" --model {RUN} --seed 2 --out {SCRATCH}/mine.png'
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
