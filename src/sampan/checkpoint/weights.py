"""Weight files of one subfolder: which there are and which tensors they hold. Reads headers, never weights.

A subfolder has one `STEM.safetensors`, or shards and a `STEM.safetensors.index.json` that says which holds what. Only
safetensors are read: a pickle can run code when it is loaded.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path, PurePosixPath

from sampan.checkpoint.json_files import LFS_HINT, is_lfs_pointer, read_json
from sampan.errors import CheckpointError, DamagedFileError
from sampan.frameworks import safetensors_header
from sampan.frameworks.safetensors_header import SafetensorsHeader

ENDING = ".safetensors"
PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
BYTES_PER_ELEMENT = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8,
}  # fmt: skip


@dataclass(frozen=True)
class TensorHeader:
    """A tensor as a file's header describes it.

    Args:
        dtype: In the file format's words: "F32", "BF16" …
    """

    file: Path
    dtype: str
    shape: tuple[int, ...]

    @property
    def num_elements(self) -> int:
        return prod(self.shape)

    @property
    def num_bytes(self) -> int | None:
        """Bytes in the file, or None for a dtype this version does not know."""
        size = BYTES_PER_ELEMENT.get(self.dtype)
        return None if size is None else self.num_elements * size


def weight_files(folder: Path, stem: str) -> list[Path]:
    """Return the safetensors files of a subfolder that are there and are needed, in name order.

    Raises:
        CheckpointError: There are none, a shard is missing, or which file counts is not clear.
    """
    single, index = folder / f"{stem}.safetensors", folder / f"{stem}.safetensors.index.json"
    if single.is_file() and index.is_file():
        raise CheckpointError(
            f"the weights in `{folder}` are not clear",
            f"`{single.name}` and `{index.name}` are both there, and each claims to be all of them",
            "remove the one that is left over",
        )
    if single.is_file():
        return [single]
    if not index.is_file():
        raise _no_weights(folder, stem)
    names = set(_weight_map(index).values())
    missing = sorted(name for name in names if not (folder / name).is_file())
    if missing:
        raise CheckpointError(
            f"`{folder / missing[0]}` is missing",
            f"{len(missing)} of the {len(names)} shards named in `{index.name}` "
            f"{'is' if len(missing) == 1 else 'are'} not there: {', '.join(missing[:5])}",
            "download or copy the folder again; the other shards can stay",
        )
    return sorted(folder / name for name in names)


def read_weights(folder: Path, stem: str) -> dict[str, TensorHeader]:
    """Return all tensors of a subfolder by name, from its files' headers.

    Raises:
        CheckpointError: As `weight_files` and `read_header`, or index and shards contradict each other.
    """
    found: dict[str, TensorHeader] = {}
    for path in weight_files(folder, stem):
        for name, stored in read_header(path).items():
            if name in found:
                raise CheckpointError(
                    f"the weights in `{folder}` are not clear",
                    f"`{name}` is in `{found[name].file.name}` and in `{path.name}`",
                )
            found[name] = stored
    index = folder / f"{stem}.safetensors.index.json"
    if index.is_file():
        for name, shard in _weight_map(index).items():
            if name not in found or found[name].file.name != shard:
                raise CheckpointError(
                    f"the weights in `{folder}` are not whole",
                    f"`{index.name}` says that `{shard}` holds `{name}`, and it does not",
                    "download or copy the folder again: its files are not from one save",
                )
    return found


def read_header(path: Path) -> dict[str, TensorHeader]:
    """Return the tensors of one safetensors file by name, in the names' order.

    Raises:
        CheckpointError: The file is missing, truncated, corrupt or a Git LFS pointer; it is named.
    """
    tensors = _header(path).tensors
    return {name: TensorHeader(path, tensors[name].dtype, tensors[name].shape) for name in sorted(tensors)}


def read_metadata(path: Path) -> dict[str, str]:
    """Return the text that a safetensors file has beside its tensors, by key; errors as `read_header`."""
    return dict(_header(path).metadata)


def header_digest(path: Path) -> str:
    """Return the sha256 of a file's header and its size: it tells models apart, but not two trainings of one model.

    Raises:
        CheckpointError: As `read_header`.
    """
    num_bytes = _header(path).num_bytes
    with open(path, "rb") as file:
        digest = hashlib.sha256(file.read(num_bytes)[8:])
    digest.update(str(path.stat().st_size).encode())
    return digest.hexdigest()


def tensor_digests(path: Path) -> dict[str, str]:
    """Return a hash of the dtype, the shape and the bytes of each tensor in a safetensors file.

    Raises:
        CheckpointError: As `read_header`.
    """
    found = {}
    with open(path, "rb") as file:
        for name, place in _header(path).tensors.items():
            digest = hashlib.sha256(json.dumps([place.dtype, list(place.shape)]).encode())
            file.seek(place.begin)
            digest.update(file.read(place.end - place.begin))
            found[name] = digest.hexdigest()
    return found


def _header(path: Path) -> SafetensorsHeader:
    try:
        if is_lfs_pointer(path):
            raise CheckpointError(f"`{path}` cannot be read", "it is a Git LFS pointer, not the weights", LFS_HINT)
        return safetensors_header.read_header(path)
    except FileNotFoundError as error:
        raise CheckpointError(f"`{path}` is missing") from error
    except DamagedFileError as error:
        raise CheckpointError(
            f"`{path}` cannot be read",
            f"it is no whole safetensors file ({path.stat().st_size} bytes): {error}",
            "download or copy this file again",
        ) from error
    except OSError as error:
        raise CheckpointError(f"`{path}` cannot be read", str(error)) from error


def file_digest(path: Path) -> str:
    """Return the sha256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def pickles(paths: Iterable[Path]) -> list[str]:
    """Return the names of those files that are pickles by their ending."""
    return sorted(path.name for path in paths if path.suffix.lower() in PICKLES and path.is_file())


def pickle_refused(place: Path, names: list[str]) -> CheckpointError:
    """Return the error for weights that are there as pickles only."""
    return CheckpointError(
        f"the weights in `{place}` are refused",
        f"{', '.join(f'`{name}`' for name in names[:5])} {'is a pickle' if len(names) == 1 else 'are pickles'}: "
        "loading one could run code",
        "convert it to safetensors with the tool that made it",
    )


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"`{index}` cannot be used", "it has no `weight_map` of tensor names to files")
    for name, shard in weight_map.items():
        plain = isinstance(shard, str) and PurePosixPath(shard).name == shard and not set(shard) & {"\\", ":"}
        if not plain or not shard.endswith(".safetensors"):
            raise CheckpointError(
                f"`{index}` cannot be used", f"it places `{name}` in {shard!r}, which is no safetensors file beside it"
            )
    return weight_map


def _no_weights(folder: Path, stem: str) -> CheckpointError:
    if not folder.is_dir():
        return CheckpointError(f"`{folder}` is missing")
    there = sorted(folder.iterdir())
    if found := pickles(there):
        return pickle_refused(folder, found)
    others = [path.name for path in there if path.name.endswith((".safetensors", ".safetensors.index.json"))]
    return CheckpointError(
        f"`{folder}` has no weights",
        [
            f"neither `{stem}.safetensors` nor `{stem}.safetensors.index.json` is there",
            *([f"it holds {', '.join(f'`{name}`' for name in others[:5])}"] if others else []),
        ],
        "download or copy the folder again",
    )
