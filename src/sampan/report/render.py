"""HTML pages from templates. A page gathers plain values; a template beside it says how they stand in one HTML file.

Every page extends `report/frame.html`, takes its tables from `report/blocks.html` and its drawings from
`sampan.report.charts`. Pages load nothing from elsewhere, and need no script. Text is escaped by Jinja2.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any


def render(template: str, **values: Any) -> str:
    """Return a page.

    Args:
        template: Path of the template from the package's folder, "plan/page.html".
        values: What the template names, `title` among it. A name that is missing is an error.
    """
    return _environment().get_template(template).render(values)


def render_lines(title: str, lines: Sequence[str]) -> str:
    """Return a page of lines as they stand in a terminal."""
    return render("report/lines.html", title=title, lines=lines)


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined  # only those who ask for HTML pay for it

    return Environment(
        loader=PackageLoader("sampan", "."), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
