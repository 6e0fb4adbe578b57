"""Jobs and pictures that outlive the process: one SQLite file, and a folder of pictures.

A picture's row is there before it is painted; its file is written whole and synced before the row says that it is
finished, and only then is it handed out. After a kill, a file whose row does not say so yet counts as finished. File
names are made here of the id alone, and an id is only ever 24 hexadecimal digits.
"""

from __future__ import annotations

import dataclasses
import json
import re
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan import files
from sampan.errors import DataError
from sampan.serve.settings import Retention

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
    """Jobs, pictures and keys. Safe to use from threads.

    Args:
        folder: Made if it is not there.

    Raises:
        DataError: It cannot be used, or another server uses it.
    """

    def __init__(self, folder: Path, retention: Retention = _KEEP_ALL):
        self.folder, self.retention = folder, retention
        self._pictures = folder / "pictures"
        self._lock = threading.Lock()
        try:
            self._pictures.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o700)  # prompts and pictures are their owners' alone
            self._database = sqlite3.connect(folder / "serve.sqlite", check_same_thread=False, isolation_level=None)
            self._database.execute("PRAGMA journal_mode = WAL")
            self._database.execute("PRAGMA synchronous = FULL")
            self._database.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise DataError(f"`{folder}` cannot keep pictures", str(error), "pass --data FOLDER") from error

    def close(self) -> None:
        """Close the database."""
        with self._lock:
            self._database.close()

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
            except BaseException:
                self._database.execute("ROLLBACK")
                raise
            self._database.execute("COMMIT")

    def _all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        with self._lock:
            return self._database.execute(sql, values).fetchall()

    # --- pictures --------------------------------------------------------------------------------------------------------

    def begin(self, records: Sequence[ImageRecord]) -> None:
        """Note pictures that will be made."""
        columns = _COLUMNS.replace("created,", "created, state,")
        with self._writing() as database:
            database.executemany(
                f"INSERT INTO pictures ({columns}) VALUES (?, ?, ?, 'waiting', ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (r.id, r.owner, r.created, r.kind, r.prompt, r.size, r.seed, r.num_inference_steps, r.guidance_scale,
                     r.model, json.dumps(r.reference_ids), r.output_format)
                    for r in records
                ],
            )  # fmt: skip

    def finish(self, record: ImageRecord, content: bytes) -> None:
        """Keep a finished picture: after this it is there, whatever happens to the process."""
        path = self._path(record.id, record.output_format)
        path.parent.mkdir(exist_ok=True)
        files.write_bytes(path, content)
        with self._writing() as database:
            database.execute(
                "UPDATE pictures SET state = 'finished', num_bytes = ? WHERE id = ?", (len(content), record.id)
            )

    def end(self, ids: Sequence[str], state: str) -> None:
        """Note how pictures ended that were not finished."""
        with self._writing() as database:
            database.executemany(
                "UPDATE pictures SET state = ? WHERE id = ? AND state = 'waiting'",
                [(state, picture_id) for picture_id in ids],
            )

    def recover(self) -> dict[str, int]:
        """Bring rows and files together after a start; return how many pictures were found and how many were lost.

        A picture that was under way is lost, unless its file was written already.
        """
        found = lost = 0
        for picture_id, output_format in self._all("SELECT id, output_format FROM pictures WHERE state = 'waiting'"):
            path = self._path(picture_id, output_format)
            there = path.is_file()
            found, lost = found + there, lost + (not there)
            with self._writing() as database:
                database.execute(
                    "UPDATE pictures SET state = ?, num_bytes = ? WHERE id = ?",
                    ("finished" if there else "interrupted", path.stat().st_size if there else 0, picture_id),
                )
        for path in self._pictures.glob("*/*"):
            if path.name.startswith("."):
                path.unlink()  # was being written when the process ended
        self.sweep()
        return {"found": found, "interrupted": lost}

    def record(self, owner: str, picture_id: str) -> ImageRecord | None:
        """Return an owner's finished picture; somebody else's is not there."""
        if not _ID.fullmatch(picture_id):
            return None
        rows = self._all(
            f"SELECT {_COLUMNS} FROM pictures WHERE id = ? AND owner = ? AND state = 'finished'", (picture_id, owner)
        )
        return _record(rows[0]) if rows else None

    def owner_of(self, picture_id: str) -> str | None:
        """Return whose picture it is: for addresses that are signed."""
        rows = self._all("SELECT owner FROM pictures WHERE id = ?", (picture_id,)) if _ID.fullmatch(picture_id) else []
        return rows[0][0] if rows else None

    def content(self, record: ImageRecord) -> bytes | None:
        """Return a picture's bytes."""
        try:
            return self._path(record.id, record.output_format).read_bytes()
        except FileNotFoundError:  # removed by somebody's hand, or by retention in between
            return None

    def history(self, owner: str, limit: int, before: str | None) -> tuple[list[ImageRecord], bool]:
        """Return an owner's finished pictures, newest first, and whether there are more.

        Args:
            before: Only those made before that picture; one that is not the owner's gives none.
        """
        sql, values = f"SELECT {_COLUMNS} FROM pictures WHERE owner = ? AND state = 'finished'", [owner]
        if before is not None:
            sql += " AND number < (SELECT number FROM pictures WHERE id = ? AND owner = ?)"
            values += [before, owner]
        rows = self._all(f"{sql} ORDER BY number DESC LIMIT ?", [*values, limit + 1])
        return [_record(row) for row in rows[:limit]], len(rows) > limit

    def remove(self, record: ImageRecord) -> None:
        """Forget a picture."""
        with self._writing() as database:
            database.execute("DELETE FROM pictures WHERE id = ?", (record.id,))
        self._path(record.id, record.output_format).unlink(missing_ok=True)

    def sweep(self) -> int:
        """Remove what retention does not keep, the oldest first, and return how many pictures that were."""
        keep, over = self.retention, []
        rows = self._all(
            "SELECT id, output_format, created, num_bytes FROM pictures WHERE state = 'finished' ORDER BY number DESC"
        )
        total = 0
        for number, (picture_id, output_format, created, num_bytes) in enumerate(rows):
            total += num_bytes
            too_old = keep.days is not None and created < time.time() - keep.days * _DAY_S
            too_many = keep.pictures is not None and number >= keep.pictures
            if too_old or too_many or (keep.num_bytes is not None and total > keep.num_bytes):
                over.append((picture_id, output_format))
        with self._writing() as database:
            database.executemany("DELETE FROM pictures WHERE id = ?", [(picture_id,) for picture_id, _ in over])
            if keep.days is not None:
                database.execute(
                    "DELETE FROM pictures WHERE state NOT IN ('finished', 'waiting') AND created < ?",
                    (int(time.time() - keep.days * _DAY_S),),
                )
        for picture_id, output_format in over:
            self._path(picture_id, output_format).unlink(missing_ok=True)
        return len(over)

    def _path(self, picture_id: str, output_format: str) -> Path:
        assert _ID.fullmatch(picture_id) and output_format in FORMATS, "made here, or looked up by a checked id"
        return self._pictures / picture_id[4:6] / f"{picture_id}.{output_format}"

    # --- keys and secrets --------------------------------------------------------------------------------------------------

    def add_key(self, name: str, digest: str) -> bool:
        """Note a key's hash; say whether the name was free."""
        with self._writing() as database:
            sql = "INSERT OR IGNORE INTO keys VALUES (?, ?, ?)"
            return database.execute(sql, (name, digest, int(time.time()))).rowcount == 1

    def remove_key(self, name: str) -> bool:
        """Forget a key; say whether there was one."""
        with self._writing() as database:
            return database.execute("DELETE FROM keys WHERE name = ?", (name,)).rowcount == 1

    def known_keys(self) -> list[tuple[str, str, int]]:
        """Return name, hash and time of every key."""
        return self._all("SELECT name, hash, created FROM keys ORDER BY created, name")  # type: ignore[return-value]

    def secret(self) -> bytes:
        """Return the secret of this store, by which addresses are signed."""
        with self._writing() as database:
            database.execute("INSERT OR IGNORE INTO facts VALUES ('secret', ?)", (secrets.token_hex(32),))
        return bytes.fromhex(self._all("SELECT value FROM facts WHERE name = 'secret'")[0][0])


_COLUMNS = ", ".join(field.name for field in dataclasses.fields(ImageRecord))


def _record(row: Sequence[Any]) -> ImageRecord:
    *front, reference_ids, output_format = row
    return ImageRecord(*front, reference_ids=tuple(json.loads(reference_ids)), output_format=output_format)
