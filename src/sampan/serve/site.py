"""What a browser is shown: the page, reports, and the description of the API. Nothing of it comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, RedirectResponse, Response

from sampan.errors import RequestError
from sampan.report.render import render

_RATIOS = ((1, 1), (3, 2), (2, 3), (4, 3), (3, 4), (16, 9), (9, 16))
_INLINE = re.compile(r"<(script|style)\b([^>]*)>(.*?)</\1>", re.DOTALL | re.IGNORECASE)
_STYLE_ATTRIBUTE = re.compile(r"\sstyle=\"([^\"]*)\"|\sstyle='([^']*)'", re.IGNORECASE)


@dataclass(frozen=True)
class PageOut:
    """A page and the policy that goes with it."""

    content: str
    policy: str

    def response(self) -> Response:
        """Return it as an answer."""
        headers = {"Content-Security-Policy": self.policy, "Cache-Control": "no-cache"}
        return HTMLResponse(self.content, headers=headers)


class Pages:
    """The pages of a server.

    Args:
        plan_report, bench_report: HTML files, read now.

    Raises:
        RequestError: A report cannot be read.
    """

    def __init__(self, plan_report: Path | None = None, bench_report: Path | None = None):
        own = resources.files("sampan.serve").joinpath("page.html")
        self._page = strict(own.read_text(encoding="utf-8")) if own.is_file() else None
        files = {"plan": plan_report, "bench": bench_report}
        self._reports = {name: _report(path) for name, path in files.items() if path is not None}

    @property
    def reports(self) -> dict[str, str | None]:
        """Where each report is, or None."""
        return {name: f"/reports/{name}" if name in self._reports else None for name in ("plan", "bench")}

    def add_to(self, app: FastAPI) -> None:
        """Add the routes."""

        @app.get("/", include_in_schema=False)
        async def root() -> Response:
            return RedirectResponse("/docs") if self._page is None else self._page.response()

        for name, shown in self._reports.items():
            app.add_api_route(f"/reports/{name}", shown_by(shown), include_in_schema=False)

        @app.get("/docs", include_in_schema=False)
        async def docs() -> Response:
            return strict(description(app.openapi())).response()


def shown_by(shown: PageOut) -> Any:
    """Return a route that shows one page."""

    async def route() -> Response:
        return shown.response()

    return route


def strict(content: str) -> PageOut:
    """Return a page of our own with a policy that lets it do what it does and nothing else."""
    scripts, styles = _hashes(content)
    return PageOut(
        content,
        f"default-src 'none'; script-src {scripts}; style-src {styles}; img-src 'self' blob: data:; connect-src 'self'; "
        "frame-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    )


def _report(path: Path) -> PageOut:
    """Return a report, which may be from somewhere else: it can show itself, and can run no script."""
    try:
        content = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RequestError(f"the report `{path}` cannot be read", str(error)) from error
    _, styles = _hashes(content)
    attributes = {first or second for first, second in _STYLE_ATTRIBUTE.findall(content)}
    if attributes:
        allowed = " ".join(sorted(_hash(html.unescape(text)) for text in attributes))
        styles = f"'unsafe-hashes' {allowed} {styles}".replace(" 'none'", "")
    policy = f"default-src 'none'; style-src {styles}; img-src data:; base-uri 'none'; form-action 'none'; sandbox; "
    return PageOut(content, f"{policy}frame-ancestors 'self'")


def _hashes(content: str) -> tuple[str, str]:
    """Return what a policy says of the inline scripts and styles of a page."""
    found: dict[str, list[str]] = {"script": [], "style": []}
    for kind, attributes, body in _INLINE.findall(content.replace("\r\n", "\n")):
        if "src" not in attributes.lower() and not ("type=" in attributes and "json" in attributes):
            found[kind.lower()].append(_hash(body))
    script, style = (" ".join(found[kind]) or "'none'" for kind in ("script", "style"))
    return script, style


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def sizes(default_px: int, unit_px: int, max_area_px: int) -> list[str]:
    """Return sizes to offer: as many pixels as the model's own, in usual shapes, and then the double of each side."""
    found: dict[str, None] = {}
    for scale in (1, 2):
        for across, down in _RATIOS:
            root = scale * default_px / (across * down) ** 0.5
            width, height = (max(unit_px, round(part * root / unit_px) * unit_px) for part in (across, down))
            if width * height <= max_area_px:
                found[f"{width}x{height}"] = None
    return list(found)


def description(schema: dict[str, Any]) -> str:
    """Return the OpenAPI description as a page that needs no script."""
    return render("serve/api.html", title="Sampan's API", paths=schema["paths"], kind=_kind)


def _kind(schema: dict[str, Any]) -> str:
    """Return a field's type and bounds in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(one) for one in schema["anyOf"] if one.get("type") != "null")
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    words = [schema.get("format") or schema.get("type", "")]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "maxLength": "≤ characters"}
    words += [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    return ", ".join(words)
