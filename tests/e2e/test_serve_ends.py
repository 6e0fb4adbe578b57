"""`sampan serve` from its first second to its last: ports, loading, signals once and again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from e2e.serving import Served, serving

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows ends processes in other ways")
LONG = {"prompt": "a boat", "num_inference_steps": 200, "size": "128x128"}


def free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as one:
        return one.getsockname()[1]


@dataclass
class Starting:
    """A server that was started, and may not be ready yet."""

    process: subprocess.Popen[bytes]
    url: str
    file: Any

    def said(self) -> str:
        self.file.seek(0)
        return self.file.read().decode()

    def wait_for(self, path: str, status: int, seconds: float = 60) -> float:
        """Ask until that is the answer; return how long it took."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            assert self.process.poll() is None, self.said()
            try:
                if httpx.get(f"{self.url}{path}", timeout=10).status_code == status:
                    return time.monotonic() - began
            except httpx.TransportError:
                pass
            time.sleep(0.01)
        raise AssertionError(f"{path} was not {status}: {self.said()}")


@contextmanager
def started(model: Path, data: Path, *options: str, port: int = 0) -> Iterator[Starting]:
    port = port or free_port()
    command = [sys.executable, "-m", "sampan", "serve", "--model", str(model), "--port", str(port), "--data", str(data)]
    with tempfile.TemporaryFile() as file:
        process = subprocess.Popen(
            [*command, "--device", "cpu", "--dtype", "fp32", *options],
            stderr=file,
            stdout=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"},
        )
        try:
            yield Starting(process, f"http://127.0.0.1:{port}", file)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait(30)


# ------------------------------------------------------------------------------------------------------- loading and ports


def test_while_it_loads_it_says_that_it_is_alive_and_not_ready(tiny_folder: Path, tmp_path: Path):
    with started(tiny_folder, tmp_path / "data") as server:
        server.wait_for("/health", 200)
        ready = httpx.get(f"{server.url}/ready", timeout=10)
        asked = httpx.post(f"{server.url}/v1/images/generations", json=LONG, timeout=10)
        for answer in (ready, asked):
            assert answer.status_code == 503 and answer.headers["retry-after"] == "5", answer.text
            assert answer.json()["error"]["code"] == "not_ready"
            assert answer.json()["error"]["message"] == "The server loads the model."
        assert server.url not in server.said()  # which says that it is ready
        server.wait_for("/ready", 200)
        assert f"model tiny · cpu, fp32, 1 thread\n{server.url}/\n" in server.said()


def test_a_port_in_use_is_said_within_two_seconds_and_nothing_is_loaded(tiny_folder: Path, tmp_path: Path):
    with closing(socket.create_server(("127.0.0.1", 0))) as other:
        port = other.getsockname()[1]
        took = []
        for _ in range(3):
            began = time.monotonic()
            with started(tiny_folder, tmp_path / "data", port=port) as server:
                assert server.process.wait(30) == 1
                took.append(time.monotonic() - began)
                assert server.said().startswith(f"error: cannot listen on 127.0.0.1:{port}\n  because another program")
    assert min(took) <= 2, took  # the others may have waited for the cores of this machine
    assert not (tmp_path / "data").exists()


def test_a_model_that_cannot_be_loaded_ends_the_server_in_words(tmp_path: Path):
    with started(tmp_path / "none", tmp_path / "data") as server:
        assert server.process.wait(60) == 1
        assert server.said().startswith("error: ") and "Traceback" not in server.said()


def test_a_damaged_store_ends_the_start_in_words(tiny_folder: Path, tmp_path: Path):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "serve.sqlite").write_bytes(b"no database" * 1000)
    with started(tiny_folder, tmp_path / "data") as server:
        assert server.process.wait(60) == 1
        assert server.said() == (
            f"error: `{tmp_path}/data/serve.sqlite` is damaged\n"
            "  because file is not a database\n\n"
            "hint: put a copy of it back; or move it away (`serve.sqlite`, `-wal` and `-shm`) and start without the keys "
            "and the history that were in it, pictures stay; or pass another --data DIR\n"
        )


# ----------------------------------------------------------------------------------------------------------------- signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_told_to_end_while_it_loads_it_ends_with_0(tiny_folder: Path, tmp_path: Path, number: signal.Signals):
    with started(tiny_folder, tmp_path / "data") as server:
        server.wait_for("/health", 200)
        began = time.monotonic()
        server.process.send_signal(number)
        assert server.process.wait(10) == 0
        assert time.monotonic() - began < 1.5  # the import of a library may hold the interpreter for a while
        assert server.said() == "ended before it was ready\n"


@contextmanager
def painting(model: Path, data: Path, *options: str, count: int = 1) -> Iterator[tuple[Served, list[Any]]]:
    """A server at pictures that take long, of two clients, and what these get."""
    answers: list[Any] = []

    def ask(url: str) -> None:
        try:
            answers.append(httpx.post(f"{url}/v1/images/generations", json={**LONG, "n": count}, timeout=120))
        except httpx.TransportError as error:
            answers.append(error)

    with serving(model, data, *options) as served:
        threads = [threading.Thread(target=ask, args=(served.url,)) for _ in range(2)]
        for thread in threads:
            thread.start()
        while f"sampan_pictures_under_way {2 * count}.0" not in httpx.get(f"{served.url}/metrics").text:
            time.sleep(0.01)
        yield served, answers
        for thread in threads:
            thread.join(60)


@pytest.mark.parametrize("numbers", [(signal.SIGTERM,) * 2, (signal.SIGINT,) * 3, (signal.SIGTERM, signal.SIGINT)])
def test_a_second_signal_ends_it_at_once(tiny_folder: Path, tmp_path: Path, numbers: tuple[signal.Signals, ...]):
    with painting(tiny_folder, tmp_path / "data") as (served, answers):
        served.process.send_signal(numbers[0])
        until = time.monotonic() + 10
        while httpx.get(f"{served.url}/ready").status_code != 503 and time.monotonic() < until:
            time.sleep(0.01)
        assert served.process.poll() is None
        began = time.monotonic()
        for number in numbers[1:]:
            served.process.send_signal(number)
            time.sleep(0.01)
        assert served.process.wait(10) == 128 + numbers[1]
        assert time.monotonic() - began < 1
    assert len(answers) == 2 and all(isinstance(answer, httpx.TransportError) for answer in answers)
    assert "ended at once, by a second signal\n" in served.said
    assert not any("Traceback" in line for line in served.said)


def test_what_is_not_finished_in_the_time_for_it_is_told_so(tiny_folder: Path, tmp_path: Path):
    with painting(tiny_folder, tmp_path / "data", "--drain", "1", count=8) as (served, answers):
        began = time.monotonic()
        assert served.terminate() == 0
        assert 1 <= time.monotonic() - began < 5
    assert [answer.status_code for answer in answers] == [503] * 2
    assert {answer.json()["error"]["code"] for answer in answers} == {"shutting_down"}
    assert not any("Traceback" in line for line in served.said)
    assert any("16 pictures are finished before, in 1 s at most" in line for line in served.said)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_at_any_moment_give_no_traceback(tiny_folder: Path, tmp_path: Path, number: signal.Signals):
    """From listening on, at twelve moments of loading and beginning: three signals, one behind the other."""
    for moment in range(12):
        with started(tiny_folder, tmp_path / "data") as server:
            port = int(server.url.rsplit(":", 1)[1])
            until = time.monotonic() + 30
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    time.sleep(0.005)
            time.sleep(0.4 * moment)
            for _ in range(3):
                server.process.send_signal(number)
                time.sleep(0.02)
            assert server.process.wait(10) in (0, 128 + number), (moment, server.said())
            assert "Traceback" not in server.said() and "Error" not in server.said(), (moment, server.said())
