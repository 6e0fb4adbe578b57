"""Reading a job: what is wrong is said with file, line and setting, in these words."""

from __future__ import annotations

from pathlib import Path

import pytest

from sampan import job
from sampan.errors import JobError

HEAD = 'out = "runs/x"\n[data]\npath = "pictures"\n'


PATH_HINT = (
    "in double quotes a backslash has a meaning of its own; write a path with / or in single quotes: 'C:\\pictures'"
)


def refused(text: str, *overrides: str) -> str:
    with pytest.raises(JobError) as caught:
        job.parse(text, overrides, name="j.toml")
    return str(caught.value)


WRONG = {
    "[train]\nsave_evry = 3": (
        "j.toml:5: train.save_evry: [train] has no such setting\n\nhint: did you mean `save_every` or `sample_every`?"
    ),
    "[sage.ar]\nlr = 1": "j.toml:4: sage: a job has no such setting\n\nhint: did you mean `stage`?",
    "[stage.unet]": (
        "j.toml:4: stage.unet: [stage] has no such setting\n\n"
        "hint: known: `ar`, `decoder`, `glyph`, `tokenizer`, `vae`"
    ),
    "limit = 0": "j.toml:4: data.limit: must be at least 1, got 0",
    "limit = 2.0": "j.toml:4: data.limit: must be a whole number, got 2.0",
    "limit = true": "j.toml:4: data.limit: must be a whole number, got true",
    "limit = '7'": 'j.toml:4: data.limit: must be a whole number, got "7"',
    "max_bad_share = 1.5": "j.toml:4: data.max_bad_share: must be at most 1, got 1.5",
    "max_bad_share = nan": "j.toml:4: data.max_bad_share: must be a number, got nan",
    "reader = ''": 'j.toml:4: data.reader: must be text in quotes, got ""',
    "[stage.ar]\nlr = 0": "j.toml:5: stage.ar.lr: must be more than 0, got 0",
    "[stage.ar]\nlr = inf": "j.toml:5: stage.ar.lr: must be a number, got inf",
    "[stage.ar]\nbeta1 = 1": "j.toml:5: stage.ar.beta1: must be below 1, got 1",
    "[stage.ar]\npreview_weight = 'big'": (
        'j.toml:5: stage.ar.preview_weight: must be a number or "auto", got "big"'
    ),
    "[stage]\nar = 3": "j.toml:5: stage.ar: must be a section, got 3",
    "[place]\ndevice = 'coda'": (
        'j.toml:5: place.device: "coda" is not one of auto, cpu, cuda, mps, npu\n\nhint: did you mean `cuda`?'
    ),
    "[place]\ndtype = 'fp64'": (
        'j.toml:5: place.dtype: "fp64" is not one of auto, fp32, bf16, fp16\n\nhint: did you mean `fp16`?'
    ),
    "[train]\nstages = [\n  'vae',\n  'unet',\n]": (
        'j.toml:5: train.stages: "unet" is not one of vae, tokenizer, glyph, ar, decoder'
    ),
    "[train]\nstages = ['ar', 'vae']": (
        "j.toml:5: train.stages: must be one or more of vae, tokenizer, glyph, ar, decoder, in this order, each once"
    ),
    "[train]\nstages = ['ar', 'ar']": (
        "j.toml:5: train.stages: must be one or more of vae, tokenizer, glyph, ar, decoder, in this order, each once"
    ),
    "[train]\nstages = []": (
        "j.toml:5: train.stages: must be one or more of vae, tokenizer, glyph, ar, decoder, in this order, each once"
    ),
    "[train]\nstages = 'ar'": 'j.toml:5: train.stages: must be a list of texts in quotes, got "ar"',
    "[model]\noverride.dit = 3": "j.toml:5: model.override.dit: must be a table, got 3",
    "[model.override.dit]\nborn = [2026-01-02]": "j.toml:4: model.override.dit: must hold no dates and times",
    "limit = \n": (
        "j.toml:4: this is not TOML: Invalid value\n\nhint: text stands in quotes, true and false do not"
    ),
    "path = 'again'": "j.toml:4: this is not TOML: Cannot overwrite a value",
    'cache = "C:\\Users\\me"': "j.toml:4: this is not TOML: Invalid hex value\n\nhint: " + PATH_HINT,
    'cache = "D:\\data"': "j.toml:4: this is not TOML: Unescaped '\\' in a string\n\nhint: " + PATH_HINT,
    'cache = "D:\\new"': (
        'j.toml:4: data.cache: has "\\n" in it, got "D:\\new"\n\nhint: ' + PATH_HINT
    ),
    'cache = "D:\\train\\birds"': (
        'j.toml:4: data.cache: has "\\t" in it, got "D:\\train\\birds"\n\nhint: ' + PATH_HINT
    ),
    "caption_lines = 'all'": 'j.toml:4: data.caption_lines: "all" is not one of each, one',
    "[place": "j.toml:4: this is not TOML: Expected ']' at the end of a table declaration",
}  # fmt: skip


@pytest.mark.parametrize("added", WRONG)
def test_a_wrong_line_is_named(added):
    assert refused(HEAD + added) == "error: " + WRONG[added]


def test_a_path_of_windows_that_ends_its_own_quotation_is_told():
    assert refused(HEAD + 'cache = "D:\\x\\"').endswith(f"hint: {PATH_HINT}")
    assert job.parse(HEAD + "cache = 'D:\\new\\birds'").data.cache == Path("D:\\new\\birds")


def test_a_path_of_windows_in_an_override():
    assert job.parse(HEAD, ["data.cache=C:\\Users\\new"]).data.cache == Path("C:\\Users\\new")
    assert refused(HEAD, 'data.cache="C:\\Users"') == (
        f'error: --set: data.cache: "C:\\Users" is not TOML\n\nhint: {PATH_HINT}'
    )


def test_a_missing_setting_says_what_to_add():
    assert refused("[data]\npath = 'p'") == (
        'error: j.toml: out: is missing\n\nhint: add `out = "runs/job"` at the top'
    )  # fmt: skip
    assert refused("out = 'o'") == 'error: j.toml: data.path: is missing\n\nhint: add `path = "pictures"` below [data]'
    assert refused("out = 'o'\n\n[data]\nlimit = 3").startswith("error: j.toml:3: data.path: is missing\n")


def test_a_setting_in_an_inline_table_is_found():
    assert refused('out = "x"\n\nmodel = { prest = "nano" }').startswith("error: j.toml:3: model.prest: ")


def test_the_last_line_of_an_unfinished_text_is_named():
    assert refused(HEAD + '[model]\npreset = "nano').startswith("error: j.toml:5: this is not TOML: ")
    assert refused(HEAD + "[train]\nstages = [\n").startswith("error: j.toml:6: this is not TOML: ")


OVER = {
    "stage.ar.lr=0": "--set: stage.ar.lr: must be more than 0, got 0",
    "stage.ar.num_step=1": (
        "--set: stage.ar.num_step: [stage.ar] has no such setting\n\nhint: did you mean `num_steps` or `warmup_steps`?"
    ),
    "sage.ar.lr=1": "--set: sage: a job has no such setting\n\nhint: did you mean `stage`?",
    "data.limit=many": '--set: data.limit: must be a whole number, got "many"',
    "data.path.x=1": 'j.toml:3: data.path: must be a section, got "pictures"',
    "stage={ar = {lr = -1}}": "--set: stage.ar.lr: must be more than 0, got -1",
    "data={}": '--set: data.path: is missing\n\nhint: add `path = "pictures"` below [data]',
    "lr": "--set: `lr` is not KEY=VALUE\n\nhint: --set stage.ar.lr=1e-4",
    "=3": "--set: `=3` is not KEY=VALUE\n\nhint: --set stage.ar.lr=1e-4",
    "a..b=3": "--set: `a..b=3` is not KEY=VALUE\n\nhint: --set stage.ar.lr=1e-4",
}


@pytest.mark.parametrize("override", OVER)
def test_a_wrong_override_is_named(override):
    assert refused(HEAD, override) == "error: " + OVER[override]


def test_a_line_of_the_file_is_still_named_when_something_else_is_overridden():
    assert refused(HEAD + "limit = 0", "seed=1").startswith("error: j.toml:4: data.limit: ")


def test_overrides_are_toml_and_else_text_and_the_last_one_wins():
    read = job.parse(
        HEAD,
        [
            "seed=7",
            "seed=8",
            "model.preset=glm-image",
            'data.path="a=b"',
            "out=C:\\new\\runs",
            "stage.ar.lr=1e-4",
            "stage.ar.preview_weight=2",
            'train.stages=["vae", "ar"]',
            "place.device=cuda:1",
            "model.override.dit.num_layers=4",
            "data.reader=2026-01-02",
        ],
    )
    assert (read.seed, read.model.preset, str(read.data.path)) == (8, "glm-image", "a=b")
    assert read.out == Path("C:\\new\\runs")
    assert (read.stage.ar.lr, read.stage.ar.preview_weight) == (1e-4, 2.0)
    assert (read.train.stages, read.place.device) == (("vae", "ar"), "cuda:1")
    assert read.model.override == {"dit": {"num_layers": 4}}
    assert read.data.reader == "2026-01-02"  # no setting is a date


def test_an_override_cannot_smuggle_a_second_setting_in():
    assert job.parse(HEAD, ["data.reader='a'\nseed = 3"]).seed == 0


def test_the_original_text_and_the_overrides_are_kept(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text(HEAD + "# why\n", encoding="utf-8")
    read = job.read(path, ["seed=1"])
    assert (read.text, read.overrides) == (HEAD + "# why\n", ("seed=1",))


def test_a_byte_order_mark_and_windows_line_ends_are_read(tmp_path):
    path = tmp_path / "job.toml"
    path.write_bytes(b"\xef\xbb\xbf" + HEAD.replace("\n", "\r\n").encode())
    assert job.read(path).data.path == Path("pictures")


def test_a_file_that_cannot_be_read(tmp_path):
    missing, binary = tmp_path / "no.toml", tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    not_text = "it is not UTF-8 text: 'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"
    for path, text in (
        (missing, f"error: there is no job file `{missing}`\n\nhint: `sampan init {missing}` writes one"),
        (tmp_path, f"error: `{tmp_path}` is a folder, not a job file"),
        (
            binary,
            f"error: the job file `{binary}` cannot be read\n  because {not_text}",
        ),
    ):
        with pytest.raises(JobError) as caught:
            job.read(path)
        assert str(caught.value) == text


@pytest.mark.parametrize(
    ("key", "more"),
    [
        ("out", ""),
        ("data.path", '; a set of the Hub is named owner/name, with data.reader = "hub"'),
        ("data.cache", ""),
        ("model.start", "; a model of the Hub is named owner/name"),
    ],
)
def test_an_address_is_refused_and_not_mangled_into_a_path(key, more):
    text = 'out = "runs/x"\ndata.path = "pictures"\n'
    with pytest.raises(JobError) as caught:
        job.parse(text, [f"{key}=s3://bucket/x"])
    assert caught.value.what == (
        f'--set: {key}: "s3://bucket/x" is an address (s3), and files and folders of this machine are taken: copy it here, '
        f"or mount it as a folder{more}"
    )
    assert job.parse(text, [f"{key}=a:/b"])  # a colon alone makes none
