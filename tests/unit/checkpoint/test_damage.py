"""Every file of a model folder, flipped, cut, emptied, removed and swapped with another of its kind: found, and named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from sampan.checkpoint import hash_cache
from sampan.checkpoint.folder import open_folder
from sampan.errors import CheckpointError


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "a bit": flip,
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "half": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "empty": lambda path: path.write_bytes(b""),
    "gone": Path.unlink,
}


@pytest.fixture
def folder(written: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(hash_cache, "_seen", {})
    return Path(shutil.copytree(written, tmp_path / "model"))


def check(folder: Path) -> None:
    opened = open_folder(folder)
    opened.check()
    opened.check_written()
    opened.prompt_tokenizer()


@pytest.mark.parametrize("damage", [*DAMAGE, "another's"])
def test_each_is_found_and_named(damage: str, written: Path, folder: Path, record_property: Callable[..., None]):
    check(folder)
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert len(names) > 15
    found = 0
    for name in names:
        path = folder / name
        if damage == "another's":
            others = (one for one in written.rglob(f"*{path.suffix}") if one.read_bytes() != path.read_bytes())
            other = next(others, None)
            if other is None:
                continue  # it is the only one of its kind
            path.write_bytes(other.read_bytes())
        else:
            DAMAGE[damage](path)
        if damage in ("gone", "another's") and name == "sampan.json":
            check(folder)  # such a folder is as of another program: nothing vouches for it
        else:
            with pytest.raises(CheckpointError) as caught:
                check(folder)
            said = caught.value.render()
            assert path.name in said or f"{path.parent.name}` " in said, (name, said)
            found += 1
        shutil.copy2(written / name, path)
    record_property(f"files found ({damage})", found)
    assert found > 10
    check(folder)
