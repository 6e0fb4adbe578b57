"""docs/ascend.md: its note stands at its top, its commands parse, and its memory table is what arithmetic says."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

from sampan.cli.verbs import parser
from sampan.models.ar import ARGenerator
from sampan.models.config import DiTConfig, TextConfig
from sampan.models.dit import DiT

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "ascend.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```\n(.+?)^```", PAGE, re.MULTILINE | re.DOTALL)
LINES = [line for block in BLOCKS for line in block.splitlines()]
LAUNCHED = [line for line in LINES if line.startswith("msrun ")]


def test_the_note_on_rules_stands_before_everything_else():
    title, _, rest = PAGE.partition("\n\n")
    note = rest.partition("\n\n")[0]
    assert title == "# Ascend" and all(line.startswith("> ") for line in note.splitlines())
    for word in ("13 May 2025", "910B, 910C and 910D", "21 May 2025", "Anti-Foreign Sanctions Law", "not advice"):
        assert word in " ".join(note.replace("\n> ", " ").split())
    assert "lawful" not in PAGE.lower()


@pytest.mark.parametrize("line", [line for line in LINES if line.startswith("sampan ")])
def test_a_command_of_the_page_has_options_that_exist(line: str):
    parser().parse(shlex.split(line)[1:])


@pytest.mark.parametrize("line", LAUNCHED, ids=lambda line: re.findall(r"--(?:worker_num|node_rank)=(\d+)", line))
def test_a_launch_of_the_page_is_msruns_and_starts_sampan(line: str, monkeypatch: pytest.MonkeyPatch):
    run = pytest.importorskip("mindspore.parallel.cluster.run", reason="MindSpore is not installed, and msrun with it")
    words = shlex.split(line)
    monkeypatch.setattr(sys, "argv", words)
    given = run.get_args()
    assert [given.task_script, *given.task_script_args[:2]] == ["python", "-m", "sampan"]
    assert given.worker_num % given.local_worker_num == 0 and given.join is True
    _, _, arguments = parser().parse(given.task_script_args[2:])
    assert arguments.framework == "mindspore"
    steps = dict(each.split("=", 1) for each in words if each.startswith("stage.ar.grad_accum_steps"))
    assert int(steps["stage.ar.grad_accum_steps"]) % given.worker_num == 0


def test_both_servers_get_the_same_launch_but_for_their_number():
    pair = [line for line in LAUNCHED if "--node_rank" in line]
    assert len(LAUNCHED) == 3 and len(pair) == 2
    assert [re.findall(r"--node_rank=(\d)", line) for line in pair] == [["0"], ["1"]]
    assert pair[0].replace("--node_rank=0", "--node_rank=1") == pair[1]


def test_the_memory_of_the_page_is_what_arithmetic_says():
    with torch.device("meta"):
        modules = {"ar": ARGenerator(TextConfig()), "decoder": DiT(DiTConfig())}
    counts = {name: sum(each.numel() for each in module.parameters()) for name, module in modules.items()}
    for name, count in counts.items():
        assert f"{count:,} in the" in PAGE, name
    rows = re.findall(r"^\| `(ar|decoder)` \| (\d+) \| (.+?) \|$", PAGE, re.MULTILINE)
    assert [(name, int(ranks)) for name, ranks, _ in rows] == [(name, n) for name in counts for n in (1, 8, 16)]
    for name, ranks, cells in rows:
        low, shared = 2 * counts[name] / 2**30, 16 * counts[name] / int(ranks) / 2**30
        summed = shared / 4
        together = 2 * low + summed + shared
        left = f"{64 - together:.1f} left" if together < 64 else "does not fit"
        assert cells.split(" | ") == [
            f"{low:.1f}",
            f"{low:.1f} + {summed:.1f}",
            f"{shared:.1f}",
            f"{together:.1f}",
            left,
        ]
