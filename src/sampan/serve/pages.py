"""What a browser is shown: the page, reports, and the description of the API. Nothing of it comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
import html
import re
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.responses import HTMLResponse, Response

from sampan.checkpoint import lora
from sampan.checkpoint.lora import LoraAdapter
from sampan.checkpoint.lora_settings import PEFT_FILE
from sampan.errors import RequestError
from sampan.models.lora import PARTS
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
        self._page = strict(resources.files("sampan.serve").joinpath("page.html").read_text(encoding="utf-8"))
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
            return self._page.response()

        for name, report in self._reports.items():
            app.add_api_route(f"/reports/{name}", _page_route(report), include_in_schema=False)

        @app.get("/docs", include_in_schema=False)
        async def docs() -> Response:
            return strict(description(app.openapi())).response()


def _page_route(page: PageOut) -> Any:
    """Return a route that shows one page."""

    async def route() -> Response:
        return page.response()

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
    hashes: dict[str, list[str]] = {"script": [], "style": []}
    for kind, attributes, body in _INLINE.findall(content.replace("\r\n", "\n")):
        if "src" not in attributes.lower() and not ("type=" in attributes and "json" in attributes):
            hashes[kind.lower()].append(_hash(body))
    script, style = (" ".join(hashes[kind]) or "'none'" for kind in ("script", "style"))
    return script, style


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def list_sizes(default_px: int, unit_px: int, max_area_px: int) -> list[str]:
    """Return sizes to offer: as many pixels as the model's own, in usual shapes, and then the double of each side."""
    offered: dict[str, None] = {}
    for scale in (1, 2):
        for across, down in _RATIOS:
            root = scale * default_px / (across * down) ** 0.5
            width, height = (max(unit_px, round(part * root / unit_px) * unit_px) for part in (across, down))
            if width * height <= max_area_px:
                offered[f"{width}x{height}"] = None
    return list(offered)


def loaded_loras(adapters: Iterable[LoraAdapter]) -> list[tuple[str, float]]:
    """Return the name and the user's scale of each LoRA, once where it has a file for each of several parts.

    A file that has the name that diffusers or PEFT gives to every one is named by the folder that tells it from others.
    """
    return list(dict.fromkeys((_lora_name(adapter.file), adapter.strength) for adapter in adapters))


def _lora_name(file: Path) -> str:
    if file.name not in (lora.DIFFUSERS_FILE, PEFT_FILE):
        return file.stem
    folders = (part for part in reversed(file.absolute().parent.parts) if part not in ("lora", *PARTS))
    return next(folders, file.stem)


def description(schema: dict[str, Any]) -> str:
    """Return the OpenAPI description as a page that needs no script."""
    return render("serve/api.html", title="Sampan's API", paths=schema["paths"], kind=_kind)


def _kind(schema: dict[str, Any]) -> str:
    """Return a field's type and bounds in a few words."""
    if "anyOf" in schema:
        return " or ".join(_kind(option) for option in schema["anyOf"] if option.get("type") != "null")
    if "enum" in schema:
        return " | ".join(str(value) for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}"
    words = [schema.get("format") or schema.get("type", "")]
    bounds = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "maxLength": "≤ characters"}
    words += [f"{sign} {schema[key]}" for key, sign in bounds.items() if key in schema]
    return ", ".join(words)
