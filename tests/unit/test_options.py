"""Options are declared once, as fields of a dataclass; and words that are more than a number: FILE[:SCALE]."""

from __future__ import annotations

import inspect
from argparse import ArgumentTypeError
from dataclasses import MISSING, dataclass
from pathlib import Path, PureWindowsPath

import pytest

from sampan import options
from sampan.cli.parsing import Parser
from sampan.cli.verbs import VERBS


@dataclass(frozen=True, kw_only=True)
class MendArguments:
    """Mend things."""

    what: Path = options.argument("what to mend", "THING")
    glue: str = options.option("of wood or water", "KIND", default="wood", choices=("wood", "water"))
    clamps: tuple[str, ...] = options.option("to hold it", "LIST", options.words, ("a", "b"))
    hours: float = options.option("to dry", "H", options.number(0), 600.0, group="how long")
    days: float | None = options.option("more; default: as the weather is", "D", options.number(0))
    tries: int = options.option("how often", "N", options.whole(1), MISSING)
    layers: tuple[str, ...] = options.repeated("of varnish", "WHAT", str, name="--layer")
    hosts: tuple[str, str] | None = options.option("between two", ("A", "B"), is_exclusive=True)
    alone: bool = options.flag("by itself", is_exclusive=True)
    photo: str | None = options.option("before and after", "FILE", const="-")
    notes: tuple[Path, ...] = options.several("to take along", "FILE", Path)


def mend(line: str) -> MendArguments:
    parser = Parser(prog="mend")
    parser.takes(MendArguments, print)
    verb, run, arguments = parser.parse(line.split())
    assert (verb, run) == (parser, print)
    return arguments


def test_a_line_becomes_the_dataclass():
    assert mend("chair --tries 2") == MendArguments(what=Path("chair"), tries=2)
    line = "chair --tries 2 --glue water --clamps c,d --hours 1.5 --days 3 --layer x --layer y --hosts p q --photo"
    assert mend(f"{line} --notes m n --notes o") == MendArguments(
        what=Path("chair"), tries=2, glue="water", clamps=("c", "d"), hours=1.5, days=3.0, layers=("x", "y"),
        hosts=("p", "q"), photo="-", notes=(Path("m"), Path("n"), Path("o")),
    )  # fmt: skip
    assert mend("chair --tries 2 --alone --photo a.png") == MendArguments(
        what=Path("chair"), tries=2, alone=True, photo="a.png"
    )


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("--tries 2", "the following arguments are required: THING"),
        ("chair", "the following arguments are required: --tries"),
        ("chair --tries 2 --alone --hosts a b", "--hosts: not allowed with argument --alone"),
        ("chair --tries 2 --layer", "--layer: expected one argument"),
        ("chair --tries 2 --glue tar", "--glue: `tar` is not one of wood, water"),
    ],
)
def test_a_wrong_line(line, what, capsys):
    with pytest.raises(SystemExit):
        mend(line)
    assert capsys.readouterr().err.startswith(f"error: {what}\n")


def test_the_help_says_what_the_fields_say():
    parser = Parser(prog="mend")
    parser.takes(MendArguments, print)
    page = " ".join(parser.format_help().split())
    for words in (
        "of wood or water; default: wood",
        "to hold it; default: a,b",
        "how long: --hours H to dry; default: 600 --days D more; default: as the weather is --tries N how often --layer",
        "of varnish; may be repeated",
        "--hosts A B",
        "--photo [FILE]",
    ):
        assert words in page


@pytest.mark.parametrize("name", VERBS)
def test_every_verb_has_one_dataclass_of_options(name):
    arguments = VERBS[name].arguments
    (parameter,) = inspect.signature(VERBS[name].run).parameters.values()
    assert parameter.annotation.rpartition(".")[2] == arguments.__name__
    assert arguments.__doc__ == f"The options of `sampan {name}`."
    assert all(line.startswith("sampan ") for line in arguments.examples) and arguments.examples
    for field, default, option in options.options_of(arguments):
        assert option.help and hasattr(arguments, field) is (default is not MISSING)


@pytest.mark.parametrize(
    ("word", "file", "scale"),
    [
        ("a.safetensors", "a.safetensors", 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8),
        ("runs/lora:-1", "runs/lora", -1.0),
        ("a:b.safetensors", "a:b.safetensors", 1.0),
        ("a:b.safetensors:1e-1", "a:b.safetensors", 0.1),
        (r"C:\loras\a.safetensors", r"C:\loras\a.safetensors", 1.0),
        (r"C:\loras\a.safetensors:2", r"C:\loras\a.safetensors", 2.0),
        ("C:/loras/a.safetensors:0.5", "C:/loras/a.safetensors", 0.5),
        (":0.5", ":0.5", 1.0),
        ("a.safetensors:", "a.safetensors:", 1.0),
    ],
)
def test_a_lora_and_its_scale(word: str, file: str, scale: float):
    assert options.lora(word) == (Path(file), scale)


def test_a_file_that_is_there_is_not_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    if isinstance(Path(), PureWindowsPath):
        pytest.skip("a file name has no colon on Windows")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "version:2").touch()
    assert options.lora("version:2") == (Path("version:2"), 1.0)
    assert options.lora("version:2:0.5") == (Path("version:2"), 0.5)


@pytest.mark.parametrize("scale", ["nan", "inf", "-inf"])
def test_a_scale_is_finite(scale: str):
    with pytest.raises(ArgumentTypeError) as caught:
        options.lora(f"a.safetensors:{scale}")
    assert str(caught.value) == (
        f"`{scale}` in `a.safetensors:{scale}` is not a number to scale with, as in `a.safetensors:0.8`"
    )
