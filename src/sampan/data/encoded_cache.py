"""The encoded cache: arrays that took long to make, written shard by shard, found again by name, mapped into memory.

A store holds one kind of arrays. It is a folder named by the kind and by a hash of everything its content depends on (its
key). In it:

    manifest.json       the key, and a line a shard: file, group, items, bytes, hash; replaced whole after every shard
    <hash>.safetensors  the arrays of some items of one group, and the items' ids
    .lock               while a process writes

An item is known by a text (the digest of a picture, some words) within a group (a bucket), so that it is found whichever set
it comes in. Its id, a hash of both, lies beside its arrays in the shard and not in the manifest, which a set of a million
pictures would otherwise make a file of forty megabytes that is written again after every shard.

A shard's file is written, synced and renamed before the manifest that names it, so that a process may be killed at any
moment: what the manifest names is whole, and anything else is swept away by the next writer. A file is named by a hash of
its content, so that a name never comes to mean something else to a process that still reads.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan import __version__, documents, files
from sampan.data import memory_map
from sampan.data.memory_map import Array
from sampan.errors import DamagedFileError, DataError, LockHeldError

FORMAT_VERSION = 1
OFFSETS = ".offsets"  # ends the name of the borders between items in an array of items of different lengths

_IDS = "ids"
_ID_BYTES = 16
_MAX_OPEN = 64  # maps kept open; each holds a file descriptor, and some systems give a process 256 of them
_AGAIN = "start again: what is missing is made again"


@dataclass(frozen=True)
class Shard:
    """A line of the manifest."""

    file: str
    group: str
    num_items: int
    bytes: int
    sha256: str


class EncodedCache:
    """A store, opened for reading; `writing` opens it for more.

    Args:
        folder: Where stores are kept; the store's own folder is made in it when something is written.
        kind: What it holds: a word for a file name.
        key: Everything the content depends on, as JSON.

    Attributes:
        path: The store's folder.
        problems: What could not be used and is left out, in words.
    """

    def __init__(self, folder: Path, kind: str, key: Mapping[str, Any]):
        self.kind, self.key = kind, json.loads(json.dumps(key))
        text = json.dumps([FORMAT_VERSION, kind, self.key], sort_keys=True)
        self.path = folder / f"{kind}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        self.problems: list[str] = []
        self._maps: OrderedDict[str, dict[str, Array]] = OrderedDict()
        self._maps_lock = threading.Lock()
        self._is_writing = False
        self._open()

    def __len__(self) -> int:
        return sum(shard.num_items for shard in self._shards)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The shards that can be used, in the order they were written."""
        return tuple(self._shards)

    # --- reading -----------------------------------------------------------------------------------------------------

    def locate(self, group: str, items: Sequence[str]) -> NDArray[np.int64]:
        """Return the places (items, 2) of items, for `get`; -1 where one is not there."""
        if self._index is None:
            ids = np.concatenate([np.zeros(0, "S16"), *self._ids])
            places = [np.stack([np.full(len(i), n), np.arange(len(i))], axis=1) for n, i in enumerate(self._ids)]
            order = np.argsort(ids, kind="stable")
            self._index = ids[order], np.concatenate([np.zeros((0, 2), np.int64), *places])[order]
        known, places = self._index
        wanted = np.array([_id(group, item) for item in items], "S16")
        if not len(known):
            return np.full((len(wanted), 2), -1, np.int64)
        at = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        return np.where((known[at] == wanted)[:, None], places[at], -1)

    def missing(self, group: str, items: Sequence[str]) -> list[str]:
        """Return the items that are not there, each once, in their order."""
        is_known = self.locate(group, items)[:, 0] >= 0
        return list(dict.fromkeys(item for item, is_there in zip(items, is_known, strict=True) if not is_there))

    def get(self, place: Sequence[int] | NDArray[np.int64]) -> dict[str, Array]:
        """Return the arrays of the item at a place: read-only views of the file, nothing is copied.

        Raises:
            DataError: The shard has changed since the store was opened.
        """
        shard, row = int(place[0]), int(place[1])
        assert shard >= 0, "the item is not in the store"
        arrays = self._mapped(self._shards[shard])
        item = {}
        for name, array in arrays.items():
            if name == _IDS or name.endswith(OFFSETS):
                continue
            offsets = arrays.get(name + OFFSETS)
            item[name] = array[row] if offsets is None else array[offsets[row] : offsets[row + 1]]
        return item

    # --- writing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Keep other writers out while the block calls `append`; what others wrote before is seen, leftovers are removed.

        Raises:
            DataError: Another process is writing, or the folder cannot be written to.
        """
        with ExitStack() as stack:
            try:
                self.path.mkdir(parents=True, exist_ok=True)
                stack.enter_context(files.locked(self.path / ".lock"))
                before = self.problems[:]
                self._open()
                if self.problems:
                    self._write_manifest(self._shards)
                self.problems[:] = list(dict.fromkeys([*before, *self.problems]))
                self._sweep()
            except LockHeldError as error:
                raise DataError(
                    f"the store `{self.path}` cannot be written",
                    f"{error.who} is writing it",
                    "wait for it, then go on",
                ) from error
            except OSError as error:
                raise self._unwritable(error) from error
            self._is_writing = True
            try:
                yield
            finally:
                self._is_writing = False

    def append(
        self,
        group: str,
        items: Sequence[str],
        arrays: Mapping[str, Array],
        ragged: Mapping[str, Sequence[Array]] | None = None,
    ) -> None:
        """Write a shard; when this returns it is there for good.

        Args:
            items: In the order of the arrays; none of them is in the store.
            arrays: Each (items, …).
            ragged: For each name one array (rows, …) per item, of any number of rows.

        Raises:
            DataError: It cannot be written, for lack of room for example.
        """
        assert self._is_writing and items, "append needs items, inside of `writing`"
        ids = np.frombuffer(b"".join(_id(group, item) for item in items), np.uint8).reshape(-1, _ID_BYTES)
        content = {_IDS: ids, **arrays}
        for name, parts in (ragged or {}).items():
            content[name] = np.concatenate(list(parts))
            content[name + OFFSETS] = np.cumsum([0, *(len(part) for part in parts)], dtype=np.int64)
            assert len(parts) == len(items), f"{name}: one array per item"
        assert all(len(array) == len(items) for array in arrays.values()), "the first axis of an array is the items"
        pieces = memory_map.file_of(content, {"kind": self.kind, "group": group})
        digest = memory_map.sha256(pieces)
        size = sum(len(piece) for piece in pieces)
        shard = Shard(f"{digest[:32]}.safetensors", group, len(items), size, digest)
        try:
            memory_map.write(self.path / shard.file, pieces)
            self._write_manifest([*self._shards, shard])
        except OSError as error:
            raise self._unwritable(error) from error
        self._shards.append(shard)
        self._ids.append(_as_text(ids))
        self._index = None

    # --- inside ------------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        """Read the manifest and the ids of its shards; what cannot be used is left out."""
        self.problems.clear()
        self._shards: list[Shard] = []
        self._ids: list[NDArray[np.bytes_]] = []
        self._index: tuple[NDArray[np.bytes_], NDArray[np.int64]] | None = None
        for shard in self._listed():
            try:
                size = (self.path / shard.file).stat().st_size
                if size != shard.bytes:
                    raise DamagedFileError(f"it has {size} bytes and not {shard.bytes}")
                ids = memory_map.read_array(self.path / shard.file, _IDS)
                if ids.dtype != np.uint8 or ids.shape != (shard.num_items, _ID_BYTES):
                    raise DamagedFileError(f"its ids are {ids.shape} for {shard.num_items} items")
            except (DamagedFileError, OSError) as error:
                reason = "it is not there" if isinstance(error, FileNotFoundError) else str(error)
                self.problems.append(
                    f"`{self.path / shard.file}` is not used: {reason}; its {shard.num_items} items are made again"
                )
            else:
                self._shards.append(shard)
                self._ids.append(_as_text(ids))

    def _listed(self) -> list[Shard]:
        path = self.path / "manifest.json"
        try:
            manifest = documents.parse_json(documents.read_text(path))
            if manifest["format"] != FORMAT_VERSION or manifest["kind"] != self.kind or manifest["key"] != self.key:
                raise ValueError("it is of another store")
            shards = [Shard(**line) for line in manifest["shards"]]
            for shard in shards:
                for f in fields(Shard):
                    value = getattr(shard, f.name)
                    if type(value).__name__ != f.type or (f.name == "file" and Path(value).name != value):
                        raise ValueError(f"a shard's `{f.name}` is {value!r}")
        except FileNotFoundError:
            return []
        except (ValueError, KeyError, TypeError) as error:
            self.problems.append(f"`{path}` is not used: {error}; what it lists is made again")
            return []
        except OSError as error:
            raise DataError(f"the store `{self.path}` cannot be read", str(error)) from error
        return shards

    def _sweep(self) -> None:
        """Remove what a killed writer left, and dropped shards."""
        listed = {shard.file for shard in self._shards}
        for path in self.path.iterdir():
            if path.name not in listed and path.suffix in (".safetensors", ".tmp"):
                with suppress(PermissionError):  # somebody still has it mapped on Windows: the next writer removes it
                    path.unlink(missing_ok=True)

    def _write_manifest(self, shards: Sequence[Shard]) -> None:
        head = {
            "format": FORMAT_VERSION,
            "kind": self.kind,
            "sampan": __version__,
            "num_items": sum(shard.num_items for shard in shards),
            "key": self.key,
        }
        lines = ",\n  ".join(json.dumps(asdict(shard)) for shard in shards)
        text = json.dumps(head, indent=1).removesuffix("\n}") + f',\n "shards": [\n  {lines}\n ]\n}}\n'
        files.write_text(self.path / "manifest.json", text)

    def _mapped(self, shard: Shard) -> dict[str, Array]:
        with self._maps_lock:
            if shard.file in self._maps:
                self._maps.move_to_end(shard.file)
                return self._maps[shard.file]
            path = self.path / shard.file
            try:
                if path.stat().st_size != shard.bytes:
                    raise DamagedFileError("its size has changed")
                arrays = memory_map.open_arrays(path)
            except (DamagedFileError, OSError) as error:
                raise DataError(f"`{path}` cannot be read any more", str(error), _AGAIN) from error
            self._maps[shard.file] = arrays
            if len(self._maps) > _MAX_OPEN:
                self._maps.popitem(last=False)
            return arrays

    def _unwritable(self, error: OSError) -> DataError:
        return DataError(
            f"the store `{self.path}` cannot be written", str(error), "make room, or set data.cache elsewhere"
        )


def _id(group: str, item: str) -> bytes:
    return hashlib.sha256(f"{group}\n{item}".encode()).digest()[:_ID_BYTES]


def _as_text(ids: Array) -> NDArray[np.bytes_]:
    """Return ids (n, 16) as n byte strings, which NumPy can sort and search."""
    return np.ascontiguousarray(ids).view("S16").reshape(-1)
