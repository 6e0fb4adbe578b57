"""Weight files are found by their index, read by their headers, and named when they are missing, broken or unclear."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sampan.checkpoint import weights
from sampan.errors import CheckpointError

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """A subfolder with two shards and their index."""
    save_file({"a": torch.zeros(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, tmp_path / "model-1.safetensors")
    save_file({"c": torch.zeros(5)}, tmp_path / "model-2.safetensors")
    index(tmp_path, a="model-1.safetensors", b="model-1.safetensors", c="model-2.safetensors")
    return tmp_path


def index(folder: Path, **weight_map: object) -> None:
    text = json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map})
    (folder / "model.safetensors.index.json").write_text(text, "utf-8")


def failure(folder: Path) -> str:
    with pytest.raises(CheckpointError) as caught:
        weights.read_weights(folder, "model")
    return caught.value.render().replace(str(folder), "FOLDER")


def test_shards_are_read_through_their_index(shards: Path):
    found = weights.read_weights(shards, "model")
    assert {name: (s.file.name, s.dtype, s.shape, s.num_bytes) for name, s in found.items()} == {
        "a": ("model-1.safetensors", "F32", (2, 3), 24),
        "b": ("model-1.safetensors", "BF16", (4,), 8),
        "c": ("model-2.safetensors", "F32", (5,), 20),
    }


def test_a_dtype_of_a_later_version_has_no_known_size():
    assert weights.TensorHeader(Path("x"), "F4", (2,)).num_bytes is None


def test_a_missing_shard_is_named(shards: Path):
    (shards / "model-2.safetensors").unlink()
    assert failure(shards) == (
        "error: `FOLDER/model-2.safetensors` is missing\n"
        "  because 1 of the 2 shards named in `model.safetensors.index.json` is not there: model-2.safetensors\n"
        "\nhint: download or copy the folder again; the other shards can stay"
    )


def test_a_tensor_that_is_not_where_the_index_says(shards: Path):
    index(shards, a="model-1.safetensors", c="model-2.safetensors", d="model-2.safetensors")
    assert failure(shards) == (
        "error: the weights in `FOLDER` are not whole\n"
        "  because `model.safetensors.index.json` says that `model-2.safetensors` holds `d`, and it does not\n"
        "\nhint: download or copy the folder again: its files are not from one save"
    )


def test_a_tensor_in_two_shards(shards: Path):
    save_file({"a": torch.zeros(1), "c": torch.zeros(5)}, shards / "model-2.safetensors")
    assert failure(shards) == (
        "error: the weights in `FOLDER` are not clear\n"
        "  because `a` is in `model-1.safetensors` and in `model-2.safetensors`"
    )


def test_shards_and_one_file_side_by_side(shards: Path):
    save_file({"a": torch.zeros(1)}, shards / "model.safetensors")
    assert failure(shards) == (
        "error: the weights in `FOLDER` are not clear\n"
        "  because `model.safetensors` and `model.safetensors.index.json` are both there, "
        "and each claims to be all of them\n"
        "\nhint: remove the one that is left over"
    )


def test_shards_without_their_index(shards: Path):
    (shards / "model.safetensors.index.json").unlink()
    assert failure(shards) == (
        "error: `FOLDER` has no weights\n"
        "  because neither `model.safetensors` nor `model.safetensors.index.json` is there\n"
        "  because it holds `model-1.safetensors`, `model-2.safetensors`\n"
        "\nhint: download or copy the folder again"
    )


@pytest.mark.parametrize(
    "place", ["../model-1.safetensors", "/etc/passwd", "a\\b.safetensors", "C:x.safetensors", "x.bin", 3]
)
def test_an_index_cannot_lead_out_of_its_folder(place: object, shards: Path):
    index(shards, a=place)
    assert failure(shards) == (
        "error: `FOLDER/model.safetensors.index.json` cannot be used\n"
        f"  because it places `a` in {place!r}, which is no safetensors file beside it"
    )


def test_an_index_without_a_map(shards: Path):
    (shards / "model.safetensors.index.json").write_text('{"weight_map": []}', "utf-8")
    assert failure(shards) == (
        "error: `FOLDER/model.safetensors.index.json` cannot be used\n"
        "  because it has no `weight_map` of tensor names to files"
    )


def test_pickles_alone_are_refused(tmp_path: Path):
    (tmp_path / "pytorch_model.bin").touch()
    assert failure(tmp_path) == (
        "error: the weights in `FOLDER` are refused\n"
        "  because `pytorch_model.bin` is a pickle: loading one could run code\n"
        "\nhint: convert it to safetensors with the tool that made it"
    )


def test_pickles_beside_weights_do_no_harm(shards: Path):
    (shards / "optimizer.pt").touch()
    assert set(weights.read_weights(shards, "model")) == {"a", "b", "c"}


def test_a_git_lfs_pointer_is_recognised(shards: Path):
    (shards / "model-2.safetensors").write_text(POINTER)
    assert failure(shards) == (
        "error: `FOLDER/model-2.safetensors` cannot be read\n"
        "  because it is a Git LFS pointer, not the weights\n"
        "\nhint: fetch the real file: `git lfs pull` in that folder, or download the folder again"
    )


def test_a_subfolder_that_is_missing(tmp_path: Path):
    assert failure(tmp_path / "none") == "error: `FOLDER` is missing"


@given(size=st.integers(0, 420))
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_file_that_was_cut_off_anywhere_is_named(size: int, tmp_path: Path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(30), "b": torch.ones(40)}, file)
    whole = file.read_bytes()
    file.write_bytes(whole[: min(size, len(whole) - 1)])
    assert failure(tmp_path).startswith("error: `FOLDER/model.safetensors` cannot be read\n  because it is no whole")


@given(place=st.integers(0, 139), mask=st.integers(1, 255))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_corrupt_header_is_an_error_or_another_header_and_never_a_crash(place: int, mask: int, tmp_path: Path):
    file = tmp_path / "model.safetensors"
    save_file({"a": torch.ones(30), "b": torch.ones(40)}, file)
    data = bytearray(file.read_bytes())
    data[place] ^= mask
    file.write_bytes(data)
    with suppress(CheckpointError):  # another letter in a name leaves a valid header
        assert len(weights.read_weights(tmp_path, "model")) in (1, 2)


def test_the_header_tells_shapes_apart_and_not_values(tmp_path: Path):
    digests = []
    for values in (torch.zeros(3), torch.ones(3), torch.ones(1, 3)):
        save_file({"a": values}, tmp_path / "x.safetensors")
        digests.append(
            (weights.header_digest(tmp_path / "x.safetensors"), weights.file_digest(tmp_path / "x.safetensors"))
        )
    assert digests[0][0] == digests[1][0] != digests[2][0]
    assert len({whole for _, whole in digests}) == 3
