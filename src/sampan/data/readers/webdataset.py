"""Tars in the WebDataset layout: a tar, a folder of them, or a pattern such as `train-{000..003}.tar`.

Members that share a folder and a name up to its first dot are one sample; what follows the dot says what they are:

    0001.png                a picture (any ending that Pillow's formats have); `0001.target.png` is the same
    0001.ref0.png …         reference pictures in the order of their numbers; `ref`, `reference` and `references` all do,
                            and a single one needs no number
    0001.txt                captions, a line each
    0001.json               an object with captions in `text`, `texts`, `caption` or `captions`
    0001.caption.txt …      captions of a sample that has none of the above; `0001.caption` and `0001.text.txt` are the same

Everything else is left alone. With `Columns`, captions are exactly what it names: fields of `.json`, or text members by
what follows the first dot, with or without `.txt`.

A tar is never unpacked: a picture is a stretch of it, so that no member's name, link or device can do anything. The bytes
must lie there as they are: compressed tars and sparse members are refused. A tar that is damaged gives what stands before.
"""

from __future__ import annotations

import json
import re
import tarfile
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from sampan.data import pictures
from sampan.data.image_source import SliceSource
from sampan.data.readers import CaptionOptions, Columns, Listing, parts
from sampan.data.readers.folder import composed, count_hidden, is_hidden, is_picture
from sampan.data.readers.rows import Rows
from sampan.errors import BadRowError, DataError, JobError, did_you_mean

_CAPTION_FIELDS = ("text", "texts", "caption", "captions")
_CAPTION_MEMBERS = ("caption.txt", "captions.txt", "text.txt", "texts.txt", "caption")  # where the usual ones are not
_TEXT_SUFFIXES = ("txt", "caption")
_REFERENCE = re.compile(r"(?:ref|reference|references)[-_]?(\d*)")
_MAX_TEXT_BYTES = 1_000_000
_MAX_NAMED = 20
_BLOCK_BYTES = 512
_COMPRESSED = {
    b"\x1f\x8b": ("gzip", "gunzip"),
    b"BZh": ("bzip2", "bunzip2"),
    b"\xfd7zXZ": ("xz", "unxz"),
    b"\x28\xb5\x2f\xfd": ("zstd", "unzstd"),
}
_COMPRESSED_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def read(
    path: str | Path,
    *,
    columns: Columns | None = None,
    captions: CaptionOptions | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> Listing:
    """Return the samples of a set of tars, in the order of the tars' names and of their members.

    Args:
        columns: Its captions name fields of `.json` members and text members; without any, the usual ones are taken.
        captions: How captions are made of them.
        split: Of a folder: its subfolder of this name, or the tars whose names begin with it.
        limit: Read only this many rows.

    Raises:
        DataError: No such tars, or one is compressed or cannot be opened. One that is no tar is a fault.
        JobError: No sample has a caption of a name that `columns` gives.
    """
    texts = _Texts(columns.captions if columns else ())
    if Path(path).is_dir():
        for file in sorted(Path(path).rglob("*")):
            if file.name.lower().endswith(_COMPRESSED_SUFFIXES) and not is_hidden(file.relative_to(path)):
                raise _compressed(file, None)
    rows = Rows(limit, captions)
    for name, file in parts.find(path, ".tar", split, "tars", rows):
        if rows.is_full:
            break
        _read_tar(name, file, texts, rows)
    if not rows.options.has_default:
        texts.check_names(path)
    return rows.listing()


@dataclass
class _Group:
    """The members of one sample, whose name in the tar is `key`."""

    key: str
    targets: list[tarfile.TarInfo] = field(default_factory=list)
    references: dict[int, tarfile.TarInfo] = field(default_factory=dict)
    texts: dict[str, tarfile.TarInfo] = field(default_factory=dict)
    other: str | None = None
    fault: BadRowError | None = None

    @property
    def is_text_alone(self) -> bool:
        """Whether no picture belongs to it, and nothing that could be one."""
        return not (self.targets or self.references or self.other or self.fault)


class _Texts:
    """Which texts of a sample are its captions.

    Args:
        wanted: Names of `.json` fields and text members; empty for the usual ones.
    """

    def __init__(self, wanted: tuple[str, ...]):
        self.wanted = wanted
        self._fits = False
        self._seen: dict[str, None] = {}

    def captions(self, opened: BinaryIO, group: _Group, where: str, rows: Rows) -> tuple[str, ...]:
        """Return the captions of a sample.

        Raises:
            BadRowError: It has none, or its texts cannot be read.
        """
        needs_json = not self.wanted or any(not name.endswith("txt") for name in self.wanted)
        fields = _json(opened, group.texts["json"]) if needs_json and "json" in group.texts else {}
        members = [kind for kind in group.texts if kind != "json"]
        self._seen |= dict.fromkeys([*members, *fields])

        def lines(kind: str) -> list[str]:
            return rows.lines(where, _text(opened, group.texts[kind])) if kind in members else []

        values: list[Any]
        if self.wanted:
            values = []
            for name in self.wanted:
                # `text` without such a field is what `.txt` says
                kinds = [name, f"{name}.txt", *(["txt"] if name == "text" else [])]
                member = next((kind for kind in kinds if kind in members), None)
                if name in fields or member:
                    self._fits = True
                    values.append(fields[name] if name in fields else lines(member or ""))
        else:
            values = [lines("txt"), *(fields.get(name) for name in _CAPTION_FIELDS)]
            if not any(values):
                values = [lines(kind) for kind in _CAPTION_MEMBERS]
        others = ", ".join(f"`.{kind}`" for kind in members if kind not in ("txt", *_CAPTION_MEMBERS))
        lacking = f"no caption; {others} is none unless data.caption_columns names it" if others else "no caption"
        return rows.captions(values, "no caption" if self.wanted else lacking)

    def check_names(self, path: str | Path) -> None:
        """Refuse names of captions that no sample has.

        Raises:
            JobError: It says which texts there are.
        """
        if self.wanted and self._seen and not self._fits:
            named = ", ".join(f"`{name}`" for name in self.wanted)
            seen = list(self._seen)[:_MAX_NAMED]
            raise JobError(
                f"`data.caption_columns` names {named}, and no sample of `{path}` has it",
                "its samples have " + ", ".join(f"`{name}`" for name in seen),
                did_you_mean(self.wanted[0], seen),
            )


def _read_tar(name: str, file: Path, texts: _Texts, rows: Rows) -> None:
    try:
        with open(file, "rb") as opened:
            magic = opened.read(8)
            if how := next((how for start, how in _COMPRESSED.items() if magic.startswith(start)), None):
                raise _compressed(file, how)
            groups, hidden, damage = _groups(opened)
            for folder, count in count_hidden(hidden).items():
                rows.note(f"{name}/{folder}", "hidden", f"{count:,} pictures in it are not read")
            for group in groups.values():
                if rows.is_full:
                    return
                where = f"{name}/{group.key}"
                if group.is_text_alone:
                    rows.note(where, "stray-text", "no picture among its members")
                    continue
                with rows.row(where):
                    target, references = _pictures(group)
                    captions = texts.captions(opened, group, where, rows)
                    sources = [_slice(file, member) for member in (target, *references)]
                    rows.add(where, where, sources[0], captions, sources[1:])
    except OSError as error:
        raise DataError(f"tar `{file}` cannot be read", str(error)) from error
    if damage and not rows.is_full:
        rows.leave_out(name, "damaged-shard", damage)


def _groups(opened: BinaryIO) -> tuple[dict[str, _Group], list[PurePosixPath], str | None]:
    """Return the samples of a tar by their keys, its hidden pictures, and what is wrong with the tar.

    Of a damaged tar the sample that the damage is in or after is not returned: what it lacks (a reference picture) may be
    what makes it another sample.
    """
    size = opened.seek(0, 2)
    opened.seek(0)
    groups: dict[str, _Group] = {}
    hidden: list[PurePosixPath] = []
    last = ""
    try:
        with tarfile.open(fileobj=opened, mode="r:") as tar:
            damage = None
            try:
                for member in tar:
                    key = _key(member)
                    last = key or last
                    if member.size < 0 or (member.isreg() and member.offset_data + member.size > size):
                        damage = f"it ends inside `{member.name}`"
                        break
                    if key is not None:
                        _sort_in(groups, key, member)
                    elif is_picture(member.name) and is_hidden(PurePosixPath(member.name)):
                        hidden.append(PurePosixPath(member.name))
            except tarfile.TarError as error:
                damage = f"it cannot be read on: {error}"
            damage = damage or _wrong_end(opened, tar.offset, size)
    except tarfile.TarError as error:
        damage = f"it is not a tar: {error}"
    if damage and last:
        groups.pop(composed(last), None)
        damage += f"; `{last}` may not be whole and is left out"
    return groups, hidden, damage


def _wrong_end(opened: BinaryIO, offset: int, size: int) -> str | None:
    """Return what is wrong where the members end: a sound tar has a block of zeros there."""
    opened.seek(offset)
    block = opened.read(_BLOCK_BYTES)
    if len(block) < _BLOCK_BYTES:
        return f"it ends at byte {size:,} without an end mark, so that it may be cut short"
    return f"it is damaged at byte {offset:,}: what stands there is no header" if any(block) else None


def _key(member: tarfile.TarInfo) -> str | None:
    """Return the sample that a member belongs to by its name; None for folders and for what is hidden."""
    path = PurePosixPath(member.name)
    stem, dot, _ = path.name.partition(".")
    if not stem or not dot or member.isdir() or is_hidden(path):
        return None
    # `tar -c .` puts `./` before each name, which PurePosixPath drops; a leading `/` says nothing here
    return (path.parent / stem).as_posix().lstrip("/")


def _sort_in(groups: dict[str, _Group], key: str, member: tarfile.TarInfo) -> None:
    """Put a member where its name says; names whose accents are composed in another way are one."""
    kind = PurePosixPath(member.name).name.partition(".")[2].lower()
    inner, _, suffix = kind.rpartition(".")
    reference = _REFERENCE.fullmatch(inner)
    is_image = f".{suffix}" in pictures.SUFFIXES
    if f".{suffix}" in pictures.OTHER_SUFFIXES:
        groups.setdefault(composed(key), _Group(key)).other = member.name
        return
    if is_image and inner not in ("", "target") and not reference:
        # a mask, a depth map; or meant as the picture
        groups.setdefault(composed(key), _Group(key)).other = member.name
        return
    if not is_image and kind != "json" and suffix not in _TEXT_SUFFIXES:
        return
    group = groups.setdefault(composed(key), _Group(key))
    if not is_image and kind not in ("txt", "json"):
        if member.isreg() and not member.issparse():
            group.texts.setdefault(kind, member)  # read where it is asked for, or nothing else is there
        return
    if not member.isreg() or member.issparse():
        reason = "is a sparse file, which cannot be read in place" if member.issparse() else "is a link or a device"
        group.fault = BadRowError("bad-row", f"`{member.name}` {reason}")
    elif not is_image:
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
        other = ""
        if group.other:
            file_format = pictures.OTHER_SUFFIXES.get(PurePosixPath(group.other).suffix.lower())
            kind = (
                f"{file_format}, which is not read"
                if file_format
                else "another kind, which its name's first dot begins"
            )
            other = f": `{group.other}` is {kind}"
        raise BadRowError("no-file", f"no picture among its members{other}")
    if len(group.targets) > 1:
        names = " and ".join(f"`{member.name}`" for member in group.targets[:2])
        raise BadRowError("bad-row", f"it has {len(group.targets)} pictures, {names}, and which one holds is not known")
    return group.targets[0], [group.references[number] for number in sorted(group.references)]


def _json(opened: BinaryIO, member: tarfile.TarInfo) -> dict[str, Any]:
    try:
        fields = json.loads(_text(opened, member))
    except (ValueError, RecursionError) as error:
        raise BadRowError("bad-row", f"its `.json` is not JSON: {error}") from error
    if not isinstance(fields, dict):
        raise BadRowError("bad-row", "its `.json` is not an object")
    return fields


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
