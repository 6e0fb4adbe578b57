"""A record as one HTML file: words, tables and bars, nothing loaded from elsewhere and no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from sampan.bench import report
from sampan.report import frame
from sampan.units import format_bytes, format_seconds

_WIDTH, _LABEL, _ROW = 760, 210, 28  # of a figure, of its names, and the height of a bar with its gap
_SPACE = 150  # behind the longest bar, for its number

Bar = tuple[str, float, str, tuple[float, float] | None]  # name, value, what is written behind it, quartiles


def page(record: Mapping[str, Any]) -> str:
    """Return the whole file."""
    title = f"sampan bench: {record['what']}"
    words = "".join(f"<p>{escape(said)}</p>" for said in report.plain_words(record))
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<div class="words">{words}</div>' if words else "",
        f"<pre>{escape(chr(10).join(report.facts(record)))}</pre>",
    ]
    figures = _figures(record)
    for number, (heading, table) in enumerate(report.tables(record)):
        body += [f"<h2>{escape(heading)}</h2>", *figures[number], frame.table(table)]
    return frame.page(title, body)


def bars(caption: str, rows: Sequence[Bar]) -> str:
    """Return horizontal bars as SVG, with a line from quartile to quartile where there are quartiles."""
    longest = max([value for _, value, _, _ in rows] + [q[1] for _, _, _, q in rows if q])
    scale = (_WIDTH - _LABEL - _SPACE) / longest if longest else 0.0
    drawn = []
    for number, (name, value, said, quartiles) in enumerate(rows):
        top = number * _ROW
        end = _LABEL + value * scale
        drawn.append(f'<text x="0" y="{top + 17}">{escape(name)}</text>')
        drawn.append(f'<rect x="{_LABEL}" y="{top + 4}" width="{value * scale:.1f}" height="{_ROW - 10}"/>')
        if quartiles:
            low, high = (_LABEL + q * scale for q in quartiles)
            end, middle = max(end, high), top + _ROW / 2 - 1
            drawn.append(f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{middle}" y2="{middle}" stroke-width="2"/>')
        drawn.append(f'<text x="{end + 8:.1f}" y="{top + 17}">{escape(said)}</text>')
    return frame.figure(caption, frame.svg(_WIDTH, len(rows) * _ROW, drawn, caption))


def _figures(record: Mapping[str, Any]) -> list[list[str]]:
    """Return the figures that stand above each table."""
    if "rows" in record:
        rows = record["rows"]
        drawn = {says: [_kit_bar(row, name) for row in rows if row[name]] for name, says in _KIT.items()}
        return [[bars(f"time of {says}; shorter is faster", made) for says, made in drawn.items() if made]]
    if "tolerance" in record:
        return [[] for _ in record["parts"]]
    first = record["ratios_to"]
    return [
        [
            bars(
                f"time of a step over that of {first}: median of the rounds and quartiles; shorter is faster",
                [_race_bar(row) for row in found["results"]],
            ),
            bars(
                "most memory in RAM, the program included",
                [
                    (_side(row), row["peak_rss_bytes"] or 0, format_bytes(row["peak_rss_bytes"]), None)
                    for row in found["results"]
                ],
            ),
        ]
        for found in record["parts"].values()
    ]


_KIT = {"forward": "a forward pass", "step": "forward, backward and update"}


def _kit_bar(row: Mapping[str, Any], name: str) -> Bar:
    seconds = row[name]["seconds"]
    return (
        f"{_side(row)}, {row['part']}",
        seconds["median"],
        format_seconds(seconds["median"]),
        (seconds["low"], seconds["high"]),
    )


def _race_bar(row: Mapping[str, Any]) -> Bar:
    ratio = row["ratio"]
    said = f"{ratio['median']:.2f}  ({format_seconds(row['step_s']['median'])})"
    return _side(row), ratio["median"], said, (ratio["low"], ratio["high"])


def _side(row: Mapping[str, Any]) -> str:
    return f"{row['framework']} {row['mode']}"
