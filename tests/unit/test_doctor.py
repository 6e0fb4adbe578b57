"""The doctor says what is there, what is not and what fits, on any machine, with or without a framework."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sampan import doctor
from sampan.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_TORCH = """
import sys; sys.modules["torch"] = None
import json; from pathlib import Path; from sampan.doctor import report
print(json.dumps(report(Path(sys.argv[1]))))
"""


def shown(report: dict[str, Any]) -> str:
    out = io.StringIO()
    doctor.show(report, Console(file=out, width=200))
    return out.getvalue()


def test_this_machine():
    report = doctor.report(None)
    json.dumps(report)
    assert report["model"] is None
    assert 1 <= report["cpu"]["usable_cores"] <= report["cpu"]["cores"]
    assert 0 < report["memory"]["free_bytes"] <= report["memory"]["memory_bytes"]
    assert 0 <= report["disk"]["free_bytes"] <= report["disk"]["disk_bytes"]
    torch = report["frameworks"]["torch"]
    assert torch["problem"] is None
    cpu = torch["devices"][-1]
    assert (cpu["device"], cpu["name"]) == ("cpu", report["cpu"]["name"])
    assert cpu["memory_bytes"] == report["memory"]["memory_bytes"]
    text = shown(report)
    assert f"framework  torch {torch['version']} (" in text
    assert "framework  mindspore " in text


def test_a_folder_that_loads_says_what_fits(tiny_folder: Path, tiny_pipeline):
    model = doctor.report(tiny_folder)["model"]
    count = sum(p.numel() for p in tiny_pipeline.transformer.parameters())
    assert model["parts"]["decoder"] == {
        "num_parameters": count,
        "stored_bytes": 4 * count,
        "dtypes": ["F32"],
        "bf16_bytes": 2 * count,
        "fp32_bytes": 4 * count,
    }
    fits = {fit["dtype"]: fit for fit in model["fits"] if fit["device"] == "cpu"}
    assert fits["fp32"]["fits"] == fits["bf16"]["fits"] == "whole"
    assert fits["fp32"]["whole_bytes"] == 4 * model["num_parameters"] == model["stored_bytes"]
    assert sum(fit["is_default"] for fit in fits.values()) == 1
    assert "fits" in shown(doctor.report(tiny_folder))


@pytest.mark.parametrize(
    ("free_bytes", "verdict", "left_bytes"),
    [(None, None, None), (701, "whole", 1), (700, "offload", 300), (401, "offload", 1), (400, "no", None)],
)
def test_what_fits_is_what_is_less_than_what_is_free(free_bytes, verdict, left_bytes):
    device = {"device": "cuda:0", "free_bytes": free_bytes, "dtype": "bf16"}
    parts = {"ar": {"bf16_bytes": 400}, "vae": {"bf16_bytes": 300}}
    assert doctor._fit(device, "bf16", parts) == {
        "device": "cuda:0",
        "dtype": "bf16",
        "is_default": True,
        "fits": verdict,
        "whole_bytes": 700,
        "largest_part": "ar",
        "largest_part_bytes": 400,
        "left_bytes": left_bytes,
    }


def test_a_broken_folder_is_an_error(tiny_folder: Path, tmp_path: Path):
    import shutil

    from safetensors.torch import load_file, save_file

    folder = Path(shutil.copytree(tiny_folder, tmp_path / "x"))
    file = folder / "vae/diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["decoder.conv_in.bias"]
    save_file(tensors, file)
    with pytest.raises(CheckpointError) as caught:
        doctor.report(folder)
    assert caught.value.render() == (
        f"error: `vae` in `{folder / 'vae'}` does not load\n"
        "  because 1 tensors are missing, 0 unexpected, 0 of another shape\n"
        f"\nhint: sampan checkpoint inspect {folder}"
    )
    file.unlink()
    with pytest.raises(CheckpointError, match="has no weights"):
        doctor.report(folder)


def test_no_framework_is_a_finding_and_a_folder_is_still_read(tiny_folder: Path):
    answer = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, str(tiny_folder)],
        cwd=ROOT / "src",
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    report = json.loads(answer.stdout)
    assert report["frameworks"]["torch"]["problem"].startswith("installed, but importing it failed: ")
    assert report["advice"] == ["install a framework: pip install 'sampan[torch]'"]
    assert report["model"]["num_parameters"] > 0
    assert report["model"]["fits"] == []
    assert "framework  torch installed, but importing it failed" in shown(report)


def test_a_driver_without_the_build_for_it_is_pointed_out():
    torch = {"problem": None, "cuda": None, "devices": [{"device": "cpu"}], "notes": ["a note"]}
    assert doctor._advice({"torch": torch}, {"nvidia": "550.54", "ascend": "24.1"}) == [
        "an NVIDIA driver is here, but this PyTorch is a build without CUDA: install one with CUDA",
        "an Ascend driver is here, but PyTorch sees no npu: install torch_npu",
        "a note",
    ]
    torch |= {"cuda": "13.0", "devices": [{"device": "cuda:0"}, {"device": "cpu"}], "notes": []}
    assert doctor._advice({"torch": torch}, {"nvidia": "550.54", "ascend": None}) == []
