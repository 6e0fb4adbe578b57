"""Thousands of mutated files through the command line: an answer or one error, and nothing written."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from PIL import Image

import sampan
from mutants import JSON_TEXTS, TOML_VALUES
from sampan.cli import main

NANO = Path(sampan.__file__).parent / "weights/nano"
JOB = Path(__file__).resolve().parents[3] / "jobs" / "nano.toml"


def png() -> bytes:
    import io

    out = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(out, "PNG")
    return out.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + bytes(16)


CASES = [{"name": "one", "query": {"chip": "h100-sxm", "site": "cn"}, "expect": "prohibited"}]
NOTHING = ["--size", "1x1"]  # which no model paints, so that nothing is written where all else is right
# name: what a whole file holds, and the command that reads it
KINDS: dict[str, tuple[bytes, list[str]]] = {
    "job.toml": (JOB.read_bytes(), ["plan", "job.toml", "--chips", "h100-sxm"]),
    "cases.yaml": (json.dumps(CASES).encode(), ["screen", "--cases", "cases.yaml"]),
    "measured.json": (
        b'{"suite": "bench", "results": [{"part": "dit", "seconds": 1.5}]}',
        ["plan", "job0.toml", "--measured", "measured.json"],
    ),
    "prompts.txt": (b"a boat\na sign\n", ["generate", "--prompts", "prompts.txt", *NOTHING]),
    "picture.png": (png(), ["generate", "a boat", "--reference", "picture.png", *NOTHING]),
    "inject.safetensors": (safetensors(), ["generate", "a boat", "--inject", "inject.safetensors", *NOTHING]),
    "lora.safetensors": (safetensors(), ["generate", "a boat", "--lora", "lora.safetensors", *NOTHING]),
    "model/transformer/config.json": (
        (NANO / "transformer/config.json").read_bytes(), ["checkpoint", "inspect", "model", "--json"],
    ),
    "model/sampan.json": ((NANO / "sampan.json").read_bytes(), ["generate", "a boat", "--model", "model", *NOTHING]),
    "run/run.json": (
        b'{"seed": 0, "model": {"start": null}, "framework": "torch"}', ["checkpoint", "inspect", "run", "--json"],
    ),
    "run/log.jsonl": (
        b'{"stage": "vae", "step": 1, "loss": 0.5}\n', ["checkpoint", "inspect", "run", "--json"],
    ),
}  # fmt: skip
_WORDS = [*(word.encode() for word in TOML_VALUES), *(word.encode() for word in JSON_TEXTS), b"\xff\xfe", b"\0" * 64]


@st.composite
def mutants(draw: st.DrawFn) -> tuple[str, bytes]:
    """Draw a kind of file and a content that is nearly one: cut, with other bytes, with a piece twice or a value inside."""
    name = draw(st.sampled_from(sorted(KINDS)))
    data = bytearray(KINDS[name][0])
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(("cut", "flip", "put", "drop", "twice", "word")))
        if how == "cut":
            del data[place:]
        elif how == "flip" and place < len(data):
            data[place] ^= 1 << draw(st.integers(0, 7))
        elif how == "put":
            data[place:place] = draw(st.binary(max_size=8))
        elif how == "drop":
            del data[place : place + draw(st.integers(1, 40))]
        elif how == "twice":
            data[place:place] = data[place : place + draw(st.integers(1, 200))]
        else:
            data[place : place + draw(st.integers(0, 10))] = draw(st.sampled_from(_WORDS))
    return name, bytes(data)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a file of each kind, which is the current one."""
    folder = tmp_path_factory.mktemp("mutants")
    shutil.copytree(NANO, folder / "model", ignore=shutil.ignore_patterns("*.safetensors"))
    for path in NANO.rglob("*.safetensors"):
        (folder / "model" / path.relative_to(NANO)).symlink_to(path)
    for name, (content, _) in KINDS.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    shutil.copy2(folder / "job.toml", folder / "job0.toml")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        yield folder


def listing(folder: Path) -> dict[str, int]:
    return {path.relative_to(folder).as_posix(): path.lstat().st_size for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "count", [200, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])]
)  # fmt: skip
def test_no_mutated_file_ends_in_a_traceback(
    count: int, place: Path, capsys: Any, record_property: Callable[..., None]
):
    ends = {0: 0, 1: 0, 2: 0}

    @settings(
        max_examples=count, deadline=None, database=None, derandomize=True, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(mutants())
    def each(mutant: tuple[str, bytes]) -> None:
        name, content = mutant
        path, whole = place / name, KINDS[name][0]
        path.write_bytes(content)
        before = listing(place)
        try:
            status = main(KINDS[name][1])  # what is no SampanError comes out here
            assert status in ends, status
            assert listing(place) == before, "something was written"
            said = capsys.readouterr()
            assert status == 0 or "error: " in said.err
            assert len(said.err) < 20_000
            ends[status] += 1
        finally:
            path.write_bytes(whole)

    each()
    record_property("mutated files through the command line", sum(ends.values()))
    assert sum(ends.values()) >= count * 0.9 and ends[1] > count / 20
