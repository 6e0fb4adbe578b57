"""A server is asked in the words of OpenAI's images API; what goes wrong is said."""

from __future__ import annotations

import base64
import io
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from PIL import Image

from sampan.errors import RequestError
from sampan.evaluate.case import EvalCase
from sampan.evaluate.endpoint import EndpointGenerator


def png(color: str) -> bytes:
    data = io.BytesIO()
    Image.new("RGB", (8, 8), color).save(data, "PNG")
    return data.getvalue()


class Asked(BaseHTTPRequestHandler):
    seen: ClassVar[list[tuple[str, str, bytes, str | None]]] = []
    answers: ClassVar[list[tuple[int, bytes]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.seen.append((self.path, self.headers["Content-Type"], body, self.headers.get("Authorization")))
        picture = {"data": [{"b64_json": base64.b64encode(png("red")).decode()}]}
        status, said = self.answers.pop(0) if self.answers else (200, json.dumps(picture).encode())
        self.send_response(status)
        self.send_header("Retry-After", "0")
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, *said: Any) -> None:
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[tuple[str, type[Asked]]]:
    Asked.seen, Asked.answers = [], []
    running = HTTPServer(("127.0.0.1", 0), Asked)
    thread = threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{running.server_port}/v1", Asked
    running.shutdown()
    running.server_close()
    thread.join()


def painter(url: str, **more: Any) -> EndpointGenerator:
    return EndpointGenerator(url, "nano", key=more.pop("key", None), size_px=8, more={"num_inference_steps": 3}, **more)


def test_a_question_is_one_request(server):
    url, asked = server
    ((image, seconds),) = painter(url, key="k").paint([EvalCase("a boat", "all", 7)], lambda *said: None)
    assert image.getpixel((0, 0)) == (255, 0, 0) and seconds > 0
    path, kind, body, key = asked.seen[0]
    assert (path, kind, key) == ("/v1/images/generations", "application/json", "Bearer k")
    wanted = {"model": "nano", "prompt": "a boat", "n": 1, "size": "8x8", "response_format": "b64_json", "seed": 7}
    assert json.loads(body) == wanted | {"num_inference_steps": 3}


def test_an_edit_is_a_form_with_its_reference(server):
    url, asked = server
    painter(url).paint([EvalCase("make it blue", "all", 7, references=(Image.new("RGB", (8, 8)),))], lambda *said: None)
    path, kind, body, _ = asked.seen[0]
    assert path == "/v1/images/edits" and kind.startswith("multipart/form-data; boundary=")
    assert body.count(kind.partition("boundary=")[2].encode()) == 9  # before each of eight parts, and at the end
    assert b'name="image[]"; filename="0.png"' in body and b"make it blue" in body and b"\x89PNG" in body


def test_a_busy_server_is_asked_again(server):
    url, asked = server
    asked.answers = [(429, b"{}"), (503, b"{}")]
    assert len(painter(url).paint([EvalCase("a boat", "all", 7)], lambda *said: None)) == 1
    assert len(asked.seen) == 3


@pytest.mark.parametrize(
    ("answer", "says"),
    [((400, b'{"error": {"message": "no such size"}}'), "answered 400"), ((200, b'{"data": []}'), "gave no picture"),
     ((200, b"<html>"), "cannot be asked"), ((200, b'{"data": [{"b64_json": "AAAA"}]}'), "gave no picture")],
)  # fmt: skip
def test_an_error_is_said(server, answer: tuple[int, bytes], says: str):
    url, asked = server
    asked.answers = [answer]
    with pytest.raises(RequestError, match=says):
        painter(url).paint([EvalCase("a boat", "all", 7)], lambda *said: None)


@pytest.mark.parametrize("url", ["ftp://x", "localhost:8000", ""])
def test_what_is_no_address_is_refused(url: str):
    with pytest.raises(RequestError, match="no address"):
        painter(url)


def test_a_server_that_is_not_there_is_said():
    with pytest.raises(RequestError, match="cannot be asked"):
        painter("http://127.0.0.1:9/v1").paint([EvalCase("a boat", "all", 7)], lambda *said: None)


def test_a_server_that_refuses_our_fields_is_asked_without_them(server):
    url, asked = server
    asked.answers = [(400, b'{"error": {"message": "Unknown parameter: seed."}}')]
    one = painter(url)
    assert len(one.paint([EvalCase("a boat", "all", 7)], lambda *said: None)) == 1
    assert set(json.loads(asked.seen[1][2])) == {"model", "prompt", "n", "size"}
    assert one.facts()["not_taken"] == ["seed", "response_format", "num_inference_steps"]


def test_no_key_goes_elsewhere(server):
    url, asked = server
    asked.answers = [(302, b"{}")]
    with pytest.raises(RequestError, match="answered 302"):
        painter(url, key="k").paint([EvalCase("a boat", "all", 7)], lambda *said: None)
    assert len(asked.seen) == 1


def test_answers_of_several_requests_come_in_their_order(server):
    url, asked = server
    found = painter(url, batch=8).paint([EvalCase(f"boat {n}", "all", n) for n in range(5)], lambda *said: None)
    assert len(found) == len(asked.seen) == 5
