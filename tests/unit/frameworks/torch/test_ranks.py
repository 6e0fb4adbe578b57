"""Ranks that share a step give what one gives: losses, skipped steps, weights, averages, moments; over gloo."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

WORKER = Path(__file__).with_name("rank_worker.py")
MODES = ["fp32", "8bit", "bf16", "8bit-bf16", "rows", "rows-bf16", "delayed", "lora"]
TOLERANCE = 1e-5  # relative: sums over ranks are made in another order
CARRIED = 5e-5  # over a change of ranks: what it rounds otherwise has been learned from since
LEARNING_RATE = 1e-2  # of rank_worker.py
pytestmark = [pytest.mark.process, pytest.mark.timeout(300)]


def trained(out: Path, layout: tuple[int, int], modes: list[str], *more: Path) -> Path:
    ranks = layout[0] * layout[1]
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    shared = {**os.environ, "OMP_NUM_THREADS": "1", "LAYOUT": ",".join(map(str, layout))}
    shared |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(ranks)}
    begun = [
        subprocess.Popen(
            [sys.executable, WORKER, out, ",".join(modes), *more],
            env={**shared, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for rank in range(ranks)
    ]  # fmt: skip
    said = [process.communicate(timeout=240)[0] for process in begun]
    assert [process.returncode for process in begun] == [0] * ranks, "\n".join(said)
    return out


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("ranks") / "1", (1, 1), MODES)


def assert_same(one: Path, other: Path, mode: str, step: int = 4, bound: float = TOLERANCE) -> None:
    (*mine, my_sums), (*theirs, their_sums) = (json.loads((out / f"{mode}.json").read_text()) for out in (other, one))
    bf16 = "bf16" in mode
    for number, (my, their) in enumerate(zip(mine, theirs, strict=True)):
        assert my[2:4] == their[2:4], number  # skipped, and which micro-batches were bad
        assert my[5] == their[5], number  # arrays of the last micro-batch
        if not their[2]:
            assert my[:2] == pytest.approx(their[:2], rel=5e-2 if bf16 else bound), number
            assert my[4] == pytest.approx(their[4], rel=5e-2 if bf16 else 1e-4), number
    assert my_sums == pytest.approx(their_sums, rel=0.05 if bf16 else 1e-4, abs=0.2 if bf16 else 1e-4)
    for group in ("weights", "ema", "optimizer"):
        path = Path(mode) / "stages" / "net" / f"step-{step:08d}" / f"{group}.safetensors"
        own, wanted = load_file(other / path), load_file(one / path)
        assert {n: (v.shape, v.dtype) for n, v in own.items()} == {n: (v.shape, v.dtype) for n, v in wanted.items()}
        for name, value in wanted.items():
            a, b = own[name].double().numpy(), value.double().numpy()
            if name.endswith(".codes"):  # a rounding may move a code to its neighbour
                assert bf16 or np.mean(a != b) < 0.01, name
            elif mode == "8bit":  # and by that a weight
                assert np.mean(np.abs(a - b) > 2e-6 + 1e-4 * np.abs(b)) < 0.01, (group, name)
            elif not bf16:
                assert np.allclose(a, b, rtol=1e-4, atol=2e-6), (group, name, np.abs(a - b).max())
            elif group == "optimizer":  # gradients are rounded to bf16 where they are added up, and that is elsewhere
                assert np.linalg.norm(a - b) <= 0.03 * np.linalg.norm(b) + 1e-3, name
            else:  # so that a gradient near 0 may have the other sign, and Adam's whole step with it
                assert np.mean(np.abs(a - b) > 2e-3) < 0.05, (group, name)
                assert np.abs(a - b).max() <= 2 * 4 * LEARNING_RATE, (group, name)


def test_two_ranks_with_slices_give_what_one_gives(tmp_path: Path):
    modes = ["fp32", "8bit", "rows", "lora"]
    one, two = trained(tmp_path / "1", (1, 1), modes), trained(tmp_path / "2", (1, 2), modes)
    for mode in modes:
        assert_same(one, two, mode)


@pytest.mark.slow
@pytest.mark.parametrize("layout", [(1, 2), (1, 3), (2, 2), (1, 4), (2, 1), (3, 1)])
def test_any_layout_gives_what_one_rank_gives(alone: Path, tmp_path: Path, layout: tuple[int, int]):
    trained(tmp_path / "n", layout, MODES)
    for mode in MODES:
        assert_same(alone, tmp_path / "n", mode)


@pytest.mark.slow
def test_a_run_goes_from_one_to_two_to_four_to_three_ranks_and_back(alone: Path, tmp_path: Path):
    modes = [mode for mode in MODES if "bf16" not in mode]
    further = trained(tmp_path / "further", (1, 1), modes, alone)
    for layout in ((1, 2), (2, 2), (1, 3)):
        other = trained(tmp_path / f"{layout}", layout, modes, trained(tmp_path / f"begun-{layout}", layout, modes))
        for mode in modes:
            assert_same(further, other, mode, step=8, bound=CARRIED)
        mixed = trained(tmp_path / f"mixed-{layout}", layout, modes, alone)
        for mode in modes:
            assert_same(further, mixed, mode, step=8, bound=CARRIED)
    assert (tmp_path / "further").is_dir()
