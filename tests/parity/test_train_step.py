"""The two sides that benchmarks/train_step.py times learn the same: losses and weights, step by step."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from oracle import TINY

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"
NUM_STEPS = 3


@pytest.fixture(scope="module")
def benchmark_module() -> Iterator[Any]:
    """benchmarks/train_step.py."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        import train_step

        yield train_step


@pytest.fixture(scope="module")
def world(benchmark_module: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    return benchmark_module.make_world(
        tmp_path_factory.mktemp("world"),
        sizes=TINY,
        resolutions_px=(64, 128),
        num_pictures=6,
        num_steps=2 * NUM_STEPS,
        micro_batch_size={"ar": 4, "decoder": 2},
    )


@pytest.mark.parametrize("name", ["ar", "decoder"])
def test_every_form_of_the_script_takes_our_steps(name: str, benchmark_module: Any, world: Any):
    race = benchmark_module.Race(world, name)
    before = {key: value.clone() for key, value in race.ours.module.named_parameters()}
    errors = race.compare(NUM_STEPS)
    assert set(errors) == {"plain", "cached", "careful"} and all(len(found) == NUM_STEPS for found in errors.values())
    for script in race.scripts.values():
        theirs = dict(script.model.named_parameters())
        for key, value in race.ours.module.named_parameters():
            moved = (value - before[key]).abs().max()
            assert (value - theirs[key]).abs().max() <= 0.02 * moved, key


def test_the_generators_rows_are_of_mixed_length(benchmark_module: Any, world: Any):
    race = benchmark_module.Race(world, "ar", ["plain"])
    for step in range(NUM_STEPS):
        race.batch(step)
    assert 0.1 < sum(race.padding) / NUM_STEPS < 0.9


@pytest.mark.parametrize(
    ("name", "field", "factor", "added"),
    [("ar", "weights", 2, 0), ("ar", "positions", 2, 0), ("decoder", "t", 1, 5), ("decoder", "crop", 1, 5)],
)
def test_another_draw_is_found_out_and_not_timed(
    name: str, field: str, factor: int, added: int, benchmark_module: Any, world: Any, monkeypatch: pytest.MonkeyPatch
):
    race = benchmark_module.Race(world, name, ["plain"])
    made = race.batch(0)
    changed = getattr(made, field).clone()
    changed[0] = changed[0] * factor + added
    monkeypatch.setattr(race, "batch", lambda step: benchmark_module.replace(made, **{field: changed}))
    with pytest.raises(SystemExit, match="the loss of step 0 differs"):
        race.compare(1)


def test_results_are_added_and_never_replaced(
    benchmark_module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(benchmark_module, "MODELS", {"tiny": TINY})
    monkeypatch.setattr(benchmark_module, "RESOLUTIONS_PX", (64, 128))
    monkeypatch.setattr(benchmark_module, "NUM_PICTURES", 4)
    monkeypatch.setattr(benchmark_module, "MICRO_BATCH_SIZE", {"decoder": 2, "ar": 2})
    monkeypatch.setattr(sys, "argv", ["train_step.py", "--rounds", "1", "--steps", "1", "--out", str(tmp_path)])
    date = benchmark_module.results.today().replace("-", "")
    (tmp_path / f"train-step_{date}.json").write_text("an earlier one", encoding="utf-8")
    benchmark_module.main()
    written = tmp_path / f"train-step_{date}_2.json"
    assert capsys.readouterr().out.endswith(f"written to {written}\n")
    record = json.loads(written.read_text(encoding="utf-8"))
    assert record["results"]["tiny"]["ar"]["scripts"]["plain"]["speedup"] > 0
    assert record["results"]["tiny"]["decoder"]["padding_share"] is None
    assert 0.12 < record["released_encoder_share"]["decoder"]["1024_px"] < 0.13
    assert (tmp_path / f"train-step_{date}.json").read_text(encoding="utf-8") == "an earlier one"


def test_the_table_names_the_ratio_and_how_far_losses_are_apart(benchmark_module: Any):
    one = {
        "ms": 20.0,
        "speedup": 2.0,
        "speedup_quartile_low": 1.9,
        "speedup_quartile_high": 2.1,
        "loss_error_max": 1e-7,
    }
    found = {"nano": {"ar": {"sampan_ms": 10.0, "scripts": {"plain": one}}}}
    last = benchmark_module.table(found).splitlines()[-1]
    assert last == "| nano | ar | plain | 20 | 10 | 2.00 (1.90-2.10) | 1e-07 |"


def test_shares_are_counted_by_hand_for_a_tokenizer(benchmark_module: Any, world: Any):
    from training import shares

    vision, vq = world.work.config.ar.vision, world.work.config.ar.vq
    tokens, dim = 4, vision.hidden_size
    patches = 2 * tokens * 3 * 16 * 16 * dim
    layers = vision.depth * 2 * tokens * (4 * dim * dim + 2 * dim * vision.intermediate_size + 2 * tokens * dim)
    codes = 2 * tokens * (vq.latent_channels * vq.embed_dim + vq.embed_dim * vq.num_embeddings)
    assert shares._tokenizer(world.work.config, (2, 2)) == patches + layers + codes
    assert torch.is_grad_enabled()
