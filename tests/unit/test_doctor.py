"""The doctor says what is there, what is not and what fits, on any machine, with or without a framework."""

from __future__ import annotations

import copy
import functools
import importlib.util
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from sampan import doctor, extras
from sampan.errors import CheckpointError

ROOT = Path(__file__).resolve().parents[2]
REPORT = """
import json, sys; from pathlib import Path; from sampan.doctor import report
found = report(Path(sys.argv[1]))
print(json.dumps({**found, "loaded": [n for n in ("torch", "mindspore", "tensorflow") if n in sys.modules]}))
"""


ask = doctor._probe
asked_once = functools.cache(ask)


@pytest.fixture(autouse=True)
def _frameworks_are_asked_once(monkeypatch: pytest.MonkeyPatch):
    """What a framework sees takes a process to find out, and does not change between tests."""
    monkeypatch.setattr(doctor, "_probe", asked_once)


def report_without(names: tuple[str, ...], model: Path, folder: Path) -> dict[str, Any]:
    """Return the report of a process, and of those it starts, in which some packages cannot be imported."""
    for name in names:
        (folder / f"{name}.py").write_text(f"raise ImportError('lib{name}.so.1: cannot open shared object file')")
    answer = subprocess.run(
        [sys.executable, "-c", REPORT, str(model)],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{ROOT / 'src'}"},
        capture_output=True,
        text=True,
        timeout=600,  # of a loaded machine: it starts four processes
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    return json.loads(answer.stdout.splitlines()[-1])


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
    for name in ("mindspore", "tensorflow"):
        facts = report["frameworks"][name]
        assert f"framework  {name} {facts['problem'] or facts['version']}" in text


@pytest.mark.parametrize("width", [80, 100])
def test_it_fits_a_terminal(width: int, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch):
    report = copy.deepcopy(doctor.report(tiny_folder))  # parts of it are asked for once for all tests
    report["disk"]["path"] = report["model"]["folder"] = "/somewhere/models"
    report["python"]["executable"] = "/usr/bin/python3"
    device = report["frameworks"]["torch"]["devices"][0]
    device |= {
        "device": "cuda:10",
        "name": "NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition",
        "capability": "12.0",
    }
    for fit in report["model"]["fits"]:
        fit |= {"device": "cuda:10", "fits": "offload", "left_bytes": 2**40 - 1, "is_default": True}
    out = io.StringIO()
    doctor.show(report, Console(file=out, width=width))
    lines = out.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in out.getvalue()  # no word is cut
    said = " ".join(out.getvalue().split())
    assert "cuda:10: NVIDIA RTX PRO 6000 Blackwell Max-Q Workstation Edition, capability 12.0, " in said
    assert sum("with --offload" in line for line in lines) == len(report["model"]["fits"])


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
    fits = {fit["dtype"]: fit for fit in model["fits"] if (fit["framework"], fit["device"]) == ("torch", "cpu")}
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


def test_no_framework_is_a_finding_and_a_folder_is_still_read(tiny_folder: Path, tmp_path: Path):
    report = report_without(("torch", "mindspore", "tensorflow"), tiny_folder, tmp_path)
    for name in ("torch", "mindspore", "tensorflow"):
        problem = report["frameworks"][name]["problem"]
        if problem != f"not installed ({doctor._INSTALL[name]})":
            module = "sampan.bench.tensorflow" if name == "tensorflow" else name
            why = f"ImportError: lib{name}.so.1: cannot open shared object file"
            assert problem.startswith(f"installed, but importing {module} failed: {why}; here are {name} ")
            assert f"{name}]' brings versions that go together" in problem
    assert report["frameworks"]["torch"]["version"] is not None
    assert report["advice"] == ["install a framework: pip install 'sampan[torch]' or pip install 'sampan[mindspore]'"]
    assert report["model"]["num_parameters"] > 0
    assert report["model"]["fits"] == [] and report["loaded"] == []
    assert "framework  torch installed, but importing torch failed" in shown(report)


@pytest.mark.skipif(not importlib.util.find_spec("mindspore"), reason="MindSpore is not installed")
def test_a_machine_with_mindspore_and_no_pytorch(tiny_folder: Path, tmp_path: Path):
    report = report_without(("torch",), tiny_folder, tmp_path)
    assert report["advice"] == [] and report["loaded"] == ["mindspore"]
    fits = report["model"]["fits"]
    # it has no products in bf16 on a CPU
    assert {
        (f["framework"], f["device"], f["dtype"], f["is_default"], f["fits"]) for f in fits if f["device"] == "cpu"
    } == {("mindspore", "cpu", "fp32", True, "whole")}
    text = shown(report)
    assert "framework  mindspore 2." in text and "framework  torch installed, but" in text


def torch_facts(**changed: Any) -> dict[str, Any]:
    return {"problem": None, "cuda": None, "devices": [{"device": "cpu"}], "notes": [], **changed}


MINDSPORE = {"problem": None, "ascend": False, "devices": [{"device": "cpu"}], "notes": []}
ABSENT = {"version": None, "problem": "not installed (…)"}


def test_a_driver_without_the_build_for_it_is_pointed_out():
    both = {"nvidia": "550.54", "ascend": "24.1"}
    assert doctor._advice({"torch": torch_facts(notes=["a note"])}, both) == [
        "an NVIDIA driver is here, but this PyTorch is a build without CUDA: install one with CUDA",
        "an Ascend driver is here, but PyTorch sees no npu: install torch_npu",
        "a note",
    ]
    assert doctor._advice({"torch": ABSENT, "mindspore": MINDSPORE}, both) == [
        "an NVIDIA driver is here, and PyTorch would use it: pip install 'sampan[torch]'",
        "an Ascend driver is here, but MindSpore sees no npu: install the CANN that goes with this MindSpore",
    ]
    with_cuda = torch_facts(cuda="13.0", devices=[{"device": "cuda:0"}, {"device": "cpu"}])
    assert doctor._advice({"torch": with_cuda}, {"nvidia": "550.54", "ascend": None}) == []
    on_npu = {**MINDSPORE, "devices": [{"device": "npu:0"}, {"device": "cpu"}]}
    assert doctor._advice({"torch": torch_facts(), "mindspore": on_npu}, {"nvidia": None, "ascend": "24.1"}) == []


def test_what_trains_nothing_is_no_framework_to_train_with():
    tensorflow = {"problem": None, "cuda": None, "threads": 2, "version": "2.21.0", "devices": [], "notes": []}
    assert doctor._advice({"torch": ABSENT, "tensorflow": tensorflow}, {"nvidia": None, "ascend": None}) == [
        "install a framework: pip install 'sampan[torch]' or pip install 'sampan[mindspore]'"
    ]
    assert doctor._build("tensorflow", tensorflow) == " (for sampan bench, no CUDA, 2 threads)"


@pytest.mark.parametrize("name", ["torch", "mindspore", "tensorflow"])
def test_a_framework_that_works_takes_a_step(name: str):
    if not extras.is_installed(name):
        pytest.skip(f"{name} is not installed")
    assert doctor._probe(name)["problem"] is None
    assert doctor._probe(name)["computes"] is True


BROKEN = """
import sys
from sampan.frameworks import self_check
def compute(device): {does}
self_check.compute = compute
self_check.main(*sys.argv[1:])
"""


@pytest.mark.parametrize(
    ("does", "why"),
    [
        ("raise SystemError('__mul__ returned a result\\nwith an exception set')",
         "SystemError: __mul__ returned a result with an exception set"),
        ("raise RuntimeError('Numpy is not available')", "RuntimeError: Numpy is not available"),
        ("import os; os.abort()", "its process ended with -6"),
    ],
)  # fmt: skip
def test_one_that_can_only_be_imported_is_broken(does: str, why: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_PROBE_PROGRAM", BROKEN.format(does=does))
    facts = ask("torch")
    assert facts["problem"] == f"installed, but computing with it failed: {why}"
    assert doctor._usable({"torch": facts}) == []


def test_a_wrong_product_is_told():
    from sampan.frameworks import ops, self_check

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ops, "mean", lambda x: ops.sum(x) / 7)
        with pytest.raises(ArithmeticError, match=r"^the loss of one layer is .* on cpu, and should be 1\.83"):
            self_check.compute("cpu")
    self_check.compute("cpu")


def test_the_extras_are_looked_at_too(monkeypatch: pytest.MonkeyPatch):
    def problem(program: str) -> str | None:
        monkeypatch.setattr(doctor, "_EXTRA_PROGRAM", program)
        return doctor._probe_extra("data")["problem"]

    assert doctor._probe_extra("data") == {
        "versions": {"emoji": extras.version("emoji"), "uharfbuzz": extras.version("uharfbuzz")},
        "problem": None,
    }
    assert problem("print('\"importing emoji failed\"')") == "installed, but importing emoji failed"
    assert problem("import os; os.abort()") == "installed, but importing it failed: its process ended with -6"
    monkeypatch.setattr(extras, "version", lambda package: None)
    assert problem("") == "not installed (pip install 'sampan[data]')"


def test_a_probe_that_dies_is_a_finding(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(doctor, "_PROBE_PROGRAM", "import os; os.abort()")
    found = ask("torch")
    assert found["problem"] == "installed, but importing it failed: its process ended with -6"
    monkeypatch.setattr(doctor, "_PROBE_PROGRAM", "import time; time.sleep(60)")
    monkeypatch.setattr(doctor, "_PROBED_WITHIN_S", 0.2)
    assert ask("torch")["problem"] == "installed, but did not answer within 0.2 s"
