"""The options of `sampan eval`."""

from __future__ import annotations

from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import ClassVar

from sampan.options import (
    VerbArguments,
    device_option,
    download,
    dtype_option,
    flag,
    loras,
    model_path,
    no_verify,
    number,
    option,
    seed,
    span,
    threads_option,
    whole,
    words,
)

SUITES = ("signs", "emoji", "edit", "cvtg")
ABLATIONS = ("prior", "glyph", "preview", "decoder")  # sampan.evaluate.generators.ABLATIONS says what each is


@dataclass(frozen=True, kw_only=True)
class EvalArguments(VerbArguments):
    """The options of `sampan eval`."""

    examples: ClassVar = (
        "sampan eval --suite signs --count 500 --json signs.json --html signs.html",
        "sampan eval --suite edit --model runs/job",
        "sampan eval --suite signs --ablate glyph",
        "sampan eval --suite cvtg --data CVTG-2K --model GLM-Image --steps 50",
        "sampan eval --suite signs --endpoint http://127.0.0.1:8000/v1 --model nano",
    )
    suite: str = option("%(choices)s", "NAME", default=MISSING, choices=SUITES)
    count: int = option("questions of the main group", "N", whole(1), 100)
    seed: int = seed("chooses the questions")
    data: Path | None = option("folder of CVTG-2K, for `cvtg`", "DIR", Path)
    layouts: tuple[str, ...] | None = option(
        "kinds of signs; default: placard", "LIST", words, group="the main group of signs"
    )
    fonts: tuple[str, ...] | None = option("default: jetbrains-mono", "LIST", words)
    letters: tuple[int, int] | None = option("of the word; default: 3..8", "MIN..MAX", span)
    model: str = option(
        "model folder, run, name on the Hub, or a model that is installed",
        "MODEL",
        model_path,
        "nano",
        group="who paints",
    )
    download: bool = download()
    endpoint: str | None = option("ask the images API of a server instead; --model is its name there", "URL")
    steps: int | None = option("of the decoder; default: what the model states, else 50", "N", whole(1))
    guidance: float | None = option("default: what the model states, else 1.5", "G", number(0))
    size: int | None = option("side of the pictures; default: the model's own, of a server 128", "PX", whole(8))
    ablate: tuple[str, ...] = option(f"leave out, of {','.join(ABLATIONS)}", "LIST", words, ())
    device: str = device_option()
    dtype: str = dtype_option()
    batch: int = option("pictures under way", "N", whole(1, 1024), 64)
    loras: tuple[tuple[Path, float], ...] = loras()
    offload: bool = flag("hold one part of the model on the device at a time")
    no_verify: bool = no_verify()
    framework: str | None = option("torch or mindspore; default: the first that is installed", "F")
    threads: int | None = threads_option()
    keep: Path = option("painted pictures, to go on with", "DIR", Path, Path("eval-data"), group="what is written")
    fresh: bool = flag("paint again what is kept, as when a server has other weights now")
    json: Path | None = option("the record", "FILE", Path)
    html: Path | None = option("a page with the pictures, best and worst", "FILE", Path)
