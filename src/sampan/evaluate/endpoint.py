"""A server that speaks OpenAI's images API as the one who paints: asked for one picture a request, some at a time.

A server that refuses what OpenAI's own API does not have is asked without it, and the record says so. No redirect is
followed, so that a key goes nowhere else.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from sampan.errors import FieldRefusedError, RequestError
from sampan.evaluate.case import EvalCase
from sampan.evaluate.generators import Report

_MAX_BYTES = 64 * 2**20
_BUSY = (429, 502, 503, 504)
_AT_ONCE = 8
_OURS = ("seed", "response_format")  # beside `more`: what not every images API takes


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> None:
        """Follow nothing: the answer is an error with its status."""


_OPENER = urllib.request.build_opener(_NoRedirect())


class EndpointGenerator:
    """A server behind an address.

    Args:
        url: Up to and with `/v1`.
        model: As the server calls it.
        key: API key, or None.
        size_px: Side of the pictures.
        batch: Most requests under way; never more than eight.
        more: Further fields of a request, such as `num_inference_steps` for a server of sampan.
        tries: How often a busy server is asked again.
    """

    def __init__(
        self, url: str, model: str, *, key: str | None, size_px: int, more: dict[str, Any], batch: int = 1,
        timeout_s: float = 600, tries: int = 5,
    ):  # fmt: skip
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.netloc:
            raise RequestError(f"`{url}` is no address of a server", (), "as in http://127.0.0.1:8000/v1")
        self.url, self.model, self.key, self.size_px, self.more = url.rstrip("/"), model, key, size_px, dict(more)
        self.timeout_s, self.tries, self.chunk = timeout_s, tries, min(batch, _AT_ONCE)
        self.not_taken: tuple[str, ...] = ()
        self.name = "endpoint-" + hashlib.sha256(f"{self.url} {model}".encode()).hexdigest()[:16]

    def settings(self) -> dict[str, Any]:
        """Return what is said in every request."""
        return {"size_px": self.size_px, **self.more}

    def facts(self) -> dict[str, Any]:
        """Return the server's address and model."""
        return {"endpoint": self.url, "model": self.model, "not_taken": list(self.not_taken)}

    def paint(self, cases: Sequence[EvalCase], report: Report) -> list[tuple[Image.Image, float]]:
        """Return each question's picture and the seconds it took, the way there and back included.

        Raises:
            RequestError: The server is not there, or answers with an error.
        """
        found = []
        with ThreadPoolExecutor(self.chunk) as pool:
            for number, answer in enumerate(pool.map(self._timed, cases)):
                found.append(answer)
                report("asking", number + 1, len(cases))
        return found

    def _timed(self, case: EvalCase) -> tuple[Image.Image, float]:
        begun, left_out = time.perf_counter(), self.not_taken
        try:
            return self._one(case, left_out), time.perf_counter() - begun
        except FieldRefusedError as error:
            if left_out:
                raise RequestError(*error.args) from error
            self.not_taken = (*_OURS, *self.more)
            begun = time.perf_counter()
            return self._one(case, self.not_taken), time.perf_counter() - begun

    def _one(self, case: EvalCase, left_out: Sequence[str]) -> Image.Image:
        fields: dict[str, Any] = {
            "model": self.model, "prompt": case.prompt, "n": 1, "size": f"{self.size_px}x{self.size_px}",
            "response_format": "b64_json", "seed": case.seed, **self.more,
        }  # fmt: skip
        fields = {name: value for name, value in fields.items() if name not in left_out}
        if case.references:
            body, kind = _form(fields, case.references)
            answer = self._post("/images/edits", body, kind)
        else:
            answer = self._post("/images/generations", json.dumps(fields).encode(), "application/json")
        try:
            data = base64.b64decode(answer["data"][0]["b64_json"])
            with Image.open(io.BytesIO(data), formats=("PNG", "JPEG", "WEBP")) as image:
                return image.convert("RGB")
        except (KeyError, IndexError, TypeError, ValueError, OSError, Image.DecompressionBombError) as error:
            raise RequestError(
                f"`{self.url}` gave no picture", f"{type(error).__name__}: {error}", "it has to answer with b64_json"
            ) from error

    def _post(self, path: str, body: bytes, kind: str) -> Any:
        headers = {"Content-Type": kind, **({"Authorization": f"Bearer {self.key}"} if self.key else {})}
        for attempt in range(self.tries):
            request = urllib.request.Request(self.url + path, body, headers, method="POST")
            try:
                with _OPENER.open(request, timeout=self.timeout_s) as answer:
                    return json.loads(answer.read(_MAX_BYTES))
            except urllib.error.HTTPError as error:
                said = error.read(10_000).decode("utf-8", "replace")
                if error.code in _BUSY and attempt + 1 < self.tries:
                    time.sleep(_pause_s(error.headers.get("Retry-After"), attempt))
                    continue
                # 400 or 422 that names a field which is not OpenAI's: the caller asks without
                foreign = error.code in (400, 422) and any(name in said for name in (*_OURS, *self.more))
                raise (FieldRefusedError if foreign else RequestError)(
                    f"`{self.url}{path}` answered {error.code}", said[:500], "check --endpoint, the model and the key"
                ) from error
            except (OSError, ValueError) as error:  # URLError is an OSError
                raise RequestError(
                    f"`{self.url}` cannot be asked", str(getattr(error, "reason", error)), "is the server running?"
                ) from error
        raise AssertionError("the last attempt returns or raises")


def _pause_s(said: str | None, attempt: int) -> float:
    """Return how long to wait for a busy server: what it says, up to a minute, or longer each time."""
    return min(float(said), 60.0) if said and said.isdigit() else 2.0**attempt


def _form(fields: dict[str, Any], images: Sequence[Image.Image]) -> tuple[bytes, str]:
    """Return a multipart form and its type."""
    mark = uuid.uuid4().hex
    parts = [
        f'--{mark}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    for number, image in enumerate(images):
        data = io.BytesIO()
        image.save(data, "PNG")
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image[]"; filename="{number}.png"\r\n'
        parts.append(head.encode() + b"Content-Type: image/png\r\n\r\n" + data.getvalue() + b"\r\n")
    return b"".join([*parts, f"--{mark}--\r\n".encode()]), f"multipart/form-data; boundary={mark}"
