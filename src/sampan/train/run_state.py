"""What the stages of one run share: the run folder, the data, the words, finished parts and what they make of pictures."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from sampan import __version__, files, frameworks
from sampan.checkpoint import builtin, export, hub, run
from sampan.checkpoint.folder import TOKENIZER_FILES, ModelFolder, open_folder
from sampan.checkpoint.json_files import read_json, read_text
from sampan.checkpoint.run_metadata import check_record, read_record, write_record
from sampan.data.encode import EncodedInputs, encode
from sampan.errors import CheckpointError, DataError, JobError
from sampan.frameworks import device as dev
from sampan.frameworks import io, train_step
from sampan.frameworks.weight_files import check_shapes
from sampan.job import STAGES, Job
from sampan.models import lora, presets, text
from sampan.models.build import build
from sampan.models.config import ModelConfig
from sampan.models.heads import TokenizerWithHeads
from sampan.pipeline.denoise import DenoiseInputs, Denoiser, initial_noise
from sampan.progress import bars
from sampan.train import distributed, sample_grid
from sampan.train.dataset import TrainingSet, num_workers, open_dataset
from sampan.train.stages import StageInputs, caption_texts

ENCODERS = ("tokenizer", "vae", "glyph")  # the parts that make what generator and decoder are trained on
_SET_UP = ("job.toml", "config.json", "processor", "cache")  # what a run that was killed before run.json leaves


@dataclass
class RunState:
    """A run folder and everything that is read once for all of its stages."""

    job: Job
    device: str
    dtype: str
    console: Any
    start: ModelFolder | None
    config: ModelConfig
    data: TrainingSet
    layout: tuple[int, int] = (1, 1)  # degrees (dp_replicate, dp_shard)
    _frozen: dict[str, Any] = field(default_factory=dict)
    _encoded: EncodedInputs | None = None

    @property
    def out(self) -> Path:
        """The run folder."""
        return self.job.out

    @property
    def cache(self) -> Path:
        """Where what was found out and encoded is kept."""
        return self.job.data.cache or self.out / "cache"

    @cached_property
    def prompt_tokenizer(self) -> text.PromptTokenizer:
        """The run's own: learned from its captions, or that of the folder it starts from."""
        folder = self.out / "processor"
        return text.PromptTokenizer(read_text(folder / "tokenizer.json"), read_json(folder / "tokenizer_config.json"))

    @property
    def is_lora(self) -> bool:
        """Whether the run trains a LoRA adapter for the folder it starts from."""
        return self.job.train.method == "lora"

    def stage_inputs(self, settings: Any, members: Sequence[int], encoded: Any = None) -> StageInputs:
        """Return what a stage draws on.

        Args:
            encoded: Stands in for what the frozen parts make of the pictures; None for the real thing, made when asked for.
        """
        return StageInputs(
            settings=settings,
            seed=self.job.seed,
            config=self.config,
            samples=self.data.samples,
            image_of=self.data.image_of,
            references_of=self.data.references_of,
            members=members,
            pictures=self.data.pictures,
            prompt_tokenizer=self.prompt_tokenizer,
            device=self.device,
            module_dtype=self.dtype if self.is_lora else self.job.train.weights,
            adapting=self.start is not None,
            frozen=self.frozen,
            encoded=self.encoded if encoded is None else lambda: encoded,
            paint_ids=self.paint_ids,
        )

    def paint_ids(self) -> Callable[[Any], Any]:
        """Return what makes an image of visual ids: the head that trained the tokenizer, or else the finished decoder."""
        folder = run.final(self.out, "tokenizer")
        if folder is not None:
            module = TokenizerWithHeads(self.config, self.config.ar.text.vocab_size)
            self._freeze(module, io.read_tensors(folder / "ema.safetensors", "cpu"))
            return lambda ids: sample_grid.repaint(module, ids, self.config, self.device)
        prior_px, no_words = self.config.geometry.prior_px, self.encoded().glyph(())

        def paint(ids: Any) -> Any:
            size = (ids.shape[0] * prior_px, ids.shape[1] * prior_px)
            noise = initial_noise(self.job.seed, 0, size, self.config, "preview")
            inputs = DenoiseInputs(ids[None], noise[None], no_words[None], size, sample_grid.NUM_STEPS)
            denoiser = Denoiser(self.frozen("decoder"), self.config, self.device, "fp32")
            return sample_grid.denoise_samples(denoiser, lambda: self.frozen("vae"), [inputs])[0]

        return paint

    def part(self, name: str, tensors: dict[str, Any]) -> Any:
        """Return a part with the given weights, on the device, out of training."""
        return self._freeze(build(name, self.config), tensors)

    def _freeze(self, module: Any, tensors: dict[str, Any]) -> Any:
        """Give a module all of its weights and put it on the device, out of training."""
        check_shapes("weights", io.shapes(module), {key: tuple(tensor.shape) for key, tensor in tensors.items()})
        io.put_weights(module, tensors)
        train_step.freeze(module)
        dev.move(module, self.device)
        return module

    def frozen(self, name: str) -> Any:
        """Return a finished part: this run's averaged weights, or those it started from."""
        if name not in self._frozen:
            self._frozen[name] = self.part(name, export.part_tensors(self.out, name, self.start))
        return self._frozen[name]

    def free_frozen(self) -> None:
        """Take finished parts off the device; they come back when asked for."""
        self._frozen.clear()
        dev.release(self.device)

    def is_encoder_ready(self, name: str) -> bool:
        """Say whether a part has its final weights: trained to the end, or taken from a folder and not trained."""
        if run.final(self.out, name) is not None:
            return True
        return self.start is not None and name not in self.job.train.stages

    def encoded(self) -> EncodedInputs:
        """Return the pictures as the finished tokenizer and autoencoder see them, and quoted words as the glyph encoder
        does; made and stored where they are not yet."""
        if self._encoded is None:
            parts = [name for name in ENCODERS if self.is_encoder_ready(name)]
            texts = {tuple(text.glyph_texts(c)) for sample in self.data.samples for c in sample.captions}

            def of(name: str) -> Callable[[], Any] | None:
                return (lambda: self.frozen(name)) if name in parts else None

            with distributed.main_process_first(), bars(self.console) as show:
                self._encoded = encode(
                    self.data.pictures,
                    sorted(texts | {()}),
                    tokenizer=of("tokenizer"),
                    vae=of("vae"),
                    glyph=of("glyph"),
                    keys={name: export.part_hash(self.out, name, self.start) for name in parts},
                    folder=self.cache,
                    config=self.config,
                    device=self.device,
                    dtype="fp32",  # ids and latents that training stands on are computed in full
                    workers=num_workers(self.job.data, len(self.data.pictures)),
                    progress=show,
                )
            self.free_frozen()
            for problem in self._encoded.problems:
                self.console.print(problem, highlight=False)
        return self._encoded


def open_run(job: Job, device: str, dtype: str, *, resume: bool, console: Any, aside: Path | None = None) -> RunState:
    """Open the data and make the run folder, or check that the one that is there belongs to this job.

    Args:
        resume: Go on with a run that is there.
        aside: A folder to make in the place of the run folder, where the run is only looked at; of that nothing is written
            but what was found out about the pictures.

    Raises:
        JobError, DataError, CheckpointError: Before anything is written, where it can be known.
    """
    start = _open_start(job.model.start)
    config = _config(job, start)
    missing = [name for name in STAGES if name not in job.train.stages]
    if not start and missing:
        raise JobError(
            f"the job trains only {', '.join(f'`{s}`' for s in job.train.stages)}",
            f"a model also needs {', '.join(f'`{s}`' for s in missing)}, and there is no `model.start` to take them from",
            "set model.start to a model folder, or train all stages",
        )
    if job.train.method == "lora":
        lora.check_targets(job.train.stages, config, job.lora.targets)
    _check_folder(job, resume)
    data = open_dataset(job.data, config, job.data.cache or job.out / "cache", console, _tokenizer(start))
    if not data.training:
        raise DataError(
            f"there is nothing to train on in `{job.data.path}`",
            f"{len(data.samples)} samples can be used, and {len(data.validation)} of them are held out",
            "lower data.validation_share",
        )
    if aside is not None and not (job.out / "run.json").is_file():
        job = dataclasses.replace(job, out=aside)
    try:
        config = _begin(job, start, config, data, console)
    except OSError as error:
        raise CheckpointError(
            f"the run folder `{job.out}` cannot be written", str(error), "set `out` to another folder, or make room"
        ) from error
    return RunState(job, device, dtype, console, start, config, data)


def reopen_run(job: Job, out: Path, device: str, dtype: str, *, cache: Path, console: Any) -> RunState:
    """Open a run to look at it: nothing is written into its folder.

    Args:
        job: As a checkpoint of the run has it.
        out: The run folder, wherever it lies now.
        cache: Stands in for the run's cache: a folder to write to. What it lacks is made again.

    Raises:
        JobError, DataError, CheckpointError: What the run was begun with is not there any more.
    """
    start = read_record(out)["model"].get("start")  # found from any current directory, unlike the job's
    model = dataclasses.replace(job.model, start=Path(start) if start else None)
    job = dataclasses.replace(job, out=out, model=model, data=dataclasses.replace(job.data, cache=cache))
    check_record(out)
    config, folder = export.read_config(out), _open_start(Path(start) if start else None)
    data = open_dataset(job.data, config, cache, console, _tokenizer(folder))
    _compare(job, _identity(job, data.digest))
    return RunState(job, device, dtype, console, folder, config, data)


def prepare(job: Job, *, console: Any) -> Path:
    """Examine a job's pictures and make what its finished frozen parts make of them; return the cache's folder.

    Parts that the job itself has yet to train make nothing: `train` does the rest when they are there.

    Raises:
        JobError, DataError, CheckpointError, DeviceError: The set cannot be read or encoded.
    """
    frameworks.use(job.place.framework)
    device = dev.resolve(job.place.device)
    dev.set_threads(job.place.threads)
    start = _open_start(job.model.start)
    is_run = (job.out / "run.json").is_file()
    if is_run:
        _compare(job, _identity(job))
        check_record(job.out)
    config = export.read_config(job.out) if is_run else _config(job, start)
    cache = job.data.cache or job.out / "cache"
    data = open_dataset(job.data, config, cache, console, _tokenizer(start))
    work = RunState(job, device, "fp32", console, start, config, data)
    ready = [name for name in ENCODERS if work.is_encoder_ready(name)]
    if ready:
        work.encoded()
        console.print(f"encoded by {', '.join(ready)}", highlight=False)
    waiting = [name for name in ENCODERS if name not in ready]
    if waiting:
        console.print(
            f"{', '.join(waiting)}: encoding waits for the training of {'these parts' if waiting[1:] else 'this part'}",
            highlight=False,
        )
    return cache


def _tokenizer(start: ModelFolder | None) -> text.PromptTokenizer | None:
    """Return the prompt tokenizer of the folder that a run starts from; None where it is learned."""
    return start.prompt_tokenizer() if start else None


def _open_start(path: Path | None) -> ModelFolder | None:
    """Open the folder that a run starts from, its files held against their recorded hashes where it has them."""
    if path is None:
        return None
    folder = open_folder(path)
    folder.check_written()
    return folder


def _config(job: Job, start: ModelFolder | None) -> ModelConfig:
    return start.config if start else presets.get(job.model.preset, job.model.override)


def _check_folder(job: Job, resume: bool) -> None:
    """Refuse a run folder that is another's, before anything is read or written."""
    out = job.out
    record = out / "run.json"
    if record.is_file():
        if not resume:
            raise JobError(
                f"`{out}` already holds a run", (), "pass --resume to go on with it, or set `out` to another folder"
            )
        _compare(job, _identity(job))
        return
    found = [path.name for path in out.iterdir() if not path.name.startswith(".")] if out.exists() else []
    strange = [name for name in found if not (name in _SET_UP and (resume or name == "cache"))]
    if strange:
        raise JobError(
            f"`{out}` is not empty and holds no run", f"it has `{strange[0]}`", "set `out` to another folder"
        )


def _begin(job: Job, start: ModelFolder | None, config: ModelConfig, data: TrainingSet, console: Any) -> ModelConfig:
    """Make the run folder where there is none, and return the run's config."""
    out = job.out
    identity = _identity(job, data.digest)
    if (out / "run.json").is_file():
        _compare(job, identity)
        for note in check_record(out):
            console.print(note, highlight=False)
        return export.read_config(out)
    (out / "processor").mkdir(parents=True, exist_ok=True)
    if start:
        learned = {name: (start.path / "processor" / name).read_bytes() for name in TOKENIZER_FILES}
    else:
        learned = text.train_tokenizer(
            caption_texts(data.samples[i] for i in data.training),
            config.ar.text.vision_vocab_size,
            config.ar.vq.num_embeddings,
            config.ar.text.vocab_size - config.ar.text.vision_vocab_size - text.NUM_SPECIALS,
        )
        config = text.with_token_ids(config, learned)
    for name, content in learned.items():
        files.write_bytes(out / "processor" / name, content)
    files.write_text(out / "job.toml", job.to_toml())
    export.write_config(out, config)
    record = {**identity, "sampan": __version__, "framework": frameworks.chosen()}
    write_record(out, record)  # last: with it the folder is a run
    return config


def _identity(job: Job, digest: str | None = None) -> dict[str, Any]:
    """Return what must stay the same from a run's first step to its last; the data set only where its digest is known."""
    values = job.as_dict()
    start = job.model.start
    if start:
        start = _found_again(start)
    return {
        "seed": job.seed,
        "model": {**values["model"], "start": start and start.as_posix()},
        "method": job.train.method,
        **({"lora": values["lora"]} if job.train.method == "lora" else {}),
        **({} if digest is None else {"data": digest}),
    }


def _found_again(start: Path) -> Path:
    """Return a start by a name that is good from any current directory, and that stays the same model."""
    if commit := hub.pinned(start):
        return Path(commit)
    return start.resolve() if builtin.find(start) == start else start  # a shipped model's name is good as it is


def _compare(job: Job, identity: dict[str, Any]) -> None:
    before = read_record(job.out)
    for key, value in identity.items():
        if before.get(key) != value:
            is_data = key == "data"
            raise JobError(
                f"the run in `{job.out}` was begun with another job",
                "its pictures or captions are not those it was begun with"
                if is_data
                else f"its {key} is {json.dumps(before.get(key))}, the job says {json.dumps(value)}",
                "go on with the job it was begun with, or set `out` to another folder",
            )
