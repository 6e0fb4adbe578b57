"""Completion scripts know every verb and option, and shells take them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from sampan.cli import main
from sampan.cli.completion import completed_options
from sampan.cli.verbs import VERBS

SHELLS = ("bash", "zsh", "fish")


@pytest.fixture
def script(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Return a function that writes a shell's script."""

    def write(shell: str) -> Path:
        assert main(["completion", shell]) == 0
        said = capsys.readouterr()
        assert said.err == ""
        path = tmp_path / f"sampan.{shell}"
        path.write_text(said.out, encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize("shell", SHELLS)
def test_every_verb_and_option_is_in_it(shell: str, script):
    text = script(shell).read_text("utf-8")
    for name, verb in VERBS.items():
        assert all(word in text for word in name.split()), name
        for option in completed_options(verb.arguments):
            short = option.name.lstrip("-") if shell == "fish" else option.name
            assert short in text, (name, option.name)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_shell_can_read_it(shell: str, script):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    done = subprocess.run([shell, "-n", str(script(shell))], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (("",), {"init", "data", "generate", "completion", "--version"}),
        (("ge",), {"generate"}),
        (("data", ""), {"prepare", "emoji", "signs", "pairs"}),
        (("eval", "--suite", "s"), {"signs"}),
        (("generate", "--dt"), {"--dtype"}),
        (("generate", "--dtype", ""), {"auto", "fp32", "bf16", "fp16"}),
        (("completion", ""), set(SHELLS)),
        (("checkpoint", "export", "run", "--st"), {"--step"}),
        (("train", "jobs/na"), {"jobs/nano.toml"}),
        (("generate", "--model", "jo"), {"jobs"}),
        (("generate", "--seed", ""), set()),
    ],
)
def test_bash_completes(words: tuple[str, ...], wanted: set[str], script, tmp_path: Path):
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs" / "nano.toml").touch()
    quoted = " ".join(f"'{word}'" for word in ("sampan", *words))
    program = (
        f'source "$0"; COMP_WORDS=({quoted}); COMP_CWORD={len(words)}; _sampan; printf "%s\\n" "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "-c", program, str(script("bash"))],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = set(done.stdout.split())
    assert (found == wanted) if words != ("",) and words != ("data", "") else wanted <= found, done.stderr
