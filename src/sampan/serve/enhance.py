"""Prompts written out by a language model, behind any OpenAI-compatible chat endpoint.

The words in quotes are what the picture shows as text: an answer that changes one of them is no answer. The endpoint is
named by whoever runs the server, and may be on this machine.
"""

from __future__ import annotations

import http.client
import json
from collections import Counter
from urllib.parse import urlsplit

from sampan.errors import ApiError, RequestError
from sampan.models.text import glyph_texts
from sampan.serve.schemas import MAX_PROMPT_CHARS
from sampan.serve.settings import Enhancement

MAX_ANSWER_BYTES = 262_144
INSTRUCTION = """\
You prepare prompts for a model that paints pictures. Rewrite the user's prompt as one description of the finished picture.
Say what is in it, where it stands, in which style, light and colours; add only what fits what was asked.
Text that the picture shows stands in double quotes. Copy every quoted text letter by letter, with its quotation marks, in
its own language, as often as it occurs, and put nothing else into quotes or apostrophes.
Write in the language of the prompt, at most 150 words. Answer with the description alone."""


def check_address(url: str) -> None:
    """Raise RequestError unless an endpoint's address is one that can be asked."""
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise RequestError(f"`{url}` is no address of a language model", (), "--enhance http://HOST:PORT/v1 MODEL")


def enhance(prompt: str, by: Enhancement) -> str:
    """Return a prompt written out.

    Raises:
        ApiError: The endpoint fails, or its answer changes what stands in quotes.
    """
    body = {
        "model": by.model,
        "messages": [{"role": "system", "content": INSTRUCTION}, {"role": "user", "content": prompt}],
        "temperature": 0.3,
        "max_tokens": 1024,
    }
    try:
        answer = _ask(by, json.dumps(body).encode())
        content = answer["choices"][0]["message"]["content"]
        text = content.strip() if isinstance(content, str) else ""
    except (OSError, http.client.HTTPException, ValueError, LookupError, TypeError, RecursionError) as error:
        raise _failed("did not answer as OpenAI's chat API does") from error
    if not text or len(text) > MAX_PROMPT_CHARS or "\0" in text:
        raise _failed("gave no prompt")
    if Counter(glyph_texts(text)) != Counter(glyph_texts(prompt)):
        raise _failed("changed a text that stands in quotes")
    return text


def _ask(by: Enhancement, body: bytes) -> dict[str, list[dict[str, dict[str, str]]]]:
    where = urlsplit(by.url)
    kind = http.client.HTTPSConnection if where.scheme == "https" else http.client.HTTPConnection  # checks certificates
    connection = kind(where.hostname or "", where.port, timeout=by.timeout_s)
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {by.key}"} if by.key else {})
    try:
        connection.request("POST", f"{where.path.rstrip('/')}/chat/completions", body, headers)
        answer = connection.getresponse()
        content = answer.read(MAX_ANSWER_BYTES + 1)
        if answer.status != 200 or len(content) > MAX_ANSWER_BYTES:
            raise http.client.HTTPException(f"status {answer.status}")
        return json.loads(content)
    finally:
        connection.close()


def _failed(what: str) -> ApiError:
    return ApiError(503, "enhancement_failed", f"The language model for prompts {what}.", "prompt")
