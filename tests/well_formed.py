"""Whether a page is well-formed HTML in one file: tags close in order, and nothing is loaded or run."""

from __future__ import annotations

import re
from html.parser import HTMLParser

_VOID = {"meta", "br", "hr", "img"}


class Tags(HTMLParser):
    """Raises where tags do not close in the order in which they open, and collects what a reader sees."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert not any(name.startswith("on") or name == "style" for name, _ in attrs), "a strict policy lets none pass"
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A tag that closes itself."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.seen.append(data)


def assert_well_formed(page: str) -> str:
    """Return the text that a reader sees."""
    tags = Tags()
    tags.feed(page)
    assert tags.open == []
    assert not re.search(
        r"<script|<link|<iframe|@import|url\(|https?://|src=(?!\"data:)", re.sub(r">[^<]*<", "><", page)
    )
    return " ".join(tags.seen)
