"""Writing a model folder in the released layout, which sampan and the libraries of the release both load.

The whole folder is written beside its place and renamed into it, so that it is there whole or not at all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sampan import __version__, files
from sampan.checkpoint import sealed
from sampan.checkpoint.expected import Shape, expected_shapes
from sampan.checkpoint.folder import TOKENIZER_FILES
from sampan.checkpoint.knowledge import KEY, ModelKnowledge
from sampan.checkpoint.own_file import FORMAT, OWN_FILE
from sampan.checkpoint.weights import file_digest
from sampan.errors import CheckpointError
from sampan.frameworks import io
from sampan.models.build import PARTS
from sampan.models.config import ModelConfig
from sampan.units import format_bytes

MAX_SHARD_BYTES = int(5e9)  # the libraries' own limit
_DIFFUSERS_VERSION = "0.42.1"
_MODEL_INDEX = {
    "_class_name": "GlmImagePipeline",
    "_diffusers_version": _DIFFUSERS_VERSION,
    "processor": ["transformers", "GlmImageProcessor"],
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "ByT5Tokenizer"],
    "transformer": ["diffusers", "GlmImageTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
    "vision_language_encoder": ["transformers", "GlmImageForConditionalGeneration"],
}
# all that ByT5 needs: its ids are the bytes themselves, after three special ones
_BYTE_TOKENIZER = {"tokenizer_class": "ByT5Tokenizer", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
_BYTE_TOKENIZER_BASE = 259  # 3 special ids and 256 bytes; what the encoder's vocabulary has beyond are extra ids
_DTYPES_NAMED_IN = ("vision_language_encoder", "text_encoder")  # whose config.json says what the weights are stored as


def write_folder(
    directory: Path,
    config: ModelConfig,
    weights: Mapping[str, Mapping[str, Any]],
    tokenizer_files: Path | Mapping[str, bytes],
    *,
    dtype: str | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    provenance: Mapping[str, Any] | None = None,
    knows: ModelKnowledge | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write a model as a folder in the released layout, and return that folder.

    Args:
        directory: Must not exist, or be empty.
        weights: Part (`sampan.models.build.PARTS`, each of them) to tensors by released name. Of `io.LazyTensor` ones, no
            more than a file's worth is in memory at a time.
        tokenizer_files: The folder of the prompt tokenizer's files, or their names and contents: TOKENIZER_FILES.
        dtype: "fp32" or "bf16" to convert, None to write tensors as they are.
        max_shard_bytes: Weights of a subfolder beyond this are spread over several files.
        provenance: Where the model comes from, for sampan.json.
        knows: What the model says it knows, for sampan.json; nothing is written of None and of nothing.
        progress: Called with the weight files written and their number.

    Raises:
        CheckpointError: The directory is not free, a tokenizer file is missing, the disk is full or cannot be written.
        ValueError: The weights are not those of the config.
    """
    _check_free(directory)
    tensors = _by_folder(config, weights)
    documents = _documents(config, tensors, _tokenizer(tokenizer_files), dtype)
    total_bytes = sum(io.num_bytes(tensor, dtype) for part in tensors.values() for tensor in part.values())
    given, directory = directory, directory.resolve()  # "." has no name to write beside
    beside = directory.parent / f".{directory.name}.{os.getpid()}.writing"
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        _check_room(directory, total_bytes)
        shutil.rmtree(beside, ignore_errors=True)
        beside.mkdir()
        try:
            for name, content in documents.items():
                (beside / name).parent.mkdir(parents=True, exist_ok=True)
                files.write_bytes(beside / name, content)
            hashes = _write_weights(beside, tensors, dtype, max_shard_bytes, progress or (lambda done, total: None))
            stated = {name: getattr(config, name).to_json() for name in ("geometry", "painting", "prompt")}
            if knows:
                stated[KEY] = knows.to_json()
            own = {"format": FORMAT, "sampan": __version__, **stated, "provenance": provenance or {}, "sha256": hashes}
            others = (path for path in sorted(beside.rglob("*")) if path.is_file())
            own["documents"] = {
                name: file_digest(path)
                for path in others
                if (name := path.relative_to(beside).as_posix()) not in hashes
            }
            sealed.write(beside / OWN_FILE, own)
            for folder in (*{(beside / name).parent for name in (*documents, *hashes)}, beside):
                files.sync_folder(folder)
            if directory.is_dir():
                directory.rmdir()  # it is empty, and not every platform renames over it
            os.replace(beside, directory)
            files.sync_folder(directory.parent)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise CheckpointError(f"`{given}` cannot be written", str(error)) from error
    return given


def _check_free(directory: Path) -> None:
    if directory.is_dir() and not any(directory.iterdir()):
        return
    if os.path.lexists(directory):
        what = "it is a folder with files in it" if directory.is_dir() else "it is a file"
        raise CheckpointError(
            f"`{directory}` is there already", f"{what}, and a model is written to a new folder", "give another name"
        )


def _check_room(directory: Path, total_bytes: int) -> None:
    free_bytes = shutil.disk_usage(directory.parent).free
    if free_bytes < total_bytes:
        raise CheckpointError(
            f"`{directory}` cannot be written",
            f"the weights take {format_bytes(total_bytes)}, and {format_bytes(free_bytes)} are free there",
            "make room, write to another disk, or use --dtype bf16",
        )


def _by_folder(config: ModelConfig, weights: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the tensors of each subfolder in the model's own order, held against the config."""
    if set(weights) != set(PARTS):
        raise ValueError(f"weights are for the parts {sorted(weights)}; a model has {sorted(PARTS)}")
    found: dict[str, dict[str, Any]] = {}
    for part, place in PARTS.items():
        expected = expected_shapes(part, config)
        given: dict[str, Shape] = {name: tuple(tensor.shape) for name, tensor in weights[part].items()}
        if given != expected:
            wrong = [name for name in {**expected, **given} if given.get(name) != expected.get(name)]
            raise ValueError(
                f"the weights of `{part}` are not those of its config: {len(wrong)} differ, first {wrong[0]}: "
                f"{given.get(wrong[0])} given, {expected.get(wrong[0])} asked for"
            )
        found.setdefault(place.folder, {}).update({name: weights[part][name] for name in expected})
    return found


def _tokenizer(files: Path | Mapping[str, bytes]) -> dict[str, bytes]:
    if isinstance(files, Path):
        missing = [name for name in TOKENIZER_FILES if not (files / name).is_file()]
        if missing:
            raise CheckpointError(f"`{files / missing[0]}` is missing", "a model is written with its prompt tokenizer")
        return {name: (files / name).read_bytes() for name in TOKENIZER_FILES}
    if missing := [name for name in TOKENIZER_FILES if name not in files]:
        raise ValueError(f"the prompt tokenizer lacks {missing[0]}")
    return {name: files[name] for name in TOKENIZER_FILES}


def _documents(
    config: ModelConfig, tensors: Mapping[str, Mapping[str, Any]], tokenizer: Mapping[str, bytes], dtype: str | None
) -> dict[str, bytes]:
    """Return every small file of the layout by its place."""
    vision_language, glyph, text = config.ar.to_json(), config.glyph.to_json(), config.ar.text
    for folder, values in zip(_DTYPES_NAMED_IN, (vision_language, glyph), strict=True):
        names = {io.dtype_name(tensor, dtype) for tensor in tensors[folder].values()}
        if len(names) == 1:
            values["dtype"] = names.pop()
    generation = {
        **config.sampling.to_json(),
        "eos_token_id": text.eos_token_id,
        "pad_token_id": text.pad_token_id,
    }
    values = {
        "model_index.json": _MODEL_INDEX,
        "vision_language_encoder/config.json": vision_language,
        "vision_language_encoder/generation_config.json": generation,
        "transformer/config.json": config.dit.to_json(),
        "vae/config.json": config.vae.to_json(),
        "text_encoder/config.json": glyph,
        "scheduler/scheduler_config.json": config.scheduler.to_json(),
        "processor/preprocessor_config.json": config.processor.to_json(),
        "tokenizer/tokenizer_config.json": {
            **_BYTE_TOKENIZER,
            "extra_ids": max(0, config.glyph.vocab_size - _BYTE_TOKENIZER_BASE),
        },
    }
    documents = {name: json.dumps(value, indent=2, ensure_ascii=False).encode() for name, value in values.items()}
    return documents | {f"processor/{name}": content for name, content in tokenizer.items()}


def _write_weights(
    root: Path,
    tensors: Mapping[str, Mapping[str, Any]],
    dtype: str | None,
    max_shard_bytes: int,
    progress: Callable[[int, int], None],
) -> dict[str, str]:
    """Write the weight files, with an index where there are several, and return the sha256 of each by its place."""
    hashes = {}
    spread = {folder: list(_shards(here, dtype, max_shard_bytes)) for folder, here in tensors.items()}
    num_files = sum(len(shards) for shards in spread.values())
    progress(0, num_files)
    for folder, stem in sorted({(part.folder, part.weights) for part in PARTS.values()}):
        shards = spread[folder]
        names = [f"{stem}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
        if len(shards) == 1:
            names = [f"{stem}.safetensors"]
        for name, shard in zip(names, shards, strict=True):
            path = root / folder / name
            io.save_tensors(path, {key: tensors[folder][key] for key in shard}, {"format": "pt"}, dtype=dtype)
            hashes[f"{folder}/{name}"] = file_digest(path)
            progress(len(hashes), num_files)
        if len(shards) > 1:
            total_bytes = sum(io.num_bytes(tensor, dtype) for tensor in tensors[folder].values())
            weight_map = {key: name for name, shard in zip(names, shards, strict=True) for key in shard}
            index = {"metadata": {"total_size": total_bytes}, "weight_map": dict(sorted(weight_map.items()))}
            files.write_text(root / folder / f"{stem}.safetensors.index.json", json.dumps(index, indent=2))
    return hashes


def _shards(tensors: Mapping[str, Any], dtype: str | None, max_shard_bytes: int) -> Iterator[list[str]]:
    """Yield the names of each file's tensors, in order; a tensor larger than the limit has a file to itself."""
    shard: list[str] = []
    held_bytes = 0
    for name, tensor in tensors.items():
        size_bytes = io.num_bytes(tensor, dtype)
        if shard and held_bytes + size_bytes > max_shard_bytes:
            yield shard
            shard, held_bytes = [], 0
        shard.append(name)
        held_bytes += size_bytes
    yield shard
