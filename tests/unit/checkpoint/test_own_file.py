"""A model folder that sampan wrote is held against the hashes in its sampan.json, each file once; others are not."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sampan.checkpoint import builtin, hash_cache, own_file, sealed
from sampan.checkpoint.folder import open_folder
from sampan.checkpoint.inspect import inspect
from sampan.checkpoint.merge import merge
from sampan.errors import CheckpointError, SampanError

VAE = "vae/diffusion_pytorch_model.safetensors"


@pytest.fixture
def model(written: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "model"))


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of this test alone, and nothing in this process's memory."""
    monkeypatch.setattr(hash_cache.files, "cache_folder", lambda: tmp_path / "cache")
    monkeypatch.setattr(hash_cache, "_seen", {})
    return tmp_path / "cache" / "hashes.json"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are hashed."""
    names: list[str] = []
    true = hash_cache.file_digest
    monkeypatch.setattr(hash_cache, "file_digest", lambda path: (names.append(path.name), true(path))[1])
    monkeypatch.setattr(hash_cache.files, "_SETTLED_NS", -1)  # as if the files were old
    return names


def flip(path: Path, place: int = -1, bit: int = 0) -> None:
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


def refused(folder: Path) -> CheckpointError:
    with pytest.raises(CheckpointError) as caught:
        open_folder(folder).check_written()
    return caught.value


def test_what_was_written_is_accepted(model: Path, tiny_folder: Path):
    own = own_file.read(model)
    recorded = own_file.recorded_hashes(own)
    there = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    assert recorded.keys() == there - {own_file.OWN_FILE}
    open_folder(model).check_written()
    (model / "README.md").write_text("a card", encoding="utf-8")  # nothing reads it
    open_folder(model).check_written()
    open_folder(tiny_folder).check_written()  # of another tool: there is nothing to hold it against


def test_a_changed_weight_is_named_and_so_it_is_by_inspect_and_merge(model: Path, tmp_path: Path):
    flip(model / VAE)
    error = refused(model)
    assert error.what == f"the model in `{model}` is not the one that was written"
    assert error.because == (f"the sha256 of `{VAE}` is not the one in its sampan.json",)
    assert error.hint is not None
    assert error.hint.endswith("generate, serve, eval and checkpoint merge also take --no-verify")
    report = inspect(model)
    assert not report["complete"]
    assert report["problems"] == [f"not as written, by the hashes in sampan.json: `{VAE}`"]
    assert [file["path"] for file in report["files"] if file["as_written"] is False] == [VAE]
    with pytest.raises(CheckpointError, match="there is nothing to merge"):
        merge(model, tmp_path / "out", [])


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("transformer/config.json", "the sha256 of `transformer/config.json` is not the one in its sampan.json"),
        ("processor/tokenizer.json", "the sha256 of `processor/tokenizer.json` is not the one in its sampan.json"),
    ],
)
def test_a_changed_document_is_named(name: str, said: str, model: Path):
    text = (model / name).read_text("utf-8")
    (model / name).write_text(text + " ", "utf-8")
    assert refused(model).because == (said,)


def test_a_file_that_would_be_read_in_place_of_one_that_was_written(model: Path):
    nested = json.loads((model / "processor/preprocessor_config.json").read_text("utf-8"))
    (model / "processor/processor_config.json").write_text(json.dumps({"image_processor": nested}), "utf-8")
    assert refused(model).because == ("`processor/processor_config.json` was not written with it",)


def test_sampan_json_itself_is_held_against_its_checksum(model: Path):
    path = model / own_file.OWN_FILE
    values = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(values | {"painting": {"guidance_scale": 9.0}}), "utf-8")
    assert refused(model).because[0].startswith("sampan.json: its content is not that of its checksum")
    path.write_text(json.dumps({**values, "sha256": {"../x": 3}}), "utf-8")
    with pytest.raises(CheckpointError, match="are no hashes by file"):
        open_folder(model).check_written()
    # taken out on purpose, as the hint says
    for key in ("sha256", "documents", "format", "checksum"):
        del values[key]
    path.write_text(json.dumps(values | {"painting": {"guidance_scale": 9.0}}), "utf-8")
    open_folder(model).check_written()


def test_a_folder_of_before_has_hashes_of_its_weights_alone(model: Path):
    own = own_file.read(model)
    (model / own_file.OWN_FILE).write_text(json.dumps({"sampan": "0.1.0", "sha256": own["sha256"]}), "utf-8")
    text = (model / "transformer/config.json").read_text("utf-8")
    (model / "transformer/config.json").write_text(text + " ", "utf-8")
    open_folder(model).check_written()
    flip(model / VAE)
    assert refused(model).because == (f"the sha256 of `{VAE}` is not the one in its sampan.json",)


def test_the_model_of_the_package_is_as_it_was_written():
    open_folder(builtin.builtin_models()["nano"]).check_written()


def test_no_bit_of_a_model_folder_turns_it_into_another_one(model: Path):
    files = sorted(path for path in model.rglob("*") if path.is_file())
    random = np.random.default_rng(1)
    for path in [files[i] for i in random.integers(0, len(files), 120)]:
        content = path.read_bytes()
        flip(path, int(random.integers(len(content))), int(random.integers(8)))
        try:
            with pytest.raises(SampanError):
                open_folder(model).check_written()
        finally:
            path.write_bytes(content)


# --- hashed once -----------------------------------------------------------------------------------------------------


def test_a_second_process_does_not_hash_again(model: Path, cache: Path, hashed: list[str], monkeypatch: Any):
    folder = open_folder(model)
    folder.check_written()
    assert len(hashed) == len(own_file.recorded_hashes(own_file.read(model)))
    hashed.clear()
    folder.check_written()
    monkeypatch.setattr(hash_cache, "_seen", {})  # another process
    folder.check_written()
    assert hashed == []
    assert len(cache.read_bytes()) < 20_000
    flip(model / VAE)
    assert refused(model).because == (f"the sha256 of `{VAE}` is not the one in its sampan.json",)
    assert hashed == [Path(VAE).name]
    hashed.clear()
    assert refused(model)  # what is wrong is not remembered as right
    flip(model / VAE)
    folder.check_written()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"x": 3}', "\x00"])
def test_a_cache_that_is_broken_is_made_again(content: str, model: Path, cache: Path, hashed: list[str]):
    cache.parent.mkdir(parents=True)
    cache.write_text(content, "utf-8")
    open_folder(model).check_written()
    assert len(hashed) == len(json.loads(cache.read_text("utf-8")))


def test_a_wrong_hash_in_the_cache_refuses_nothing(model: Path, cache: Path, hashed: list[str], monkeypatch: Any):
    open_folder(model).check_written()
    cache.write_text(re.sub(r'"[0-9a-f]{64}"', f'"{"0" * 64}"', cache.read_text("utf-8")), "utf-8")
    hashed.clear()
    monkeypatch.setattr(hash_cache, "_seen", {})
    open_folder(model).check_written()
    assert len(hashed) == len(own_file.recorded_hashes(own_file.read(model)))


def test_a_folder_that_cannot_be_written_to_costs_time_alone(model: Path, tmp_path: Path, monkeypatch: Any):
    (tmp_path / "file").touch()
    monkeypatch.setattr(hash_cache.files, "cache_folder", lambda: tmp_path / "file")
    open_folder(model).check_written()


def test_files_that_were_just_written_are_not_remembered(model: Path, cache: Path, monkeypatch: Any):
    monkeypatch.setattr(hash_cache.files, "_SETTLED_NS", 10**15)
    open_folder(model).check_written()
    assert not cache.exists()


def test_a_seal_is_of_the_content_and_not_of_its_spelling():
    values = {"b": [1, 2.5, None, "ä"], "a": {"x": True}}
    text = sealed.text(values)
    assert sealed.defect(json.loads(text), required=True) is None
    assert sealed.defect(dict(reversed(json.loads(text).items())), required=True) is None
    assert sealed.defect(json.loads(text) | {"b": [1, 2.5, None, "a"]}, required=True) is not None
    assert sealed.defect(json.loads(text) | {"c": 1}, required=True) is not None
    assert sealed.defect(values, required=False) is None
    assert sealed.unsealed(sealed.seal(values)) == values
