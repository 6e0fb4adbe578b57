"""The whole way in one command: pictures by the packed model, some minutes of training, the same prompts again.

The model knows plain signs; the pictures teach it framed ones. Calls the `sampan` command as a person would, shows every
command line, and leaves all in demo/. A second call goes on where the first one stopped. `make demo` calls it; without
make: `python scripts/demo.py` in the set-up environment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, ImageDraw, ImageOps

ROOT = Path(__file__).resolve().parent.parent
JOB = Path("jobs/demo.toml")
DEMO = Path("demo")
PLAIN = DEMO / "plain"
PICTURES = DEMO / "pictures"
RUN = DEMO / "run"
SHEET = DEMO / "contact-sheet.png"
NUM_PICTURES = 600
INSET_PX, FRAME_PX = 8, 5
TILE_PX = 128
GAP_PX = 12
NAME_PX = 16
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Painting:
    """One picture to ask for, before and after; `edits` names the painting that it edits."""

    name: str
    prompt: str
    edits: str | None = None


PAINTINGS = (
    Painting("ola", 'a red sign that says "OLÁ"'),
    Painting("ola-blue", "make the sign blue", edits="ola"),
    Painting("apple", "red apple"),
    Painting("pizza", 'a black sign with pizza and "HOJE"'),
    Painting("framed-mar", 'a framed blue sign that says "MAR"'),
    Painting("framed-boat", 'a framed yellow sign that says "BOAT"'),
    Painting("framed-lua", 'a framed green sign that says "LUA"'),
)


def sampan(*arguments: str | Path) -> None:
    """Run one sampan command from the project's root, its output in view; end with its status where it fails."""
    words = [str(argument) for argument in arguments]
    shown = " ".join(f"'{word}'" if " " in word else word for word in words)
    print(f"\n$ sampan {shown}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "sampan", *words], cwd=ROOT, check=False).returncode:
        print(f"error: the demo stops here: `sampan {shown}` ended with status {status}", file=sys.stderr)
        raise SystemExit(1)


def paint(painting: Painting, when: str, model: str | Path) -> Path:
    """Generate one picture into demo/ and return its path, relative to the project's root."""
    out = DEMO / f"{when}-{painting.name}.png"
    reference = ["--reference", DEMO / f"{when}-{painting.edits}.png"] if painting.edits else []
    sampan("generate", painting.prompt, *reference, "--model", model, "--seed", "1", "--steps", "20", "--out", out)
    return out


def framed(image: Image.Image) -> Image.Image:
    """Return a sign with a frame in the colour of its letters."""
    pixels = image.convert("RGB")
    colors: list[tuple[int, Color]] = pixels.getcolors(pixels.width * pixels.height)  # type: ignore[assignment]
    plate = max(colors)[1]
    ink = max(colors, key=lambda one: one[0] * _distance(one[1], plate))[1]  # many pixels, and far from the plate's
    side = pixels.width - 1 - INSET_PX
    ImageDraw.Draw(pixels).rectangle((INSET_PX, INSET_PX, side, side), outline=ink, width=FRAME_PX)
    return pixels


def _distance(one: Color, other: Color) -> int:
    return sum(abs(a - b) for a, b in zip(one, other, strict=True))


def write_pictures(source: Path, target: Path) -> None:
    """Frame every second sign of a set and say so in its captions; the others stay, or the model would frame everything."""
    (target / "images").mkdir(parents=True, exist_ok=True)
    lines = []
    for number, line in enumerate((source / "metadata.jsonl").read_text(encoding="utf-8").splitlines()):
        row = json.loads(line)
        is_framed = number % 2 == 0
        with Image.open(source / row["file_name"]) as image:
            (framed(image) if is_framed else image).save(target / row["file_name"])
        word, plate, ink = row["words"][0], row["plate"], row["ink"]
        a_sign = f"a framed {plate} sign" if is_framed else f"a {plate} sign"
        texts = [f'{a_sign} that says "{word}"', f'{a_sign} with "{word}" in {ink}', f'{a_sign}: "{word}"']
        lines.append(json.dumps({"file_name": row["file_name"], "text": texts}, ensure_ascii=False))
    (target / "metadata.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def contact_sheet(rows: Sequence[tuple[str, Path, Path]]) -> Image.Image:
    """Return one picture of all: before over after over the name.

    Args:
        rows: Name, and the two pictures; paths relative to the project's root.
    """
    cell_px, height_px = TILE_PX + GAP_PX, 2 * (TILE_PX + GAP_PX) + NAME_PX + GAP_PX
    sheet = Image.new("RGB", (cell_px * len(rows) + GAP_PX, height_px), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, *paths) in enumerate(rows):
        left_px = GAP_PX + column * cell_px
        for row, path in enumerate(paths):
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
    (ROOT / DEMO).mkdir(exist_ok=True)
    before = [paint(painting, "before", "nano") for painting in PAINTINGS]
    timed("painting", start_s)

    start_s = time.monotonic()
    if not (ROOT / PICTURES / "metadata.jsonl").is_file():
        kind = ("--layouts", "placard", "--fonts", "jetbrains-mono", "--letters", "3..6", "--lines", "1")
        sampan("data", "signs", PLAIN, "--count", NUM_PICTURES, "--seed", "7", *kind)
        write_pictures(ROOT / PLAIN, ROOT / PICTURES)
    sampan("train", JOB, *(["--resume"] if (ROOT / RUN).is_dir() else []))
    timed("training", start_s)

    start_s = time.monotonic()
    after = [paint(painting, "after", RUN) for painting in PAINTINGS]
    contact_sheet([(p.name, *both) for p, *both in zip(PAINTINGS, before, after, strict=True)]).save(ROOT / SHEET)
    timed("painting again", start_s)

    print("\n" + ", ".join(f"{part} {duration_s:.0f} s" for part, duration_s in took_s))
    print(f"all of it on one sheet: {SHEET}; ask for another:")
    print(
        """  .venv/bin/sampan generate 'a framed orange sign that says "VIVA"' --model demo/run --out demo/mine.png"""
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
