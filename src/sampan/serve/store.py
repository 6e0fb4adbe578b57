"""Jobs and pictures that outlive the process: one SQLite file, and a folder of pictures.

A picture's row is there before it is painted; its file is written whole and synced before the row says that it is
finished, and only then is it handed out. After a kill, a file whose row does not say so yet counts as finished. File
names are made here of the id alone, and an id is only ever 24 hexadecimal digits.

A picture is removed by emptying its file: that makes room on a full disk and needs none. Where its row cannot be removed
at once, the empty file says until then, and after a restart, that the picture is gone.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan import files
from sampan.errors import StoreError
from sampan.serve.clock import SteadyClock
from sampan.serve.database import Database, kind_of
from sampan.serve.settings import Retention

log = logging.getLogger("sampan.serve")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS pictures (
    number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, created INTEGER NOT NULL,
    state TEXT NOT NULL, kind TEXT NOT NULL, prompt TEXT NOT NULL, size TEXT NOT NULL, seed INTEGER NOT NULL,
    num_inference_steps INTEGER NOT NULL, guidance_scale REAL NOT NULL, model TEXT NOT NULL, reference_ids TEXT NOT NULL,
    output_format TEXT NOT NULL, num_bytes INTEGER NOT NULL DEFAULT 0);
CREATE INDEX IF NOT EXISTS of_owner ON pictures (owner, state, number);
CREATE TABLE IF NOT EXISTS keys (name TEXT PRIMARY KEY, hash TEXT NOT NULL UNIQUE, created INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""
# when a picture was begun, in the time of SteadyClock; those of an older store have `created` alone
_ADDED = {"pictures": {"begun": "INTEGER"}}
_CLOSED = "keys-were-used"  # a file, so that it outlives the database
_SPARE_BYTES = 262_144  # of the disk, left to the database and to others
_PENDING = ("full", "locked")  # a row that cannot be removed now can be later
_ID = re.compile(r"img_[0-9a-f]{24}")
_DAY_S = 86400
FORMATS = ("png", "webp", "jpeg")
_KEEP_ALL = Retention()


@dataclass(frozen=True)
class ImageRecord:
    """What is known of a picture."""

    id: str
    owner: str
    created: int
    kind: str
    prompt: str
    size: str
    seed: int
    num_inference_steps: int
    guidance_scale: float
    model: str
    reference_ids: tuple[str, ...]
    output_format: str


def new_id() -> str:
    """Return an id that nobody can guess."""
    return f"img_{secrets.token_hex(12)}"


class ImageStore:
    """Jobs, pictures and keys. Safe to use from threads; what fails is a StoreError that says why.

    Args:
        folder: Made if it is not there.

    Raises:
        StoreError: It cannot be used.
    """

    def __init__(self, folder: Path, retention: Retention = _KEEP_ALL, clock: SteadyClock | None = None):
        self.folder, self.retention, self.clock = folder, retention, clock or SteadyClock()
        self._pictures = folder / "pictures"
        self._removed: set[str] = set()  # pictures whose files are empty and whose rows are still there
        try:
            self._pictures.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # prompts and pictures are their owners' alone
        except OSError as error:
            what, hint = f"`{folder}` cannot keep pictures", "pass --data DIR with a folder that can be written"
            raise StoreError(what, kind_of(error, folder.parent), str(error), hint) from error
        was_used = self.is_closed or any(self._pictures.glob("*/img_*"))  # and not ended while it was made
        self.database = Database(folder / "serve.sqlite", _SCHEMA, _ADDED, was_used=was_used)
        try:
            times = dict(self.database.all("SELECT name, value FROM facts WHERE name IN ('time', 'machine_time')"))
            if len(times) == 2:
                self.clock.resume(float(times["time"]), float(times["machine_time"]))
            if self.database.all(
                "SELECT 1 WHERE EXISTS (SELECT 1 FROM keys) OR EXISTS (SELECT 1 FROM pictures WHERE owner LIKE 'key:%')"
            ):  # the store of an earlier version, which made no such file
                self._close_to_strangers()
        except BaseException:
            self.database.close()
            raise

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    # --- pictures --------------------------------------------------------------------------------------------------------

    def begin(self, records: Sequence[ImageRecord]) -> None:
        """Note pictures that will be made, if there will be room for their files."""
        columns = _COLUMNS.replace("created,", "created, state, begun,")
        self._check_room(records)
        begun = int(self.clock.now())
        with self.database.writing() as database:
            database.executemany(
                f"INSERT INTO pictures ({columns}) VALUES (?, ?, ?, 'waiting', ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (r.id, r.owner, r.created, begun, r.kind, r.prompt, r.size, r.seed, r.num_inference_steps,
                     r.guidance_scale, r.model, json.dumps(r.reference_ids), r.output_format)
                    for r in records
                ],
            )  # fmt: skip

    def _check_room(self, records: Sequence[ImageRecord]) -> None:
        """Raise before anything is painted that could not be kept; a PNG is hardly larger than its pixels."""
        needed = _SPARE_BYTES
        for record in records:
            width, height = map(int, record.size.split("x"))
            needed += 3 * width * height
        with self._told():
            free = shutil.disk_usage(self._pictures).free
        if free < needed:
            why = f"{free} bytes are free there, and {needed} may be needed"
            raise StoreError(f"`{self.folder}` is full", "full", why, "make room, or pass another --data DIR")

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Raise a failure of the system as what it means for a store."""
        try:
            yield
        except OSError as error:
            hint = "make room, or pass another --data DIR"
            what = f"`{self.folder}` cannot keep pictures"
            raise StoreError(what, kind_of(error, self.folder), str(error), hint) from error

    def finish(self, record: ImageRecord, content: bytes) -> None:
        """Keep a finished picture: after this it is there, whatever happens to the process."""
        path = self._path(record.id, record.output_format)
        with self._told():
            path.parent.mkdir(exist_ok=True)
            files.write_bytes(path, content)
        try:
            with self.database.writing() as database:
                database.execute(
                    "UPDATE pictures SET state = 'finished', num_bytes = ? WHERE id = ?", (len(content), record.id)
                )
        except StoreError:
            with suppress(OSError):
                path.unlink()  # it is not handed out: after a restart nobody finds it as one that was
            raise

    def end(self, ids: Sequence[str], state: str) -> None:
        """Note how pictures ended that were not finished."""
        with self.database.writing() as database:
            database.executemany(
                "UPDATE pictures SET state = ? WHERE id = ? AND state = 'waiting'",
                [(state, picture_id) for picture_id in ids],
            )

    def recover(self) -> dict[str, int]:
        """Bring rows and files together after a start; return how many pictures were found and how many were lost.

        A picture that was under way is lost, unless its file was written already.
        """
        found = lost = 0
        for picture_id, output_format in self.database.all(
            "SELECT id, output_format FROM pictures WHERE state = 'waiting'"
        ):
            path = self._path(picture_id, output_format)
            there = path.is_file()
            found, lost = found + there, lost + (not there)
            with self.database.writing() as database:
                database.execute(
                    "UPDATE pictures SET state = ?, num_bytes = ? WHERE id = ?",
                    ("finished" if there else "interrupted", path.stat().st_size if there else 0, picture_id),
                )
        with self._told():
            for path in self._pictures.glob("*/*"):
                if path.name.startswith("."):
                    path.unlink()  # was being written when the process ended
                elif path.stat().st_size == 0 and _ID.fullmatch(path.stem):
                    self._removed.add(path.stem)
        self.sweep()
        return {"found": found, "interrupted": lost}

    def record(self, owner: str, picture_id: str) -> ImageRecord | None:
        """Return an owner's finished picture; somebody else's is not there."""
        if not _ID.fullmatch(picture_id) or picture_id in self._removed:
            return None
        rows = self.database.all(
            f"SELECT {_COLUMNS} FROM pictures WHERE id = ? AND owner = ? AND state = 'finished'", (picture_id, owner)
        )
        return _record(rows[0]) if rows else None

    def owner_of(self, picture_id: str) -> str | None:
        """Return whose picture it is: for addresses that are signed."""
        rows = (
            self.database.all("SELECT owner FROM pictures WHERE id = ?", (picture_id,))
            if _ID.fullmatch(picture_id)
            else []
        )
        return rows[0][0] if rows else None

    def content(self, record: ImageRecord) -> bytes | None:
        """Return a picture's bytes."""
        try:
            with self._told():
                return self._path(record.id, record.output_format).read_bytes() or None
        except StoreError as error:
            if error.kind == "gone":  # removed by somebody's hand, or by retention in between
                return None
            raise

    def history(self, owner: str, limit: int, before: str | None) -> tuple[list[ImageRecord], bool]:
        """Return an owner's finished pictures, newest first, and whether there are more.

        Args:
            before: Only those made before that picture; one that is not the owner's gives none.
        """
        sql = f"SELECT {_COLUMNS} FROM pictures WHERE owner = ? AND state = 'finished'"
        values: list[str | int] = [owner]
        if before is not None:
            sql += " AND number < (SELECT number FROM pictures WHERE id = ? AND owner = ?)"
            values += [before, owner]
        if removed := list(self._removed):
            sql += " AND id NOT IN (SELECT value FROM json_each(?))"
            values.append(json.dumps(removed))
        rows = self.database.all(f"{sql} ORDER BY number DESC LIMIT ?", [*values, limit + 1])
        return [_record(row) for row in rows[:limit]], len(rows) > limit

    def remove(self, record: ImageRecord) -> None:
        """Forget a picture; it works on a full disk too."""
        self._remove([(record.id, record.output_format)])

    def _remove(self, pictures: Sequence[tuple[str, str]]) -> None:
        """Empty the files of pictures, and then remove rows and files, now or at a later `sweep`."""
        with self._told():
            for picture_id, output_format in pictures:
                with suppress(FileNotFoundError):
                    os.truncate(self._path(picture_id, output_format), 0)
                self._removed.add(picture_id)
        try:
            self._forget([picture_id for picture_id, _ in pictures])
        except StoreError as error:
            if error.kind not in _PENDING:
                raise
            log.warning("%d pictures are removed, and their rows will be later: %s", len(pictures), error.because[-1])
        if pictures and shutil.disk_usage(self.folder).free < _SPARE_BYTES:
            self.database.shrink()  # or what was removed is less than what was written about it

    def _forget(self, ids: Iterable[str]) -> None:
        """Remove the rows of pictures whose files are empty, and then the files."""
        ids = list(ids)
        if not ids:
            return
        rows = self.database.all(
            "SELECT id, output_format FROM pictures WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(ids),)
        )
        with self.database.writing() as database:
            database.executemany("DELETE FROM pictures WHERE id = ?", [(picture_id,) for picture_id in ids])
        for picture_id, output_format in rows:
            with suppress(OSError):
                self._path(picture_id, output_format).unlink()
        self._removed.difference_update(ids)

    def sweep(self) -> int:
        """Remove what retention does not keep, the oldest first, and return how many pictures that were.

        A picture's age is that of `SteadyClock`: a machine whose clock is set loses none.
        """
        now, machine_time = self.clock.notice()
        self._forget(self._removed.copy())
        keep, over = self.retention, []
        rows = self.database.all(
            "SELECT id, output_format, coalesce(begun, created), num_bytes FROM pictures WHERE state = 'finished' "
            "ORDER BY number DESC"
        )
        total = 0
        for number, (picture_id, output_format, begun, num_bytes) in enumerate(rows):
            total += num_bytes
            too_old = keep.days is not None and begun < now - keep.days * _DAY_S
            too_many = keep.pictures is not None and number >= keep.pictures
            if too_old or too_many or (keep.num_bytes is not None and total > keep.num_bytes):
                over.append((picture_id, output_format))
        self._remove(over)
        with self.database.writing() as database:
            if keep.days is not None:
                database.execute(
                    "DELETE FROM pictures WHERE state NOT IN ('finished', 'waiting') AND coalesce(begun, created) < ?",
                    (int(now - keep.days * _DAY_S),),
                )
            times = [("time", str(now)), ("machine_time", str(machine_time))]
            database.executemany("INSERT OR REPLACE INTO facts VALUES (?, ?)", times)
        return len(over)

    def _path(self, picture_id: str, output_format: str) -> Path:
        assert _ID.fullmatch(picture_id) and output_format in FORMATS, "made here, or looked up by a checked id"
        return self._pictures / picture_id[4:6] / f"{picture_id}.{output_format}"

    # --- keys and secrets --------------------------------------------------------------------------------------------------

    @property
    def is_closed(self) -> bool:
        """Whether there ever was a key: since then nobody comes without, even if all of them are gone."""
        with self._told():
            return (self.folder / _CLOSED).exists()

    def _close_to_strangers(self) -> None:
        with self._told():
            (self.folder / _CLOSED).touch()
            files.sync_folder(self.folder)

    def add_key(self, name: str, digest: str) -> bool:
        """Note a key's hash; say whether the name was free."""
        self._close_to_strangers()
        with self.database.writing() as database:
            # later than any key before it, whatever the clock says: name and time are whose pictures are whose
            last = database.execute(
                "SELECT max(coalesce((SELECT max(created) FROM keys), 0), "
                "coalesce((SELECT CAST(value AS INTEGER) FROM facts WHERE name = 'last_key'), 0))"
            ).fetchone()[0]
            created = max(int(self.clock.now()), last + 1)
            sql = "INSERT OR IGNORE INTO keys VALUES (?, ?, ?)"
            if not database.execute(sql, (name, digest, created)).rowcount:
                return False
            database.execute("INSERT OR REPLACE INTO facts VALUES ('last_key', ?)", (str(created),))
            return True

    def remove_key(self, name: str) -> bool:
        """Forget a key; say whether there was one."""
        with self.database.writing() as database:
            return database.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount == 1

    def known_keys(self) -> list[tuple[str, str, int]]:
        """Return name, hash and time of every key."""
        return self.database.all("SELECT name, hash, created FROM keys ORDER BY created, name")  # type: ignore[return-value]

    def secret(self) -> bytes:
        """Return the secret of this store, by which addresses are signed."""
        with self.database.writing() as database:
            database.execute("INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_hex(32),))
        return bytes.fromhex(self.database.all("SELECT value FROM facts WHERE name = 'secret'")[0][0])


_COLUMNS = ", ".join(field.name for field in dataclasses.fields(ImageRecord))


def _record(row: Sequence[Any]) -> ImageRecord:
    *front, reference_ids, output_format = row
    return ImageRecord(*front, reference_ids=tuple(json.loads(reference_ids)), output_format=output_format)
