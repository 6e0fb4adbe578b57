"""What a server has to bear: everything its description allows, many clients, bad files, slow senders.

With SAMPAN_KEEP_RESULTS=1 the numbers go into results/.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from e2e.serving import FAST, Served, crowd, explore, serving
from sampan.report import results
from uploaded import png

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]
MIB = 2**20


@pytest.fixture(scope="module")
def record() -> Iterator[dict[str, Any]]:
    """What was measured; kept at the end, where that is asked for."""
    found: dict[str, Any] = {}
    yield found
    if os.environ.get("SAMPAN_KEEP_RESULTS") and found:
        front = {"what": "sampan serve, what it bears"}
        results.add(
            "serve-bars",
            {**front, "machine": results.machine(), **found},
            Path(__file__).parent.parent.parent / "results",
        )


@pytest.fixture(scope="module")
def served(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(tiny_folder, tmp_path_factory.mktemp("bars") / "data", "--steps", "1", "--timeout", "60") as found:
        httpx.post(f"{found.url}/v1/images/generations", json={"prompt": "warm", **FAST}, timeout=60)
        yield found


def test_a_hundred_clients_of_ten_requests_end_in_200_429_or_503_each_with_its_own_picture(
    served: Served, record: dict[str, Any]
):
    began = time.perf_counter()
    ended, wrong = crowd(served, clients=100, requests=10)
    seconds = time.perf_counter() - began
    record["load"] = {
        "clients": 100,
        "requests": 1000,
        "statuses": dict(ended),
        "wrong_pictures": len(wrong),
        "s": seconds,
    }
    assert ended.keys() <= {200, 429, 503} and ended.total() == 1000 and ended[200] >= 100
    assert wrong == []
    # and what came out is what the same request gives alone
    alone = httpx.post(
        f"{served.url}/v1/images/generations", json={"prompt": "x", "seed": 5, **FAST}, timeout=60
    ).json()
    with ThreadPoolExecutor(8) as pool:
        many = list(
            pool.map(
                lambda seed: httpx.post(
                    f"{served.url}/v1/images/generations", json={"prompt": "x", "seed": seed, **FAST}, timeout=60
                ).json(),
                range(8),
            )
        )
    pixels = [Image.open(io.BytesIO(base64.b64decode(one["data"][0]["b64_json"]))).tobytes() for one in (alone, *many)]
    assert pixels[0] == pixels[6] and len(set(pixels)) == 8


def test_who_hangs_up_costs_a_step_at_most(served: Served, record: dict[str, Any]):
    """From the moment of hanging up until nothing is under way, beside the time of one step."""

    def number(name: str) -> float:
        text = httpx.get(f"{served.url}/metrics").text
        return sum(float(line.split()[-1]) for line in text.splitlines() if line.startswith(name))

    body = b'{"prompt": "a boat", "size": "64x64", "num_inference_steps": 200}'
    head = b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    after = []
    for wait_s in (0.05, 0.1, 0.2, 0.4, 0.8) * 4:
        with socket.create_connection(("127.0.0.1", int(served.url.rsplit(":", 1)[1]))) as client:
            client.sendall(head + body)
            time.sleep(wait_s)
        left = time.perf_counter()
        while number("sampan_pictures_under_way ") and time.perf_counter() - left < 5:
            pass
        after.append(time.perf_counter() - left)
    steps = number("sampan_steps_total")
    time.sleep(0.5)
    assert number("sampan_steps_total") == steps  # nothing goes on
    record["hanging_up"] = {"times": len(after), "s_until_nothing_is_under_way": {"max": max(after), "each": after}}
    assert max(after) < 1


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def bad_files() -> dict[str, bytes]:
    """Return uploads that are refused."""
    small = png(8, 8)
    giant = chunk(b"IHDR", struct.pack(">IIBBBBB", 32768, 32768, 8, 2, 0, 0, 0))
    rows = zlib.compress(b"\0" * 50_000_000, 9)
    bomb = zlib.compress(b"a" * 400_000_000, 9)
    return {
        "a gigapixel PNG": small[:8] + giant + chunk(b"IDAT", rows) + chunk(b"IEND", b""),
        "a PNG text bomb": small[:33] + chunk(b"zTXt", b"k\0\0" + bomb) + small[33:],
        "a PNG profile bomb": small[:33] + chunk(b"iCCP", b"k\0\0" + bomb) + small[33:],
        "SVG": b"<?xml version='1.0'?><svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        "a PNG that is a zip": small + b"PK\x03\x04" + b"\0" * 30 + b"PK\x05\x06" + b"\0" * 18,
        "a JPEG that is a page": png(8, 8, format="JPEG") + b"<script>alert(1)</script>",
        "a WebP that is a program": png(8, 8, format="WEBP") + b"\x7fELF",
    }


def test_bad_files_names_and_prompts_are_refused_at_once_while_others_are_served(
    served: Served, record: dict[str, Any]
):
    files = bad_files()
    before, most = served.memory_bytes(), 0
    took: dict[str, float] = {}
    normal: list[float] = []
    going_on = True

    def others() -> None:
        while going_on:
            began = time.perf_counter()
            answer = httpx.post(f"{served.url}/v1/images/generations", json={"prompt": "x", **FAST}, timeout=60)
            assert answer.status_code == 200
            normal.append(time.perf_counter() - began)

    other = threading.Thread(target=others)
    other.start()
    with httpx.Client(base_url=served.url, timeout=30) as client:
        for _ in range(3):
            for name, content in files.items():
                began = time.perf_counter()
                answer = client.post(
                    "/v1/images/edits", data={"prompt": "x"}, files=[("image", ("../../../../tmp/evil.png", content))]
                )
                assert answer.status_code == 400, f"{name}: {answer.text}"
                took[name] = max(took.get(name, 0), time.perf_counter() - began)
                most = max(most, served.memory_bytes())
            for path in (
                "/v1/images/../../../../etc/passwd",
                "/v1/images/..%2f..%2fetc%2fpasswd",
                "/reports/..%2fx",
                "/../x",
            ):
                began = time.perf_counter()
                assert client.get(path).status_code in (400, 404)
                took["../ names"] = max(took.get("../ names", 0), time.perf_counter() - began)
            began = time.perf_counter()
            assert client.post("/v1/images/generations", json={"prompt": "a" * MIB}).status_code == 413
            took["a prompt of 1 MB"] = max(took.get("a prompt of 1 MB", 0), time.perf_counter() - began)
    going_on = False
    other.join()
    grown = max(most, served.memory_bytes()) - before
    record["bad"] = {
        "s": took,
        "memory_growth_bytes": grown,
        "normal_requests": len(normal),
        "normal_s_max": max(normal),
    }
    assert max(took.values()) <= 1, took
    assert grown <= 50 * MIB and len(normal) >= 3


def test_two_hundred_slow_senders_are_dropped_while_others_are_served(served: Served, record: dict[str, Any]):
    port = int(served.url.rsplit(":", 1)[1])
    before, most = served.memory_bytes(), 0
    form = b"Content-Type: multipart/form-data; boundary=x\r\n"
    heads = [
        b"GET /v1/models HTTP/1.1\r\nHost: local",
        b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n{",
        b"POST /v1/images/edits HTTP/1.1\r\nHost: localhost\r\n" + form + b"Content-Length: 30000000\r\n\r\n--x\r\n",
        b"",
    ]
    lasted: list[float] = []

    def slow(number: int) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            began = time.perf_counter()
            try:
                client.sendall(heads[number % len(heads)])
                client.settimeout(0.2)
                while time.perf_counter() - began < 10:
                    try:
                        if client.recv(1000) == b"":
                            break
                    except TimeoutError:
                        if number % len(heads) != 3:
                            client.sendall(b"a")
            except ConnectionError:
                pass
            lasted.append(time.perf_counter() - began)

    threads = [threading.Thread(target=slow, args=(number,)) for number in range(200)]
    for thread in threads:
        thread.start()
    normal = []
    while any(thread.is_alive() for thread in threads):
        began = time.perf_counter()
        answer = httpx.post(f"{served.url}/v1/images/generations", json={"prompt": "x", **FAST}, timeout=60)
        assert answer.status_code == 200
        normal.append(time.perf_counter() - began)
        most = max(most, served.memory_bytes())
    for thread in threads:
        thread.join()
    grown = most - before
    lasted.sort()
    record["slow_senders"] = {
        "senders": len(lasted), "s": {"median": lasted[100], "max": lasted[-1]}, "memory_growth_bytes": grown,
        "normal_requests": len(normal), "normal_s_max": max(normal),
    }  # fmt: skip
    assert lasted[-1] <= 1.3, lasted[-5:]  # 0.9 s, and what 200 threads of this process take to notice on two cores
    assert grown <= 50 * MIB and normal


def test_what_the_description_allows_never_fails_in_a_way_that_it_does_not_name(served: Served, record: dict[str, Any]):
    statuses, undocumented = explore(served, 2000)
    record["schemathesis"] = {
        "calls": statuses.total(), "statuses": dict(sorted(statuses.items())), "undocumented_5xx_or_500": len(undocumented),
    }  # fmt: skip
    assert undocumented == []
    assert statuses.total() >= 2000
    assert served.process.poll() is None and not any("Traceback" in line for line in served.said)
