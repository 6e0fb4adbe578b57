"""A folder of picture files, described by one of: metadata.jsonl, metadata.csv, or a caption file beside each picture.

A row of metadata.jsonl is an object with `file_name`, a caption in `text` (one or a list) and captions by language in
`texts`, and the file names of reference pictures in `references`. In metadata.csv the columns are `file_name`, `text`,
`text_<language>`, and `references` with a semicolon between names. Names are relative to the folder and never leave it.
`Columns` can name others: captions replace `text` and `texts`, an image replaces `file_name`.

The caption file of `a.png` is `a.png.txt`, `a.png.caption`, `a.txt` or `a.caption`; the first of them that is there holds.

Each row stands for itself: a bad one is left out and reported, and shifts no other row's caption. No picture is opened.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath

from sampan.data import pictures
from sampan.data.image_source import FileSource
from sampan.data.readers import CaptionOptions, Columns, Listing
from sampan.data.readers.folder import Folder, composed, count_hidden, is_picture, with_slashes
from sampan.data.readers.metadata import DESCRIPTIONS, EXAMPLE, Fields, Row, read_csv, read_jsonl
from sampan.data.readers.parts import note_splits
from sampan.data.readers.rows import Rows
from sampan.errors import BadRowError, DataError, did_you_mean

_CAPTION_SUFFIXES = (".txt", ".caption")
_OTHER_READERS = {".tar": "webdataset", ".parquet": "parquet"}


def read(
    path: str | Path,
    *,
    columns: Columns | None = None,
    captions: CaptionOptions | None = None,
    split: str | None = None,
    limit: int | None = None,
) -> Listing:
    """Return the samples of a folder in the order of its rows.

    Args:
        columns: Fields of other names; None for the names above.
        captions: How captions are made of what the rows say.
        split: The subfolder to read instead, with a description of its own.
        limit: Read only this many rows.

    Raises:
        DataError: No such folder, no description in it, two of them, or no rows; or no row has a picture or a caption.
        JobError: There is no column of a name that `columns` gives.
    """
    folder = Folder(_folder(Path(path), split))
    rows = Rows(None, captions)
    used: set[str] = set()
    try:
        description, files = _description(folder.path), _Files(folder)
        fields = Fields(columns or Columns() if description else Columns(), description or "")
        source = _described(folder, fields, rows) if description else _beside(files, rows)
        for where, row in islice(source, limit):
            with rows.row(where):
                if isinstance(row, BadRowError):
                    raise row
                named = [fields.picture(row), *fields.references(row)]
                used.update(composed(with_slashes(name)) for name in named)
                texts = rows.captions(fields.texts(row))
                sources = [FileSource(folder.find(name)) for name in named]
                # a picture may have several rows (plain, and as the target of an edit), so its name alone is no key
                rows.add(" < ".join(map(with_slashes, named)), where, sources[0], texts, sources[1:])
        if description:
            fields.check(folder.path, needs_captions=not rows.options.has_default)
        _note(files, rows, used if limit is None else None, description, split)
    except OSError as error:
        raise DataError(f"picture folder `{folder.path}` cannot be read", str(error)) from error
    if not len(rows):
        raise DataError(f"picture folder `{folder.path}` has no rows", "its metadata file is empty")
    return rows.listing()


def _folder(folder: Path, split: str | None) -> Path:
    if not folder.is_dir():
        reason = "it is a file" if folder.exists() else "there is no such folder"
        raise DataError(f"picture folder `{folder}` cannot be read", reason)
    if split is None:
        return folder
    subfolders = sorted(entry.name for entry in folder.iterdir() if entry.is_dir())
    spelled = next((name for name in subfolders if composed(name) == composed(split)), None)
    if spelled is None:
        raise DataError(
            f"picture folder `{folder}` has no split `{split}`",
            "a split is a subfolder with a description of its own",
            did_you_mean(split, subfolders),
        )
    return folder / spelled


class _Files:
    """The files of a folder by what they are; each name is relative to the folder.

    Args:
        folder: It is listed once, when this is made.
    """

    def __init__(self, folder: Folder):
        self.folder = folder
        files, self.hidden = folder.walk()
        self.pictures: list[str] = []
        self.unread: list[str] = []  # pictures of formats that are not read
        self.captions: dict[str, str] = {}  # by the name as it is compared
        self.descriptions: list[str] = []
        self.other_reader: str | None = None
        for file in files:
            name = file.relative_to(folder.path).as_posix()
            suffix = file.suffix.lower()
            if is_picture(name) and file.is_file():
                self.pictures.append(name)
            elif suffix in pictures.OTHER_SUFFIXES:
                self.unread.append(name)
            elif suffix in _CAPTION_SUFFIXES and file.is_file():
                self.captions[composed(name[: -len(suffix)]) + suffix] = name
            elif suffix in _OTHER_READERS:
                self.other_reader = _OTHER_READERS[suffix]
            elif file.name in DESCRIPTIONS:
                self.descriptions.append(name)

    def captions_of(self, picture: str) -> list[str]:
        """Return the caption files beside a picture; the first one holds."""
        stems = (composed(picture), composed(picture[: picture.rindex(".")]))
        names = (self.captions.get(stem + suffix) for stem in stems for suffix in _CAPTION_SUFFIXES)
        return [name for name in names if name is not None]

    def splits(self) -> list[str]:
        """Return the folders below that have a metadata file of their own."""
        return [PurePosixPath(name).parent.as_posix() for name in self.descriptions if "/" in name]


def _description(folder: Path) -> str | None:
    """Return the name of the folder's metadata file; None where it has none."""
    descriptions = [name for name in DESCRIPTIONS if (folder / name).is_file()]
    if len(descriptions) > 1:
        raise DataError(
            f"picture folder `{folder}` cannot be read",
            f"it has both {descriptions[0]} and {descriptions[1]}, and which one holds is not known",
            "keep one of them",
        )
    return descriptions[0] if descriptions else None


def _described(folder: Folder, fields: Fields, rows: Rows) -> Iterator[Row]:
    data = (folder.path / fields.file).read_bytes().removeprefix(b"\xef\xbb\xbf")
    if fields.file == "metadata.jsonl":
        return read_jsonl(data, fields)
    return read_csv(folder.path, data, fields, needs_captions=not rows.options.has_default)


def _beside(files: _Files, rows: Rows) -> Iterator[Row]:
    """Yield a row for each picture, with what its caption file says."""
    folder = files.folder.path
    captioned = {picture: files.captions_of(picture) for picture in files.pictures}
    # captions for all are not put in place of those that metadata files of subfolders have
    has_captions = any(captioned.values()) or (rows.options.has_default and not files.splits())
    if not files.pictures or not has_captions:
        because = ["it has no metadata.jsonl, no metadata.csv, and no pictures with `.txt` captions beside them"]
        hint = EXAMPLE
        if splits := files.splits():
            because.append(f"there are metadata files in {', '.join(f'`{name}`' for name in splits[:5])}")
            hint = f'read one of these: data.split = "{splits[0]}"'
        elif not files.pictures and files.other_reader:
            hint = f'data.reader = "{files.other_reader}"'
        elif files.pictures:
            hint += "; or give all one caption: data.caption or data.trigger"
        raise DataError(f"picture folder `{folder}` cannot be read", because, hint)
    for picture, captions in captioned.items():
        try:
            # UTF-8 with or without the mark that some editors put in front
            text = (folder / captions[0]).read_text(encoding="utf-8-sig") if captions else ""
        except UnicodeDecodeError:
            suffix = PurePosixPath(captions[0]).suffix
            yield picture, BadRowError("bad-row", f"its `{suffix}` file is not UTF-8")
            continue
        if not captions and not rows.options.has_default:
            yield picture, BadRowError("no-caption", "no caption: no `.txt` file beside it")
            continue
        yield picture, {"file_name": picture, "text": rows.lines(captions[0], text) if captions else []}
    holding = {captions[0] for captions in captioned.values() if captions}
    for picture in files.unread:
        if set(files.captions_of(picture)) - holding:
            kind = pictures.OTHER_SUFFIXES[PurePosixPath(picture).suffix.lower()]
            yield picture, BadRowError("not-a-picture", f"{kind} is not read; make a PNG or a JPEG of it")


def _note(files: _Files, rows: Rows, used: set[str] | None, description: str | None, split: str | None) -> None:
    """Say what in the folder is not read.

    Args:
        used: Names of the pictures that rows name; None where not all rows were read.
        description: The metadata file.
    """
    for folder, count in count_hidden(files.hidden).items():
        rows.note(folder, "hidden", f"{count:,} pictures in it are not read")
    if description:
        for picture in files.pictures if used is not None else ():
            if composed(picture) not in (used or ()):
                rows.note(picture, "unlisted", f"no row of {description} names it")
        return
    captions = [files.captions_of(picture) for picture in (*files.pictures, *files.unread)]
    holding = {names[0]: names for names in captions if names}
    aside = {name: names[0] for names in captions for name in names[1:]}
    for name in files.captions.values():
        if name not in holding:
            reason = f"`{aside[name]}` holds in its place" if name in aside else "no picture beside it"
            rows.note(name, "stray-text", reason)
    for folder in files.splits():
        rows.note(folder, "splits", f'its metadata file is not read; data.split = "{folder}" reads it')
    if split is None:
        note_splits(rows, (name for name in files.pictures if "/" in name), files.folder.path.name)
