"""As a user would: adapt a model with a LoRA and whole, from folders, tars and tables; prepare; be refused in time."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from e2e.command import sampan

ROOT = Path(__file__).resolve().parents[2]

ADAPT = """\
out = "runs/adapt"
[data]
path = "runs/smoke-pictures"
[model]
start = "runs/smoke"
[train]
stages = ["ar", "decoder"]
save_every = 2
[stage.ar]
num_steps = 3
micro_batch_size = 4
[stage.decoder]
num_steps = 3
micro_batch_size = 4
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures, a finished run of jobs/smoke.toml, and a job that adapts it."""
    folder = tmp_path_factory.mktemp("adapt")
    sampan("data", "emoji", "runs/smoke-pictures", "--count", "8", "--size", "64", "--edits", "1", cwd=folder)
    small = [f"--set=stage.{stage}.num_steps=2" for stage in ("vae", "tokenizer", "glyph", "ar", "decoder")]
    sampan("train", ROOT / "jobs" / "smoke.toml", *small, cwd=folder)
    (folder / "adapt.toml").write_text(ADAPT, encoding="utf-8")
    return folder


def paint(place: Path, name: str, *arguments: str) -> np.ndarray:
    asked = ("dog face", "--steps", "2", "--seed", "3", "--dtype", "fp32")  # `auto` is bf16 on some processors
    sampan("generate", *asked, "--out", f"{name}.png", *arguments, cwd=place)
    with Image.open(place / f"{name}.png") as image:
        return np.asarray(image, np.int64)


def test_a_lora_changes_the_picture_and_scale_0_does_not(place: Path):
    lora = (
        "--set",
        'train.method="lora"',
        "--set",
        "out=runs/lora",
        "--set",
        "lora.rank=4",
        "--set",
        "stage.decoder.lr=0.1",
    )
    said = sampan("train", "adapt.toml", *lora, cwd=place)
    assert said.stdout == "runs/lora/lora\n"
    assert "memory on `cpu`" in said.stderr and "generate PROMPT --model" in said.stderr
    assert not (place / "runs" / "lora" / "model").exists()
    base = paint(place, "base", "--model", "runs/smoke")
    adapted = paint(place, "adapted", "--model", "runs/smoke", "--lora", "runs/lora/lora")
    assert np.abs(base - adapted).mean() > 1
    assert np.array_equal(adapted, paint(place, "run", "--model", "runs/lora"))
    assert np.array_equal(base, paint(place, "zero", "--model", "runs/smoke", "--lora", "runs/lora/lora:0"))
    sampan("checkpoint", "merge", "runs/smoke", "merged", "--lora", "runs/lora/lora", cwd=place)
    assert np.abs(adapted - paint(place, "merged", "--model", "merged")).max() <= 2  # a byte's rounding, and the sum's
    stored = json.loads((place / "runs/lora/stages/decoder/step-00000003/state.json").read_text(encoding="utf-8"))
    assert stored["bytes"]["weights.safetensors"] < 2_000_000  # the additions alone
    again = sampan("train", "adapt.toml", *lora, "--resume", cwd=place)
    assert "decoder: done before" in again.stderr


def test_a_whole_part_is_adapted_and_text_rows_stay(place: Path):
    sampan("train", "adapt.toml", "--set", "train.moments=8bit", "--set", "stage.ar.recompute=true", cwd=place)
    from safetensors.numpy import load_file

    file = "vision_language_encoder/model.safetensors"
    name = "model.language_model.embed_tokens.weight"
    before, after = (load_file(place / "runs" / run / "model" / file)[name] for run in ("smoke", "adapt"))
    assert np.array_equal(before[1088:], after[1088:])
    assert not np.array_equal(before[:1088], after[:1088])
    vae = "vae/diffusion_pytorch_model.safetensors"
    assert (place / "runs/smoke/model" / vae).read_bytes() == (place / "runs/adapt/model" / vae).read_bytes()
    history = json.loads((place / "runs/adapt/stages/ar/step-00000003/state.json").read_text(encoding="utf-8"))
    assert history["history"][-1]["to_step"] == 3 and history["rows_drawn"] == 12
    for name in ("loss.png", "log.jsonl", "events.jsonl", "samples"):
        assert (place / "runs" / "adapt" / name).exists(), name


def test_tars_and_tables_train_like_folders(place: Path):
    """The same pictures and captions from another container are the same set, and give the same first loss."""
    rows = [json.loads(line) for line in (place / "runs/smoke-pictures/metadata.jsonl").read_text("utf-8").splitlines()]
    plain = [row for row in rows if "references" not in row]
    (place / "tars").mkdir()
    with tarfile.open(place / "tars" / "a.tar", "w") as tar:
        for number, row in enumerate(plain):
            pixels = (place / "runs/smoke-pictures" / row["file_name"]).read_bytes()
            for suffix, data in (("png", pixels), ("txt", row["text"].encode())):
                member = tarfile.TarInfo(f"{number:04d}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    images = [{"bytes": (place / "runs/smoke-pictures" / row["file_name"]).read_bytes(), "path": None} for row in plain]
    table = pyarrow.table({"image": images, "text": [row["text"] for row in plain]})
    parquet.write_table(table, place / "pictures.parquet")
    losses = []
    for reader, path in (("webdataset", "tars"), ("parquet", "pictures.parquet")):
        sampan(
            "train", "adapt.toml", "--set", f"data.reader={reader}", "--set", f"data.path={path}", "--set",
            f"out=runs/{reader}", "--set", 'train.stages=["decoder"]', cwd=place,
        )  # fmt: skip
        log = (place / "runs" / reader / "log.jsonl").read_text(encoding="utf-8").splitlines()
        losses.append([json.loads(line)["loss"] for line in log])
    assert losses[0] == losses[1]


def test_prepare_encodes_once_and_train_finds_it(place: Path):
    shared = ("--set", "data.cache=shared", "--set", "out=runs/prepared")
    said = sampan("data", "prepare", "adapt.toml", *shared, cwd=place)
    assert said.stdout == "shared\n" and "encoded by tokenizer, vae, glyph" in said.stderr
    assert not (place / "runs" / "prepared").exists()
    shards = sorted(path for path in (place / "shared").rglob("*.safetensors"))
    assert shards
    stamps = [path.stat().st_mtime_ns for path in shards]
    sampan("train", "adapt.toml", *shared, "--set", 'train.stages=["decoder"]', cwd=place)
    assert [path.stat().st_mtime_ns for path in sorted((place / "shared").rglob("*.safetensors"))] == stamps
    fresh = sampan("data", "prepare", ROOT / "jobs" / "smoke.toml", "--set", "out=runs/fresh", cwd=place)
    assert "tokenizer, vae, glyph: encoding waits for the training of these parts" in fresh.stderr


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["train.method=lora", 'train.stages=["vae"]'], "`vae` has no low-rank additions"),
        (["train.method=lora", 'lora.targets=["to_qq"]'], "`to_qq` names no layer that can have a low-rank addition"),
        (["train.method=loar"], "train.method"),
        (["model.start=nowhere"], "nowhere"),
        (["data.reader=parquet"], "parquet"),
        (["data.resolutions_px=[100]"], "`data.resolutions_px` has 100"),
        (["lora.rank=0"], "lora.rank: must be at least 1, got 0"),
    ],
)
def test_wrong_jobs_are_said_in_one_error_and_leave_no_run(place: Path, settings: list[str], said: str):
    words = [word for setting in settings for word in ("--set", setting)]
    done = sampan("train", "adapt.toml", "--set", "out=runs/wrong", *words, cwd=place, code=1)
    assert said in done.stderr
    assert not (place / "runs" / "wrong" / "run.json").exists()


def test_a_longer_stage_goes_on_where_nothing_stands_on_it(place: Path):
    ours = ("--set", "out=runs/longer", "--set", 'train.stages=["ar", "decoder"]')
    sampan("train", "adapt.toml", *ours, cwd=place)
    sampan("train", "adapt.toml", *ours, "--set", "stage.decoder.num_steps=5", "--resume", cwd=place)
    log = [json.loads(line) for line in (place / "runs/longer/log.jsonl").read_text("utf-8").splitlines()]
    assert [line["step"] for line in log if line["stage"] == "decoder"] == [1, 2, 3, 4, 5]
    done = sampan("train", "adapt.toml", *ours, "--set", "stage.ar.num_steps=9", "--resume", cwd=place, code=1)
    assert "stage decoder has been trained on what it was then" in done.stderr
