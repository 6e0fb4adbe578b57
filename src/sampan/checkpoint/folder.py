"""A model folder in the released layout, opened: its config read, its weight files found, no weight read yet.

    model_index.json                 which library class reads which subfolder
    vision_language_encoder/         generator and picture tokenizer   (parts "ar", "tokenizer")
    transformer/                     diffusion decoder                 (part "decoder")
    vae/                             autoencoder                       (part "vae")
    text_encoder/, tokenizer/        glyph encoder, its byte tokenizer (part "glyph")
    processor/                       prompt tokenizer, how references become patches
    scheduler/                       noise schedule
    sampan.json                      geometry, guidance, steps and reading of prompts other than the released ones; what the
                                     model knows; where it comes from

The folder of a finished training stands for the `model/` in it. Loads no framework, except `load_part`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.checkpoint import detect_layout, hub, own_file, weights
from sampan.checkpoint.json_files import read_json, read_text
from sampan.checkpoint.knowledge import ModelKnowledge, read_knowledge
from sampan.checkpoint.own_file import OWN_FILE
from sampan.checkpoint.weights import TensorHeader
from sampan.documents import shown
from sampan.errors import CheckpointError
from sampan.models.build import PARTS, build
from sampan.models.config import (
    ARConfig,
    DiTConfig,
    Geometry,
    GlyphConfig,
    ImageProcessorConfig,
    ModelConfig,
    PaintingConfig,
    PromptConfig,
    SamplingConfig,
    SchedulerConfig,
    VAEConfig,
)
from sampan.models.text import PromptTokenizer

if TYPE_CHECKING:  # reading it would load a framework
    from sampan.checkpoint.lora import LoraAdapter

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
# tensors that are another one under a second name, and so need no reading
TIED = {"glyph": {"encoder.embed_tokens.weight": "shared.weight"}}
# the quantizer picks the nearest code: in bf16 near ties fall to other codes
KEEP_FP32 = {"tokenizer": ("model.vqmodel.",)}
# a folder of at most this many bytes of weights is hashed whole, in about a second; a greater one by headers
HASHED_WHOLE_BYTES = 2**30

_READERS: dict[str, tuple[str, Callable[[dict[str, Any]], Any]]] = {
    "ar": ("vision_language_encoder/config.json", ARConfig.from_json),
    "sampling": ("vision_language_encoder/generation_config.json", SamplingConfig.from_json),
    "dit": ("transformer/config.json", DiTConfig.from_json),
    "vae": ("vae/config.json", VAEConfig.from_json),
    "glyph": ("text_encoder/config.json", GlyphConfig.from_json),
    "scheduler": ("scheduler/scheduler_config.json", SchedulerConfig.from_json),
    "processor": ("processor/preprocessor_config.json", ImageProcessorConfig.from_json),
    "geometry": (OWN_FILE, lambda values: Geometry.from_json(_own(values, "geometry"))),
    "painting": (OWN_FILE, lambda values: PaintingConfig.from_json(_own(values, "painting"))),
    "prompt": (OWN_FILE, lambda values: PromptConfig.from_json(_own(values, "prompt"))),
}
SECTIONS = tuple(_READERS)
# what the released files do not state
_OWN = tuple(section for section, (file, _) in _READERS.items() if file == OWN_FILE)


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose config has been read.

    Args:
        path: The folder in the released layout; of a training, the `model/` in its run folder.
        knows: What it says it knows; changes nothing of what it does.
    """

    path: Path
    config: ModelConfig
    knows: ModelKnowledge = ModelKnowledge()

    @property
    def name(self) -> str:
        """What people call it: of the Hub's cache owner and name, of a training its run, else the folder's name."""
        path = self.path.absolute()
        return hub.name_of(path) or (path.parent.name if path.name == "model" else path.name)

    def stored(self, part: str) -> dict[str, TensorHeader]:
        """Return what the files hold of a part, by tensor name, from their headers.

        A name that belongs to no part of the subfolder counts to each of them, so that loading refuses it.

        Raises:
            CheckpointError: Weight files are missing, contradict each other or cannot be read.
        """
        return stored_tensors(self.path, part)

    def files(self, part: str) -> dict[str, Path]:
        """Return the file of each tensor of a part; errors as `stored`."""
        return {name: stored.file for name, stored in self.stored(part).items()}

    def tensors(self, part: str, device: str = "cpu") -> dict[str, Any]:
        """Return the tensors of a part, as stored, on a device; errors as `stored`."""
        from sampan.frameworks import io

        found: dict[str, Any] = {}
        files = self.files(part)
        for file in dict.fromkeys(files.values()):
            found |= io.read_tensors(file, device, [name for name in files if files[name] == file])
        return found

    def unread(self, part: str) -> dict[str, Any]:
        """Return the tensors of a part without reading them (`io.LazyTensor`), as `write_folder` takes them.

        Raises:
            CheckpointError: As `stored`, or a tensor is quantized.
        """
        from sampan.frameworks import io

        return {name: io.LazyTensor(s.file, name, s.shape, s.dtype) for name, s in self.stored(part).items()}

    def check(self, parts: Iterable[str] = tuple(PARTS)) -> None:
        """Read every header and the prompt tokenizer, so that what is missing or broken is said before work begins.

        Raises:
            CheckpointError: The first thing that is wrong.
        """
        for part in parts:
            self.stored(part)
        self.prompt_tokenizer()

    def check_written(self, progress: own_file.Progress | None = None) -> None:
        """Hold the files against the hashes that sampan.json records, where it does; each is hashed once while it stays.

        Args:
            progress: Called with what is done, how many files are done and their number.

        Raises:
            CheckpointError: Files are not those that were written; they are named.
        """
        # looked for only where sampan wrote all of them: other folders may lack what is not asked of them
        needed = (path for paths in (self._documents, self._weight_paths) for path in paths())
        own_file.check(self.path, needed, progress)

    def prompt_tokenizer(self) -> PromptTokenizer:
        """Return the prompt tokenizer, held against the config.

        Raises:
            CheckpointError: A file is missing or unreadable, or its ids are not those of the config.
        """
        folder = self.path / "processor"
        tokenizer = PromptTokenizer(read_text(folder / "tokenizer.json"), read_json(folder / "tokenizer_config.json"))
        ar = self.config.ar
        wanted = {
            "bos_token": ("image_start_token_id", ar.image_start_token_id),
            "eos_token": ("image_end_token_id", ar.image_end_token_id),
            "image_token": ("image_token_id", ar.image_token_id),
        }
        differences = [
            f"its `{name}` is {tokenizer.id_of(name)}, the config's {key} is {value}"
            for name, (key, value) in wanted.items()
            if tokenizer.id_of(name) != value
        ]
        if tokenizer.vocab_size > ar.text.vocab_size:
            differences.append(f"it has {tokenizer.vocab_size} ids, the model's vocabulary {ar.text.vocab_size}")
        if differences:
            raise CheckpointError(
                f"the prompt tokenizer in `{folder}` is not this model's",
                differences,
                "take processor/ and vision_language_encoder/ from one checkpoint",
            )
        return tokenizer

    @cached_property
    def hash(self) -> str:
        """16 hex digits that name this model: equal folders have equal hashes. See `hash_covers`.

        Over the config files, the prompt tokenizer, and either the whole weight files (up to 1 GiB in all) or their
        headers and sizes. A greater folder that sampan wrote has its files' own hashes in sampan.json, which counts
        too; for one that another tool wrote, two trainings of the same sizes have the same hash.
        """
        digest = hashlib.sha256()
        for name, value in self._hashed():
            digest.update(f"{name} {value}\n".encode())
        return digest.hexdigest()[:16]

    @property
    def hash_covers(self) -> str:
        """What of the weights `hash` covers: "contents", or "headers and sizes"."""
        total_bytes = sum(path.stat().st_size for path in self._weight_paths())
        return "contents" if total_bytes <= HASHED_WHOLE_BYTES else "headers and sizes"

    def _hashed(self) -> Iterable[tuple[str, str]]:
        own = own_file.read(self.path)
        counted = {key: own.get(key) for key in ("geometry", "sha256")}  # not the words about where it comes from
        # steps and a revised prompt are in a picture's facts: a folder that comes to state them keeps its hash
        if painting := {k: v for k, v in own.get("painting", {}).items() if k != "num_inference_steps"}:
            counted["painting"] = painting
        yield OWN_FILE, json.dumps(counted, sort_keys=True)
        for path in self._documents():
            yield path.relative_to(self.path).as_posix(), weights.file_digest(path)
        digest = weights.file_digest if self.hash_covers == "contents" else weights.header_digest
        for path in self._weight_paths():
            yield path.relative_to(self.path).as_posix(), digest(path)

    def _documents(self) -> list[Path]:
        documents = {config_file(self.path, section) for section in SECTIONS if section not in _OWN}
        return sorted(documents | {self.path / "processor" / name for name in TOKENIZER_FILES[:2]})

    def _weight_paths(self) -> list[Path]:
        stems = sorted({(part.folder, part.weights) for part in PARTS.values()})
        return [path for folder, stem in stems for path in weights.weight_files(self.path / folder, stem)]


def open_folder(path: Path) -> ModelFolder:
    """Open a model folder, or the folder of a finished training. Reads the configs; weights are looked for later.

    Raises:
        CheckpointError: It is no such folder (saying what it is instead), a training is not finished, or a config is
            missing, unreadable or not implemented.
    """
    try:
        path = detect_layout.resolve(path)
        detect_layout.check_class(path)
        if missing := missing_configs(path):
            raise detect_layout.explain(path, missing)
    except OSError as error:
        raise CheckpointError(f"`{path}` cannot be read", str(error)) from error
    sections, knows = {section: read_section(path, section) for section in SECTIONS}, read_knowledge(path)
    try:
        return ModelFolder(path, ModelConfig(**sections), knows)
    except CheckpointError as error:
        raise CheckpointError(error.what, (*error.because, f"the folder is `{path}`"), error.hint) from error


def open_with_lora(path: Path) -> tuple[ModelFolder, Path | None]:
    """Open a model folder as `open_folder` does; of a run that trained a LoRA adapter, the folder it started from.

    Returns:
        The folder, and the `lora` folder of the training where it is one.

    Raises:
        CheckpointError: As `open_folder`, or the folder that the training started from is not there.
    """
    lora_run = detect_layout.find_lora_run(path)
    if lora_run is None:
        return open_folder(path), None
    start, adapter = lora_run
    if not detect_layout.locate(start).exists():
        if (name := hub.parse(start)) is not None:
            raise hub.not_here(name, f"it is what `{path}` adds to")
        raise CheckpointError(
            f"the model that `{path}` adds to is not there",
            f"its run.json says that it started from `{start}`",
            f"call from the directory it was trained in, or pass --model FOLDER --lora {adapter}",
        )
    return open_folder(start), adapter


def load_part(folder: ModelFolder, part: str, *, device: str, dtype: str, loras: Sequence[LoraAdapter] = ()) -> Any:
    """Return the module of a part with its weights on a device.

    Args:
        dtype: "fp32", "bf16", or "stored" for that of the files.
        loras: LoRA adapters, of which those for this part are put beside its layers.

    Raises:
        CheckpointError: Files are missing or broken, or hold other tensors than the config asks for.
        DeviceError: The part does not fit on the device.
    """
    from sampan.checkpoint import lora
    from sampan.frameworks import device as dev
    from sampan.frameworks import io

    files = folder.files(part)
    with dev.on_meta():
        module = build(part, folder.config)
    io.load_weights(
        module,
        files,
        device=device,
        dtype=dtype,
        keep_fp32=KEEP_FP32.get(part, ()),
        name=f"`{part}` in `{folder.path / PARTS[part].folder}`",
    )
    if loras:
        lora.add(module, part, loras, "bf16" if dtype == "bf16" else "fp32")
    return module


def stored_tensors(path: Path, part: str) -> dict[str, TensorHeader]:
    """Return what a folder's files hold of a part, as `ModelFolder.stored`."""
    place = PARTS[part]
    others = tuple(
        prefix for name, p in PARTS.items() if name != part and p.folder == place.folder for prefix in p.prefixes
    )
    found = weights.read_weights(path / place.folder, place.weights)
    tied = {second for second, first in TIED.get(part, {}).items() if first in found}
    return {name: stored for name, stored in found.items() if name not in tied and not name.startswith(others)}


def config_file(path: Path, section: str) -> Path:
    """Return the file that a section of the config is read from; it need not be there."""
    if section == "processor":
        # newer libraries nest it in processor_config.json, and what is nested counts first, as it does there
        newer = path / "processor" / "processor_config.json"
        if newer.is_file() and "image_processor" in read_json(newer):
            return newer
    return path / _READERS[section][0]


def read_section(path: Path, section: str) -> Any:
    """Return one section of the config of a folder. Without a sampan.json what it states is as released.

    Raises:
        CheckpointError: The file is missing, unreadable, or says what is not implemented; it is named.
    """
    file = config_file(path, section)
    if section in _OWN and not file.is_file():
        return _READERS[section][1]({})
    values = read_json(file)
    try:
        return _READERS[section][1](values)
    except CheckpointError as error:
        raise CheckpointError(error.what, (*error.because, f"the file is `{file}`"), error.hint) from error


def _own(values: dict[str, Any], section: str) -> dict[str, Any]:
    stated = values.get(section, {})
    if not isinstance(stated, dict):
        raise CheckpointError(f"the {section} of this checkpoint cannot be read", f"it is {shown(stated)}, not a table")
    return stated


def missing_configs(path: Path) -> list[str]:
    """Return the config files of the layout that a folder lacks, by name inside it."""
    files = [config_file(path, section) for section in SECTIONS if section not in _OWN]
    return [file.relative_to(path).as_posix() for file in files if not file.is_file()]
