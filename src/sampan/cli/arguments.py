"""The options of verbs whose rooms are given plain values; bench, eval, plan, screen and serve have theirs in their rooms."""

from __future__ import annotations

from argparse import ArgumentTypeError
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import ClassVar

from sampan.checkpoint.tolerance import TOLERANCES
from sampan.job import STAGES, STORED_DTYPES
from sampan.models.presets import PRESETS
from sampan.options import (
    VerbArguments,
    argument,
    device_option,
    download,
    dtype_option,
    flag,
    loras,
    model_path,
    no_verify,
    number,
    option,
    overrides,
    repeated,
    seed,
    share,
    size,
    span,
    threads_option,
    whole,
    words,
)

_JOB = "job file; `sampan init` writes one"
_PICTURES = "folder to write; its captions lie in metadata.jsonl"
_JSON = "print JSON"


def tolerance(word: str) -> tuple[str, float]:
    """Read WHAT=NUMBER."""
    name, equals, most = word.partition("=")
    if not equals or name not in TOLERANCES:
        raise ArgumentTypeError(f"`{word}` is not WHAT=X with one of {', '.join(TOLERANCES)}, as in loss=0.001")
    return name, number(0)(most)


def stage_step(word: str) -> tuple[str, int]:
    """Read STAGE=N."""
    name, equals, step = word.partition("=")
    if not equals or name not in STAGES:
        raise ArgumentTypeError(f"`{word}` is not STAGE=N with one of {', '.join(STAGES)}, as in decoder=2000")
    return name, whole(0)(step)


@dataclass(frozen=True, kw_only=True)
class InitArguments(VerbArguments):
    """The options of `sampan init`."""

    examples: ClassVar = ("sampan init jobs/birds.toml",)
    path: Path = argument("", "PATH", default=Path("job.toml"))
    preset: str = option("%(choices)s", "NAME", default="nano", choices=tuple(PRESETS))
    force: bool = flag("replace a file that is there")


@dataclass(frozen=True, kw_only=True)
class DoctorArguments(VerbArguments):
    """The options of `sampan doctor`."""

    examples: ClassVar = ("sampan doctor", "sampan doctor --model runs/job --json")
    model: Path | None = option("also say whether this model folder loads and fits", "DIR", Path)
    download: bool = download()
    json: bool = flag(_JSON)


@dataclass(frozen=True, kw_only=True)
class PrepareArguments(VerbArguments):
    """The options of `sampan data prepare`."""

    examples: ClassVar = ("sampan data prepare job.toml", "sampan data prepare job.toml --set data.workers=8")
    job: Path = argument(_JOB, "JOB")
    overrides: tuple[str, ...] = overrides()


@dataclass(frozen=True, kw_only=True)
class EmojiArguments(VerbArguments):
    """The options of `sampan data emoji`."""

    examples: ClassVar = (
        "sampan data emoji pictures",
        "sampan data emoji pictures --count 96 --languages en,pt --edits 2",
    )
    directory: Path = argument(_PICTURES, "DIR")
    count: int | None = option("number of emoji; default: all that the font has", "N", whole(1))
    size: int = option("side of a picture", "PX", whole(1), 128)
    languages: tuple[str, ...] = option(
        "languages of the captions, separated by commas", "LIST", words, ("en", "pt", "zh")
    )
    edits: int = option("also write each emoji on N coloured backgrounds, as edits of the first", "N", whole(0), 0)
    font: Path | None = option("colour font; default: the one that comes with sampan", "FILE", Path)
    seed: int = seed("chooses the colours of the edits")


@dataclass(frozen=True, kw_only=True)
class SignsArguments(VerbArguments):
    """The options of `sampan data signs`."""

    examples: ClassVar = (
        "sampan data signs signs --count 1000",
        "sampan data signs unseen --count 200 --split test --seed 1",
        "sampan data signs plain --count 500 --layouts placard --letters 3..8 --lines 1",
    )
    directory: Path = argument(_PICTURES, "DIR")
    count: int = option("number of signs", "N", whole(1), MISSING)
    edits: bool = flag("also write each sign changed in one thing, as an edit of it")
    size: int = option("side of a picture", "PX", whole(1), 128)
    split: str = option(
        "train: no word, font of a word or composition of the test; test: only such; all: any",
        default="train",
        choices=("train", "test", "all"),
    )
    layouts: tuple[str, ...] | None = option("kinds of signs, separated by commas; default: all", "LIST", words)
    fonts: tuple[str, ...] | None = option("fonts, separated by commas; default: all of the split", "LIST", words)
    plates: tuple[str, ...] | None = option("colours of what is written on; default: all of a layout", "LIST", words)
    inks: tuple[str, ...] | None = option("colours of the letters; default: all that can be read", "LIST", words)
    letters: tuple[int, int] | None = option("letters of a line; default: as a layout has room", "MIN..MAX", span)
    lines: int | None = option("lines, as far as a layout has room; default: mixed", "N", whole(1, 3))
    seed: int = seed("chooses the signs")


@dataclass(frozen=True, kw_only=True)
class PairsArguments(VerbArguments):
    """The options of `sampan data pairs`."""

    examples: ClassVar = ("sampan data pairs pairs --count 500",)
    directory: Path = argument(_PICTURES, "DIR")
    count: int = option("number of pictures", "N", whole(1), MISSING)
    emoji: int = option("how many, the most ordinary first", "N", whole(1), 256)
    size: int = option("side of a picture", "PX", whole(64, 2048), 128)
    split: str = option(
        "train: no word and no emoji on a colour of the test; test: only such",
        default="train",
        choices=("train", "test"),
    )
    seed: int = seed("chooses the pairs")


@dataclass(frozen=True, kw_only=True)
class TrainArguments(VerbArguments):
    """The options of `sampan train`."""

    examples: ClassVar = (
        "sampan train job.toml",
        "sampan train job.toml --set seed=1 --set stage.ar.lr=1e-4",
        "sampan train job.toml --resume",
        "sampan train job.toml --resume runs/job --framework mindspore",
        "sampan train job.toml --dry-run --ranks 32 --nodes 4 --chip h200",
    )
    # not required by argparse, which gives a word behind --resume to that; the verb asks for it
    job: Path | None = argument(_JOB, "JOB", default=None)
    overrides: tuple[str, ...] = overrides()
    resume: Path | bool = option(
        "go on from the last save of the job's run folder, or of the run in RUN, on whatever framework",
        "RUN",
        Path,
        False,
        const=True,
    )
    framework: str | None = option("the same as --set place.framework=F", "F")
    dry_run: bool = flag(
        "say what each rank would hold and send, refuse what training would refuse, and end",
        group="before a run on many ranks",
    )
    ranks: int | None = option("of --dry-run, how many there would be; default: 1", "N", whole(1))
    nodes: int | None = option("of --dry-run, on how many machines; default: 1", "N", whole(1))
    chip: str | None = option(
        "of --dry-run, what a rank would run on, by its name in the catalogue; default: what is here, or place.device",
        "C",
    )
    json: bool = flag("of --dry-run, print JSON")


@dataclass(frozen=True, kw_only=True)
class GenerateArguments(VerbArguments):
    """The options of `sampan generate`."""

    examples: ClassVar = (
        """sampan generate 'a red sign that says "AHOY"' --out ahoy.png""",
        "sampan generate --examples",
        'sampan generate "a red apple" --model runs/job --seed 1',
        'sampan generate "make it blue" --reference apple.png --model FOLDER --size 1024x768 -n 2',
        'sampan generate "a red apple" --model FOLDER --lora emoji.safetensors:0.8',
        "sampan generate --prompts prompts.txt --out pictures/apple.png --model zai-org/GLM-Image --download",
    )
    # not required by argparse, as --prompts and --examples do without; the verb asks for it
    prompt: str | None = argument("what to paint; words in quotes are drawn", "PROMPT", str, None)
    prompts: Path | None = option("paint every line of a text file; -: of stdin", "FILE", Path)
    stop_on_error: bool = flag("of --prompts, paint no more lines after one that cannot be painted")
    list_examples: bool = flag("print prompts that the model says work, and end", name="--examples")
    references: tuple[Path, ...] = repeated(
        "picture to edit or to take from", "IMG", Path, name="--reference", group="what is painted"
    )
    size: tuple[int, int] | None = option(
        "in pixels; default: the model's own, shaped as the first reference", "WxH", size
    )
    count: int = option("number of pictures", "N", whole(1), 1, name="-n")
    seed: int | None = seed("same seed, same picture; default: a new one", None)
    steps: int | None = option(
        "steps of the diffusion decoder; default: what the model states, else 50",
        "N",
        whole(1),
        group="how it is painted",
    )
    guidance: float | None = option(
        "weight of the conditioning; 1 or less: none; default: what the model states, else 1.5", "G", number(0)
    )
    temperature: float | None = option("of prior tokens; 0: the likeliest; default: the model's own", "T", number(0))
    top_p: float | None = option("draw from the likeliest tokens of this mass; default: the model's own", "P", share)
    top_k: int | None = option("draw from the K likeliest; 0: from all; default: the model's own", "K", whole(0))
    inject: Path | None = option("safetensors file with prior tokens, noise, glyph embeddings", "FILE", Path)
    model: str = option(
        "folder in the released layout, a run, a name on the Hub, or nano",
        "FOLDER",
        model_path,
        "nano",
        group="with what, and where",
    )
    download: bool = download()
    loras: tuple[tuple[Path, float], ...] = loras()
    device: str = device_option()
    dtype: str = dtype_option()
    framework: str | None = option("torch or mindspore; default: the one that is installed", "F")
    threads: int | None = threads_option()
    compile: bool = flag("compile the step that writes a token")
    offload: bool = flag("hold one part of the model on the device at a time")
    no_verify: bool = no_verify()
    out: Path | None = option("PNG file; default: sampan-SEED.png", "FILE", Path, group="what is written")
    no_prompt_metadata: bool = flag("keep the prompt out of the file")
    json: bool = flag(_JSON)


@dataclass(frozen=True, kw_only=True)
class ExportArguments(VerbArguments):
    """The options of `sampan checkpoint export`."""

    examples: ClassVar = (
        "sampan checkpoint export runs/job models/mine --dtype bf16",
        "sampan checkpoint export runs/job models/earlier --step decoder=2000",
    )
    run_folder: Path = argument("run folder of a training", "RUN")
    directory: Path = argument("folder to write", "DIR")
    steps: tuple[tuple[str, int], ...] = repeated(
        "take the checkpoint after step N of a stage, finished or not; default: its end",
        "STAGE=N",
        stage_step,
        name="--step",
    )
    dtype: str | None = dtype_option(None, otherwise="as trained", choices=STORED_DTYPES)


@dataclass(frozen=True, kw_only=True)
class InspectArguments(VerbArguments):
    """The options of `sampan checkpoint inspect`."""

    examples: ClassVar = ("sampan checkpoint inspect models/mine",)
    directory: Path = argument("model folder, name on the Hub, or the run folder of a training", "DIR")
    download: bool = download()
    json: bool = flag(_JSON)


@dataclass(frozen=True, kw_only=True)
class MergeArguments(VerbArguments):
    """The options of `sampan checkpoint merge`."""

    examples: ClassVar = (
        "sampan checkpoint merge models/mine models/emoji --lora emoji.safetensors:0.8",
        "sampan checkpoint merge runs/lora models/adapted",
        "sampan checkpoint merge models/emoji models/back --lora emoji.safetensors:0.8 --subtract",
    )
    model: Path = argument(
        "model folder, name on the Hub, or a run; of one that trained a LoRA, that LoRA too", "MODEL"
    )
    download: bool = download()
    directory: Path = argument("folder to write", "DIR")
    loras: tuple[tuple[Path, float], ...] = loras("merge this LoRA, its scale multiplied by SCALE")
    subtract: bool = flag("take the LoRAs out of the weights again")
    no_verify: bool = no_verify()
    dtype: str | None = dtype_option(None, otherwise="as stored", choices=STORED_DTYPES)


@dataclass(frozen=True, kw_only=True)
class CompletionArguments(VerbArguments):
    """The options of `sampan completion`."""

    examples: ClassVar = (
        "sampan completion bash > ~/.local/share/bash-completion/completions/sampan",
        'sampan completion zsh > "${fpath[1]}/_sampan"',
        "sampan completion fish > ~/.config/fish/completions/sampan.fish",
    )
    shell: str = argument("%(choices)s", "SHELL", str, choices=("bash", "zsh", "fish"))


@dataclass(frozen=True, kw_only=True)
class VerifyArguments(VerbArguments):
    """The options of `sampan checkpoint verify`."""

    examples: ClassVar = (
        "sampan checkpoint verify runs/job",
        "sampan checkpoint verify runs/job --replay 3",
        "sampan checkpoint verify runs/job --replay 3 --seed 7 --framework mindspore --device cpu",
    )
    run_folder: Path = argument("run folder of a training", "RUN")
    replay: int | None = option(
        "take the steps of K windows between kept checkpoints again, chosen at random; default: none", "K", whole(1)
    )
    seed: int | None = seed("same seed, same windows; default: a new one", None)
    framework: str | None = option("what takes the steps; default: what the run was begun with", "F")
    device: str | None = device_option(None, otherwise="that of the steps")
    dtype: str | None = dtype_option(None, otherwise="that of the steps")
    tolerances: tuple[tuple[str, float], ...] = repeated(
        ", ".join(f"{name} (default: {most:g})" for name, most in TOLERANCES.items()),
        "WHAT=X",
        tolerance,
        name="--tolerance",
    )
    json: bool = flag(_JSON)
