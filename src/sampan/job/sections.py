"""The sections of a job: one frozen dataclass each, with the help text and the range of every setting; stages in stages.py.

The reference in docs/, `sampan init` and the checks on reading all come from here. Names that belong to another room
(presets, parts of a model, readers, frameworks) are checked there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sampan.job import toml
from sampan.job.setting import say, settings, subsections
from sampan.job.stages import StagesSection

STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder")
LORA_STAGES = ("ar", "decoder")
DEVICES = ("auto", "cpu", "cuda", "mps", "npu")
NUMBERED_DEVICE = r"(cuda|npu):\d+"
DTYPES = ("auto", "fp32", "bf16", "fp16")
STORED_DTYPES = ("fp32", "bf16")  # of exported weights
MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class ModelSection:
    """Which model is trained, and from what it starts."""

    preset: str = say("Named model size: `nano` or `glm-image`.", "nano")
    start: Path | None = say(
        "Folder of a model in the released layout, or of a run, or the name of a model that comes with sampan, "
        "whose parts the training starts from; without it the weights start at random. Relative to the current directory.",
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
class DataSection:
    """The pictures and their captions."""

    path: Path = say("Where the pictures are. Relative to the current directory.", example="pictures")
    reader: str = say(
        "How they lie there: `image_folder` (metadata.jsonl, metadata.csv or caption files), `webdataset` (tars), `parquet`, "
        "or `hub` (a folder or a name in the layout of the Hugging Face Hub).",
        "image_folder",
    )
    split: str | None = say("Which split to read, where the format has splits.", None, example="train")
    image_column: str | None = say(
        "Column of the pictures; without it, `file_name` in metadata files and `image` in tables.",
        None,
        example="image",
    )
    caption_columns: tuple[str, ...] = say(
        "Columns of the captions; for `webdataset`, fields of `.json` members and text members. Empty means what the format "
        "calls them itself (`text` …).",
        (),
        example=("text",),
    )
    references_column: str | None = say(
        "Column of the reference pictures of editing samples.", None, example="references"
    )
    caption: str | None = say("Caption of every picture that has none of its own.", None, example="a photo of sks dog")
    trigger: str | None = say(
        "Words put before every caption that does not have them, and in place of `[trigger]`; without `caption`, pictures "
        "that have no caption get them alone.",
        None,
        example="sks dog",
    )
    caption_lines: str = say(
        "What a caption file (`.txt`, `.caption`) holds: `each` line is a caption, or all of them are `one`.",
        "each",
        choices=("each", "one"),
    )
    folder_repeats: bool = say(
        "Count the pictures of a folder such as `10_dog` ten times, as kohya's scripts do, in the stages ar and decoder.",
        False,
    )
    max_bad_share: float = say(
        "Share of the rows that may be unreadable and are left out; with more the training does not start.",
        0.05,
        at_least=0,
        at_most=1,
    )
    max_pixels: int = say("Pictures with more pixels are left out before they are decoded.", 64_000_000, at_least=1)
    limit: int | None = say("Read only this many rows; without it, all.", None, example=1000, at_least=1)
    resolutions_px: tuple[int, ...] = say(
        "Sides of the squares whose areas pictures are brought to; empty means the model's own size.",
        (),
        example=(512, 1024),
        at_least=8,
    )
    max_aspect_ratio: float = say(
        "Longest shape of a picture, long side over short; a longer one is cropped to it. 1 makes everything square.",
        2.0,
        at_least=1,
        at_most=4,
    )
    validation_share: float = say(
        "Share of the samples, chosen by a hash of their pictures, that is never trained on and is measured instead.",
        0.0,
        at_least=0,
        at_most=0.5,
    )
    workers: int | None = say(
        "Processes that open pictures; without it, one for each CPU core but at most 8; 0 opens them in the main process.",
        None,
        example=4,
        at_least=0,
    )
    cache: Path | None = say(
        "Folder of what is known about the pictures and of what the frozen parts made of them; without it, `cache` in the "
        "run's folder. Several runs may share one.",
        None,
        example="caches/birds",
    )


@dataclass(frozen=True, kw_only=True)
class PlaceSection:
    """Where the training runs."""

    framework: str = say("What does the arithmetic.", "torch")
    device: str = say(
        "`auto` takes the best device that is there; `cuda:1` is the second one.",
        "auto",
        choices=DEVICES,
        pattern=NUMBERED_DEVICE,
    )
    dtype: str = say(
        "`bf16` runs matrix products in bf16 over fp32 weights; `auto` does so where the device is fast at it. "
        "`fp16`, with a scaled loss, is MindSpore's alone.",
        "auto",
        choices=DTYPES,
    )
    compile: bool = say(
        "Compile the training step (`torch.compile`, `ms.jit`): a slow first step, quicker ones after it.", False
    )
    threads: int | None = say("CPU threads; without it, what the framework chooses.", None, example=4, at_least=1)
    parallel: str = say(
        "How the ranks of a launcher share weights: `fsdp` in slices, `ddp` whole on each; `auto` in slices inside a node, "
        "the same slices on every node, and whole for a LoRA.",
        "auto",
        choices=("auto", "ddp", "fsdp"),
    )
    dp_replicate: int | None = say(
        "Groups of ranks that each hold all slices; times `dp_shard` it is the number of ranks.",
        None,
        example=2,
        at_least=1,
    )
    dp_shard: int | None = say("Slices that weights are held in.", None, example=8, at_least=1)
    rank_timeout_s: float = say(
        "Seconds after which a rank that shows no sign of life is lost, and the run ends.", 60.0, at_least=2
    )


@dataclass(frozen=True, kw_only=True)
class TrainSection:
    """Which stages run, and how often the run is saved."""

    stages: tuple[str, ...] = say("Stages to run; always in this order.", STAGES, choices=STAGES)
    method: str = say(
        "`full` trains all weights of a stage; `lora` trains low-rank additions to `model.start`, of ar and decoder.",
        "full",
        choices=("full", "lora"),
    )
    weights: str = say(
        "How trained weights are held: `fp32`, or `bf16`, which keeps no fp32 copy and rounds stochastically.",
        "fp32",
        choices=("fp32", "bf16"),
    )
    moments: str = say(
        "How AdamW's two moments are held: `fp32`, or `8bit`, a quarter of the memory.",
        "fp32",
        choices=("fp32", "8bit"),
    )
    save_every: int = say("Steps between two saves of a stage; its end is always saved.", 200, at_least=1)
    keep_last: int = say("Saves of a stage that are kept; older ones are deleted.", 2, at_least=1)
    sample_every: int = say("Steps between two grids of example pictures; 0 makes one at the end.", 0, at_least=0)
    validate_every: int = say("Steps between two measurements on the validation samples.", 100, at_least=1)
    tensorboard: bool = say("Write TensorBoard event files into the run's folder.", False)
    wandb: str | None = say("Send the log to this Weights & Biases project.", None, example="boats")


@dataclass(frozen=True, kw_only=True)
class LoraSection:
    """Low-rank adaptation, for `train.method = "lora"`."""

    rank: int = say("Rank of the additions.", 16, at_least=1)
    alpha: float | None = say(
        "Additions are scaled by alpha / rank; without it, alpha is the rank.", None, example=16, above=0
    )
    targets: tuple[str, ...] = say(
        "Layers that get an addition, by pieces of their names. Each stage takes those that it has; where it has none of "
        "them, and where the list is empty, attention and feed-forward get one.",
        (),
        example=("to_q", "to_v"),
    )


@dataclass(frozen=True, kw_only=True)
class PlanSection:
    """What `sampan plan` compares; `sampan train` does not look at it."""

    num_chips: int | None = say(
        "Number of chips; without it, powers of two up to 64.", None, example=8, at_least=1, at_most=65536
    )
    chips: tuple[str, ...] = say(
        "Chips by name; empty means all of which enough is known.", (), example=("h100_sxm", "ascend_910b2")
    )
    sites: tuple[str, ...] = say("Where they stand.", ("us_va", "cn_inner_mongolia", "my_johor", "sg"))
    frameworks: tuple[str, ...] = say(
        "Software that is compared; empty means `place.framework`.", (), example=("torch", "mindspore")
    )
    prompt_tokens: int = say("Tokens of a prompt, in the mean.", 64, at_least=1)
    references: int = say("Reference pictures of a sample, in the mean, as large as the picture.", 0, at_least=0)
    picture_px: int | None = say(
        "Side of the finished model's pictures, whose making is planned too; without it, the model's default.",
        None,
        example=1024,
        at_least=1,
    )
    num_inference_steps: int = say("Steps of the diffusion decoder for each of them.", 50, at_least=1)


@dataclass(frozen=True, kw_only=True)
class ActorSection:
    """Who trains, when, and how the chips are had: for the rules that `sampan plan` sets beside its rows."""

    hq: str | None = say(
        "Country of the seat, or of the ultimate parent, in two letters; with it every row of a plan is screened.",
        None,
        example="SG",
        pattern=r"[A-Z]{2}",
    )
    id: str | None = say("Name under which rules list the firm, where they do.", None, example="example-labs")
    start: str | None = say(
        "Day on which it would begin; without it, today.", None, example="2026-12-01", pattern=r"\d{4}-\d{2}-\d{2}"
    )
    relation: str = say(
        "How chips are had that are not `--owned`.", "rent", choices=("rent", "buy", "operate", "build")
    )
    entity_listed: bool | None = say("Whether the actor is on the US Entity List.", None, example=False)
    owned_by_listed_pct: float | None = say(
        "Share that listed parties hold.", None, example=0.0, at_least=0, at_most=100
    )
    state_funded: bool | None = say("Whether public money is in it.", None, example=False)
    ships_from: str | None = say("Country that chips come from.", None, example="US", pattern=r"[A-Z]{2}")
    end_use: str | None = say("What is trained for, where it is not usual training.", None, example="training")


@dataclass(frozen=True, kw_only=True)
class Job:
    """A whole job. `text` is the file as it was read and `overrides` what `--set` put over it, both for the record."""

    out: Path = say("Folder of the run. Relative to the current directory.", example="runs/job")
    seed: int = say("Where every random draw of the run starts.", 0, at_least=0, at_most=MAX_SEED)
    model: ModelSection = field(default_factory=ModelSection)
    data: DataSection
    place: PlaceSection = field(default_factory=PlaceSection)
    train: TrainSection = field(default_factory=TrainSection)
    lora: LoraSection = field(default_factory=LoraSection)
    plan: PlanSection = field(default_factory=PlanSection)
    actor: ActorSection = field(default_factory=ActorSection)
    stage: StagesSection = field(default_factory=StagesSection)
    text: str = field(default="", compare=False, repr=False)
    overrides: tuple[str, ...] = field(default=(), compare=False)

    def as_dict(self) -> dict[str, Any]:
        """Return the settings as JSON can hold them: paths as text, unset ones as None."""
        return _plain(self)

    def training_hash(self) -> str:
        """Return the SHA-256 of what is trained and how: of all settings but those of [plan] and [actor] and the folder."""
        trained = {name: value for name, value in self.as_dict().items() if name not in ("plan", "actor", "out")}
        return hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()

    def to_toml(self) -> str:
        """Return a job file with every setting written out; `read` makes an equal job of it."""
        return "\n".join(toml.lines(self.as_dict())) + "\n"


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        names = (*settings(type(value)), *subsections(type(value)))
        return {name: _plain(getattr(value, name)) for name in names}
    return value.as_posix() if isinstance(value, Path) else list(value) if isinstance(value, tuple) else value
