"""The routes, asked over a socket."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from sampan.checkpoint.knowledge import ModelKnowledge
from sampan.errors import ApiError
from sampan.pipeline.pipeline import Pipeline
from sampan.pipeline.png import DIGITAL_SOURCE_TYPE
from sampan.pipeline.request import ImageRequest
from sampan.serve import keys
from sampan.serve.settings import AdmissionLimits
from uploaded import png

Start = Callable[..., Any]


def pixels(content: bytes) -> np.ndarray[Any, Any]:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def content(one: dict[str, Any]) -> bytes:
    return base64.b64decode(one["b64_json"])


def error(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body.keys() == {"error"} and body["error"].keys() == {"message", "type", "param", "code"}
    assert "Traceback" not in answer.text and ".py" not in answer.text
    return body["error"]


def test_the_same_seed_gives_the_command_lines_picture(running: Any, pipeline: Pipeline):
    answer = running.paint(seed=5, n=2, size="64x96").json()
    assert [one["seed"] for one in answer["data"]] == [5, 6]
    for one in answer["data"]:
        request = ImageRequest("a boat", width_px=64, height_px=96, num_inference_steps=2, seed=one["seed"])
        assert np.array_equal(pixels(content(one)), pipeline(request)[0])
    other = running.paint(seed=5, size="64x96", prompt="a kite").json()
    assert not np.array_equal(pixels(content(other["data"][0])), pixels(content(answer["data"][0])))
    usage = answer["usage"]
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] > 0


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_every_format_is_marked_as_generated(running: Any, kind: str):
    one = running.paint(output_format=kind, output_compression=80, seed=1).json()["data"][0]
    image = Image.open(io.BytesIO(content(one)))
    assert image.format == kind.upper()
    assert DIGITAL_SOURCE_TYPE.encode() in content(one)
    packet = image.info["xmp"] if kind != "png" else image.text["XML:com.adobe.xmp"].encode()  # type: ignore[attr-defined]
    assert b"a boat" in packet
    kept = running.client.get(f"/v1/images/{one['id']}")
    assert kept.content == content(one) and kept.headers["content-type"] == f"image/{kind}"


def test_a_label_is_seen_and_stays_in_its_corner(running: Any):
    plain, labelled = (running.paint(seed=1, size="128x128", label=label).json()["data"][0] for label in (False, True))
    differs = (pixels(content(plain)) != pixels(content(labelled))).any(axis=2)
    assert differs[100:, 80:].mean() > 0.1 and not differs[:64].any() and not differs[:, :32].any()


def test_an_edit_takes_uploads_and_earlier_pictures(running: Any, pipeline: Pipeline):
    first = running.paint(seed=1).json()["data"][0]
    upload = png(64, 64, seed=3)
    answer = running.client.post(
        "/v1/images/edits",
        data={
            "prompt": "make it blue",
            "seed": "2",
            "num_inference_steps": "2",
            "reference_ids": json.dumps([first["id"]]),
        },
        files=[("image[]", ("../../etc/passwd", upload, "application/x-sh"))],
    )
    assert answer.status_code == 200, answer.text
    images = [Image.open(io.BytesIO(data)).convert("RGB") for data in (content(first), upload)]
    request = ImageRequest("make it blue", num_inference_steps=2, seed=2)
    assert np.array_equal(pixels(content(answer.json()["data"][0])), pipeline(request, images)[0])
    past = running.client.get("/v1/history").json()["data"]
    assert past[0]["kind"] == "edit" and past[0]["reference_ids"] == [first["id"]] and past[1]["kind"] == "generation"


@pytest.mark.parametrize("side", [32, 64, 128])  # below, at and above what the model looks at
def test_a_mask_leaves_the_rest_as_it_was(running: Any, side: int):
    upload = png(side, side, seed=3)
    alpha = np.zeros((side, side, 4), np.uint8)
    alpha[..., 3] = 255
    alpha[10:30, 10:30, 3] = 0
    mask = io.BytesIO()
    Image.fromarray(alpha).save(mask, "PNG")
    answer = running.client.post(
        "/v1/images/edits",
        data={"prompt": "a hole", "num_inference_steps": "2", "size": f"{side}x{side}"},
        files=[("image", ("a.png", upload)), ("mask", ("m.png", mask.getvalue()))],
    ).json()
    after, before = pixels(content(answer["data"][0])), pixels(upload)
    opened = alpha[..., 3] == 0
    assert np.array_equal(after[~opened], before[~opened]) and (after[opened] != before[opened]).mean() > 0.5


def events(answer: httpx.Response) -> list[dict[str, Any]]:
    found = []
    for block in answer.text.strip().split("\n\n"):
        if block.startswith(":"):
            continue  # a comment, which keeps a slow stream open
        name, data = (line.partition(": ")[2] for line in block.splitlines())
        found.append(json.loads(data))
        assert found[-1].get("type", "error") == name
    return found


def test_a_stream_shows_what_comes_and_ends_with_the_picture(running: Any):
    answer = running.paint(seed=1, stream=True, partial_images=2, num_inference_steps=4, n=2)
    assert answer.headers["content-type"].startswith("text/event-stream")
    found = events(answer)
    for index in (0, 1):
        own = [event for event in found if event["index"] == index]
        assert [e["type"].partition(".")[2] for e in own] == ["partial_image", "partial_image", "completed"]
        assert [e.get("partial_image_index") for e in own] == [0, 1, None]
        assert len({e["id"] for e in own}) == 1 and own[0]["seed"] == 1 + index
    plain = running.paint(seed=1, num_inference_steps=4).json()["data"][0]
    first = next(e for e in found if e["type"] == "image_generation.completed" and e["index"] == 0)
    assert np.array_equal(pixels(content(first)), pixels(content(plain)))


def test_a_stream_that_fails_says_so_in_the_stream(running: Any):
    (event,) = events(running.paint(prompt="a <sop> boat", stream=True))
    assert event["error"]["code"] == "invalid_value" and "control token" in event["error"]["message"]


WRONG: list[tuple[dict[str, Any], int, str, str | None]] = [
    ({"prompt": ""}, 400, "invalid_value", "prompt"),
    ({"prompt": "a" * 8001}, 400, "invalid_value", "prompt"),
    ({"prompt": "a\0b"}, 400, "invalid_value", "prompt"),
    ({"prompt": 7}, 400, "invalid_value", "prompt"),
    ({"prompt": "\ud800"}, 400, "invalid_json", None),
    ({"n": 0}, 400, "invalid_value", "n"),
    ({"n": 9}, 400, "invalid_value", "n"),
    ({"size": "100x100"}, 400, "invalid_size", "size"),
    ({"size": "9984x9984"}, 400, "invalid_size", "size"),
    ({"size": "../x"}, 400, "invalid_value", "size"),
    ({"model": "dall-e-3"}, 404, "model_not_found", "model"),
    ({"background": "transparent"}, 400, "invalid_value", "background"),
    ({"output_format": "gif"}, 400, "invalid_value", "output_format"),
    ({"partial_images": 4}, 400, "invalid_value", "partial_images"),
    ({"seed": -1}, 400, "invalid_value", "seed"),
    ({"temperature": -1}, 400, "invalid_value", "temperature"),
    ({"top_p": 0}, 400, "invalid_value", "top_p"),
    ({"guidance_scale": 1e400}, 400, "invalid_value", "guidance_scale"),
    ({"reference_ids": ["img_" + "0" * 24]}, 400, "invalid_value", "reference_ids"),
    ({"proofread": 2}, 400, "no_proofreading", "proofread"),
    ({"enhance": True}, 400, "no_enhancement", "enhance"),
    ({"prompt": 'a sign "' + "x" * 3000 + '"'}, 400, "invalid_value", None),
]


@pytest.mark.parametrize(("fields", "status", "code", "param"), WRONG)
def test_what_is_wrong_is_said_in_openais_shape(
    running: Any, fields: dict[str, Any], status: int, code: str, param: str | None
):
    body = json.dumps({"prompt": "a boat", **fields}).replace("Infinity", "1e999")
    if fields.get("prompt") == "\ud800":
        body = '{"prompt": "a", "x": NaN}'
    found = error(running.client.post("/v1/images/generations", content=body), status)
    assert (found["code"], found["param"]) == (code, param)


def test_other_bodies_are_refused(running: Any):
    post = running.client.post
    for body in (b"", b"[]", b"{", b"\xff\xfe", b"[" * 100_000):
        assert error(post("/v1/images/generations", content=body), 400)["code"] == "invalid_json"
    assert (
        error(post("/v1/images/generations", content=json.dumps({"prompt": "a" * 1_000_000})), 413)["code"]
        == "body_too_large"
    )

    def endless() -> Any:
        for _ in range(100):
            yield b'{"prompt": "' + b"a" * 10_000

    assert error(post("/v1/images/generations", content=endless()), 413)
    assert error(post("/v1/images/edits", data={"prompt": "x"}), 400)["code"] == "missing_image"
    assert error(post("/v1/images/edits", content=b"no form"), 400)
    files = [("image", ("a.png", png()))]
    assert error(post("/v1/images/edits", data={"prompt": "x"}, files=files * 5), 400)
    narrow = [("image", ("a.png", png(200, 16)))]
    said = error(post("/v1/images/edits", data={"prompt": "x", "size": "64x64"}, files=narrow), 400)
    assert "too narrow" in said["message"]
    unknown = {"prompt": "x", "reference_ids": "img_" + "0" * 24}
    assert error(post("/v1/images/edits", data=unknown), 404)["code"] == "picture_not_found"
    url = {"prompt": "x", "image": "http://pictures.example/a.png"}
    assert error(post("/v1/images/edits", data=url), 400)["code"] == "urls_not_allowed"
    assert error(running.client.get("/v1/history?limit=1000"), 400)["param"] == "limit"
    assert error(running.client.get("/nothing"), 404)["code"] == "not_found"
    assert error(running.client.put("/v1/models"), 405)["code"] == "method_not_allowed"


def test_references_may_be_addresses_where_that_is_allowed(start: Start):
    asked = []

    async def fetch(url: str) -> bytes:
        asked.append(url)
        return png(64, 64)

    running = start(fetch=fetch)
    data = {"prompt": "x", "image": "http://pictures.example/a.png", "num_inference_steps": "1"}
    assert running.client.post("/v1/images/edits", data=data).status_code == 200
    assert asked == ["http://pictures.example/a.png"]
    data["image"] = "data:image/png;base64," + base64.b64encode(png(16, 16)).decode()
    assert running.client.post("/v1/images/edits", data=data).status_code == 200
    data["image"] = "data:image/svg+xml,<svg/>"
    assert error(running.client.post("/v1/images/edits", data=data), 400)["code"] == "invalid_image"


def test_with_keys_nobody_sees_what_is_another_ones(start: Start):
    running = start()
    said: list[str] = []
    for name in ("alice", "bob"):
        keys.change(running.server.settings.data, add=name, remove=None, put=said.append)
    alice, bob = ({"Authorization": f"Bearer {key}"} for key in said)
    client = running.client
    assert client.get("/v1/capabilities").json()["needs_key"] is True
    for headers in ({}, {"Authorization": "Bearer sk-sampan-wrong"}):
        for method, path in (("GET", "/v1/models"), ("GET", "/v1/history"), ("POST", "/v1/images/generations")):
            assert error(client.request(method, path, headers=headers), 401)["code"] == "invalid_api_key"
    body = {"prompt": "a boat", "num_inference_steps": 1, "response_format": "url", "size": "64x64"}
    one = client.post("/v1/images/generations", json=body, headers=alice).json()["data"][0]
    assert client.get(f"/v1/images/{one['id']}", headers=alice).status_code == 200
    assert error(client.get(f"/v1/images/{one['id']}", headers=bob), 404)["code"] == "picture_not_found"
    assert error(client.get(f"/v1/images/{one['id']}"), 401)
    assert error(client.delete(f"/v1/images/{one['id']}", headers=bob), 404)
    assert client.get("/v1/history", headers=bob).json()["data"] == []
    edit = {"prompt": "x", "reference_ids": one["id"]}
    assert error(client.post("/v1/images/edits", data=edit, headers=bob), 404)["code"] == "picture_not_found"
    assert client.get(one["url"]).status_code == 200  # signed, for a browser
    assert error(client.get(re.sub("signature=.", "signature=x", one["url"])), 401)
    assert client.get("/v1/history", headers=alice).json()["data"][0]["id"] == one["id"]
    assert client.delete(f"/v1/images/{one['id']}", headers=alice).json()["deleted"] is True
    assert error(client.get(f"/v1/images/{one['id']}", headers=alice), 404)
    # without its last key the server does not open
    for name in ("alice", "bob"):
        keys.change(running.server.settings.data, add=None, remove=name, put=said.append)
    assert error(client.get("/v1/models", headers=alice), 401)


def test_who_asks_too_much_is_told_when_to_come_again(start: Start):
    running = start(limits=AdmissionLimits(queue=3, per_key=2, per_minute=4))
    said: list[str] = []
    keys.change(running.server.settings.data, add="alice", remove=None, put=said.append)
    running.client.headers["Authorization"] = f"Bearer {said[0]}"
    assert error(running.paint(n=3), 429)["code"] == "too_many_pictures"
    assert running.paint(n=2).status_code == 200
    assert running.paint(n=2).status_code == 200
    answer = running.paint()
    assert error(answer, 429)["code"] == "rate_limit_exceeded"
    assert 1 <= int(answer.headers["retry-after"]) <= 60


def test_a_full_queue_is_503_and_what_is_in_it_is_made(start: Start):
    running = start(limits=AdmissionLimits(queue=2))
    statuses = []

    def ask() -> None:
        statuses.append(running.paint(num_inference_steps=10).status_code)

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(statuses) == {200, 503} and statuses.count(200) >= 2
    assert running.paint().status_code == 200


def test_time_is_limited(start: Start):
    running = start(limits=AdmissionLimits(timeout_s=0.05))
    assert error(running.paint(num_inference_steps=200), 503)["code"] == "timed_out"
    assert running.server.scheduler.num_under_way == 0


@pytest.mark.parametrize("stream", [False, True])
def test_who_hangs_up_is_not_painted_for(running: Any, stream: bool):
    steps = running.server.metrics.steps.labels("painting")
    body = {"prompt": "a boat", "num_inference_steps": 200, "stream": stream, "size": "128x128"}
    with httpx.Client(base_url=running.client.base_url, timeout=0.3) as client, pytest.raises(httpx.TimeoutException):
        client.post("/v1/images/generations", json=body)
    until = time.monotonic() + 5
    while running.server.scheduler.num_under_way and time.monotonic() < until:
        time.sleep(0.005)
    assert running.server.scheduler.num_under_way == 0
    time.sleep(0.2)
    before = steps._value.get()
    time.sleep(0.3)
    assert steps._value.get() == before
    assert running.client.get("/v1/history").json()["data"] == []


def test_other_names_and_foreign_pages_are_refused(running: Any):
    client = running.client
    assert error(client.get("/v1/models", headers={"Host": "evil.example"}), 403)["code"] == "unknown_host"
    origin = {"Origin": "https://evil.example"}
    assert (
        error(client.post("/v1/images/generations", headers=origin, json={"prompt": "x"}), 403)["code"]
        == "foreign_origin"
    )
    own = {"Origin": f"http://127.0.0.1:{running.port}"}
    assert client.post("/v1/images/generations", headers=own, json={}).status_code == 400


def test_enhancement_is_told_and_falls_back_only_where_allowed(start: Start):
    failing = False

    async def enhance(prompt: str) -> str:
        if failing:
            raise ApiError(503, "enhancement_failed", "The language model for prompts did not answer.")
        return f"{prompt}, at dusk"

    running = start(enhance=enhance)
    one = running.paint(seed=1).json()["data"][0]
    assert one["revised_prompt"] == "a boat, at dusk"
    plain = running.paint(seed=1, enhance=False).json()["data"][0]
    assert "revised_prompt" not in plain and content(plain) != content(one)
    failing = True
    assert error(running.paint(seed=1), 503)["code"] == "enhancement_failed"
    assert running.server.scheduler.num_under_way == 0
    fallen = running.paint(seed=1, enhance_fallback=True).json()["data"][0]
    assert "did not answer" in fallen["warning"] and np.array_equal(pixels(content(fallen)), pixels(content(plain)))


def test_what_the_model_says_works_is_told(start: Start):
    running = start()
    assert running.client.get("/v1/capabilities").json()["examples"] == []
    folder = running.server.engine.pipeline.folder
    knows = ModelKnowledge(("red apple",), ("en",), ("red apple", 'a sign that says "HI"'))
    running.server.engine.pipeline.folder = dataclasses.replace(folder, knows=knows)
    assert running.client.get("/v1/capabilities").json()["examples"] == ["red apple", 'a sign that says "HI"']


def test_what_a_browser_gets_is_strict(start: Start, tmp_path: Path):
    report = tmp_path / "plan.html"
    report.write_text('<style>b{color:red}</style><b style="x:y">plan</b><script>alert(1)</script>', encoding="utf-8")
    running = start(plan_report=report)
    client = running.client
    shown = client.get("/v1/capabilities").json()["reports"]
    assert shown == {"plan": "/reports/plan", "bench": None}
    answer = client.get(shown["plan"])
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy and "sandbox" in policy and "script-src" not in policy and "sha256-" in policy
    assert client.get("/reports/bench").status_code == 404
    for path in ("/docs", "/v1/models", "/health", "/metrics", "/openapi.json"):
        answer = client.get(path)
        assert answer.status_code == 200
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "unsafe-inline" not in answer.headers["content-security-policy"]
    assert "POST /v1/images/generations" in client.get("/docs").text
    assert not re.search(r"(src|href)=.https?:", client.get("/docs").text)


def test_health_and_metrics(running: Any):
    running.paint()
    assert running.client.get("/health").json() == {"status": "ok"}
    text = running.client.get("/metrics").text
    assert 'sampan_pictures_total{state="finished"} 1.0' in text and "a boat" not in text
    running.server.scheduler.draining = True
    assert error(running.client.get("/ready"), 503)["code"] == "not_ready"
    assert error(running.paint(), 503)["code"] == "shutting_down"
    running.server.scheduler.draining = False
