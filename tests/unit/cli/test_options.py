"""Wrong usage: one clear sentence on stderr, nothing on stdout, status 2."""

from __future__ import annotations

import pytest

from sampan.cli import main

GENERATE = "hint: sampan generate --help"

WRONG = {
    "trian job.toml": "`trian` is not a verb\n\nhint: did you mean `train`?",
    "data emojis": "`emojis` is not a verb\n\nhint: did you mean `emoji`?",
    "dance": "`dance` is not a verb\n\nhint: known: "
    "`bench`, `checkpoint`, `completion`, `data`, `doctor`, `eval`, `generate`, `init`, `launch`, `plan`, `screen`, "
    "`serve`, `train`",
    "generate": f"the following arguments are required: PROMPT\n\n{GENERATE}",
    "eval": "the following arguments are required: --suite\n\nhint: sampan eval --help",
    "eval --suite sings": "--suite: `sings` is not one of signs, emoji, edit, cvtg\n\nhint: sampan eval --help",
    "eval --suite signs --count 0": "--count: must be at least 1, got 0\n\nhint: sampan eval --help",
    "generate a red": "there is no place for `red`\n\nhint: words that belong together stand in quotes",
    "generate a --seeds 3": "there is no place for `--seeds`\n\nhint: did you mean `--seed` or `--steps`?",
    "generate a --ref b": "there is no place for `--ref`\n\nhint: did you mean `--reference`?",
    "generate a --seed": f"--seed: expected one argument\n\n{GENERATE}",
    "generate a --size 128by128": (
        f"--size: `128by128` is not a size: width x height in pixels, as in 1024x768\n\n{GENERATE}"
    ),
    "generate a --size 0x128": (
        f"--size: `0x128` is not a size: width x height in pixels, as in 1024x768\n\n{GENERATE}"
    ),
    "generate a -n 0": f"-n: must be at least 1, got 0\n\n{GENERATE}",
    "generate a -n two": f"-n: `two` is not a whole number, at least 1\n\n{GENERATE}",
    "generate a --steps 0": f"--steps: must be at least 1, got 0\n\n{GENERATE}",
    "generate a --steps 2.5": f"--steps: `2.5` is not a whole number, at least 1\n\n{GENERATE}",
    "generate a --seed -1": f"--seed: must be from 0 to 4294967295, got -1\n\n{GENERATE}",
    "generate a --guidance -0.5": f"--guidance: must be at least 0, got -0.5\n\n{GENERATE}",
    "generate a --guidance nan": f"--guidance: `nan` is not a number\n\n{GENERATE}",
    "generate a --temperature -1": f"--temperature: must be at least 0, got -1\n\n{GENERATE}",
    "generate a --temperature inf": f"--temperature: `inf` is not a number\n\n{GENERATE}",
    "generate a --top-p 0": f"--top-p: must be more than 0 and at most 1, got 0\n\n{GENERATE}",
    "generate a --top-p 1.01": f"--top-p: must be more than 0 and at most 1, got 1.01\n\n{GENERATE}",
    "generate a --top-k -1": f"--top-k: must be at least 0, got -1\n\n{GENERATE}",
    "generate a --device gpu": f"--device: `gpu` is not one of auto, cpu, cuda, mps, npu\n\n{GENERATE}",
    "generate a --device cpu:1": f"--device: `cpu:1` is not one of auto, cpu, cuda, mps, npu\n\n{GENERATE}",
    "generate a --dtype fp64": f"--dtype: `fp64` is not one of auto, fp32, bf16, fp16\n\n{GENERATE}",
    "generate a --lora x:inf": (
        f"--lora: `inf` in `x:inf` is not a number to scale with, as in `x:0.8`\n\n{GENERATE}"
    ),
    "generate a --prompts f": f"PROMPT and --prompts exclude each other\n\n{GENERATE}",
    "generate a --model s3://bucket/m": (
        "--model: `s3://bucket/m` is an address (s3), and files and folders of this machine are taken: copy it here, or "
        f"mount it as a folder; a model of the Hub is named owner/name\n\n{GENERATE}"
    ),
    "generate a --out gs://bucket/a.png": (
        "--out: `gs://bucket/a.png` is an address (gs), and files and folders of this machine are taken: copy it here, or "
        f"mount it as a folder\n\n{GENERATE}"
    ),
    "generate a --lora https://host/x.safetensors:0.5": (
        "--lora: `https://host/x.safetensors:0.5` is an address (https), and files and folders of this machine are taken: "
        f"copy it here, or mount it as a folder\n\n{GENERATE}"
    ),
    "checkpoint export s3://b/run d": (
        "RUN: `s3://b/run` is an address (s3), and files and folders of this machine are taken: copy it here, or mount it "
        "as a folder\n\nhint: sampan checkpoint export --help"
    ),
    "checkpoint export r d --step decoder": (
        "--step: `decoder` is not STAGE=N with one of vae, tokenizer, glyph, ar, decoder, as in decoder=2000\n\n"
        "hint: sampan checkpoint export --help"
    ),
    "completion": "the following arguments are required: SHELL\n\nhint: sampan completion --help",
    "completion tcsh": "SHELL: `tcsh` is not one of bash, zsh, fish\n\nhint: sampan completion --help",
    "checkpoint merge m": (
        "the following arguments are required: DIR\n\nhint: sampan checkpoint merge --help"
    ),
    "checkpoint verify": "the following arguments are required: RUN\n\nhint: sampan checkpoint verify --help",
    "checkpoint verify r --replay 0": (
        "--replay: must be at least 1, got 0\n\nhint: sampan checkpoint verify --help"
    ),
    "checkpoint verify r --tolerance lr=1": (
        "--tolerance: `lr=1` is not WHAT=X with one of loss, weights, ema, moments, tensor, as in loss=0.001\n\n"
        "hint: sampan checkpoint verify --help"
    ),
    "checkpoint verify r --tolerance loss=-1": (
        "--tolerance: must be at least 0, got -1\n\nhint: sampan checkpoint verify --help"
    ),
    "train": "the following arguments are required: JOB\n\nhint: sampan train --help",
    "train --resume runs/x": "the following arguments are required: JOB\n\nhint: sampan train --help",
    "train j.toml --set lr": (
        "--set: `lr` is not KEY=VALUE, as in stage.ar.lr=1e-4\n\nhint: sampan train --help"
    ),
    "bench --rounds 0": "--rounds: must be at least 1, got 0\n\nhint: sampan bench --help",
    "bench --tolerance 2": "--tolerance: must be more than 0 and at most 1, got 2\n\nhint: sampan bench --help",
    "bench --frameworks torch,": (
        "--frameworks: `torch,` is not a list of words separated by commas, as in en,pt\n\nhint: sampan bench --help"
    ),
    "bench --diverge torch": "--diverge: expected 2 arguments\n\nhint: sampan bench --help",
    "bench --threads 0": "--threads: must be at least 1, got 0\n\nhint: sampan bench --help",
    "init --preset nana": "--preset: `nana` is not one of glm-image, nano\n\nhint: sampan init --help",
    "checkpoint export r d --dtype auto": (
        "--dtype: `auto` is not one of fp32, bf16\n\nhint: sampan checkpoint export --help"
    ),
    "data emoji d --languages en,,pt": (
        "--languages: `en,,pt` is not a list of words separated by commas, as in en,pt\n\n"
        "hint: sampan data emoji --help"
    ),
    "data emoji d --edits -1": "--edits: must be at least 0, got -1\n\nhint: sampan data emoji --help",
    "data signs d": "the following arguments are required: --count\n\nhint: sampan data signs --help",
    "data signs d --count 0": "--count: must be at least 1, got 0\n\nhint: sampan data signs --help",
    "data signs d --count 3 --split tset": (
        "--split: `tset` is not one of train, test, all\n\nhint: sampan data signs --help"
    ),
    "data signs d --count 3 --seed -1": (
        "--seed: must be from 0 to 4294967295, got -1\n\nhint: sampan data signs --help"
    ),
}  # fmt: skip


@pytest.mark.parametrize("line", WRONG)
def test_wrong_usage(line, capsys):
    assert main(line.split()) == 2
    said = capsys.readouterr()
    assert said.err == f"error: {WRONG[line]}\n"
    assert said.out == ""


@pytest.mark.parametrize(
    ("line", "listed"),
    [
        ("", ["init", "doctor", "data prepare", "data emoji"]),
        ("data", ["data prepare", "data emoji", "data signs", "data pairs"]),
        ("checkpoint", ["checkpoint export", "checkpoint inspect", "checkpoint merge", "checkpoint verify"]),
    ],
)
def test_a_verb_that_is_left_out_is_asked_for_with_those_there_are(line, listed, capsys):
    assert main(line.split()) == 2
    said = capsys.readouterr()
    program = f"sampan {line}".strip()
    head, lines, hint = said.err.split("\n\n")
    assert (head, hint) == (f"error: `{program}` needs one of its verbs", f"hint: {program} --help\n")
    assert [row.split("  ")[1] for row in lines.splitlines()][: len(listed)] == listed
    assert said.out == ""


def test_help_lists_the_verbs_there_are_with_a_line_each(capsys):
    assert main(["--help"]) == 0
    said = capsys.readouterr()
    listed = said.out.partition("verbs:\n")[2].partition("\n\n")[0].splitlines()
    assert [line[2:22].strip() for line in listed] == [
        "init",
        "doctor",
        "data prepare",
        "data emoji",
        "data signs",
        "data pairs",
        "plan",
        "screen",
        "train",
        "launch",
        "generate",
        "eval",
        "serve",
        "checkpoint export",
        "checkpoint inspect",
        "checkpoint merge",
        "checkpoint verify",
        "bench",
        "completion",
    ]
    assert all(line[22:].strip() for line in listed)
    assert '  sampan generate "a red apple" --model runs/job\n' in said.out
    assert said.err == ""


def test_version(capsys):
    from sampan import __version__

    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sampan {__version__}\n"
