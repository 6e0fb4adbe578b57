"""The verbs and their options, as argparse sees them, and the words of every help page."""

# over 400 lines because the verbs' help is read one beside the other; verbs with many options have their own file

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sampan import __version__
from sampan.checkpoint.tolerance import TOLERANCES
from sampan.cli import bench_options, eval_options, plan_options, run, screen_options, serve_options, values
from sampan.cli.parsing import Parser
from sampan.job import DEVICES, DTYPES, MAX_SEED, STORED_DTYPES
from sampan.models.presets import PRESETS
from sampan.pipeline.request import DEFAULT_STEPS


def parser() -> Parser:
    """Return the parser of all verbs; what it parses has the verb's function as `run`."""
    top = Parser(
        prog="sampan",
        usage="sampan VERB ...",
        epilog=_examples(
            "sampan data emoji pictures",
            "sampan init job.toml",
            "sampan train job.toml",
            'sampan generate "a red apple" --model runs/job',
            after="`sampan VERB --help` says more about one.",
        ),
    )
    top.add_argument("--version", action="version", version=f"sampan {__version__}", help="print the version")
    verbs = top.below()
    listed = [
        _init(verbs),
        _doctor(verbs),
        *_data(verbs),
        _plan(verbs),
        _screen(verbs),
        _train(verbs),
        _generate(verbs),
        _eval(verbs),
        _serve(verbs),
    ]
    listed += [*_checkpoint(verbs), _bench(verbs)]
    says = "Plan, train and run GLM-Image-class image models on whatever accelerator is at hand."
    top.description = f"{says}\n\n{_listing(listed)}"
    return top


def _init(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "init",
        run.init,
        "Write a job file with every setting explained.",
        "sampan init jobs/birds.toml",
    )
    verb.add_argument("path", metavar="PATH", nargs="?", type=Path, default=Path("job.toml"), help="default: job.toml")
    verb.add_argument(
        "--preset", metavar="NAME", default="nano", choices=tuple(PRESETS), help="%(choices)s; default: nano"
    )
    verb.add_argument("--force", action="store_true", help="replace a file that is there")
    return verb


def _doctor(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "doctor",
        run.doctor,
        "Say what this machine has, and what fits on it.",
        "sampan doctor",
        "sampan doctor --model runs/job --json",
    )
    verb.add_argument("--model", metavar="DIR", type=Path, help="also say whether this model folder loads and fits")
    _add_json(verb)
    return verb


def _data(verbs: Any) -> list[Parser]:
    group = _group(verbs, "data")
    below = group.below()
    prepare = _verb(
        below,
        "prepare",
        run.data_prepare,
        "Examine the pictures of a job, and encode them by the parts that are finished.",
        "sampan data prepare job.toml",
        "sampan data prepare job.toml --set data.workers=8",
    )
    prepare.add_argument("job", metavar="JOB", type=Path, help="job file; `sampan init` writes one")
    _add_set(prepare)
    verb = _verb(
        below,
        "emoji",
        run.data_emoji,
        "Write the pictures of a colour-emoji font, with their names as captions.",
        "sampan data emoji pictures",
        "sampan data emoji pictures --count 96 --languages en,pt --edits 2",
    )
    verb.add_argument("directory", metavar="DIR", type=Path, help="folder to write; its captions lie in metadata.jsonl")
    verb.add_argument(
        "--count", metavar="N", type=values.whole(1), help="number of emoji; default: all that the font has"
    )
    verb.add_argument("--size", metavar="PX", type=values.whole(1), default=128, help="side of a picture; default: 128")
    verb.add_argument(
        "--languages",
        metavar="LIST",
        type=values.words,
        default=("en", "pt", "zh"),
        help="languages of the captions, separated by commas; default: en,pt,zh",
    )
    verb.add_argument(
        "--edits",
        metavar="N",
        type=values.whole(0),
        default=0,
        help="also write each emoji on N coloured backgrounds, as edits of the first; default: 0",
    )
    verb.add_argument("--font", metavar="FILE", type=Path, help="colour font; default: the one that comes with sampan")
    verb.add_argument(
        "--seed",
        metavar="S",
        type=values.whole(0, MAX_SEED),
        default=0,
        help="chooses the colours of the edits; default: 0",
    )
    signs = _verb(
        below,
        "signs",
        run.data_signs,
        "Write rendered signs, with the words in quotes in their captions.",
        "sampan data signs signs --count 1000",
        "sampan data signs unseen --count 200 --split test --seed 1",
        "sampan data signs plain --count 500 --layouts placard --letters 3..8 --lines 1",
    )
    signs.add_argument(
        "directory", metavar="DIR", type=Path, help="folder to write; its captions lie in metadata.jsonl"
    )
    signs.add_argument("--count", metavar="N", type=values.whole(1), required=True, help="number of signs")
    signs.add_argument(
        "--edits", action="store_true", help="also write each sign changed in one thing, as an edit of it"
    )
    signs.add_argument(
        "--size", metavar="PX", type=values.whole(1), default=128, help="side of a picture; default: 128"
    )
    signs.add_argument(
        "--split",
        choices=("train", "test", "all"),
        default="train",
        help="train: no word, font of a word or composition of the test; test: only such; all: any; default: train",
    )
    signs.add_argument(
        "--layouts", metavar="LIST", type=values.words, help="kinds of signs, separated by commas; default: all"
    )
    signs.add_argument(
        "--fonts", metavar="LIST", type=values.words, help="fonts, separated by commas; default: all of the split"
    )
    signs.add_argument(
        "--plates", metavar="LIST", type=values.words, help="colours of what is written on; default: all of a layout"
    )
    signs.add_argument(
        "--inks", metavar="LIST", type=values.words, help="colours of the letters; default: all that can be read"
    )
    signs.add_argument(
        "--letters", metavar="MIN..MAX", type=values.span, help="letters of a line; default: as a layout has room"
    )
    signs.add_argument(
        "--lines", metavar="N", type=values.whole(1, 3), help="lines, as far as a layout has room; default: mixed"
    )
    signs.add_argument(
        "--seed", metavar="S", type=values.whole(0, MAX_SEED), default=0, help="chooses the signs; default: 0"
    )
    pairs = _verb(
        below,
        "pairs",
        run.data_pairs,
        "Write pictures of an emoji over a word.",
        "sampan data pairs pairs --count 500",
    )
    pairs.add_argument(
        "directory", metavar="DIR", type=Path, help="folder to write; its captions lie in metadata.jsonl"
    )
    pairs.add_argument("--count", metavar="N", type=values.whole(1), required=True, help="number of pictures")
    pairs.add_argument(
        "--emoji",
        metavar="N",
        type=values.whole(1),
        default=256,
        help="how many, the most ordinary first; default: 256",
    )
    pairs.add_argument(
        "--size", metavar="PX", type=values.whole(64, 2048), default=128, help="side of a picture; default: 128"
    )
    pairs.add_argument(
        "--split",
        choices=("train", "test"),
        default="train",
        help="train: no word and no emoji on a colour of the test; test: only such; default: train",
    )
    pairs.add_argument(
        "--seed", metavar="S", type=values.whole(0, MAX_SEED), default=0, help="chooses the pairs; default: 0"
    )
    every = [prepare, verb, signs, pairs]
    group.description = f"Make a folder of pictures with captions, or prepare one.\n\n{_listing(every)}"
    return every


def _plan(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "plan",
        run.plan,
        "Say what a job will take on which chip, and how sure that is.",
        "sampan plan job.toml --html plan.html",
        "sampan plan job.toml --chips h100_sxm,ascend_910b2 --count 8..64 --sites my_johor,sg --deadline 7",
        "sampan plan job.toml --owned h20=16@cn_beijing --measured results/*.json",
        "sampan plan --validate runs.csv",
        "sampan plan --compare ascend_910b2 a100_80",
    )
    plan_options.add(verb)
    _add_set(verb)
    return verb


def _screen(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "screen",
        run.screen,
        "Say which dated rules of export and procurement bear on a question; not legal advice.",
        "sampan screen --date 2026-02-15 --actor-hq SG --chip h200 --site SG --relation buy",
        "sampan screen --timeline --actor-hq CN --chip h20 --site CN --relation buy --html h20.html",
        "sampan screen --matrix --date 2026-02-15 --actor-hq CN --relation rent --sites CN,MY,SG --html matrix.html",
        "sampan screen --cases policy.yaml",
    )
    screen_options.add(verb)
    return verb


def _train(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "train",
        run.train,
        "Train a model as a job file says.",
        "sampan train job.toml",
        "sampan train job.toml --set seed=1 --set stage.ar.lr=1e-4",
        "sampan train job.toml --resume",
        "sampan train job.toml --resume runs/job --framework mindspore",
    )
    # not required by argparse, which gives a word behind --resume to that; the verb asks for it
    verb.add_argument("job", metavar="JOB", nargs="?", type=Path, help="job file; `sampan init` writes one")
    _add_set(verb)
    verb.add_argument(
        "--resume",
        metavar="RUN",
        nargs="?",
        type=Path,
        const=True,
        default=False,
        help="go on from the last save of the job's run folder, or of the run in RUN, on whatever framework",
    )
    verb.add_argument("--framework", metavar="F", help="the same as --set place.framework=F")
    return verb


def _generate(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "generate",
        run.generate,
        "Paint pictures from a prompt, and from reference pictures.",
        'sampan generate "a red apple" --model runs/job --seed 1',
        'sampan generate "make it blue" --reference apple.png --model FOLDER --size 1024x768 -n 2',
        'sampan generate "a red apple" --model FOLDER --lora emoji.safetensors:0.8',
    )
    verb.add_argument("prompt", metavar="PROMPT", help="what to paint; words in quotes are drawn")
    asked = verb.add_argument_group("what is painted")
    asked.add_argument(
        "--reference",
        dest="references",
        metavar="IMG",
        action="append",
        type=Path,
        default=[],
        help="picture to edit or to take from; may be repeated",
    )
    asked.add_argument(
        "--size", metavar="WxH", type=values.size, help="in pixels; default: the reference's, or the model's own"
    )
    asked.add_argument(
        "-n", dest="count", metavar="N", type=values.whole(1), default=1, help="number of pictures; default: 1"
    )
    asked.add_argument(
        "--seed", metavar="S", type=values.whole(0, MAX_SEED), help="same seed, same picture; default: a new one"
    )
    how = verb.add_argument_group("how it is painted")
    how.add_argument(
        "--steps", metavar="N", type=values.whole(1), help=f"steps of the diffusion decoder; default: {DEFAULT_STEPS}"
    )
    how.add_argument(
        "--guidance",
        metavar="G",
        type=values.number(0),
        help="weight of the conditioning; 1 or less: none; default: what the model states, else 1.5",
    )
    how.add_argument(
        "--temperature",
        metavar="T",
        type=values.number(0),
        help="of prior tokens; 0: the likeliest; default: the model's own",
    )
    how.add_argument(
        "--top-p",
        metavar="P",
        type=values.share,
        help="draw from the likeliest tokens of this mass; default: the model's own",
    )
    how.add_argument(
        "--top-k",
        metavar="K",
        type=values.whole(0),
        help="draw from the K likeliest; 0: from all; default: the model's own",
    )
    how.add_argument(
        "--inject", metavar="FILE", type=Path, help="safetensors file with prior tokens, noise, glyph embeddings"
    )
    where = verb.add_argument_group("with what, and where")
    where.add_argument(
        "--model", metavar="FOLDER", default="nano", help="folder in the released layout, a run, or nano; default: nano"
    )
    _add_loras(where, "put this LoRA beside the weights, its scale multiplied by SCALE; may be repeated")
    where.add_argument(
        "--device", metavar="D", type=values.device, default="auto", help=f"{', '.join(DEVICES)}; default: auto"
    )
    where.add_argument("--dtype", metavar="T", choices=DTYPES, default="auto", help="%(choices)s; default: auto")
    where.add_argument("--framework", metavar="F", help="torch or mindspore; default: the one that is installed")
    where.add_argument("--compile", action="store_true", help="compile the step that writes a token")
    where.add_argument("--offload", action="store_true", help="hold one part of the model on the device at a time")
    written = verb.add_argument_group("what is written")
    written.add_argument("--out", metavar="FILE", type=Path, help="PNG file; default: sampan-SEED.png")
    written.add_argument("--no-prompt-metadata", action="store_true", help="keep the prompt out of the file")
    _add_json(written)
    return verb


def _eval(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "eval",
        run.evaluate,
        "Measure a model's pictures: words read, colours named, emoji recognised, edits done.",
        "sampan eval --suite signs --count 500 --json signs.json --html signs.html",
        "sampan eval --suite edit --model runs/job",
        "sampan eval --suite signs --ablate glyph",
        "sampan eval --suite cvtg --data CVTG-2K --model GLM-Image --steps 50",
        "sampan eval --suite signs --endpoint http://127.0.0.1:8000/v1 --model nano",
    )
    eval_options.add(verb)
    return verb


def _serve(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "serve",
        run.serve,
        "Serve pictures over HTTP: the images API that OpenAI's clients speak, and a page.",
        "sampan serve --model runs/job",
        "sampan serve --model runs/job --add-key alice",
        "sampan serve --model FOLDER --host 0.0.0.0 --allow-host pictures.example --per-key 4",
    )
    serve_options.add(verb)
    _add_loras(verb, "put this LoRA beside the weights, its scale multiplied by SCALE; may be repeated")
    return verb


def _checkpoint(verbs: Any) -> list[Parser]:
    group = _group(verbs, "checkpoint")
    below = group.below()
    export = _verb(
        below,
        "export",
        run.checkpoint_export,
        "Write the model of a run as a folder in the released layout.",
        "sampan checkpoint export runs/job models/mine --dtype bf16",
    )
    export.add_argument("run_folder", metavar="RUN", type=Path, help="run folder of a training")
    export.add_argument("directory", metavar="DIR", type=Path, help="folder to write")
    export.add_argument("--dtype", metavar="T", choices=STORED_DTYPES, help="%(choices)s; default: as trained")
    inspect = _verb(
        below,
        "inspect",
        run.checkpoint_inspect,
        "Say what a model folder or a run holds, and what is missing.",
        "sampan checkpoint inspect models/mine",
    )
    inspect.add_argument("directory", metavar="DIR", type=Path, help="model folder, or the run folder of a training")
    _add_json(inspect)
    merge = _verb(
        below,
        "merge",
        run.checkpoint_merge,
        "Write a model with LoRAs merged into its weights.",
        "sampan checkpoint merge models/mine models/emoji --lora emoji.safetensors:0.8",
        "sampan checkpoint merge runs/lora models/adapted",
        "sampan checkpoint merge models/emoji models/back --lora emoji.safetensors:0.8 --subtract",
    )
    merge.add_argument(
        "model", metavar="MODEL", type=Path, help="model folder, or a run; of one that trained a LoRA, that LoRA too"
    )
    merge.add_argument("directory", metavar="DIR", type=Path, help="folder to write")
    _add_loras(merge, "merge this LoRA, its scale multiplied by SCALE; may be repeated")
    merge.add_argument("--subtract", action="store_true", help="take the LoRAs out of the weights again")
    merge.add_argument("--dtype", metavar="T", choices=STORED_DTYPES, help="%(choices)s; default: as stored")
    verify = _verb(
        below,
        "verify",
        run.checkpoint_verify,
        "Check that a run's files are those that were written, and that its steps come out again.",
        "sampan checkpoint verify runs/job",
        "sampan checkpoint verify runs/job --replay 3",
        "sampan checkpoint verify runs/job --replay 3 --seed 7 --framework mindspore --device cpu",
    )
    verify.add_argument("run_folder", metavar="RUN", type=Path, help="run folder of a training")
    verify.add_argument(
        "--replay",
        metavar="K",
        type=values.whole(1),
        help="take the steps of K windows between kept checkpoints again, chosen at random; default: none",
    )
    verify.add_argument(
        "--seed", metavar="S", type=values.whole(0, MAX_SEED), help="same seed, same windows; default: a new one"
    )
    verify.add_argument("--framework", metavar="F", help="what takes the steps; default: what the run was begun with")
    verify.add_argument(
        "--device", metavar="D", type=values.device, help=f"{', '.join(DEVICES)}; default: that of the steps"
    )
    verify.add_argument("--dtype", metavar="T", choices=DTYPES, help="%(choices)s; default: that of the steps")
    verify.add_argument(
        "--tolerance",
        dest="tolerances",
        metavar="WHAT=X",
        action="append",
        type=values.tolerance,
        default=[],
        help=f"{', '.join(f'{name} (default: {most:g})' for name, most in TOLERANCES.items())}; may be repeated",
    )
    _add_json(verify)
    every = [export, inspect, merge, verify]
    group.description = f"Work on model folders.\n\n{_listing(every)}"
    return every


def _bench(verbs: Any) -> Parser:
    verb = _verb(
        verbs,
        "bench",
        run.bench,
        "Time a training step on several frameworks, after comparing what they compute.",
        "sampan bench --frameworks torch,mindspore --html bench.html",
        "sampan bench job.toml --modes eager --parts decoder",
        "sampan bench --kit",
        "sampan bench --diverge torch mindspore --steps 5",
    )
    bench_options.add(verb)
    _add_set(verb)
    return verb


def _group(verbs: Any, name: str) -> Parser:
    return verbs.add_parser(name, usage=f"sampan {name} VERB ...")


def _verb(verbs: Any, name: str, does: Callable[[argparse.Namespace], None], says: str, *examples: str) -> Parser:
    verb = verbs.add_parser(name, description=says, epilog=_examples(*examples))
    verb.set_defaults(run=does, verb=verb)
    return verb


def _add_set(verb: Any) -> None:
    verb.add_argument(
        "--set",
        dest="overrides",
        metavar="KEY=VALUE",
        action="append",
        type=values.assignment,
        default=[],
        help="put a setting over the file's, as in stage.ar.lr=1e-4; may be repeated",
    )


def _add_json(verb: Any) -> None:
    verb.add_argument("--json", action="store_true", help="print JSON")


def _add_loras(verb: Any, says: str) -> None:
    verb.add_argument(
        "--lora", dest="loras", metavar="FILE[:SCALE]", action="append", type=values.lora, default=[], help=says
    )


def _listing(verbs: Sequence[Parser]) -> str:
    names = [verb.prog.removeprefix("sampan ") for verb in verbs]
    says = [(verb.description or "").rstrip(".") for verb in verbs]
    width = max(map(len, names)) + 2
    rows = [f"  {name:<{width}}{what[0].lower()}{what[1:]}" for name, what in zip(names, says, strict=True)]
    return "\n".join(["verbs:", *rows])


def _examples(*lines: str, after: str = "") -> str:
    return "\n".join(
        ["examples:" if len(lines) > 1 else "example:", *(f"  {line}" for line in lines), "", after]
    ).rstrip()
