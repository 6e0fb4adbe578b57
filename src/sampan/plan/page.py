"""A plan as one HTML file: words, tables and drawings, nothing loaded from elsewhere and no script."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from sampan.plan.report import Plan


def page(plan: Plan) -> str:
    """Return the whole file."""
    return plain(plan.work.name, plan.notes())


def plain(title: str, lines: Sequence[str]) -> str:
    """Return a page of lines."""
    return f"<!doctype html><title>{escape(title)}</title><pre>{escape(chr(10).join(lines))}</pre>\n"
