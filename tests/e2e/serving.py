"""A server in a process of its own, as `sampan serve` starts it."""

from __future__ import annotations

import base64
import io
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from PIL import Image

FAST = {"num_inference_steps": 1, "size": "64x64"}


@dataclass
class Served:
    """A server that answers.

    Args:
        url: As far as the port.
        said: What it wrote on stderr.
        data: Where it keeps keys and pictures.
    """

    process: subprocess.Popen[str]
    url: str
    said: list[str]
    data: Path

    def memory_bytes(self) -> int:
        """Return the memory that the process has in RAM."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="utf-8")
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) * 1024

    def kill(self) -> None:
        """End it as a power cut would."""
        self.process.kill()
        self.process.wait(30)

    def terminate(self) -> int:
        """Ask it to end, and return its status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(90)


@contextmanager
def serving(model: Path, data: Path, *options: str) -> Iterator[Served]:
    """Run a server while the block runs."""
    command = [sys.executable, "-m", "sampan", "serve", "--model", str(model), "--port", "0", "--data", str(data)]
    process = subprocess.Popen(
        [*command, "--device", "cpu", "--dtype", "fp32", *options],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
    )
    said: list[str] = []
    urls: queue.Queue[str] = queue.Queue()

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            said.append(line)
            if line.startswith("http://"):
                urls.put(line.strip().rstrip("/"))

    listener = threading.Thread(target=listen, daemon=True)
    listener.start()
    try:
        try:
            url = urls.get(timeout=120)
        except queue.Empty:
            raise AssertionError(f"the server did not start: {''.join(said)}") from None
        until = time.monotonic() + 120
        while time.monotonic() < until:
            try:
                if httpx.get(f"{url}/ready").status_code == 200:
                    break
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        yield Served(process, url, said, data)
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(30)
        listener.join(10)
        if process.stderr:
            process.stderr.close()


def crowd(served: Served, clients: int, requests: int) -> tuple[Counter[int], list[str]]:
    """Let many clients ask at once; return how that ended, and which pictures were not those that were asked for."""
    ended: Counter[int] = Counter()
    wrong: list[str] = []

    def client(number: int) -> None:
        with httpx.Client(base_url=served.url, timeout=120) as asking:
            for turn in range(requests):
                seed, prompt = number * requests + turn, f"picture {number} of {turn}"
                answer = asking.post("/v1/images/generations", json={"prompt": prompt, "seed": seed, **FAST})
                ended[answer.status_code] += 1
                if answer.status_code == 200:
                    one = answer.json()["data"][0]
                    with Image.open(io.BytesIO(base64.b64decode(one["b64_json"]))) as image:
                        told = image.text["Description"]  # type: ignore[attr-defined]
                    if one["seed"] != seed or told != prompt:
                        wrong.append(f"{prompt}: {told}")
                else:
                    assert answer.headers["retry-after"]

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(client, range(clients)))
    return ended, wrong


def explore(served: Served, calls: int) -> tuple[Counter[str], list[str]]:
    """Ask what the server's description allows, and more; return the answers, and those of 500 or undocumented.

    Steps are held to 2 and sizes that are left open to 64x64: hundreds of pictures at 200 steps would show nothing more.
    """
    import schemathesis
    from hypothesis import HealthCheck, Phase, given, settings

    schema = schemathesis.openapi.from_url(f"{served.url}/openapi.json")
    statuses: Counter[str] = Counter()
    undocumented: list[str] = []
    operations: list[Any] = [result.ok() for result in schema.get_all_operations()]  # type: ignore[union-attr]
    varied = [one for one in operations if {"parameters", "requestBody"} & one.definition.raw.keys()]
    for operation in operations:  # those that take nothing are asked once
        every = settings(
            max_examples=-(-calls // len(varied)),
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        check = _checking(set(operation.definition.raw["responses"]), statuses, undocumented)
        every(given(case=operation.as_strategy())(check))()
    return statuses, undocumented


def _checking(documented: set[str], statuses: Counter[str], undocumented: list[str]) -> Any:
    """Return what makes a call and notes how it ended."""

    def check(case: Any) -> None:
        if isinstance(case.body, dict):
            steps = case.body.get("num_inference_steps")
            if isinstance(steps, int) and 2 < steps <= 200:
                case.body["num_inference_steps"] = 2
            if case.body.get("size") in (None, "auto"):
                case.body["size"] = "64x64"
        answer = case.call(timeout=90)
        ended = f"{case.method} {case.path} {answer.status_code}"
        statuses[ended] += 1
        if answer.status_code == 500 or (answer.status_code > 500 and str(answer.status_code) not in documented):
            undocumented.append(f"{ended}: {answer.text[:200]}")

    return check
