import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from sampan.data.examine import Problem, examine
from sampan.data.image_source import FileSource
from sampan.data.pictures import ImageFacts
from unit.data.crashing_source import Crashing, Slow

TESTS = Path(__file__).parents[2]


@pytest.fixture
def files(tmp_path) -> list[FileSource]:
    """Five pictures, of which the second is no picture, the third is not there, and the last is listed again."""
    found = [FileSource(tmp_path / f"{number}.png") for number in range(5)]
    for number in (0, 3, 4):
        Image.new("RGB", (number + 1, 2)).save(found[number].path)
    found[1].path.write_text("no picture")
    return [*found, found[4]]


def kinds(results) -> list:
    return [found.kind if isinstance(found, Problem) else found.width_px for found in results]


def test_results_come_in_order_and_are_kept(files, tmp_path):
    record = tmp_path / "cache/record.jsonl"
    seen: list[tuple[int, int]] = []
    results = examine(files, record=record, progress=lambda *done: seen.append(done))
    assert kinds(results) == [1, "not-a-picture", "missing", 4, 5, 5]
    assert seen == [(0, 5), (5, 5)]
    # what is not there may be there the next time; all else is known
    assert len(record.read_bytes().splitlines()) == 4
    content = record.read_bytes()
    assert examine(files, record=record) == results
    assert record.read_bytes() == content
    assert examine(files, record=None) == results
    assert examine([], record=record) == []


def test_what_is_known_is_not_read_again(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    sources = [Slow(tmp_path / "a.png", number) for number in range(40)]
    record = tmp_path / "record.jsonl"
    examine(sources[:30], record=record)
    examine(sources, record=record)
    assert (tmp_path / "read.txt").read_text().split() == [str(number) for number in range(40)]


def test_a_changed_picture_is_examined_again(files, tmp_path):
    record = tmp_path / "record.jsonl"
    examine(files[:1], record=record)
    Image.new("RGB", (7, 7)).save(files[0].path)
    assert kinds(examine(files[:1], record=record)) == [7]


def test_another_limit_on_pixels_is_another_question(files, tmp_path):
    record = tmp_path / "record.jsonl"
    assert kinds(examine(files[3:4], record=record)) == [4]
    assert kinds(examine(files[3:4], record=record, max_pixels=7)) == ["too-large"]
    assert kinds(examine(files[3:4], record=record, max_pixels=8)) == [4]


def test_a_torn_line_is_no_entry_and_the_next_is_whole(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    sources = [Slow(tmp_path / "a.png", number) for number in range(3)]
    record = tmp_path / "record.jsonl"
    examine(sources[:2], record=record)
    record.write_bytes(record.read_bytes()[:-20])
    examine(sources, record=record)
    assert (tmp_path / "read.txt").read_text().split() == ["0", "1", "1", "2"]
    examine(sources, record=record)
    assert len((tmp_path / "read.txt").read_text().split()) == 4
    assert sum(line.startswith(b"{") and line.endswith(b"}") for line in record.read_bytes().splitlines()) == 3
    record.write_bytes(b"\xff\n[]\n3\n" + b"[" * 100_000 + b'\n{"version": 0}\n')
    assert kinds(examine(sources, record=record)) == [2, 2, 2]


def test_processes_find_the_same(files, tmp_path):
    assert examine(files, record=tmp_path / "record.jsonl", workers=2) == examine(files, record=None, workers=0)


def test_a_picture_that_ends_its_process_is_found(files, tmp_path):
    record = tmp_path / "record.jsonl"
    sources = [*files[:2], Crashing("crash.png"), *files[3:5]]
    results = examine(sources, record=record, workers=1)
    assert kinds(results) == [1, "not-a-picture", "unreadable", 4, 5]
    assert results[2] == Problem("unreadable", "the process that decoded it ended")
    # it is remembered: in this process it would end the test
    assert examine(sources, record=record, workers=0) == results


def test_workers_import_no_framework():
    code = (
        "import sys, sampan.data.examine, sampan.data.table_images, sampan.data.report\n"
        "print(sorted({'torch', 'datasets', 'pyarrow', 'rich'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.skipif(sys.platform == "win32", reason="asks for the processes as POSIX systems do")
def test_a_killed_examination_leaves_no_process_and_goes_on(tmp_path):
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    record = tmp_path / "record.jsonl"
    script = tmp_path / "run.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\n"
        f"sys.path.insert(0, {str(TESTS)!r})\n"
        "from unit.data.crashing_source import Slow\nfrom sampan.data.examine import examine\n"
        "if __name__ == '__main__':\n"
        f"    folder = Path({str(tmp_path)!r})\n"
        "    sources = [Slow(folder / 'a.png', number, 0.01) for number in range(320)]\n"
        "    examine(sources, record=folder / 'record.jsonl', workers=2)\n"
    )
    process = subprocess.Popen([sys.executable, str(script)])
    while not record.exists() or not record.stat().st_size:
        assert process.poll() is None
        time.sleep(0.01)
    children = _children(process.pid)
    process.kill()
    process.wait()
    known = len(record.read_bytes().splitlines())
    assert 0 < known < 320
    deadline = time.monotonic() + 20
    while any(_runs(child) for child in children) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [child for child in children if _runs(child)]
    sources = [Slow(tmp_path / "a.png", number) for number in range(320)]
    (tmp_path / "read.txt").unlink()
    assert all(isinstance(found, ImageFacts) for found in examine(sources, record=record, workers=0))
    assert len((tmp_path / "read.txt").read_text().split()) == 320 - known
    names = [json.loads(line)["name"] for line in record.read_bytes().splitlines()]
    assert len(names) == len(set(names)) == 320


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)
    pairs = [line.split() for line in listed.stdout.splitlines()]
    return [int(child) for child, parent in pairs if int(parent) == pid]


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
