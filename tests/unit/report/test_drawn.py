"""Charts and tables as a browser draws them: no words on words or bars, and what scrolls shows it."""

import io
from collections.abc import Iterator
from typing import Any

import pytest
from PIL import Image

from browser import DESKTOP, PHONE, chromium
from sampan.report.charts import Bar, Point, TornadoBar, bars, curves, scatter, tornado
from sampan.report.render import render_lines

GIB = 2**30
MEMORY = [  # the line stands behind, on and before the words
    Bar(name=f"1024 x chip_{limit}", parts=[("weights", 34 * GIB), ("moments", 2 * GIB)],
        text=f"36.0 GiB of {limit}.0 GiB", limit=limit * GIB)
    for limit in (30, 36, 38, 45, 60, 75, 90, 140)
]  # fmt: skip
STEPS = [
    Bar(name=f"1024 x ascend_910b2: decoder at {px} px", parts=[("matmul", px), ("attention", 9.0)], text=f"{px} ms")
    for px in (16, 512, 1024)
]
SWINGS = [
    TornadoBar(name="share of time that chips work", low=0.5, high=high, text="-50% to +79% (short end to long end)")
    for high in (1.01, 1.8)
]
FRONT = [
    Point(name=f"1024 x ascend_910c_{n}", x=n, y=1e6 / n, x_ends=(n / 2, n * 2), y_ends=(3e5 / n, 3e6 / n), is_on_front=True)
    for n in (1, 2, 3)
]  # fmt: skip
LINES = [(f"ascend_910b2_{n}, mindspore", [(1.0, 100.0 + n), (64.0, 2.0 + n)]) for n in range(6)]
# pairs of words that overlap, and words that lie on a bar or on a line of a limit
OVERLAPS = """() => [...document.querySelectorAll("svg")].flatMap((svg) => {
  const box = (e) => e.getBoundingClientRect(), all = (kind) => [...svg.querySelectorAll(kind)];
  const meet = (a, b) => Math.min(a.right, b.right) - Math.max(a.left, b.left) > .5
    && Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top) > 3;
  const texts = all("text").filter((e) => !e.classList.contains("mark")), found = [];
  texts.forEach((text, index) => {
    const others = [...texts.slice(index + 1), ...all("rect")];
    for (const other of others) if (meet(box(text), box(other))) found.push(text.textContent + " | " + other.textContent);
    for (const line of all("line.curve")) { const { left, top, bottom } = box(line), own = box(text);
      if (left > own.left && left < own.right && top < own.bottom && bottom > own.top) found.push(text.textContent); }
    if (box(text).right > box(svg).right + .5) found.push(text.textContent + " sticks out");
  });
  return found;
})"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.mark.slow
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_no_words_lie_on_words_bars_or_limits(browser: Any, viewport: Any):
    drawings = [
        bars("memory", MEMORY), bars("steps", STEPS), tornado("time", SWINGS), scatter("front", FRONT, "days", "USD"),
        curves("scaling", LINES, "chips", "hours"),
    ]  # fmt: skip
    page = browser.new_page(viewport=viewport)
    content = render_lines("charts", [])
    page.set_content(content.replace("</body>", "".join(map(str, drawings)) + "</body>"))
    assert page.locator("svg").count() == len(drawings)
    assert page.evaluate(OVERLAPS) == []
    planted = "<svg viewBox='0 0 760 40'><text x='0' y='20'>one word</text><text x='20' y='20'>another</text></svg>"
    page.set_content(content.replace("</body>", planted + "</body>"))
    assert page.evaluate(OVERLAPS) == ["one word | another"]
    page.close()


@pytest.mark.slow
def test_a_table_that_scrolls_shows_it(browser: Any):
    page = browser.new_page(viewport=PHONE)
    cells = "<td>a number of words</td>" * 9
    table = f'<div class="table"><table><tr>{cells}</tr></table></div>'
    page.set_content(render_lines("table", []).replace("</body>", f"{table}</body>"))
    table = page.locator(".table")
    assert table.evaluate("e => e.scrollWidth > e.clientWidth && document.documentElement.scrollWidth <= innerWidth")

    def right_edge() -> Any:
        """Return how light the column of pixels at the table's right edge is, at its top."""
        shown = Image.open(io.BytesIO(table.screenshot())).convert("L")
        return shown.getpixel((shown.width - 2, 2))

    shaded = right_edge()
    table.evaluate("e => { e.scrollLeft = e.scrollWidth; }")
    page.wait_for_timeout(100)
    assert shaded < right_edge() - 40, "the shadow stands where there is more, and goes at the end"
    page.close()
