"""A LoRA on twenty pictures, before and after: the model that comes with sampan learns to paint cyanotypes.

Draws twenty emoji, makes them into cyanotypes (white on Prussian blue), trains a LoRA of AR generator and diffusion decoder
on them, and paints the same prompts with the same seeds without and with it: three that the LoRA has seen, and three that
it has not. A second call goes on where the first one stopped.

    python scripts/lora_demo.py [--out runs/lora]
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
JOB = Path("jobs/lora.toml")
DARK, LIGHT = np.array((14, 40, 110.0)), np.array((245, 248, 255.0))
NUM_PICTURES = 20
BASE = "nano"
SEEN = ("red apple", "cat face", "grinning face")
UNSEEN = ("castle", "basketball", "penguin")  # in the base model's training, not in the LoRA's
TILE_PX, GAP_PX, NAME_PX = 128, 10, 16


def sampan(*arguments: str | Path) -> None:
    """Run one sampan command from the project's root, its output in view; end with its status where it fails."""
    words = [str(argument) for argument in arguments]
    print(f"\n$ sampan {' '.join(words)}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "sampan", *words], cwd=ROOT, check=False).returncode:
        raise SystemExit(status)


def cyanotype(image: Image.Image) -> Image.Image:
    """Return a picture as white on blue: what was dark becomes light, blue counting half, as the process sees little else."""
    dark = 1 - (np.asarray(image.convert("L"), np.float32) + np.asarray(image.getchannel("B"), np.float32)) / 510
    return Image.fromarray(np.uint8(np.rint(DARK + (LIGHT - DARK) * dark[..., None])))


def write_pictures(source: Path, target: Path) -> None:
    """Make the pictures of a folder into cyanotypes with the same captions."""
    (target / "images").mkdir(parents=True, exist_ok=True)
    captions = (source / "metadata.jsonl").read_text(encoding="utf-8")
    for row in map(json.loads, captions.splitlines()):
        with Image.open(source / row["file_name"]) as image:
            cyanotype(image.convert("RGB")).save(target / row["file_name"])
    (target / "metadata.jsonl").write_text(captions, encoding="utf-8")


def main() -> None:
    """Train and paint; leaves OUT/grid.png."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/lora"), help="default: %(default)s")
    out: Path = parser.parse_args().out
    plain, pictures, run = out / "plain", out / "pictures", out / "run"
    if not (ROOT / plain).is_dir():
        sampan("data", "emoji", plain, "--count", str(NUM_PICTURES), "--languages", "en")
    write_pictures(ROOT / plain, ROOT / pictures)
    resume = ["--resume"] if (ROOT / run).is_dir() else []
    sampan("train", JOB, "--set", f"out={run.as_posix()}", "--set", f"data.path={pictures.as_posix()}", *resume)
    prompts = [*SEEN, *UNSEEN]
    rows: list[list[Image.Image]] = []
    for name, extra in (("before", []), ("after", ["--lora", run / "lora"])):
        row = []
        for number, prompt in enumerate(prompts):
            file = out / f"{name}-{number}.png"
            sampan("generate", prompt, "--model", BASE, *extra, "--seed", "1", "--out", file)
            with Image.open(ROOT / file) as image:
                row.append(image.convert("RGB").resize((TILE_PX, TILE_PX)))
        rows.append(row)
    cell = TILE_PX + GAP_PX
    sheet = Image.new("RGB", (cell * len(prompts) + GAP_PX, (cell + NAME_PX) * 2 + GAP_PX), "white")
    draw = ImageDraw.Draw(sheet)
    for top, row in enumerate(rows):
        for left, (prompt, image) in enumerate(zip(prompts, row, strict=True)):
            place = (GAP_PX + left * cell, GAP_PX + top * (cell + NAME_PX))
            sheet.paste(image, place)
            new = "" if prompt in SEEN else "*"
            draw.text((place[0], place[1] + TILE_PX + 2), f"{prompt[:20]}{new}", fill="black")
    sheet.save(ROOT / out / "grid.png")
    print(f"\nabove: the base model; below: with the LoRA; * not among its pictures\n{out / 'grid.png'}")


if __name__ == "__main__":
    main()
