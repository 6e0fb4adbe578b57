"""A Chromium of this machine, without a window."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

PHONE, DESKTOP = {"width": 390, "height": 844}, {"width": 1280, "height": 800}
WAIT_MS = 60_000
_NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")


@contextmanager
def chromium() -> Iterator[Any]:
    """Start it; where there is none the test is skipped."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as started:
        own = started.chromium.executable_path
        found = os.environ.get("SAMPAN_CHROMIUM") or next(filter(None, map(shutil.which, _NAMES)), own)
        if not Path(found).is_file():
            pytest.skip("no Chromium: name one in SAMPAN_CHROMIUM, or `playwright install chromium`")
        # its sandbox wants a user's own namespace, which containers do not give; it shows our own page only
        browser = started.chromium.launch(executable_path=found, args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


def until(page: Any, expression: str) -> None:
    """Wait until an expression holds; asked from outside, since the page's policy forbids what playwright puts in."""
    end = time.monotonic() + WAIT_MS / 1000
    while not page.evaluate(expression):
        assert time.monotonic() < end, f"not so after {WAIT_MS} ms: {expression}"
        page.wait_for_timeout(20)


# how light each text is against what is behind it, as WCAG 2 counts, and which text
CONTRASTS = """() => {
  const canvas = document.createElement("canvas").getContext("2d", {willReadFrequently: true});
  const rgba = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = (c) => { const [r, g, b] = c.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); return .2126 * r + .7152 * g + .0722 * b; };
  const found = [];
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some((n) => n.nodeType === 3 && n.data.trim()) || element.placeholder;
    if (!own || !element.checkVisibility() || element.closest(".unseen, script, option")) continue;
    const colour = getComputedStyle(element, element.placeholder && !element.value ? "::placeholder" : null).color;
    let behind = element, ground = [0, 0, 0, 0];
    while (behind && ground[3] === 0) {
      ground = rgba(getComputedStyle(behind).backgroundColor); behind = behind.parentElement; }
    const [a, b] = [light(rgba(colour)), light(ground)].sort((x, y) => y - x);
    found.push([(a + .05) / (b + .05), (element.id || element.tagName) + ": " + element.textContent.slice(0, 30)]);
  }
  return found;
}"""
# controls and pictures that a screen reader could only call by their kind
NAMELESS = """() => [...document.querySelectorAll("button, a, input, select, textarea, summary, iframe, img, [role]")]
  .filter((e) => e.checkVisibility() && !["presentation", "tablist"].includes(e.role)).filter((e) => {
    const by = e.getAttribute("aria-labelledby");
    const words = [e.getAttribute("aria-label"), by && document.getElementById(by)?.textContent, e.alt, e.title,
      ...[...(e.labels ?? [])].map((l) => l.textContent), e.matches("button, a, summary") ? e.textContent : "",
      e.querySelector("img")?.alt];
    return !["alert", "status"].includes(e.getAttribute("role")) && !words.some((w) => w?.trim());
  }).map((e) => e.outerHTML.slice(0, 80))"""
