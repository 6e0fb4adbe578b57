"""A dry run says what each rank would hold and send, is refused as training is, and writes no run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sampan import files
from sampan.cli import main
from sampan.errors import CatalogError, CheckpointError, DeviceError, JobError, UsageError
from sampan.frameworks.torch import parallel
from sampan.job import parse
from sampan.models import presets
from sampan.models.build import build_on_meta
from sampan.train import dry_run as dry
from sampan.train.run_state import open_run
from unit.train.conftest import draw_plain

JOB = """
out = "{folder}/run"
[data]
path = "{folder}/set"
workers = 0
[model.override.text]
num_hidden_layers = 2
[model.override.dit]
num_layers = 2
[stage.decoder]
micro_batch_size = 8
grad_accum_steps = 6
[place]
device = "cpu"
dtype = "bf16"
"""
Report = dict[str, Any]


@pytest.fixture
def text(tmp_path: Path) -> str:
    draw_plain(tmp_path / "set")
    return JOB.format(folder=tmp_path.as_posix())


@pytest.fixture
def report_of(text: str) -> Callable[..., Report]:
    def run(more: str = "", *, resume: bool = False, ranks: int = 1, nodes: int = 1, chip: str | None = None) -> Report:
        found: list[Report] = []
        job = parse(text + more)
        try:
            dry.dry_run(
                job, ranks=ranks, nodes=nodes, chip=chip, resume=resume, console=Console(quiet=True),
                put=lambda report, show: found.append(report),
            )  # fmt: skip
        finally:
            assert parallel.num_ranks() == 1  # whatever happens, this process is alone again
        return found[0]

    return run


def test_each_rank_holds_its_part_and_sends_what_follows_from_it(report_of: Callable[..., Report], tmp_path: Path):
    report = report_of(ranks=8, nodes=2)
    assert report["layout"] == {"dp_replicate": 2, "dp_shard": 4}
    assert list(report["stages"]) == ["vae", "tokenizer", "glyph", "ar", "decoder"]
    decoder = report["stages"]["decoder"]
    override = {"text": {"num_hidden_layers": 2}, "dit": {"num_layers": 2}}
    module = build_on_meta("decoder", presets.get("nano", override))
    values = sum(p.numel() for p in module.parameters())
    assert (
        decoder["bytes"]["weights"] == decoder["bytes"]["gradients"] == decoder["bytes"]["average"] == values
    )  # 4 / 4
    assert decoder["bytes"]["moments"] == 2 * values
    blocks = sum(p.numel() for block in module.transformer_blocks for p in block.parameters())
    # the two blocks in bf16 and the rest in fp32, and as much again for their gradients
    assert decoder["bytes"]["gathered"] == 2 * (2 * blocks + 4 * (values - blocks))
    assert decoder["bytes"]["total"] == sum(n for what, n in decoder["bytes"].items() if what != "total")
    # six micro-batches over eight ranks: one each, two of them for nothing
    assert (decoder["micro_batches"], decoder["idle_micro_batches"]) == (1, 2)
    gather, scatter, total = decoder["collectives"]
    # rows that do not divide by four are filled up, which adds a little
    assert 1 <= gather["sent_bytes"] / (3 / 4 * (2 * 2 * blocks + 4 * (values - blocks))) < 1.01
    assert 1 <= scatter["sent_bytes"] / (3 / 4 * 4 * values) < 1.01
    assert total["sent_bytes"] == scatter["sent_bytes"] // 3
    assert [one["crosses_nodes"] for one in (gather, scatter, total)] == [False, False, True]
    written = {path.relative_to(tmp_path / "run").parts[0] for path in (tmp_path / "run").rglob("*")}
    assert written == {"cache"}


def test_one_rank_holds_all_and_sends_nothing(report_of: Callable[..., Report]):
    report = report_of()
    decoder = report["stages"]["decoder"]
    assert decoder["collectives"] == [] and decoder["bytes"]["gathered"] == 0
    assert decoder["micro_batches"] == 6


def test_rows_that_are_not_trained_are_whole_on_every_rank(report_of: Callable[..., Report]):
    frozen = "[stage.ar]\nfreeze_text = true\n"
    one, four = report_of(frozen), report_of(frozen, ranks=4)
    alone, shared = one["stages"]["ar"]["bytes"], four["stages"]["ar"]["bytes"]
    rows = alone["weights"] - alone["gradients"]  # a weight has a gradient, but for these rows
    assert rows > 0 and alone["frozen_rows"] == 0
    assert shared["frozen_rows"] == rows and shared["weights"] == alone["gradients"] / 4
    assert four["checkpoints_bytes"] == one["checkpoints_bytes"]  # whoever writes it


def test_training_begins_where_a_dry_run_was(report_of: Callable[..., Report], text: str):
    report_of(ranks=2)
    open_run(parse(text), "cpu", "fp32", resume=False, console=Console(quiet=True))
    with pytest.raises(JobError, match="already holds a run"):
        report_of(ranks=2)
    assert report_of(ranks=2, resume=True)["ranks"] == 2


def test_a_chip_of_the_catalogue_stands_in_for_a_device(report_of: Callable[..., Report]):
    report = report_of(chip="h200", ranks=2)
    assert (report["device"], report["dtype"], report["free_bytes"]) == ("cuda", "bf16", 141 * 10**9)
    with pytest.raises(CatalogError, match="no chip `h2000`"):
        report_of(chip="h2000")


def test_what_training_refuses_is_refused_in_its_words(
    report_of: Callable[..., Report], text: str, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(JobError, match="the job's mesh is not that of 4 ranks"):
        report_of("dp_shard = 3\n", ranks=4)
    with pytest.raises(JobError, match="6 ranks do not lie evenly on 4 nodes"):
        report_of(ranks=6, nodes=4)
    monkeypatch.setattr(dry.dev, "memory_bytes", lambda name: (10**6, 10**6))
    with pytest.raises(JobError, match="stage vae does not fit on `cpu`"):
        report_of(ranks=2)
    monkeypatch.undo()
    monkeypatch.setattr(files, "try_place", lambda folder: 1000)
    with pytest.raises(CheckpointError, match="the checkpoints of this run do not fit into"):
        report_of(ranks=2)
    monkeypatch.undo()
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError, match="--dry-run is for one process"):
        report_of(ranks=2)


def test_a_device_that_is_not_here_may_be_named_but_not_one_for_all_ranks(text: str):
    if "cuda" in dry.dev.available():
        pytest.skip("this machine has CUDA")
    assert dry._device("cuda", None) == ("cuda", (None, None))
    assert dry._device("auto", "h200") == ("cuda", (141 * 10**9, 141 * 10**9))
    assert dry._device("auto", "ascend_910b2")[0] == "npu"
    with pytest.raises(JobError, match="what PyTorch calls the chip"):
        dry._device("auto", "mlu590")
    with pytest.raises(DeviceError, match="`cuda:1` cannot be the device of several ranks"):
        dry.dry_run(
            parse(text.replace('"cpu"', '"cuda:1"')), ranks=2, nodes=1, chip=None, resume=False,
            console=Console(quiet=True), put=lambda report, show: None,
        )  # fmt: skip


def test_the_command_prints_a_table_or_json(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    job = tmp_path / "job.toml"
    job.write_text(text, encoding="utf-8")
    call = ["train", str(job), "--dry-run", "--ranks", "8", "--nodes", "2"]
    assert main([*call, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["stages"]["ar"]["collectives"][0]["kind"] == "all-gather"
    assert main(call) == 0
    said = capsys.readouterr().out
    assert "8 ranks on 2 nodes: dp_replicate 2 x dp_shard 4, torch on `cpu` in bf16" in said
    assert "reduce-scatter" in said and "of 8 a rank, 2 in all for nothing" in said
    assert main(["train", str(job), "--ranks", "8"]) == 2
    assert "--ranks is of --dry-run" in capsys.readouterr().err
