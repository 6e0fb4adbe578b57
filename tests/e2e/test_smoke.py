"""As a user would: pictures, a training of every stage, pictures from it; and the other library loads what came out.

One run folder serves the whole file. Everything goes through the command line in processes of its own.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from e2e.command import sampan

ROOT = Path(__file__).resolve().parents[2]
STAGES = ("vae", "tokenizer", "glyph", "ar", "decoder")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pictures and a finished run of jobs/smoke.toml."""
    folder = tmp_path_factory.mktemp("smoke")
    (folder / "runs").mkdir()
    sampan("data", "emoji", "runs/smoke-pictures", "--count", "8", "--size", "64", "--edits", "1", cwd=folder)
    sampan("train", ROOT / "jobs" / "smoke.toml", cwd=folder)
    return folder


def log(run: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run / "log.jsonl").read_text(encoding="utf-8").splitlines()]


def test_every_stage_writes_its_steps_into_the_log(place: Path):
    lines = log(place / "runs" / "smoke")
    assert list(dict.fromkeys(line["stage"] for line in lines)) == list(STAGES)
    for line in lines:
        assert isinstance(line["step"], int)
        if "loss" in line:
            assert np.isfinite(float(str(line["loss"])))
    # what is measured at a stage's end stands in lines of its own
    measured = {name for line in lines if "loss" not in line for name in line} - {"stage", "step"}
    assert {"psnr_db", "set_codes_used", "retrieval@1"} <= measured


def test_the_same_seed_paints_the_same_picture_and_another_does_not(place: Path):
    pixels = {}
    for name, seed in (("a", 5), ("b", 5), ("c", 6)):
        arguments = ("generate", "grinning face", "--model", "runs/smoke", "--steps", "2", "--seed", seed, "--json")
        done = sampan(*map(str, arguments), "--out", f"{name}.png", cwd=place)
        record = json.loads(done.stdout)["pictures"][0]
        assert record["file"] == f"{name}.png" and record["seed"] == seed
        with Image.open(place / f"{name}.png") as image:
            assert image.size == (64, 64) and image.mode == "RGB"
            pixels[name] = np.asarray(image)
            facts = json.loads(image.text["sampan"])  # type: ignore[attr-defined]
            assert facts["prompt"] == "grinning face" and facts["model_hash"] == record["model_hash"]
            assert "digitalsourcetype/trainedAlgorithmicMedia" in image.text["XML:com.adobe.xmp"]  # type: ignore[attr-defined]
    assert np.array_equal(pixels["a"], pixels["b"])
    assert not np.array_equal(pixels["a"], pixels["c"])


def test_references_several_pictures_sizes_and_a_private_prompt(place: Path):
    references = sorted((place / "runs" / "smoke-pictures" / "images").glob("*.png"))[:2]
    odd = place / "odd.jpg"
    with Image.open(references[0]) as image:
        image.resize((201, 333)).save(odd)
    sampan(
        "generate", "make the background blue", "--model", "runs/smoke", "--steps", "2", "--seed", "1", "-n", "2",
        "--reference", references[1], "--reference", odd, "--size", "96x64", "--no-prompt-metadata", "--offload",
        "--out", "edit.png", cwd=place,
    )  # fmt: skip
    for number in (1, 2):
        with Image.open(place / f"edit-{number}.png") as image:
            assert image.size == (96, 64)
            assert "make the background" not in json.dumps(image.text)  # type: ignore[attr-defined]
    assert (place / "edit-1.png").read_bytes() != (place / "edit-2.png").read_bytes()


def test_an_export_in_bf16_still_paints(place: Path):
    sampan("checkpoint", "export", "runs/smoke", "exported-bf16", "--dtype", "bf16", cwd=place)
    report = json.loads(sampan("checkpoint", "inspect", "exported-bf16", "--json", cwd=place).stdout)
    assert {dtype for part in report["parts"].values() for dtype in part["dtypes"]} == {"BF16"}
    sampan(
        "generate", "x", "--model", "exported-bf16", "--steps", "2", "--dtype", "bf16", "--out", "half.png", cwd=place
    )
    sampan("checkpoint", "export", "runs/smoke", "exported-bf16", cwd=place, code=1)  # what is there stays


def test_the_library_loads_the_export_and_paints_the_same(place: Path):
    torch = pytest.importorskip("torch")
    diffusers = pytest.importorskip("diffusers")
    sampan("checkpoint", "export", "runs/smoke", "exported", cwd=place)
    random = np.random.default_rng(0)
    prior, noise = random.integers(0, 1024, (4, 4)), random.standard_normal((1, 4, 16, 16), np.float32)
    save_file({"prior_token_ids": prior, "noise": noise}, place / "inject.safetensors")
    sampan(
        "generate", 'a sign that says "hi" and "there"', "--model", "exported", "--steps", "4", "--guidance", "1.5",
        "--inject", "inject.safetensors", "--dtype", "fp32", "--out", "ours.png", cwd=place,
    )  # fmt: skip
    pipeline = diffusers.GlmImagePipeline.from_pretrained(place / "exported", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    theirs = pipeline(
        prompt='a sign that says "hi" and "there"', height=64, width=64, num_inference_steps=4, guidance_scale=1.5,
        prior_token_ids=torch.from_numpy(prior.reshape(1, -1)), latents=torch.from_numpy(noise), output_type="np",
    ).images[0]  # fmt: skip
    with Image.open(place / "ours.png") as image:
        ours = np.asarray(image, np.int64)
    assert np.abs(ours - np.round(theirs * 255)).max() <= 1  # a byte's rounding
    assert ours.std() > 1  # and it is a picture


def test_a_run_that_was_stopped_goes_on_bit_for_bit(place: Path):
    job = str(ROOT / "jobs" / "smoke.toml")
    settings = [f"--set=stage.{stage}.num_steps=4" for stage in STAGES]
    settings += ["--set=train.save_every=2", "--set=train.keep_last=9"]
    sampan("train", job, "--set", "out=runs/straight", *settings, cwd=place)
    # what a run leaves that is killed after step 2 of a stage, and before it wrote its model
    for stage in STAGES:
        run = place / "runs" / f"cut-{stage}"
        shutil.copytree(place / "runs" / "straight", run)
        shutil.rmtree(run / "model")
        shutil.rmtree(run / "cache", ignore_errors=True)
        for later in STAGES[STAGES.index(stage) + 1 :]:
            shutil.rmtree(run / "stages" / later)
        shutil.rmtree(run / "stages" / stage / "step-00000004")
        assert (run / "stages" / stage / "step-00000002").is_dir()
        sampan("train", job, "--set", f"out=runs/cut-{stage}", *settings, "--resume", cwd=place)
        for name in (
            "vision_language_encoder/model",
            "transformer/diffusion_pytorch_model",
            "vae/diffusion_pytorch_model",
        ):
            file = f"model/{name}.safetensors"
            assert (run / file).read_bytes() == (place / "runs" / "straight" / file).read_bytes(), (stage, name)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--size", "100x64"], 1, "the nearest size is --size 96x64"),
        (["--size", "huge"], 2, "--size"),
        (["--model", "nowhere"], 1, "there is no model folder `nowhere`"),
        (["--reference", "nothing.png"], 1, "there is no reference picture `nothing.png`"),
        (["--reference", "runs"], 1, "`runs` is no reference picture\n  because it is a folder"),
        (["--device", "npu"], 1, "there is no `npu` device"),
        (["--out", "picture.gif"], 1, "pictures are written as PNG"),
        (["--out", "no/such/folder.png"], 1, "there is no folder"),
        (["--inject", "nothing.safetensors"], 1, "there is no file `nothing.safetensors`"),
        (["--steps", "0"], 2, "--steps"),
    ],
)
def test_wrong_requests_are_said_in_one_error(place: Path, arguments: list[str], code: int, said: str):
    before = sorted(place.rglob("*.png"))
    done = sampan("generate", "x", "--model", "runs/smoke", *arguments, cwd=place, code=code)
    assert said in done.stderr
    assert sorted(place.rglob("*.png")) == before


def test_a_prompt_that_is_too_long_or_spells_a_control_token(place: Path):
    done = sampan("generate", "word " * 3000, "--model", "runs/smoke", cwd=place, code=1)
    assert "the prompt is too long for this model" in done.stderr
    done = sampan("generate", "a <|image|> of", "--model", "runs/smoke", cwd=place, code=1)
    assert "the prompt contains `<|image|>`" in done.stderr


def test_a_job_that_cannot_begin_leaves_nothing(place: Path):
    job = str(ROOT / "jobs" / "smoke.toml")
    done = sampan("train", job, "--set", "out=runs/none", "--set", "data.path=nowhere", cwd=place, code=1)
    assert "`nowhere` cannot be read" in done.stderr
    assert not (place / "runs" / "none").exists()


def test_a_second_run_in_the_same_folder_is_refused(place: Path):
    done = sampan("train", ROOT / "jobs" / "smoke.toml", cwd=place, code=1)
    assert "already holds a run" in done.stderr
    done = sampan("train", ROOT / "jobs" / "smoke.toml", "--set", "seed=9", "--resume", cwd=place, code=1)
    assert "was begun with another job" in done.stderr
