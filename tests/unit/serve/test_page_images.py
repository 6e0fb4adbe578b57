"""What the page does with images: kept when a request fails, edited in a region, compared; examples and code."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from browser import DESKTOP, PHONE, until
from serve_page import Open, ask, made

slow = pytest.mark.slow


@slow
def test_an_error_goes_when_it_is_mended_and_leaves_the_image_in_place(opened: Open, running: Any):
    running.paint(seed=1)
    with opened(running) as page:
        made(page, 1)
        alert = page.get_by_role("alert")
        for field, wrong, right in (("prompt", "", "a boat"), ("seed", "x", "3"), ("steps", "900", "2")):
            ask(page, "a boat", seed="3", steps=2)
            page.locator(f"#{field}").fill(wrong)
            page.get_by_role("button", name="Generate").click()
            assert alert.count() == 1 and page.locator(f"#{field}").get_attribute("aria-invalid") == "true"
            page.locator(f"#{field}").fill(right)
            assert alert.count() == 0 and page.locator("[aria-invalid]").count() == 0
        shown = page.locator("#tiles img").get_attribute("src")
        busy = '{"error": {"code": "queue_full", "message": "The queue is full."}}'
        page.route("**/v1/images/generations", lambda route: route.fulfill(status=503, body=busy))
        page.get_by_role("button", name="Generate").click()
        page.get_by_role("button", name="Try again").wait_for()
        assert "The server is busy." in alert.inner_text()
        assert page.locator("#tiles img").get_attribute("src") == shown
        assert page.locator("#facts").is_visible() and page.get_by_label("Prompt", exact=True).input_value() == "a boat"
        page.unroute("**/v1/images/generations")
        page.get_by_role("button", name="Try again").click()
        made(page, 2)
        assert alert.count() == 0


# --- regions, comparisons, examples --------------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_only_the_region_that_is_painted_changes(opened: Open, running: Any, viewport: Any):
    first = running.paint(seed=1).json()["data"][0]["id"]
    with opened(running, viewport=viewport) as page:
        made(page, 1)
        ask(page, "", steps=2)
        page.get_by_role("button", name="Edit this image").click()
        canvas = page.get_by_role("application", name="Region to change")
        until(page, "document.getElementById('region-canvas').width === 64")
        box = canvas.bounding_box()

        def stroke(x: float, y: float) -> None:
            for at, act in ((x - 0.1, "down"), (x + 0.1, "up")):
                page.mouse.move(box["x"] + box["width"] * at, box["y"] + box["height"] * y)
                getattr(page.mouse, act)()

        share = "selectedShare()"
        page.locator("#brush-size").fill("20")
        stroke(0.3, 0.25)
        one = page.evaluate(share)
        assert 0.05 < one < 0.1
        stroke(0.7, 0.75)
        assert page.evaluate(share) == pytest.approx(2 * one, rel=0.1)
        page.get_by_role("button", name="Undo").click()
        assert page.evaluate(share) == one
        page.get_by_role("button", name="Clear").click()
        assert page.evaluate(share) == 0
        page.get_by_role("button", name="Undo").click()
        assert page.evaluate(share) == one
        page.get_by_role("button", name="Erase").click()
        stroke(0.3, 0.25)
        assert page.evaluate(share) < 0.01
        page.get_by_role("button", name="Undo").click()
        page.get_by_role("button", name="Paint", exact=True).click()
        canvas.press("ArrowDown")
        canvas.press("Space")
        assert page.evaluate(share) > one, "the brush obeys the keyboard"
        page.get_by_role("button", name="Undo").click()
        assert page.evaluate("document.getElementById('region-box').scrollWidth <= innerWidth")
        page.get_by_role("button", name="Edit", exact=True).click()
        assert "Write what should change." in page.get_by_role("alert").inner_text()
        page.get_by_label("What should change?").fill("blue")
        page.get_by_role("button", name="Edit", exact=True).click()
        made(page, 2)
        assert page.get_by_role("button", name="Change the selected region").is_visible()
        edited = running.client.get("/v1/history").json()["data"][0]["id"]
        old, new = (
            np.asarray(Image.open(io.BytesIO(running.client.get(f"/v1/images/{name}").content)).convert("RGB"))
            for name in (first, edited)
        )
        changed = (old != new).any(-1)
        rows, columns = np.nonzero(changed)
        assert changed.sum() > 50
        assert rows.min() >= 8 and rows.max() <= 24 and columns.min() >= 4 and columns.max() <= 34, "and nothing else"


@slow
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_two_images_are_compared(opened: Open, running: Any, viewport: Any):
    for seed in (1, 2, 3):
        running.paint(seed=seed)
    running.paint(seed=3, size="128x64")
    with opened(running, viewport=viewport) as page:
        made(page, 4)
        page.locator("#history button").nth(1).click()
        page.get_by_role("button", name="Compare").click()
        assert page.get_by_role("button", name="Slider").is_disabled(), "of another shape: there is no divider"
        page.locator("#strip button").nth(2).click()
        page.get_by_role("button", name="Slider").click()
        page.get_by_label("Divider").fill("25")
        cut = "getComputedStyle(document.querySelector('#over .second')).clipPath"
        assert page.evaluate(cut) == "inset(0px 0px 0px 25%)"
        box = page.locator("#over").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 9)
        page.mouse.down()
        page.mouse.up()
        assert page.get_by_label("Divider").input_value() == "75"
        rows = page.locator("#differences tr").all()
        told = {row.locator("th").inner_text(): row.locator("td").all_inner_texts() for row in rows}
        assert told["Seed"] == ["1", "3"] and told["Size"] == ["64 × 64", "64 × 64"]
        assert [row.get_attribute("class") for row in rows] == [None, "differs", None, None, None]
        page.get_by_role("button", name="Side by side").click()
        sides = [page.locator(f"#both-{name}").bounding_box() for name in ("first", "second")]
        assert sides[0]["width"] == pytest.approx(sides[1]["width"], abs=1) and sides[0]["x"] < sides[1]["x"]
        assert page.evaluate("document.getElementById('compare-box').scrollWidth <= innerWidth")
        page.keyboard.press("Escape")
        assert page.evaluate("document.activeElement.id") == "compare"


@slow
def test_examples_fill_the_prompt_until_there_are_images(opened: Open, running: Any):
    with opened(running) as page:
        assert not page.locator("#examples").is_visible(), "this model names none"
        page.evaluate("state.caps.examples = ['a \"BOAT\"', '<b>']; showExamples()")
        page.get_by_role("button", name="Generate").click()
        page.get_by_role("button", name='a "BOAT"').click()
        assert page.get_by_label("Prompt", exact=True).input_value() == 'a "BOAT"'
        assert page.get_by_role("alert").count() == 0 and page.evaluate("document.activeElement.id") == "go"
        assert page.locator(".chip").nth(1).inner_text() == "<b>", "text stays text"
        running.paint()
        page.evaluate("loadPast()")
        page.locator("#examples").wait_for(state="hidden")


@slow
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_code_is_not_cut(opened: Open, running: Any, viewport: Any):
    with opened(running, viewport=viewport) as page:
        page.get_by_label("Prompt", exact=True).fill("a boat " * 40 + "x" * 200)
        page.evaluate("document.getElementById('code').open = true")
        cut = "[...document.querySelectorAll('pre')].filter(e => e.scrollWidth > e.clientWidth).length"
        assert page.evaluate(cut) == 0


@slow
def test_loras_of_the_server_stand_beside_the_model(opened: Open, running: Any):
    with opened(running) as page:
        assert page.locator("#model").inner_text() == "tiny"
        page.evaluate("state.caps.loras = [{name: 'ink', scale: 0.7}, {name: '<b>', scale: 1}]; showModel()")
        assert page.locator("#model").inner_text() == "tiny · with LoRA ink × 0.7, <b>"
