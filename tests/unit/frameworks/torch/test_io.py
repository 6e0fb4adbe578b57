"""Weights come from and go to safetensors files whole, on the device and in the dtype asked for, or not at all."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sampan.errors import CheckpointError, DeviceError
from sampan.frameworks.torch import io


class Two(torch.nn.Module):
    """Two layers, of which one has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.first = torch.nn.Linear(3, 2)
        self.second = torch.nn.Linear(2, 2, bias=False)


def on_meta() -> Two:
    with torch.device("meta"):
        return Two()


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    """The weights of `Two`, over two files."""
    places = {"first.weight": "a", "first.bias": "b", "second.weight": "b"}
    for file in ("a", "b"):
        here = [name for name in places if places[name] == file]
        tensors = {name: torch.arange(float(torch.Size(io.shapes(on_meta())[name]).numel())) for name in here}
        shaped = {name: value.reshape(io.shapes(on_meta())[name]) for name, value in tensors.items()}
        save_file(shaped, tmp_path / f"{file}.safetensors")
    return {name: tmp_path / f"{file}.safetensors" for name, file in places.items()}


def test_a_module_on_meta_gets_its_weights(files: dict[str, Path]):
    module = on_meta()
    io.load_weights(module, files, device="cpu")
    assert torch.equal(module.first.weight, torch.arange(6.0).reshape(2, 3))
    assert all(p.device.type == "cpu" and p.requires_grad for p in module.parameters())
    assert module.first(torch.ones(1, 3)).shape == (1, 2)


def test_a_dtype_is_asked_for_or_kept(files: dict[str, Path]):
    for dtype, wanted in (("bf16", torch.bfloat16), ("fp32", torch.float32), ("stored", torch.float32)):
        module = on_meta()
        io.load_weights(module, files, device="cpu", dtype=dtype)
        assert {p.dtype for p in module.parameters()} == {wanted}
    module = on_meta()
    io.load_weights(module, files, device="cpu", dtype="bf16", keep_fp32=("second.",))
    assert [p.dtype for p in module.parameters()] == [torch.bfloat16, torch.bfloat16, torch.float32]
    with pytest.raises(KeyError):
        io.load_weights(on_meta(), files, device="cpu", dtype="int4")


@pytest.mark.parametrize("dtype", ["stored", "bf16"])
def test_loaded_weights_do_not_hang_on_their_file(dtype: str, files: dict[str, Path]):
    module = on_meta()
    io.load_weights(module, files, device="cpu", dtype=dtype)
    before = module.first.weight.clone()
    with open(files["first.weight"], "rb+") as file:
        file.seek(-16, os.SEEK_END)
        file.write(b"\xff" * 16)
    assert torch.equal(module.first.weight, before)


def test_a_refused_module_is_left_without_weights(files: dict[str, Path]):
    module = on_meta()
    with pytest.raises(CheckpointError) as caught:
        io.load_weights(module, {n: p for n, p in files.items() if n != "first.bias"}, device="cpu", name="`two`")
    assert caught.value.render() == (
        "error: the weights of `two` are not those of its config\n"
        "  because 1 missing: `first.bias`\n"
        "\nhint: `sampan checkpoint inspect` lists every difference"
    )
    assert all(p.is_meta for p in module.parameters())


def test_what_does_not_fit_on_the_device_says_so(files: dict[str, Path], monkeypatch):
    def full(*arguments: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total of …")

    monkeypatch.setattr(io, "_place", full)
    with pytest.raises(DeviceError) as caught:
        io.load_weights(on_meta(), files, device="cuda:0", name="`two`")
    assert caught.value.render() == (
        "error: `two` does not fit on `cuda:0`\n"
        "  because CUDA out of memory\n"
        "\nhint: use dtype bf16 or device cpu; `sampan generate` and `sampan eval` also have --offload"
    )


def test_saved_tensors_come_back(tmp_path: Path):
    tensors = {"a": torch.randn(3, 4).T, "b": torch.arange(3), "c": torch.tensor(1.5, dtype=torch.bfloat16)}
    io.save_tensors(tmp_path / "x.safetensors", tensors, {"format": "pt"})
    found = io.read_tensors(tmp_path / "x.safetensors", "cpu")
    assert found.keys() == tensors.keys()
    assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in tensors.items())
    assert set(io.read_tensors(tmp_path / "x.safetensors", "cpu", ["b"])) == {"b"}
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]


def test_only_floating_tensors_are_converted(tmp_path: Path):
    tensors = {"a": torch.randn(3), "n": torch.arange(3)}
    io.save_tensors(tmp_path / "x.safetensors", tensors, {}, dtype="bf16")
    found = load_file(tmp_path / "x.safetensors")
    assert (found["a"].dtype, found["n"].dtype) == (torch.bfloat16, torch.int64)
    assert [io.num_bytes(t, "bf16") for t in tensors.values()] == [6, 24]
    assert [io.num_bytes(t) for t in tensors.values()] == [12, 24]
    assert [io.dtype_name(t, "bf16") for t in tensors.values()] == ["bfloat16", "int64"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such permissions")
def test_a_file_is_open_to_whom_the_user_means_it_to_be(tmp_path: Path):
    before = os.umask(0o027)
    try:
        io.save_tensors(tmp_path / "x.safetensors", {"a": torch.zeros(1)}, {})
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.safetensors").stat().st_mode) == 0o640


def test_a_failed_save_leaves_the_old_file(tmp_path: Path, monkeypatch):
    file = tmp_path / "x.safetensors"
    io.save_tensors(file, {"a": torch.zeros(1)}, {})

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(CheckpointError) as caught:
        io.save_tensors(file, {"a": torch.ones(1)}, {})
    assert caught.value.render() == (f"error: `{file}` cannot be written\n  because [Errno 28] No space left on device")
    assert [entry.name for entry in tmp_path.iterdir()] == ["x.safetensors"]
    assert load_file(file)["a"].item() == 0


def test_unreadable_files_are_named(tmp_path: Path):
    file = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError) as caught:
        io.read_tensors(file, "cpu")
    assert caught.value.render() == f"error: there is no file `{file}`"
    file.write_bytes(b"123")
    with pytest.raises(CheckpointError) as caught:
        io.read_tensors(file, "cpu")
    assert caught.value.render() == (
        f"error: `{file}` cannot be read\n  because it is no whole safetensors file: it is too short for a header"
    )


def test_values_are_put_into_some_weights_and_keep_device_and_dtype():
    module = Two().bfloat16()
    bias = module.first.bias.clone()
    io.put_weights(module, {"first.weight": torch.ones(2, 3), "second.weight": np.full((2, 2), 2.0, np.float32)})
    assert torch.equal(module.first.weight, torch.ones(2, 3, dtype=torch.bfloat16))
    assert torch.equal(module.second.weight, torch.full((2, 2), 2.0, dtype=torch.bfloat16))
    assert torch.equal(module.first.bias, bias)
    for values in ({"third.weight": torch.ones(2)}, {"first.weight": torch.ones(1)}):
        with pytest.raises(ValueError, match="the module has no weight `"):
            io.put_weights(module, values)


def test_an_unread_tensor_is_read_when_it_is_written(tmp_path: Path):
    source = tmp_path / "a.safetensors"
    save_file({"x": torch.arange(6.0).reshape(2, 3), "y": torch.ones(2, dtype=torch.bfloat16)}, source)
    x, y = io.LazyTensor(source, "x", (2, 3), "F32"), io.LazyTensor(source, "y", (2,), "BF16")
    assert (x.shape, io.num_bytes(x), io.num_bytes(x, "bf16"), io.dtype_name(y)) == ((2, 3), 24, 12, "bfloat16")
    doubled = x.changed(lambda t: t * 2).changed(lambda t: t + 1)
    halved = x.changed(lambda t: (t / 2).bfloat16(), "bf16")
    assert io.dtype_name(halved) == "bfloat16"
    io.save_tensors(tmp_path / "b.safetensors", {"x": doubled, "y": y, "h": halved}, {})
    written = load_file(tmp_path / "b.safetensors")
    assert torch.equal(written["x"], torch.arange(6.0).reshape(2, 3) * 2 + 1)
    assert torch.equal(written["y"], torch.ones(2, dtype=torch.bfloat16))
    assert written["h"].dtype == torch.bfloat16
    with pytest.raises(CheckpointError) as caught:
        io.LazyTensor(source, "x", (2, 3), "F8_E4M3")
    assert caught.value.because == ("it is quantized: F8_E4M3",)
