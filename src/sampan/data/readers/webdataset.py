"""Tars in the WebDataset layout: a tar, a folder of them, or a pattern such as `train-{000..003}.tar`.

Members that share a folder and a name up to its first dot are one sample; what follows the dot says what they are:

    0001.png                a picture (any ending that Pillow's formats have); `0001.target.png` is the same
    0001.ref0.png …         reference pictures in the order of their numbers; `ref`, `reference` and `references` all do,
                            and a single one needs no number
    0001.txt                captions, a line each
    0001.json               an object with captions in `text`, `texts`, `caption` or `captions`

Everything else is left alone. With `Columns`, captions are exactly the fields of `.json` that it names, and `txt`.

A tar is never unpacked: a picture is a stretch of it, so that no member's name, link or device can do anything. The bytes
must lie there as they are: compressed tars and sparse members are refused. A tar that is damaged gives what stands before.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sampan.data import pictures
from sampan.data.image_source import SliceSource
from sampan.data.readers import Columns, Listing, parts
from sampan.data.readers.rows import Rows, captions
from sampan.errors import BadRowError, DataError

_CAPTION_FIELDS = ("text", "texts", "caption", "captions")
_REFERENCE = re.compile(r"(?:ref|reference|references)[-_]?(\d*)")
_MAX_TEXT_BYTES = 1_000_000
_BLOCK_BYTES = 512
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def read(
    path: str | Path, *, columns: Columns | None = None, split: str | None = None, limit: int | None = None
) -> Listing:
    """Return the samples of a set of tars, in the order of the tars' names and of their members.

    Args:
        columns: Its captions name the fields of `.json` members; None, or its default, takes the usual ones and `.txt`.
        split: Of a folder: its subfolder of this name, or the tars whose names begin with it.
        limit: Read only this many rows.

    Raises:
        DataError: No such tars, or one is compressed or cannot be opened. One that is no tar is a fault.
    """
    custom = columns is not None and columns.captions != Columns().captions
    wanted = columns.captions if columns is not None and custom else ("txt", *_CAPTION_FIELDS)
    if Path(path).is_dir():
        for file in sorted(Path(path).rglob("*")):
            if file.name.lower().endswith(_COMPRESSED_SUFFIXES):
                raise _compressed(file, None)
    rows = Rows(limit)
    for name, file in parts.find(path, ".tar", split, "tars"):
        if rows.is_full:
            break
        _read_tar(name, file, wanted, rows)
    return rows.listing()


@dataclass
class _Group:
    """The members of one sample."""

    targets: list[tarfile.TarInfo] = field(default_factory=list)
    references: dict[int, tarfile.TarInfo] = field(default_factory=dict)
    texts: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    other: str | None = None
    fault: BadRowError | None = None


def _read_tar(name: str, file: Path, wanted: tuple[str, ...], rows: Rows) -> None:
    try:
        with open(file, "rb") as opened:
            magic = opened.read(8)
            if how := next((how for start, how in _COMPRESSED.items() if magic.startswith(start)), None):
                raise _compressed(file, how)
            groups, damage = _groups(opened)
            for key, group in groups.items():
                if rows.is_full:
                    return
                where = f"{name}/{key}"
                with rows.row(where):
                    target, references = _pictures(group)
                    texts = captions(_captions(opened, group, wanted))
                    sources = [_slice(file, member) for member in (target, *references)]
                    rows.add(where, where, sources[0], texts, sources[1:])
    except OSError as error:
        raise DataError(f"tar `{file}` cannot be read", str(error)) from error
    if damage and not rows.is_full:
        rows.leave_out(name, "damaged-shard", damage)


def _groups(opened: BinaryIO) -> tuple[dict[str, _Group], str | None]:
    """Return the samples of a tar by their keys, and what is wrong with the tar.

    Of a damaged tar the sample that the damage is in or after is not returned: what it lacks (a reference picture) may be
    what makes it another sample.
    """
    size = opened.seek(0, 2)
    opened.seek(0)
    groups: dict[str, _Group] = {}
    last = ""
    try:
        with tarfile.open(fileobj=opened, mode="r:") as tar:
            damage = None
            try:
                for member in tar:
                    last = _key(member) or last
                    if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
                        damage = f"it ends inside `{member.name}`"
                        break
                    _sort_in(groups, member)
            except tarfile.TarError as error:
                damage = f"it cannot be read on: {error}"
            damage = damage or _wrong_end(opened, tar.offset, size)
    except tarfile.TarError as error:
        damage = f"it is not a tar: {error}"
    if damage and last:
        groups.pop(last, None)
        damage += f"; `{last}` may not be whole and is left out"
    return groups, damage


def _wrong_end(opened: BinaryIO, offset: int, size: int) -> str | None:
    """Return what is wrong where the members end: a sound tar has a block of zeros there."""
    opened.seek(offset)
    block = opened.read(_BLOCK_BYTES)
    if len(block) < _BLOCK_BYTES:
        return f"it ends at byte {size:,} without an end mark, so that it may be cut short"
    return f"it is damaged at byte {offset:,}: what stands there is no header" if any(block) else None


def _key(member: tarfile.TarInfo) -> str | None:
    """Return the sample that a member belongs to by its name; None for folders and for what a Mac leaves, `._0001.png`."""
    path = PurePosixPath(member.name)
    stem, dot, _ = path.name.partition(".")
    if not stem or not dot or member.isdir():
        return None
    # `tar -c .` puts `./` before each name, which PurePosixPath drops; a leading `/` says nothing here
    return (path.parent / stem).as_posix().lstrip("/")


def _sort_in(groups: dict[str, _Group], member: tarfile.TarInfo) -> None:
    """Put a member where its name says."""
    key = _key(member)
    if key is None:
        return
    kind = PurePosixPath(member.name).name.partition(".")[2].lower()
    inner, _, suffix = kind.rpartition(".")
    reference = _REFERENCE.fullmatch(inner)
    is_picture = f".{suffix}" in pictures.SUFFIXES
    if is_picture and inner not in ("", "target") and not reference:
        groups.setdefault(key, _Group()).other = member.name  # a mask, a depth map; or meant as the picture
        return
    if not is_picture and kind not in ("txt", "json"):
        return
    group = groups.setdefault(key, _Group())
    if not member.isreg() or member.issparse():
        reason = "is a sparse file, which cannot be read in place" if member.issparse() else "is a link or a device"
        group.fault = BadRowError("bad-row", f"`{member.name}` {reason}")
    elif not is_picture:
        if kind in group.texts:
            group.fault = BadRowError("bad-row", f"`{member.name}` is there twice")
        group.texts[kind] = member
    elif reference:
        number = int(reference[1] or 0)
        if number in group.references:
            group.fault = BadRowError("bad-row", f"it has two reference pictures of number {number}")
        group.references[number] = member
    else:
        group.targets.append(member)


def _pictures(group: _Group) -> tuple[tarfile.TarInfo, list[tarfile.TarInfo]]:
    if group.fault:
        raise group.fault
    if not group.targets:
        other = f": `{group.other}` is another kind, which its name's first dot begins" if group.other else ""
        raise BadRowError("no-file", f"no picture among its members{other}")
    if len(group.targets) > 1:
        names = " and ".join(f"`{member.name}`" for member in group.targets[:2])
        raise BadRowError("bad-row", f"it has {len(group.targets)} pictures, {names}, and which one holds is not known")
    return group.targets[0], [group.references[number] for number in sorted(group.references)]


def _captions(opened: BinaryIO, group: _Group, wanted: tuple[str, ...]) -> Iterator[Any]:
    fields: dict[str, Any] = {}
    if "json" in group.texts and any(name != "txt" for name in wanted):
        text = _text(opened, group.texts["json"])
        try:
            fields = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise BadRowError("bad-row", f"its `.json` is not JSON: {error}") from error
        if not isinstance(fields, dict):
            raise BadRowError("bad-row", "its `.json` is not an object")
    for name in wanted:
        if name == "txt" and "txt" in group.texts:
            yield _text(opened, group.texts["txt"]).splitlines()
        elif name != "txt":
            yield fields.get(name)


def _text(opened: BinaryIO, member: tarfile.TarInfo) -> str:
    if member.size > _MAX_TEXT_BYTES:
        raise BadRowError(
            "bad-row", f"`{member.name}` has {member.size:,} bytes, and at most {_MAX_TEXT_BYTES:,} are read"
        )
    opened.seek(member.offset_data)
    try:
        return opened.read(member.size).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise BadRowError("bad-row", f"`{member.name}` is not UTF-8") from None


def _slice(file: Path, member: tarfile.TarInfo) -> SliceSource:
    return SliceSource(file, member.name, member.offset_data, member.size)


def _compressed(file: Path, how: tuple[str, str] | None) -> DataError:
    return DataError(
        f"tar `{file}` cannot be read",
        f"it is compressed{f' with {how[0]}' if how else ''}, so that no picture in it can be reached alone",
        f"decompress it first: {how[1]} {file}" if how else "decompress it first",
    )
