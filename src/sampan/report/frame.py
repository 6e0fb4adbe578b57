"""The frame of a page that is one HTML file: nothing is loaded from elsewhere, and no script is needed to read it.

What stands in it is made by those who have something to say. All text that comes in is escaped here.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from html import escape

_STYLE = """
:root { color-scheme: light dark; --bar: #2f6f9f; --line: #8888; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.5rem; } h2 { font-size: 1.1rem; margin-top: 2.5rem; }
pre { font-size: 13px; overflow-x: auto; }
.table { overflow-x: auto; }
table { border-collapse: collapse; font-size: 14px; }
th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid var(--line); white-space: nowrap; }
th { position: sticky; top: 0; background: Canvas; }
tr.grey td { opacity: .55; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td.wrap { white-space: normal; min-width: 16rem; }
figure { margin: 1rem 0; overflow-x: auto; } figcaption { font-size: 14px; }
svg { width: 100%; min-width: 36rem; height: auto; } svg text { font: 13px system-ui, sans-serif; fill: currentColor; }
svg rect { fill: var(--bar); } svg line { stroke: currentColor; }
.words { border-left: 4px solid #c60; padding-left: 1rem; }
"""


def page(title: str, body: Iterable[str], style: str = "") -> str:
    """Return the whole file around parts of a body that are HTML already.

    Args:
        style: CSS that this page needs beside what all have.
    """
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{escape(title)}</title>\n'
        f"<style>{_STYLE}{style}</style>\n</head>\n<body>\n" + "\n".join(filter(None, body)) + "\n</body>\n</html>\n"
    )


def table(rows: Sequence[Sequence[str]], classes: Sequence[str] = (), grey: Collection[int] = ()) -> str:
    """Return a table whose first row is its head.

    Args:
        classes: Of each column's cells: "number", "wrap" (which may go on in the next line) or "".
        grey: Rows after the head, from 0, that are paler than the others.
    """
    head, *rest = rows
    marks = [f' class="{escape(name)}"' if name else "" for name in (*classes, *[""] * (len(head) - len(classes)))]
    lines = ["".join(f"<th{mark}>{escape(word)}</th>" for mark, word in zip(marks, head, strict=True))]
    lines += ["".join(f"<td{mark}>{escape(word)}</td>" for mark, word in zip(marks, row, strict=True)) for row in rest]
    shades = ["", *(' class="grey"' if number in grey else "" for number in range(len(rest)))]
    body = "".join(f"<tr{shade}>{line}</tr>" for shade, line in zip(shades, lines, strict=True))
    return f'<div class="table"><table>{body}</table></div>'


def figure(caption: str, picture: str) -> str:
    """Return a drawing with the words below it."""
    return f"<figure><figcaption>{escape(caption)}</figcaption>{picture}</figure>"


def svg(width: float, height: float, drawn: Iterable[str], label: str) -> str:
    """Return a drawing.

    Args:
        label: What it shows, for those who do not see it.
    """
    inside = "".join(drawn)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{inside}</svg>'
