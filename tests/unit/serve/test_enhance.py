"""A language model that writes prompts out: asked as OpenAI's chat API is, believed only where quoted words stay."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from sampan.errors import ApiError
from sampan.serve.enhance import INSTRUCTION, enhance
from sampan.serve.settings import Enhancement


class Model(HTTPServer):
    """An endpoint that answers what it is told to."""

    answer: Any = ""
    status = 200
    asked: list[tuple[str, dict[str, Any], str | None]]

    def __init__(self) -> None:
        self.asked = []
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Model

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((self.path, body, self.headers["Authorization"]))
        content = self.server.answer
        if isinstance(content, str):
            content = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # its name there
        pass


@pytest.fixture
def model() -> Iterator[Model]:
    found = Model()
    thread = threading.Thread(target=found.serve_forever, args=(0.01,))
    thread.start()
    yield found
    found.shutdown()
    thread.join()
    found.server_close()


def by(model: Model) -> Enhancement:
    return Enhancement(f"http://127.0.0.1:{model.server_port}/v1", "glm-4.7", key="secret", timeout_s=2)


def test_the_answer_is_the_new_prompt(model: Model):
    model.answer = ' A wooden door at dusk with a sign "OPEN", and below it “加油站”. \n'
    prompt = 'a door, sign "OPEN" and “加油站”'
    assert enhance(prompt, by(model)) == model.answer.strip()
    ((path, body, authorization),) = model.asked
    assert path == "/v1/chat/completions" and authorization == "Bearer secret" and body["model"] == "glm-4.7"
    assert body["messages"] == [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}]


@pytest.mark.parametrize(
    "answer",
    [
        'a door, sign "Open"',
        "a door",
        'a sign "OPEN" and "CLOSED"',
        'a sign "OPEN" beside "OPEN"',
        "it's Bob's \"OPEN\"",
    ],
)
def test_an_answer_that_changes_quoted_words_is_none(model: Model, answer: str):
    model.answer = answer
    with pytest.raises(ApiError, match="changed a text that stands in quotes") as caught:
        enhance('a door, sign "OPEN"', by(model))
    assert caught.value.status == 503 and caught.value.code == "enhancement_failed"


@pytest.mark.parametrize("answer", ["", "  ", "a" * 9000])
def test_no_prompt_is_a_failure(model: Model, answer: str):
    model.answer = answer
    with pytest.raises(ApiError, match="gave no prompt"):
        enhance("a door", by(model))


@pytest.mark.parametrize("answer", [b"{}", b"no json", b'{"choices": []}', b'{"choices": 3}', b"[1]", b"x" * 300_000])
def test_an_answer_of_another_shape_is_a_failure(model: Model, answer: bytes):
    model.answer = answer
    with pytest.raises(ApiError, match="did not answer"):
        enhance("a door", by(model))


def test_an_endpoint_that_fails_or_is_not_there_is_a_failure(model: Model):
    model.status = 500
    with pytest.raises(ApiError, match="did not answer"):
        enhance("a door", by(model))
    with pytest.raises(ApiError, match="did not answer"):
        enhance("a door", Enhancement("http://127.0.0.1:9/v1", "x", timeout_s=1))
