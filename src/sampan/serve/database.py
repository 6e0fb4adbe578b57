"""The SQLite file of a store: one connection that writes, one that reads, and every failure in words.

In SQLite's WAL mode a reader waits for no writer, so that keys and lists are there while another program holds the
file. Who writes waits `WAIT_S` at most, for other threads and for other programs.
"""

from __future__ import annotations

import errno
import logging
import shutil
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sampan.errors import StoreError

log = logging.getLogger("sampan.serve")
WAIT_S = 5.0
_LITTLE_BYTES = 65_536  # less than that is free: whatever the system says failed, it failed for want of room
_KINDS = {
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_BUSY: "locked",
    sqlite3.SQLITE_LOCKED: "locked",
    sqlite3.SQLITE_READONLY: "read-only",
    sqlite3.SQLITE_PERM: "read-only",
    sqlite3.SQLITE_CORRUPT: "damaged",
    sqlite3.SQLITE_NOTADB: "damaged",
}
_ERRNOS = {"ENOSPC": "full", "EDQUOT": "full", "EFBIG": "full", "EROFS": "read-only", "EACCES": "read-only"}
_ERRNOS |= {"EPERM": "read-only", "ENOENT": "gone", "ENOTDIR": "gone", "ESTALE": "gone"}


class Database:
    """One SQLite file. Safe to use from threads.

    Args:
        schema: Statements that make what is not there.
        columns: By table: columns that were added since its first version, and their declarations.
        was_used: The store has something that a new one has not, so that an empty file is not a new database.

    Raises:
        StoreError: It cannot be opened, or is no whole database of this schema.
    """

    def __init__(self, path: Path, schema: str, columns: Mapping[str, Mapping[str, str]], *, was_used: bool):
        self.path = path
        self._writing, self._reading = threading.Lock(), threading.Lock()
        self._writer = self._reader = None
        with self._told():
            if was_used and path.exists() and path.stat().st_size == 0:
                # SQLite would take it for a new one, and a server whose keys are gone would be open
                raise StoreError(
                    f"`{path}` is empty", "damaged", "a database that sampan made never is", _move_away(path)
                )
            try:
                self._writer = _connect(path)
                self._open(schema, columns)
                self._reader = _connect(path)
                self.shrink()
            except BaseException:
                self.close()
                raise
            self._inode = path.stat().st_ino

    def _open(self, schema: str, columns: Mapping[str, Mapping[str, str]]) -> None:
        assert self._writer is not None
        found = self._writer.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise sqlite3.DatabaseError(found)
        self._writer.execute("PRAGMA journal_mode = WAL")
        self._writer.execute("PRAGMA synchronous = FULL")
        with _transaction(self._writer):
            for statement in schema.split(";"):
                self._writer.execute(statement)
            for table, added in columns.items():
                there = {row[1] for row in self._writer.execute(f"PRAGMA table_info({table})")}
                for column, declared in added.items():
                    if column not in there:
                        self._writer.execute(f"ALTER TABLE {table} ADD COLUMN {column} {declared}")

    def close(self) -> None:
        """Close the file."""
        for connection in (self._reader, self._writer):
            if connection is not None:
                with suppress(sqlite3.Error):
                    connection.close()

    @contextmanager
    def writing(self) -> Iterator[sqlite3.Connection]:
        """Hold a transaction while the block runs: all of it is done afterwards, or nothing.

        Raises:
            StoreError: It cannot be done, with the reason.
        """
        with self._turn(self._writing, "wrote"):
            assert self._writer is not None
            _roll_back(self._writer)  # of a disk that failed in the middle
            with _transaction(self._writer):
                yield self._writer

    def all(self, sql: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Return the rows of a query.

        Raises:
            StoreError: They cannot be read, with the reason.
        """
        with self._turn(self._reading, "read"):
            assert self._reader is not None
            return self._reader.execute(sql, values).fetchall()

    def shrink(self) -> None:
        """Give the room of the write-ahead log back to the disk, where nobody reads from it."""
        with self._writing, suppress(sqlite3.Error):  # a full disk may leave no room even for that
            assert self._writer is not None
            self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    @contextmanager
    def _turn(self, lock: threading.Lock, others: str) -> Iterator[None]:
        """Have a connection to oneself while the block runs; what fails in it is a StoreError."""
        if not lock.acquire(timeout=WAIT_S):
            raise self._error("locked", f"others {others} for more than {WAIT_S:g} s")
        try:
            with self._told():
                self._check_there()
                yield
        finally:
            lock.release()

    def _check_there(self) -> None:
        """Raise where the file was removed or replaced: SQLite would go on in one that nobody finds again."""
        try:
            there = self.path.stat().st_ino == self._inode
        except FileNotFoundError:
            there = False
        if not there:
            raise self._error("gone", "the file that this server opened is no longer there")

    def _error(self, kind: str, why: str) -> StoreError:
        hints = {
            "full": "make room, or pass another --data DIR",
            "locked": "end the program that holds it, or pass another --data DIR",
            "read-only": "make it writable for this user, or pass another --data DIR",
            "damaged": _move_away(self.path),
            "gone": "start the server again",
            "failed": "pass another --data DIR",
        }
        said = {"damaged": "is damaged", "gone": "was removed"}.get(kind, "cannot be used")
        return StoreError(f"`{self.path}` {said}", kind, why, hints[kind])

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            kind = _KINDS.get(getattr(error, "sqlite_errorcode", 0) & 0xFF)
            if kind is None:  # an error of the disk, or none of SQLite's own codes
                kind = "failed" if isinstance(error, sqlite3.OperationalError | sqlite3.ProgrammingError) else "damaged"
                kind = "full" if has_no_room(self.path.parent) else kind
            raise self._error(kind, str(error)) from error
        except OSError as error:
            raise self._error(kind_of(error, self.path.parent), str(error)) from error


def kind_of(error: OSError, folder: Path) -> str:
    """Return which kind of StoreError a failure of the system is."""
    kind = _ERRNOS.get(errno.errorcode.get(error.errno or 0, ""), "failed")
    return "full" if kind == "failed" and has_no_room(folder) else kind


def has_no_room(folder: Path) -> bool:
    """Say whether next to nothing is free where a folder lies."""
    try:
        return shutil.disk_usage(folder).free < _LITTLE_BYTES
    except OSError:
        return False


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, timeout=WAIT_S, check_same_thread=False, isolation_level=None)


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Keep all that the block does, or nothing of it."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        _roll_back(connection)
        raise


def _roll_back(connection: sqlite3.Connection) -> None:
    if connection.in_transaction:  # SQLite ends some transactions by itself, as on a full disk
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            log.exception("a transaction could not be taken back")


def _move_away(path: Path) -> str:
    return (
        f"put a copy of it back; or move it away (`{path.name}`, `-wal` and `-shm`) and start without the keys and the "
        "history that were in it, pictures stay; or pass another --data DIR"
    )
