"""What was measured, as tables and lines for the page and the terminal, with ceiling and floor beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
WHO = ("painted", "ceiling", "floor")


def tables(record: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Return headings and tables; the first row of a table is its head."""
    written = []
    for name, stratum in record["strata"].items():
        asked = [key for key in NAMES if key in stratum["painted"]]
        rows = [[NAMES[key], *(_number(stratum[who].get(key)) for who in WHO)] for key in asked]
        written.append((f"{name}: {stratum['painted']['count']} pictures", [["measure", *WHO], *rows]))
    for kind, groups in record["by"].items():
        keys = [key for key in SHORT if any(key in group["painted"] for group in groups.values())]
        rows = [
            [
                name,
                str(group["painted"]["count"]),
                *("/".join(_percent(group[who].get(key)) for who in WHO) for key in keys),
            ]
            for name, group in groups.items()
        ]
        head = [kind, "of", *(SHORT[key] for key in keys)]
        written.append((f"By {kind}, per cent: painted/ceiling/floor", [head, *rows]))
    if reconstruction := record.get("reconstruction"):
        head = ["through", "pictures", "PSNR, dB", "SSIM", "words read", "of the true pictures"]
        rows = [
            [name, str(of["count"]), f"{of['psnr_db']:.2f}", *(_number(of.get(key)) for key in _LIKENESS)]
            for name, of in reconstruction.items()
        ]
        written.append(("What is left of true pictures", [head, *rows]))
    if speed := record.get("speed"):
        stages = list(dict.fromkeys(name for seconds in speed.values() for name in seconds))
        rows = [
            [how.replace("_", " "), *(_number(seconds.get(name)) for name in stages)] for how, seconds in speed.items()
        ]
        written.append(("Seconds for a picture", [["", *stages], *rows]))
    return written


_LIKENESS = ("ssim", "word_accuracy", "true_word_accuracy")


def facts(record: Mapping[str, Any]) -> list[str]:
    """Return lines that say what was measured, how and on what."""
    lines = [
        "suite {suite}, seed {seed}, {count} pictures in the main group ({main}), {date}".format(**record),
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record["painter"].items()),
        ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in record["settings"].items()),
        "machine: {cpu}, {usable_cores} cores; sampan {sampan}".format(**record["machine"]),
    ]
    if reader := record.get("reader"):
        lines.append(
            f"words are read by Tesseract {reader['version']} ({', '.join(reader['languages'])}): {reader['method']}"
        )
    if record.get("features"):
        lines.append(f"emoji are told apart by {record['features']}")
    lines += [f"note: {note}" for note in record["notes"]]
    return lines


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.0f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
