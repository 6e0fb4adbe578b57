"""The sections of a job: one frozen dataclass each, with the help text and the range of every setting.

The reference in docs/, `sampan init` and the checks on reading all come from here. Names that belong to another room
(presets, parts of a model, readers, frameworks) are checked there.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, field
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from sampan.job import toml

STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder")
DEVICES = ("auto", "cpu", "cuda", "mps", "npu")
NUMBERED_DEVICE = r"(cuda|npu):\d+"
DTYPES = ("auto", "fp32", "bf16")
MAX_SEED = 2**32 - 1


def _say(meaning: str, default: Any = MISSING, **limits: Any) -> Any:
    """Return a dataclass field with its help text; for `limits` see `Setting`."""
    metadata = {"help": meaning, **limits}
    return field(metadata=metadata) if default is MISSING else field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which model is trained, and from what it starts."""

    preset: str = _say("Named model size: `nano` or `glm-image`.", "nano")
    start: Path | None = _say(
        "Folder of a model in the released layout, or of a run, whose parts the training starts from; without it the "
        "weights start at random. Relative to the current directory.",
        None,
        example="runs/earlier",
    )
    override: Mapping[str, Any] = field(
        default_factory=dict,
        metadata={
            "help": "Single sizes of the preset, replaced: a table for each part of the model.",
            "example": {"dit": {"num_layers": 4}},
        },
    )


@dataclass(frozen=True, kw_only=True)
class Data:
    """The pictures and their captions."""

    path: Path = _say("Where the pictures are. Relative to the current directory.", example="pictures")
    reader: str = _say("How they lie there: `image_folder` is a folder with a metadata.jsonl.", "image_folder")
    max_bad_share: float = _say(
        "Share of the rows that may be unreadable and are left out; with more the training does not start.",
        0.05,
        at_least=0,
        at_most=1,
    )
    limit: int | None = _say("Read only this many rows; without it, all.", None, example=1000, at_least=1)


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where the training runs."""

    framework: str = _say("What does the arithmetic.", "torch")
    device: str = _say(
        "`auto` takes the best device that is there; `cuda:1` is the second one.",
        "auto",
        choices=DEVICES,
        pattern=NUMBERED_DEVICE,
    )
    dtype: str = _say(
        "`bf16` runs matrix products in bf16 over fp32 weights; `auto` does so where the device is fast at it.",
        "auto",
        choices=DTYPES,
    )
    threads: int | None = _say("CPU threads; without it, what the framework chooses.", None, example=4, at_least=1)


@dataclass(frozen=True, kw_only=True)
class Train:
    """Which stages run, and how often the run is saved."""

    stages: tuple[str, ...] = _say("Stages to run; always in this order.", STAGES, choices=STAGES)
    save_every: int = _say("Steps between two saves of a stage; its end is always saved.", 200, at_least=1)
    keep_last: int = _say("Saves of a stage that are kept; older ones are deleted.", 2, at_least=1)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """What every stage has. One update sees micro_batch_size times grad_accum_steps pictures."""

    num_steps: int = _say("Updates of the weights.", at_least=1)
    micro_batch_size: int = _say("Pictures in one pass through the model.", at_least=1)
    grad_accum_steps: int = _say("Passes whose gradients are averaged before an update.", 1, at_least=1)
    lr: float = _say("Highest learning rate: reached after the warm-up, then lowered along a half cosine.", above=0)
    min_lr_ratio: float = _say("Learning rate at the end, as a share of `lr`.", 0.1, at_least=0, at_most=1)
    warmup_steps: int = _say(
        "Updates over which the learning rate rises to `lr`; a stage of fewer updates rises to its end.", 20, at_least=0
    )
    weight_decay: float = _say("AdamW's decay of matrices.", 0.01, at_least=0)
    beta1: float = _say("AdamW's memory of the gradient.", 0.9, at_least=0, below=1)
    beta2: float = _say("AdamW's memory of the squared gradient.", 0.99, at_least=0, below=1)
    clip_norm: float = _say("A longer gradient is shortened to this length.", 1.0, above=0)
    ema_decay: float = _say(
        "Memory of the weights' moving average, which the finished model has.", 0.999, at_least=0, below=1
    )


@dataclass(frozen=True, kw_only=True)
class VAEStage(Stage):
    """The autoencoder between pixels and latents."""

    num_steps: int = 1000
    micro_batch_size: int = 8
    lr: float = 1e-3
    weight_decay: float = 0.0
    crop_px: int | None = _say(
        "Train on square crops of this side; without it, on whole pictures.", None, example=64, at_least=8
    )
    kl_weight: float = _say("Weight of the pull of latents towards a unit Gaussian.", 1e-6, at_least=0)
    perceptual_weight: float = _say("Weight of the error of edges, beside that of pixels.", 0.5, at_least=0)


@dataclass(frozen=True, kw_only=True)
class TokenizerStage(Stage):
    """The vision encoder and its codebook, which turn a picture into prior tokens."""

    num_steps: int = 1000
    micro_batch_size: int = 16
    lr: float = 1e-3
    commitment_weight: float = _say("Weight of the pull of features towards their code.", 1.0, at_least=0)
    codebook_weight: float = _say("Weight of the pull of codes towards the features that chose them.", 0.25, at_least=0)
    contrast_weight: float = _say("Weight of telling pictures apart by their captions.", 0.1, at_least=0)


@dataclass(frozen=True, kw_only=True)
class GlyphStage(Stage):
    """The encoder of text that is to be drawn."""

    num_steps: int = 300
    micro_batch_size: int = 32
    lr: float = 1e-3
    temperature: float = _say("Sharpness of the contrast between words; smaller is sharper.", 0.07, above=0)


@dataclass(frozen=True, kw_only=True)
class ARStage(Stage):
    """The autoregressive generator, which writes prior tokens."""

    num_steps: int = 2000
    micro_batch_size: int = 16
    lr: float = 1e-3
    weight_decay: float = 0.1
    beta2: float = 0.95
    preview_weight: float | Literal["auto"] = _say(
        "Weight of a preview token beside a target token; `auto` is target tokens over preview tokens, within 1 and 4.",
        "auto",
        at_least=0,
    )
    drop_prompt: float = _say("Share of the rows that are trained without their prompt.", 0.0, at_least=0, at_most=1)


@dataclass(frozen=True, kw_only=True)
class DecoderStage(Stage):
    """The diffusion decoder, which turns prior tokens into latents. Flow times are logit-normal."""

    num_steps: int = 2000
    micro_batch_size: int = 16
    lr: float = 1e-3
    drop_condition: float = _say("Share of the rows without any conditioning.", 0.1, at_least=0, at_most=1)
    drop_glyph: float = _say("Share of the rows without text to be drawn.", 0.05, at_least=0, at_most=1)
    drop_references: float = _say("Share of the rows without their references.", 0.05, at_least=0, at_most=1)
    prior_noise: float = _say(
        "Share of the prior tokens that are replaced at random, so that the decoder forgives the generator's errors.",
        0.05,
        at_least=0,
        at_most=1,
    )
    time_mean: float = _say("Mean of the logit of the flow time; greater is noisier.", 0.0)
    time_std: float = _say("Standard deviation of the logit of the flow time.", 1.0, above=0)


@dataclass(frozen=True, kw_only=True)
class Stages:
    """How each stage trains; the field names are the names of the stages."""

    vae: VAEStage = field(default_factory=VAEStage)
    tokenizer: TokenizerStage = field(default_factory=TokenizerStage)
    glyph: GlyphStage = field(default_factory=GlyphStage)
    ar: ARStage = field(default_factory=ARStage)
    decoder: DecoderStage = field(default_factory=DecoderStage)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A whole job. `text` is the file as it was read and `overrides` what `--set` put over it, both for the record."""

    out: Path = _say("Folder of the run. Relative to the current directory.", example="runs/job")
    seed: int = _say("Where every random draw of the run starts.", 0, at_least=0, at_most=MAX_SEED)
    model: Model = field(default_factory=Model)
    data: Data
    place: Place = field(default_factory=Place)
    train: Train = field(default_factory=Train)
    stage: Stages = field(default_factory=Stages)
    text: str = field(default="", compare=False, repr=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them: paths as text, unset ones as None."""
        return _plain(self)

    def to_toml(self) -> str:
        """Return a job file with every setting written out; `read` makes an equal job of it."""
        return "\n".join(toml.lines(self.as_dict())) + "\n"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One setting as the checks and the documents see it. Limits that are None do not bind."""

    name: str
    help: str
    kind: Any
    default: Any
    example: Any = None
    choices: tuple[str, ...] = ()
    pattern: str | None = None
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    @property
    def required(self) -> bool:
        """Whether a job without it is refused."""
        return self.default is MISSING

    def kinds(self) -> str:
        """Return what kind of value it takes, in words."""
        return " or ".join(_KINDS.get(kind, f'"{kind}"') for kind in kinds_in(self.kind))

    def limits(self) -> str:
        """Return the range or the choices, in words; "" where anything of its kind goes."""
        limits = (
            ("at least", self.at_least),
            ("more than", self.above),
            ("at most", self.at_most),
            ("below", self.below),
        )
        if self.at_least is not None and self.at_most is not None:
            return f"{self.at_least} to {self.at_most}"
        words = [f"{word} {limit}" for word, limit in limits if limit is not None]
        return ", ".join(words or self.choices)

    def problem(self, value: Any) -> str | None:
        """Return why a value of the right kind is out of range, in words, or None."""
        if isinstance(value, int | float):
            bounds = (
                (self.at_least is None or value >= self.at_least, f"at least {self.at_least}"),
                (self.above is None or value > self.above, f"more than {self.above}"),
                (self.at_most is None or value <= self.at_most, f"at most {self.at_most}"),
                (self.below is None or value < self.below, f"below {self.below}"),
            )
            return next((f"must be {limit}, got {toml.value(value)}" for holds, limit in bounds if not holds), None)
        if self.choices:
            for word in [value] if isinstance(value, str) else value:
                if word not in self.choices and not (self.pattern and re.fullmatch(self.pattern, word)):
                    return f"{toml.value(word)} is not one of {', '.join(self.choices)}"
        return None


_KINDS = {
    int: "a whole number",
    float: "a number",
    str: "text in quotes",
    Path: "a path in quotes",
    tuple: "a list of texts in quotes",
    Mapping: "a table",
}
_STAGE = {f.name: f.metadata for f in dataclasses.fields(Stage)}


def settings(section: type) -> dict[str, Setting]:
    """Return the settings of one section by name; sub-sections are no settings."""
    kinds, found = get_type_hints(section), {}
    for f in dataclasses.fields(section):
        # a stage that only has another default takes words and limits from what every stage has
        if metadata := f.metadata or _STAGE.get(f.name):
            default = f.default if f.default_factory is MISSING else f.default_factory()
            found[f.name] = Setting(name=f.name, kind=kinds[f.name], default=default, **metadata)
    return found


def sections(section: type = Job, name: str = "") -> Iterator[tuple[str, type]]:
    """Give the name and the class of every section that has settings: "" for the top, then "model", … "stage.vae", …"""
    if settings(section):
        yield name, section
    for key, inner in subsections(section).items():
        yield from sections(inner, f"{name}.{key}" if name else key)


def subsections(section: type) -> dict[str, Any]:
    """Return the classes of the sections directly below one, by name."""
    return {key: kind for key, kind in get_type_hints(section).items() if dataclasses.is_dataclass(kind)}


def kinds_in(annotation: Any) -> list[Any]:
    """Return the kinds in an annotation: `float | Literal["auto"] | None` has float and "auto"."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return [kind for part in get_args(annotation) if part is not type(None) for kind in kinds_in(part)]
    return list(get_args(annotation)) if origin is Literal else [origin or annotation]


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        names = (*settings(type(value)), *subsections(type(value)))
        return {name: _plain(getattr(value, name)) for name in names}
    return value.as_posix() if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
