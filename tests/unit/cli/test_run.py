"""The verbs: each calls one function with what was asked for, puts its result on stdout and nothing else there."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from sampan import job
from sampan.cli import main
from sampan.pipeline.options import PipelineOptions
from sampan.pipeline.request import ImageRequest
from sampan.synthetic.signs import SignFilter


class Recorded:
    """Stands for a function: keeps its last call and returns what it was made with."""

    def __init__(self, result: Any = None):
        self.result = result
        self.args: tuple[Any, ...] = ()
        self.kwargs: dict[str, Any] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.args, self.kwargs = args, kwargs
        return self.result


@pytest.fixture
def stand_in(monkeypatch):
    """Put recorded functions where a verb imports from; the real module is not loaded."""

    def put(module: str, **functions: Any) -> None:
        fake = ModuleType(module)
        for name, function in functions.items():
            setattr(fake, name, function)
        monkeypatch.setitem(sys.modules, module, fake)

    return put


@pytest.fixture
def job_file(tmp_path):
    path = tmp_path / "job.toml"
    path.write_text('out = "runs/x"\ndata.path = "pictures"\n', encoding="utf-8")
    return path


def test_init_writes_a_job_file_and_says_where(tmp_path, capsys):
    path = tmp_path / "birds.toml"
    assert main(["init", str(path), "--preset", "glm-image"]) == 0
    assert capsys.readouterr().out == f"{path}\n"
    assert job.read(path).model.preset == "glm-image"
    assert main(["init", str(path)]) == 1
    assert capsys.readouterr().err.startswith(f"error: `{path}` is there already\n")
    assert main(["init", str(path), "--force"]) == 0
    assert job.read(path).model.preset == "nano"


def test_init_writes_job_toml_here_when_no_path_is_given(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["init"]) == 0
    assert capsys.readouterr().out == "job.toml\n"
    assert (tmp_path / "job.toml").is_file()


PICTURES = [
    {"file": "a-1.png", "seed": 5, "width_px": 64, "height_px": 32, "prompt": "maçã"},
    {"file": "a-2.png", "seed": 5, "width_px": 64, "height_px": 32, "prompt": "maçã"},
]


def test_generate_asks_for_what_the_options_say(stand_in, capsys):
    generate = Recorded(PICTURES)
    stand_in("sampan.pipeline.pipeline", generate=generate)
    line = (
        "generate maçã --reference one.png --reference two.png --size 64x32 -n 2 --seed 5 --steps 7 --guidance 2 "
        "--temperature 0 --top-p 0.5 --top-k 9 --model folder --dtype bf16 --device cuda:1 --offload "
        "--inject i.safetensors --out a.png --no-prompt-metadata --threads 3 --lora x.safetensors --lora runs/y:-0.5"
    )
    assert main(line.split()) == 0
    assert generate.args == (
        ImageRequest(
            prompt="maçã",
            references=(Path("one.png"), Path("two.png")),
            width_px=64,
            height_px=32,
            count=2,
            seed=5,
            num_inference_steps=7,
            guidance_scale=2.0,
            temperature=0.0,
            top_p=0.5,
            top_k=9,
            inject=Path("i.safetensors"),
            prompt_metadata=False,
        ),
        PipelineOptions(
            model="folder", device="cuda:1", dtype="bf16", offload=True, compiled=False, verified=True, threads=3,
            loras=((Path("x.safetensors"), 1.0), (Path("runs/y"), -0.5)),
        ),
    )  # fmt: skip
    console = generate.kwargs.pop("console")
    assert console.stderr
    assert generate.kwargs == {"out": Path("a.png")}
    assert capsys.readouterr().out == "a-1.png\na-2.png\n"


def test_generate_leaves_to_the_model_what_is_not_asked_for(stand_in):
    generate = Recorded([])
    stand_in("sampan.pipeline.pipeline", generate=generate)
    assert main(["generate", "a red apple"]) == 0
    request, how = generate.args
    assert request == ImageRequest(prompt="a red apple", seed=request.seed)
    del generate.kwargs["console"]
    assert generate.kwargs == {"out": None}
    assert dataclasses.asdict(how) == {
        "model": "nano", "device": "auto", "dtype": "auto", "offload": False, "loras": (),
        "compiled": False, "verified": True, "threads": None,
    }  # fmt: skip


def test_two_calls_without_a_seed_do_not_write_over_each_other(stand_in):
    generate = Recorded([])
    stand_in("sampan.pipeline.pipeline", generate=generate)
    seeds = set()
    for _ in range(5):
        main(["generate", "a"])
        seeds.add(generate.args[0].seed)
    assert len(seeds) > 1
    assert all(0 <= seed <= job.MAX_SEED for seed in seeds)


def test_generate_prints_json(stand_in, capsys):
    stand_in("sampan.pipeline.pipeline", generate=Recorded(PICTURES))
    assert main(["generate", "maçã", "--json"]) == 0
    out = capsys.readouterr().out
    assert json.loads(out) == {"pictures": PICTURES}
    assert out.isascii()  # whatever the terminal's encoding is


def test_train_reads_the_job_with_its_overrides(stand_in, job_file, capsys):
    train = Recorded(Path("runs/x/model"))
    stand_in("sampan.train.loop", train=train)
    overrides = ["--set", "seed=3", "--set", "stage.ar.lr=1e-4", "--framework", "torch"]
    assert main(["train", str(job_file), *overrides, "--resume"]) == 0
    (read,) = train.args
    assert (read.seed, read.stage.ar.lr, read.place.framework) == (3, 1e-4, "torch")
    assert read.overrides == ("seed=3", "stage.ar.lr=1e-4", "place.framework=torch")
    assert train.kwargs["resume"] is True
    assert train.kwargs["console"].stderr
    assert capsys.readouterr().out == f"{Path('runs/x/model')}\n"
    main(["train", str(job_file)])
    assert train.kwargs["resume"] is False


def test_train_goes_on_with_another_run_folder(stand_in, job_file, tmp_path, capsys):
    train = Recorded(Path("x"))
    stand_in("sampan.train.loop", train=train)
    folder = tmp_path / "run"
    assert main(["train", str(job_file), "--resume", str(folder)]) == 1
    assert capsys.readouterr().err == (
        f"error: `{folder}` is not a run\n  because there is no such folder\n\n"
        "hint: give the folder that a job names as its `out`\n"
    )
    folder.mkdir()
    assert main(["train", str(job_file), "--resume", str(folder)]) == 1
    assert "because it has no run.json\n" in capsys.readouterr().err
    (folder / "run.json").write_text("{}", encoding="utf-8")
    for line in ([str(job_file), "--resume", str(folder)], ["--resume", str(folder), str(job_file)]):
        assert main(["train", *line]) == 0
        assert train.args[0].out == folder
        assert train.kwargs["resume"] is True
    assert main(["train", "--resume", str(job_file)]) == 0  # what follows is the job, not a run
    assert (train.args[0].out, train.kwargs["resume"]) == (Path("runs/x"), True)


def test_train_on_a_framework_that_is_none(stand_in, job_file, capsys):
    stand_in("sampan.train.loop", train=Recorded())
    assert main(["train", str(job_file), "--framework", "mindspre"]) == 1
    assert capsys.readouterr().err == (
        "error: `mindspre` is not a framework that sampan knows\n\nhint: did you mean `mindspore`?\n"
    )


def test_a_wrong_job_is_refused_before_a_framework_is_loaded(stand_in, job_file, capsys):
    def train(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("training began")

    stand_in("sampan.train.loop", train=train)
    assert main(["train", str(job_file), "--set", "seed=x"]) == 1
    assert capsys.readouterr().err == 'error: --set: seed: must be a whole number, got "x"\n'


def test_verify_asks_for_what_the_options_say(stand_in, tmp_path, capsys):
    report = {"comes_out": True}
    verify, show, refuse = Recorded(report), Recorded(), Recorded()
    stand_in("sampan.train.verify", verify=verify, show=show, refuse=refuse)
    (tmp_path / "run.json").write_text('{"framework": "torch"}', encoding="utf-8")
    line = f"checkpoint verify {tmp_path} --replay 2 --seed 9 --device cpu --dtype fp32"
    line += " --tolerance loss=1e-3 --tolerance tensor=3"
    assert main(line.split()) == 0
    assert verify.args == (tmp_path,)
    assert verify.kwargs.pop("console").stderr
    assert verify.kwargs == {
        "replay": 2,
        "seed": 9,
        "device": "cpu",
        "dtype": "fp32",
        "tolerances": {"loss": 1e-3, "tensor": 3.0},
    }
    assert show.args[0] == refuse.args[0] == report
    assert main(["checkpoint", "verify", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == report
    assert verify.kwargs["replay"] is verify.kwargs["device"] is verify.kwargs["dtype"] is None
    assert main(["checkpoint", "verify", str(tmp_path), "--framework", "torhc"]) == 1
    assert "`torhc` is not a framework that sampan knows\n\nhint: did you mean `torch`?" in capsys.readouterr().err


def test_data_emoji_writes_a_picture_set(stand_in, capsys):
    summary = SimpleNamespace(
        counts={"num_emoji": 2, "num_pictures": 6, "num_rows": 8, "num_left_out": 1}, written=True
    )
    write = Recorded(summary)
    stand_in("sampan.synthetic.emoji", write=write)
    line = "data emoji pics --count 2 --size 32 --languages zh,en --edits 2 --font f.ttf --seed 4"
    assert main(line.split()) == 0
    progress = write.kwargs.pop("progress")
    assert callable(progress)
    assert write.args == (Path("pics"),)
    assert write.kwargs == {
        "count": 2,
        "size_px": 32,
        "languages": ("zh", "en"),
        "edits": 2,
        "font": Path("f.ttf"),
        "seed": 4,
    }
    said = capsys.readouterr()
    assert said.out == "pics\n"
    assert "6 pictures of 2 emoji, 8 rows, written" in said.err
    assert "1 emoji are left out: the font has no picture of them" in said.err
    assert main(["data", "emoji", "pics"]) == 0
    del write.kwargs["progress"]
    assert write.kwargs == {
        "count": None,
        "size_px": 128,
        "languages": ("en", "pt", "zh"),
        "edits": 0,
        "font": None,
        "seed": 0,
    }


def test_data_signs_writes_a_set_of_signs(stand_in, capsys):
    summary = SimpleNamespace(counts={"num_signs": 3, "num_pictures": 6, "num_rows": 9}, written=False)
    write = Recorded(summary)
    stand_in("sampan.synthetic.signs", write=write, SignFilter=SignFilter)
    line = "data signs set --count 3 --edits --size 256 --split test --seed 4"
    assert main(line.split()) == 0
    assert callable(write.kwargs.pop("progress"))
    assert write.args == (Path("set"),)
    assert write.kwargs == {
        "count": 3,
        "size_px": 256,
        "edits": True,
        "split": "test",
        "seed": 4,
        "choice": SignFilter(),
    }
    said = capsys.readouterr()
    assert said.out == "set\n"
    assert "6 pictures of 3 signs, 9 rows, there already" in said.err
    kind = "--layouts placard --fonts jetbrains-mono,oswald --letters 3..8 --lines 1"
    assert main(["data", "signs", "set", "--count", "3", *kind.split()]) == 0
    del write.kwargs["progress"]
    choice = SignFilter(("placard",), ("jetbrains-mono", "oswald"), (3, 8), 1)
    assert write.kwargs == {"count": 3, "size_px": 128, "edits": False, "split": "train", "seed": 0, "choice": choice}


def test_data_signs_from_the_command_to_the_folder(tmp_path, capsys):
    line = ["data", "signs", str(tmp_path / "set"), "--count", "2", "--edits"]
    for state in ("written", "there already"):
        assert main(line) == 0
        said = capsys.readouterr()
        assert said.out == f"{tmp_path / 'set'}\n"
        assert f"4 pictures of 2 signs, 6 rows, {state}" in said.err
    rows = (tmp_path / "set" / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    assert all((tmp_path / "set" / json.loads(row)["file_name"]).is_file() for row in rows)
    assert len(rows) == 6


def test_data_signs_says_what_it_cannot_do(tmp_path, capsys):
    assert main(["data", "signs", str(tmp_path / "set"), "--count", "2", "--size", "32"]) == 1
    because = "`size_px` is 32, and it must be from 128 to 2048"
    # what is left of the bars on a terminal is an empty line
    assert capsys.readouterr().err.lstrip("\n") == f"error: the signs cannot be made\n  because {because}\n"
    assert not (tmp_path / "set").exists()
    kept = tmp_path / "set.txt"
    kept.write_text("mine")
    assert main(["data", "signs", str(kept), "--count", "2"]) == 1
    assert capsys.readouterr().err.lstrip("\n") == (
        f"error: `{kept}` is not overwritten\n  because it is a file\n\n"
        "hint: name another folder, or delete this one yourself\n"
    )
    assert kept.read_text() == "mine"


@pytest.mark.parametrize(
    ("line", "module", "function", "args"),
    [
        ("doctor", "sampan.doctor", "report", (None,)),
        ("doctor --model m", "sampan.doctor", "report", (Path("m"),)),
        ("checkpoint inspect m", "sampan.checkpoint.inspect", "inspect", (Path("m"),)),
    ],
)
def test_a_report_is_shown_on_stdout_or_printed_as_json(line, module, function, args, stand_in, capsys):
    found = {"parts": {"vae": None}, "size_bytes": 3}
    report = Recorded(found)

    def show(held: dict[str, Any], console: Any) -> None:
        console.print(f"shown {held['size_bytes']}")

    stand_in(module, **{function: report, "show": show})
    assert main(line.split()) == 0
    assert report.args == args
    assert capsys.readouterr().out == "shown 3\n"
    assert main([*line.split(), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found


def test_checkpoint_merge_says_where_it_wrote(stand_in, capsys):
    merge = Recorded(Path("there"))
    stand_in("sampan.checkpoint.merge", merge=merge)
    line = "checkpoint merge m there --lora a.safetensors:0.8 --lora b --subtract --dtype bf16"
    assert main(line.split()) == 0
    assert merge.args == (Path("m"), Path("there"), ((Path("a.safetensors"), 0.8), (Path("b"), 1.0)))
    del merge.kwargs["progress"], merge.kwargs["say"]
    assert merge.kwargs == {"subtract": True, "dtype": "bf16", "verified": True}
    assert capsys.readouterr().out == "there\n"


def test_checkpoint_export_says_where_it_wrote(stand_in, capsys):
    export = Recorded(Path("there"))
    stand_in("sampan.checkpoint.export", export=export)
    assert main(["checkpoint", "export", "runs/x", "there"]) == 0
    assert export.args == (Path("runs/x"), Path("there"), None, {})
    assert capsys.readouterr().out == "there\n"
    assert main(["checkpoint", "export", "runs/x", "there", "--dtype", "bf16"]) == 0
    assert export.args[2] == "bf16"
    assert main(["checkpoint", "export", "runs/x", "there", "--step", "ar=20", "--step", "decoder=7"]) == 0
    assert export.args[3] == {"ar": 20, "decoder": 7}


@pytest.mark.parametrize(
    ("line", "module", "function"),
    [
        ("doctor", "sampan.doctor", "report"),
        ("data emoji pics", "sampan.synthetic.emoji", "write"),
        ("data signs pics --count 1", "sampan.synthetic.signs", "write"),
        ("data pairs pics --count 1", "sampan.synthetic.pairs", "write"),
        ("train JOB", "sampan.train.loop", "train"),
        ("generate apple", "sampan.pipeline.pipeline", "generate"),
        ("checkpoint export r d", "sampan.checkpoint.export", "export"),
        ("checkpoint inspect m", "sampan.checkpoint.inspect", "inspect"),
        ("checkpoint merge m d --lora l", "sampan.checkpoint.merge", "merge"),
    ],
)
def test_the_real_functions_take_what_the_verbs_pass(line, module, function, stand_in, job_file):
    real = importlib.import_module(module)
    counts = {"num_emoji": 0, "num_signs": 0, "num_pictures": 0, "num_rows": 0, "num_left_out": 0}
    summary = SimpleNamespace(counts=counts, written=True)
    recorded = Recorded([] if function == "generate" else summary if function == "write" else {})
    show = Recorded()
    kinds = {name: kind for name, kind in vars(real).items() if inspect.isclass(kind)}  # what the arguments are made of
    stand_in(module, **{**kinds, function: recorded, "show": show})
    assert main([str(job_file) if word == "JOB" else word for word in line.split()]) == 0
    inspect.signature(getattr(real, function)).bind(*recorded.args, **recorded.kwargs)
    if show.args:
        inspect.signature(real.show).bind(*show.args)


def test_every_verb_is_documented():
    from sampan.cli import run

    verbs = [value for name, value in vars(run).items() if inspect.isfunction(value) and not name.startswith("_")]
    own = [verb for verb in verbs if verb.__module__ == run.__name__]
    assert len(own) == 19
    assert all(re.fullmatch(r".+\.", (verb.__doc__ or "").strip()) for verb in own)
