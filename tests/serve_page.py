"""The page of `sampan serve` in a Chromium: opened, filled in, waited for."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from PIL import Image

from browser import DESKTOP, WAIT_MS, until

Open = Callable[..., AbstractContextManager[Any]]


def png(colour: str = "red", size: tuple[int, int] = (64, 64)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


@contextmanager
def open_page(browser: Any, running: Any, **settings: Any) -> Iterator[Any]:
    """Open the page of a server; what a browser complains about fails the test."""
    about = {"viewport": DESKTOP, "locale": "en-GB", "permissions": ["clipboard-read", "clipboard-write"]}
    context = browser.new_context(**(about | settings))
    page = context.new_page()
    page.set_default_timeout(WAIT_MS)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    # what is not loaded is told in the console too, and is what some tests ask for
    page.on(
        "console",
        lambda m: wrong.append(m.text) if m.type == "error" and not m.text.startswith("Failed to load") else None,
    )
    page.goto(f"http://127.0.0.1:{running.port}/")
    until(page, "state.caps !== null")
    try:
        yield page
    finally:
        context.close()
    assert not wrong


def ask(page: Any, prompt: str, steps: int = 3, **fields: Any) -> None:
    """Fill the form in; what stands in the fold is opened for it."""
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.evaluate("document.getElementById('more').open = true")
    page.get_by_label("Inference steps").fill(str(steps))
    for name, value in fields.items():
        page.locator(f"#{name}").fill(str(value))


def watch(page: Any) -> None:
    """Note every phase, and every picture, that is shown from now on."""
    page.evaluate(
        """() => { window.seen = []; new MutationObserver(() => {
          const image = document.querySelector("#tiles img");
          const now = [document.getElementById("said").textContent, image ? image.src : ""];
          if (now.join() !== String(window.seen.at(-1))) window.seen.push(now);
        }).observe(document.getElementById("stage"), {subtree: true, childList: true, characterData: true}); }"""
    )


def made(page: Any, num_pictures: int) -> None:
    """Wait until the history has so many pictures, and the stage shows one whole."""
    until(page, f"document.querySelectorAll('#history img').length === {num_pictures} && !state.run")
    until(page, "(i => i && i.complete && i.naturalWidth > 0)(document.querySelector('#tiles img'))")
