"""The page, in a browser: asked, watched, edited and kept, by mouse and by keyboard, in three languages."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from browser import CONTRASTS, DESKTOP, NAMELESS, PHONE, until
from sampan.serve import keys
from sampan.serve.pages import strict
from sampan.serve.settings import AdmissionLimits
from serve_page import Open, ask, made, png, watch

PAGE = resources.files("sampan.serve").joinpath("page.html").read_text(encoding="utf-8")
Start = Callable[..., Any]
slow = pytest.mark.slow


# --- the file -------------------------------------------------------------------------------------------------------------


def test_the_file_brings_everything_and_runs_under_a_policy_without_exceptions():
    assert not re.search(r"(src|href|url\()\s*=?\s*[\"']?(https?:)?//", PAGE)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(|new Function", PAGE)
    assert not re.search(r"\sstyle=|\son\w+=", PAGE), "the policy would not let them pass"
    shown = strict(PAGE)
    assert "unsafe" not in shown.policy and shown.policy.count("sha256-") == 2 and "default-src 'none'" in shown.policy


def test_the_root_is_the_page(running: Any):
    answer = running.client.get("/")
    assert answer.status_code == 200 and answer.text == PAGE and "sha256-" in answer.headers["content-security-policy"]


@slow
def test_every_word_is_there_in_every_language(opened: Open, running: Any):
    with opened(running) as page:
        words = page.evaluate("WORDS")
        used = set(page.evaluate("[...document.querySelectorAll('[data-t]')].map(e => e.dataset.t)"))
        assert set(words) == {"en", "pt", "zh"} and used <= set(words["en"])
        for language in ("pt", "zh"):
            assert set(words[language]) == set(words["en"])
            for name, text in words[language].items():
                assert sorted(re.findall(r"\{\d\}", text)) == sorted(re.findall(r"\{\d\}", words["en"][name])), name


# --- pictures -------------------------------------------------------------------------------------------------------------


@slow
@pytest.mark.parametrize("viewport", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_a_picture_comes_in_and_is_edited_and_kept(opened: Open, running: Any, viewport: Any):
    with opened(running, viewport=viewport) as page:
        watch(page)
        ask(page, 'a <b>boat</b> "SEA"', seed=5)
        page.get_by_role("button", name="Generate").click()
        made(page, 1)
        seen = page.evaluate("window.seen")
        said = list(dict.fromkeys(words for words, _ in seen if words))
        phases = ["Generating layout tokens", "Layout preview", "Denoising"]
        assert said[:3] == phases and said[-1].startswith("Done in ")
        assert len({source for _, source in seen if source}) == 4, "three pictures on the way, and the picture"
        assert page.locator("#chosen-prompt").inner_text() == 'a <b>boat</b> "SEA"', "text stays text"
        assert "Seed\n5" in page.locator("#facts").inner_text()
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "nothing sticks out"

        page.get_by_role("button", name="Edit this image").scroll_into_view_if_needed()
        before = page.evaluate("scrollY")
        page.get_by_role("button", name="Edit this image").click()
        assert page.evaluate("document.activeElement.id") == "change"
        page.get_by_label("What should change?").fill("make it blue")
        assert page.evaluate("scrollY") == before, "what is edited stays in view"
        page.get_by_role("button", name="Edit", exact=True).click()
        assert page.locator("#refs img").count() == 1
        made(page, 2)
        past = running.client.get("/v1/history").json()["data"]
        assert [one["kind"] for one in past] == ["edit", "generation"] and past[0]["reference_ids"] == [past[1]["id"]]
        page.get_by_text("Edited from").wait_for()

        page.reload()
        made(page, 2)
        assert page.locator("#chosen-prompt").inner_text() == "make it blue", "history survives a reload"
        page.locator("#history button").nth(1).click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download").click()
        assert download.value.suggested_filename == f"sampan-{past[1]['id'][4:]}.png"
        kept = running.client.get(f"/v1/images/{past[1]['id']}").content
        assert Path(download.value.path()).read_bytes() == kept
        page.get_by_role("button", name="Reuse settings").click()
        assert page.get_by_label("Seed").input_value() == "5"
        page.on("dialog", lambda dialog: dialog.accept())
        page.get_by_role("button", name="Delete").click()
        until(page, "document.querySelectorAll('#history img').length === 1")
        assert running.client.get(f"/v1/images/{past[1]['id']}").status_code == 404


@slow
def test_several_at_once_can_be_looked_at_one_by_one(opened: Open, running: Any):
    with opened(running) as page:
        ask(page, "a boat", steps=2, n=3, seed=1)
        page.get_by_role("button", name="Generate").click()
        made(page, 3)
        tiles = page.locator("#tiles button")
        assert tiles.count() == 3
        tiles.nth(2).click()
        assert "Seed\n3" in page.locator("#facts").inner_text()
        assert [tile.get_attribute("aria-pressed") for tile in tiles.all()] == ["false", "false", "true"]


@slow
def test_references_are_dropped_pasted_and_picked(opened: Open, running: Any):
    with opened(running) as page:
        page.locator("#files").set_input_files(files=[{"name": "a.png", "mimeType": "image/png", "buffer": png()}])
        give = """([kind, bytes]) => {
          const held = new DataTransfer();
          held.items.add(new File([new Uint8Array(bytes)], kind + ".png", {type: "image/png"}));
          const about = {bubbles: true, cancelable: true};
          window.dispatchEvent(kind === "paste" ? new ClipboardEvent("paste", {...about, clipboardData: held})
            : new DragEvent("drop", {...about, dataTransfer: held}));
        }"""
        for kind in ("paste", "drop"):
            page.evaluate(give, [kind, list(png("blue"))])
        assert page.locator("#refs img").count() == 3
        page.locator("#files").set_input_files(
            files=[{"name": "a.svg", "mimeType": "image/svg+xml", "buffer": b"<x/>"}]
        )
        assert "“a.svg” is not a PNG, JPEG or WebP image." in page.get_by_role("alert").inner_text()
        page.get_by_role("button", name="Remove reference 3").click()
        assert page.locator("#refs img").count() == 2
        ask(page, "both", steps=2)
        page.get_by_role("button", name="Edit", exact=True).click()
        made(page, 1)
        assert running.client.get("/v1/history").json()["data"][0]["kind"] == "edit"


@slow
def test_a_cancelled_picture_is_given_up(opened: Open, running: Any):
    with opened(running) as page:
        ask(page, "a boat", steps=200)
        page.get_by_role("button", name="Generate").click()
        page.locator("#tiles img").wait_for()
        assert running.server.scheduler.num_under_way == 1
        assert page.evaluate("document.activeElement.id") == "cancel", "the button that can be pressed now"
        page.keyboard.press("Enter")
        page.get_by_text("Cancelled. Nothing was saved.").wait_for()
        assert page.evaluate("document.activeElement.id") == "go"
        end = time.monotonic() + 5
        while running.server.scheduler.num_under_way and time.monotonic() < end:
            page.wait_for_timeout(20)
        assert running.server.scheduler.num_under_way == 0
        assert running.client.get("/v1/history").json()["data"] == []


@slow
def test_errors_are_told_in_words(opened: Open, start: Start):
    running = start(limits=AdmissionLimits(queue=1))
    with opened(running) as page:
        alert = page.get_by_role("alert")
        page.get_by_role("button", name="Generate").click()
        assert "Write a prompt first." in alert.inner_text()
        assert page.evaluate("document.activeElement.id") == "prompt"
        ask(page, "a boat", seed="-1")
        page.get_by_role("button", name="Generate").click()
        assert "0 to 4294967295" in alert.inner_text()
        assert page.locator("#seed").get_attribute("aria-invalid") == "true"
        ask(page, "a boat", seed="1", steps=900)
        page.get_by_role("button", name="Generate").click()
        assert "“Inference steps” is a number from 1 to 200" in alert.inner_text()
        ask(page, "a boat", n=3)
        page.get_by_role("button", name="Generate").click()
        until(page, "state.problem && !state.run")
        assert "busy" in alert.inner_text() or "too much at once" in alert.inner_text()
        assert page.locator("#tiles .tile").count() == 0
        page.locator("#lang").select_option("pt")
        assert "Tente" in alert.inner_text() or "Espere" in alert.inner_text(), (
            "what is shown changes with the language"
        )
        page.locator("#lang").select_option("en")
        page.route("**/v1/images/generations", lambda route: route.abort())
        ask(page, "a boat", n=1)
        page.get_by_role("button", name="Generate").click()
        page.get_by_text("The server cannot be reached.").wait_for()


@slow
def test_a_key_is_asked_for_where_one_is_needed(opened: Open, running: Any):
    said: list[str] = []
    keys.change(running.server.settings.data, add="alice", remove=None, put=said.append)
    key = said[0]
    with opened(running) as page:
        field = page.get_by_role("textbox", name="API key")
        field.fill("sk-wrong")
        field.press("Enter")
        page.get_by_text("needs an API key that it knows").first.wait_for()
        field.fill(key)
        field.press("Enter")
        page.locator("#key-box").wait_for(state="hidden")
        ask(page, "a boat", steps=2)
        page.get_by_role("button", name="Generate").click()
        made(page, 1)
        page.reload()
        made(page, 1)
        assert key not in page.evaluate("JSON.stringify(localStorage)") and key not in page.content()
        assert page.evaluate("sessionStorage.getItem('sampan-key')") == key


# --- who uses it ----------------------------------------------------------------------------------------------------------


@slow
def test_by_keyboard_alone(opened: Open, running: Any):
    with opened(running) as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Enter")
        until(page, "document.activeElement.id === 'prompt'")
        page.keyboard.type("a boat")
        order = []
        for _ in range(6):
            page.keyboard.press("Tab")
            order.append(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        assert order == ["pick", "size", "seed", "SUMMARY", "go", "SUMMARY"]
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Shift+Tab")
        page.keyboard.press("Enter")
        for _ in range(3):
            page.keyboard.press("Tab")
        page.keyboard.type("2")
        assert page.get_by_label("Inference steps").input_value() == "2"
        page.keyboard.press("Enter")
        made(page, 1)
        ringed = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert page.evaluate("document.activeElement.id") == "steps" and ringed == "solid"


@slow
def test_the_language_is_the_browsers_and_can_be_changed(opened: Open, running: Any):
    with opened(running, locale="pt-PT") as page:
        assert page.evaluate("document.documentElement.lang") == "pt-PT"
        assert page.get_by_role("button", name="Gerar").is_visible()
        page.get_by_label("Língua").select_option("zh")
        assert page.get_by_role("button", name="生成").is_visible()
        page.reload()
        until(page, "state.caps !== null")
        assert page.evaluate("document.documentElement.lang") == "zh-Hans", "the choice is kept"
    with opened(running, locale="fi-FI") as page:
        assert page.evaluate("document.documentElement.lang") == "en"


@slow
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_everything_can_be_read_and_has_a_name(opened: Open, start: Start, tmp_path: Path, scheme: str):
    report = tmp_path / "plan.html"
    report.write_text("<h1>A plan</h1>", encoding="utf-8")
    running = start(plan_report=report)
    for seed in (1, 2):
        running.paint(seed=seed)
    with opened(running, color_scheme=scheme, reduced_motion="reduce") as page:
        made(page, 2)
        page.evaluate("for (const one of document.querySelectorAll('details')) one.open = true")
        page.get_by_role("button", name="Edit this image").click()
        page.get_by_role("button", name="Edit", exact=True).click()  # without a prompt: an error is shown
        page.get_by_text("Write what should change.").wait_for()
        for close in ("Cancel", "Close"):
            contrasts = page.evaluate(CONTRASTS)
            assert len(contrasts) > 40
            assert min(contrasts) >= [4.5], min(contrasts)
            assert page.evaluate(NAMELESS) == []
            page.get_by_role("button", name=close).click()
            if close == "Cancel":
                page.get_by_role("button", name="Compare").click()
        moving = "[...document.querySelectorAll('*')].filter(e => getComputedStyle(e).animationName !== 'none').length"
        assert page.evaluate(moving) == 0
        small = page.evaluate(
            "[...document.querySelectorAll('button, select, input, summary')].filter(e => e.checkVisibility())"
            ".map(e => [e.getBoundingClientRect().height, e.id]).filter(([h]) => h < 24)"
        )
        assert small == [], "targets are large enough to be hit"


# --- beside pictures ------------------------------------------------------------------------------------------------------


@slow
def test_the_code_that_is_shown_does_what_the_page_does(opened: Open, running: Any, tmp_path: Path):
    with opened(running) as page:
        ask(page, 'it\'s a "boat" \\ $HOME `x` é 船', steps=2, seed=9)
        page.evaluate("document.getElementById('code').open = true")
        page.get_by_role("button", name="Copy Python").click()
        page.get_by_text("Copied").first.wait_for()
        copied = page.evaluate("navigator.clipboard.readText()")
        assert copied == page.locator("#python").inner_text()
        subprocess.run([sys.executable, "-c", copied], cwd=tmp_path, check=True, timeout=60)
        shown = page.locator("#curl").inner_text()
        subprocess.run(["sh", "-c", f"{shown} -sf -o answer.json"], cwd=tmp_path, check=True, timeout=60)
        page.get_by_role("button", name="Generate").click()
        made(page, 3)
        ours, by_curl, by_python = running.client.get("/v1/history").json()["data"]
        for one in (by_curl, by_python):
            assert {k: one[k] for k in ("prompt", "seed", "size")} == {k: ours[k] for k in ("prompt", "seed", "size")}
        assert (tmp_path / f"{by_python['id']}.png").is_file()

        page.get_by_role("button", name="Edit this image").click()
        until(page, "document.getElementById('region-canvas').width > 0")
        page.locator("#region-canvas").click()
        page.get_by_role("button", name="Add to the form").click()
        with page.expect_download() as download:
            page.get_by_role("link", name="Download mask.png").click()
        (tmp_path / "mask.png").write_bytes(Path(download.value.path()).read_bytes())
        page.locator("#files").set_input_files(files=[{"name": "a b.png", "mimeType": "image/png", "buffer": png()}])
        page.get_by_label("Prompt", exact=True).fill("blue; it's")
        (tmp_path / "a b.png").write_bytes(png())
        python, shown = page.locator("#python").inner_text(), page.locator("#curl").inner_text()
        subprocess.run([sys.executable, "-c", python], cwd=tmp_path, check=True, timeout=60)
        subprocess.run(["sh", "-c", f"{shown} -sf -o answer.json"], cwd=tmp_path, check=True, timeout=60)
        last = running.client.get("/v1/history").json()["data"][:2]
        assert all(one["kind"] == "edit" and one["prompt"] == "blue; it's" for one in last)
        assert all(one["reference_ids"] == [ours["id"]] for one in last)


@slow
def test_reports_stand_in_a_tab_of_their_own(opened: Open, start: Start, tmp_path: Path):
    for name in ("plan", "bench"):
        (tmp_path / f"{name}.html").write_text(f"<h1>The {name}</h1>", encoding="utf-8")
    with opened(start()) as page:
        assert not page.get_by_role("tab", name="Reports").is_visible(), "there are none"
    with opened(start(plan_report=tmp_path / "plan.html", bench_report=tmp_path / "bench.html")) as page:
        page.get_by_role("tab", name="Images").focus()
        page.keyboard.press("ArrowRight")
        assert page.get_by_role("tab", name="Reports").get_attribute("aria-selected") == "true"
        page.frame_locator("#report").get_by_text("The plan").wait_for()
        page.get_by_role("button", name="Framework benchmark").click()
        page.frame_locator("#report").get_by_text("The bench").wait_for()
        page.keyboard.press("Tab")
        page.get_by_role("tab", name="Images").click()
        assert page.get_by_label("Prompt", exact=True).is_visible()
