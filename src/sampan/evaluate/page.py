"""A record of quality as one HTML file: what was measured, ceiling and floor beside it, and pictures to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from PIL import Image

from sampan.evaluate.case import EvalCase
from sampan.evaluate.scorer import CaseScore
from sampan.report import frame

NAMES = {
    "word_accuracy": "words read right",
    "ned": "normalised edit distance (1 is equal)",
    "color_accuracy": "colours right",
    "layout": "words where they should be",
    "top1": "emoji: nearest is the one meant",
    "top5": "emoji: among the five nearest",
    "edit_done": "edits done",
    "edit_changed": "edits: the change made",
    "edit_kept": "edits: the rest kept",
    "kept_ssim": "edits: SSIM outside the change",
}
SHORT = {  # for tables with many columns
    "word_accuracy": "words",
    "ned": "NED",
    "color_accuracy": "colours",
    "layout": "place",
    "top1": "top 1",
    "top5": "top 5",
    "edit_done": "done",
}
GRID, EXTREMES, _SHOWN_PX = 60, 12, 192  # pictures shown, and their greatest side
WHO = ("painted", "ceiling", "floor")
_STYLE = """
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(220px, 1fr)); gap: .8rem; }
.grid figure { margin: 0; overflow: hidden; } .grid img { width: 100%; image-rendering: auto; display: block; }
.grid figcaption { font-size: 11px; line-height: 1.3; overflow-wrap: anywhere; } .no { color: #c22; }
@media (prefers-color-scheme: dark) { .no { color: #f88; } }
"""


class ReportImage:
    """One picture of the grid.

    Args:
        read: What was read in it.
    """

    def __init__(self, case: EvalCase, image: Image.Image, judgement: CaseScore, read: str | None):
        self.case, self.image, self.judgement, self.read = case, image, judgement, read


def tables(record: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return headings and tables (the first row is the head), for the page and the terminal."""
    found = []
    for name, stratum in record["strata"].items():
        head = ["measure", "painted", "ceiling", "floor"]
        rows = [
            [says, *(_number(stratum[who].get(key)) for who in WHO)]
            for key, says in NAMES.items()
            if key in stratum["painted"]
        ]
        found.append((f"{name}: {stratum['painted']['count']} pictures", [head, *rows]))
    for kind, some in record["by"].items():
        keys = [key for key in SHORT if any(key in one["painted"] for one in some.values())]
        rows = [
            [name, str(one["painted"]["count"]), *("/".join(_short(one[who].get(key)) for who in WHO) for key in keys)]
            for name, one in some.items()
        ]
        found.append(
            (f"By {kind}, per cent: painted/ceiling/floor", [[kind, "of", *(SHORT[key] for key in keys)], *rows])
        )
    if kept := record.get("reconstruction"):
        head = ["through", "pictures", "PSNR, dB", "SSIM", "words read", "of the true pictures"]
        rows = [
            [
                name,
                str(one["count"]),
                f"{one['psnr_db']:.2f}",
                f"{one['ssim']:.3f}",
                _number(one.get("word_accuracy")),
                _number(one.get("true_word_accuracy")),
            ]
            for name, one in kept.items()
        ]
        found.append(("What is left of true pictures", [head, *rows]))
    if speed := record.get("speed"):
        stages = {name: None for one in speed.values() for name in one}
        rows = [
            [how.replace("_", " "), *(f"{one[name]:.3f}" if name in one else "" for name in stages)]
            for how, one in speed.items()
        ]
        found.append(("Seconds for a picture", [["", *stages], *rows]))
    return found


def facts(record: Mapping[str, Any]) -> list[str]:
    """Return lines that say what was measured, how and on what."""
    said = [
        "suite {suite}, seed {seed}, {count} pictures in the main group ({main}), {date}".format(**record),
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record["painter"].items()),
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record["settings"].items()),
        "machine: {cpu}, {usable_cores} cores; sampan {sampan}".format(**record["machine"]),
    ]
    if reader := record.get("reader"):
        said.append(
            f"words are read by Tesseract {reader['version']} ({', '.join(reader['languages'])}): {reader['method']}"
        )
    if record.get("features"):
        said.append(f"emoji are told apart by {record['features']}")
    said += [f"note: {note}" for note in record["notes"]]
    return said


def page(record: Mapping[str, Any], shown: Sequence[ReportImage]) -> str:
    """Return the whole file, with pictures of every stratum."""
    body = [f"<h1>sampan eval: {escape(record['suite'])}</h1>", f"<pre>{escape(chr(10).join(facts(record)))}</pre>"]
    for heading, table in tables(record):
        body += [
            f"<h2>{escape(heading)}</h2>",
            frame.table(table, ("", *["number"] * (len(table[0]) - 1))),
        ]
    body.append(
        "<p>Painted on the left, its reference before it where there is one; on the right the true picture.</p>"
    )
    for name in record["strata"]:
        some = [one for one in shown if one.case.slice == name]
        order = sorted(some, key=lambda one: one.judgement.points)
        first = GRID if name == record["main"] else EXTREMES
        for heading, members in (
            (f"{name}: the first pictures, as they came", some[:first]),
            (f"{name}: the worst", order[:EXTREMES] if len(some) > first else []),
            (f"{name}: the best", order[::-1][:EXTREMES] if len(some) > first else []),
        ):
            if members:
                figures = "".join(map(_figure, members))
                body += [f"<h2>{escape(heading)}</h2>", f'<div class="grid">{figures}</div>']
    return frame.page(f"sampan eval: {record['suite']}", body, _STYLE)


def _figure(one: ReportImage) -> str:
    images = [*one.case.references, one.image, *([one.case.truth] if one.case.truth else [])]
    images = [image.resize((_SHOWN_PX, _SHOWN_PX)) if image.width > _SHOWN_PX else image for image in images]
    wide = Image.new("RGB", (sum(image.width for image in images), max(image.height for image in images)), "white")
    left = 0
    for image in images:
        wide.paste(image.convert("RGB"), (left, 0))
        left += image.width
    data = io.BytesIO()
    wide.save(data, "WEBP", quality=90)
    source = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    said = [escape(one.case.prompt)]
    if one.read is not None:
        words = one.judgement.words
        right = words is not None and words.right == words.total
        said.append(f'<span class="{"yes" if right else "no"}">read: {escape(one.read) or "nothing"}</span>')
    if one.judgement.rank is not None:
        said.append(f'<span class="{"yes" if one.judgement.rank < 5 else "no"}">place {one.judgement.rank + 1}</span>')
    if one.judgement.colors and not all(one.judgement.colors):
        said.append('<span class="no">a colour is wrong</span>')
    if (done := one.judgement.done) is not None:
        said.append(f'<span class="{"yes" if done else "no"}">edit {"done" if done else "not done"}</span>')
    image = f'<img src="{source}" alt="{escape(one.case.prompt)}" loading="lazy">'
    return f"<figure>{image}<figcaption>{'<br>'.join(said)}</figcaption></figure>"


def _short(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
