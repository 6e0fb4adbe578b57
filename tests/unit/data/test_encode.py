"""What the frozen parts make of pictures and words: right, found again, and the same after any kill."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from sampan.data.encoded_cache import EncodedCache
from sampan.data.image_cache import ImageCache
from sampan.data.image_source import FileSource
from sampan.data.pictures import to_array
from sampan.data.transforms import grid_patches
from sampan.errors import DataError, RequestError
from sampan.frameworks import device as dev
from sampan.models import encoders, pixels
from unit.data import tiny_encoder
from unit.data.tiny_encoder import CONFIG, KEYS, TEXTS, contents, opened, paint, run
from unit.data.worker_jobs import Telling

TESTS = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def parts() -> dict[str, Any]:
    dev.set_threads(1)
    return {name: tiny_encoder.part(name) for name in KEYS}


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return paint(tmp_path_factory.mktemp("pictures"), 24)


@pytest.fixture(scope="module")
def straight(files: list[Path], parts: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores of all pictures, made without a stop; do not change them."""
    folder = tmp_path_factory.mktemp("straight")
    run(opened(files), folder, parts)
    return folder


class Counting:
    """A part that counts its calls and how many rows they had."""

    def __init__(self, part: Any):
        self._part = part
        self.rows: list[int] = []

    def __call__(self, *arrays: Any) -> Any:
        self.rows.append(len(arrays[0]))
        return self._part(*arrays)

    def encode(self, images: Any, *statistics: Any) -> Any:
        self.rows.append(len(images))
        return self._part.encode(images, *statistics)


# --- what comes out ----------------------------------------------------------------------------------------------------


def test_everything_is_what_the_parts_make_of_each_picture(files: list[Path], parts: dict[str, Any], straight: Path):
    pictures = opened(files)
    encoded = run(pictures, straight, parts)
    assert {pictures.size_of(i) for i in range(len(pictures))} == {(64, 64), (48, 80), (80, 48)}
    patch = CONFIG.processor.patch_size
    for index in (0, 1, 2, 23):
        size, image = pictures.size_of(index), pictures[index]
        for ids, grid in (
            (encoded.target_ids(index), CONFIG.geometry.prior_grid(*size)),
            (encoded.preview_ids(index), CONFIG.geometry.preview_grid(*size)),
        ):
            patches = grid_patches(image, grid, patch)[None]
            wanted = encoders.encode_tokens(parts["tokenizer"], patches, grid, CONFIG, "cpu", "fp32")
            assert ids.dtype == np.int64 and ids.shape == grid
            assert np.array_equal(ids.reshape(-1), wanted[0])
        latent = encoded.latents([index])
        wanted = encoders.encode_latents(parts["vae"], to_array(image)[None], CONFIG, "cpu", "fp32")
        assert latent.dtype == np.float32 and latent.shape == (1, 16, size[0] // 8, size[1] // 8)
        np.testing.assert_allclose(latent, wanted, atol=1e-5)
    assert encoded.latents([1, 4]).shape == (2, 16, 8, 8)
    assert len({encoded.target_ids(i).tobytes() for i in range(len(pictures))}) > 20
    for texts in TEXTS:
        wanted = encoders.embed_glyphs(parts["glyph"], texts, CONFIG, "cpu")
        assert np.array_equal(encoded.glyph(texts), wanted)
    assert np.array_equal(encoded.glyph(()), encoders.embed_glyphs(parts["glyph"], [""], CONFIG, "cpu"))


def test_patches_are_those_of_the_reference_code():
    draw = np.random.default_rng(1)
    image = Image.fromarray(draw.integers(0, 256, (128, 176, 3), np.uint8))
    wanted, grid = pixels.to_patches(image, CONFIG.processor, 1)
    assert grid == (8, 11)
    np.testing.assert_allclose(grid_patches(image, grid, 16), wanted, atol=1e-6)


def test_pictures_are_mapped_and_results_can_be_written_to(files: list[Path], parts: dict[str, Any], straight: Path):
    encoded = run(opened(files), straight, parts)
    for kind, name in (("tokens", "target"), ("tokens", "preview"), ("latents", "latent")):
        assert isinstance(encoded.stores[kind].get(encoded.places[kind][0])[name], np.memmap)
    assert isinstance(encoded.stores["glyph"].get((0, 0))["embeds"], np.memmap)
    encoded.target_ids(0)[:] = 0
    encoded.latents([0])[:] = 0
    encoded.glyph(())[:] = 0
    assert encoded.target_ids(0).any() and encoded.latents([0]).any() and encoded.glyph(()).any()


def test_the_same_picture_twice_is_encoded_once(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(files[1].read_bytes())
    counting = Counting(parts["vae"])
    encoded = run(opened([files[1], files[4], copy]), tmp_path / "s", {"vae": counting})
    assert counting.rows == [2]
    assert np.array_equal(encoded.latents([0]), encoded.latents([2]))


# --- what is asked for -------------------------------------------------------------------------------------------------


def test_a_part_that_is_not_there_makes_nothing(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    encoded = run(opened(files[:2]), tmp_path, {"vae": parts["vae"]}, keys={"vae": "vae:1"})
    assert [path.name.split("-")[0] for path in tmp_path.iterdir()] == ["latents"]
    assert encoded.latents([1]).shape[0] == 1
    for ask in (lambda: encoded.target_ids(0), lambda: encoded.preview_ids(0), lambda: encoded.glyph(())):
        with pytest.raises(AssertionError, match="not encoded"):
            ask()


def test_parts_are_not_called_for_when_nothing_is_missing(files: list[Path], straight: Path):
    def never() -> Any:
        raise AssertionError

    pictures = opened(files)
    before = contents(straight)
    seen: list[Any] = []
    parts = {"tokenizer": never, "vae": never, "glyph": never}
    encoded = run(pictures, straight, {}, **parts, progress=lambda *now: seen.append(now))
    assert encoded.latents([0, 3]).shape == (2, 16, 6, 10) and encoded.problems == () and not seen
    assert contents(straight) == before


def test_words_that_were_not_encoded_are_an_error_of_the_caller(parts: dict[str, Any], tmp_path: Path):
    encoded = run(opened([]), tmp_path, {"glyph": parts["glyph"]}, texts=[])
    assert encoded.glyph(()).shape == (1, 128)  # of no words, the end id alone
    with pytest.raises(AssertionError, match=r"the words \('boat',\) were not among those to encode"):
        encoded.glyph(("boat",))


def test_words_that_are_too_long_are_refused_before_anything_is_written(parts: dict[str, Any], tmp_path: Path):
    with pytest.raises(RequestError):
        run(opened([]), tmp_path, {"glyph": parts["glyph"]}, texts=[("a",), ("b" * 3000,)])
    assert not list(tmp_path.iterdir())


# --- what is found again -----------------------------------------------------------------------------------------------


def test_a_set_that_grows_encodes_what_is_new(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    first = run(opened(files[:9]), tmp_path, parts)
    counting = {name: Counting(module) for name, module in parts.items()}
    seen: list[tuple[str, int, int]] = []
    # in another order, with new ones between
    grown = run(
        opened(files[12::-1]), tmp_path, counting, texts=[("new",), *TEXTS], progress=lambda *now: seen.append(now)
    )
    assert sum(counting["vae"].rows) == 4 and sum(counting["tokenizer"].rows) == 8 and counting["glyph"].rows == [1]
    for index in range(9):
        assert np.array_equal(first.target_ids(index), grown.target_ids(12 - index))
        assert np.array_equal(first.latents([index]), grown.latents([12 - index]))
    assert seen[0] == ("encoding token ids", 9, 13) and seen[1] == ("encoding latents", 9, 13)
    assert ("encoding latents", 13, 13) in seen and ("encoding token ids", 13, 13) in seen
    assert seen[-2:] == [("encoding words", 4, 5), ("encoding words", 5, 5)]


def test_a_new_autoencoder_leaves_the_ids_as_they_are(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    pictures = opened(files[:6])
    run(pictures, tmp_path, parts)
    before = contents(tmp_path)
    counting = {name: Counting(module) for name, module in parts.items()}
    run(pictures, tmp_path, counting, keys={**KEYS, "vae": "vae:2"})
    assert not counting["tokenizer"].rows and not counting["glyph"].rows and sum(counting["vae"].rows) == 6
    # other statistics are another store too: latents are normalised by them
    vae = dataclasses.replace(CONFIG.vae, latents_std=(3.0,) * 16)
    other = run(pictures, tmp_path, counting, config=dataclasses.replace(CONFIG, vae=vae))
    assert sum(counting["vae"].rows) == 12 and not counting["tokenizer"].rows
    np.testing.assert_allclose(other.latents([0]) * 3, run(pictures, tmp_path, parts).latents([0]) * 2, rtol=1e-5)
    assert {name.split("/")[0] for name in contents(tmp_path)} > {name.split("/")[0] for name in before}
    assert before.items() <= contents(tmp_path).items()


@pytest.mark.parametrize("change", [{"dtype": "bf16"}, {"preview_side": 3}])
def test_ids_depend_on_dtype_and_geometry(files: list[Path], parts: dict[str, Any], tmp_path: Path, change: Any):
    pictures = opened(files[:2])
    run(pictures, tmp_path, {"tokenizer": parts["tokenizer"]})
    tokenizer = tiny_encoder.part("tokenizer")
    if "dtype" in change:
        tokenizer = tokenizer.bfloat16()
        again = run(pictures, tmp_path, {"tokenizer": tokenizer}, **change)
    else:
        geometry = dataclasses.replace(CONFIG.geometry, **change)
        again = run(pictures, tmp_path, {"tokenizer": tokenizer}, config=dataclasses.replace(CONFIG, geometry=geometry))
        assert again.preview_ids(1).shape == (3, 3)
    assert len(list(tmp_path.iterdir())) == 2
    assert again.target_ids(0).shape == (3, 5)


def test_damage_is_said_and_mended(files: list[Path], parts: dict[str, Any], straight: Path, tmp_path: Path):
    pictures = opened(files)
    whole = run(pictures, tmp_path, parts)
    store = whole.stores["latents"]
    broken = store.path / store.shards[0].file
    broken.write_bytes(broken.read_bytes()[:-1])
    mended = run(pictures, tmp_path, parts)
    assert len(mended.problems) == 1 and mended.problems[0].startswith(f"`{broken}` is not used: it has ")
    # what was whole is not touched; the shard that was dropped is the same again, and the last in the manifest
    straight_bytes, mended_bytes = contents(straight), contents(tmp_path)
    different = [name for name in straight_bytes if straight_bytes[name] != mended_bytes.get(name)]
    assert different == [f"{store.path.name}/manifest.json"] and straight_bytes.keys() == mended_bytes.keys()
    before, after = (json.loads(c[different[0]])["shards"] for c in (straight_bytes, mended_bytes))
    assert after == [*before[1:], before[0]]


def test_another_writer_is_named(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    pictures = opened(files[:2])
    run(pictures, tmp_path, {"vae": parts["vae"]})
    path = next(tmp_path.iterdir())
    key = json.loads((path / "manifest.json").read_text())["key"]
    with EncodedCache(tmp_path, "latents", key).writing():
        run(pictures, tmp_path, {"vae": parts["vae"]})  # nothing to write: nobody is in the way
        with pytest.raises(DataError) as caught:
            run(opened(files[:3]), tmp_path, {"vae": parts["vae"]})
    assert caught.value.because == (f"process {os.getpid()} is writing it",)


def test_a_picture_that_cannot_be_read_any_more_is_named(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    pictures = opened(files[:6])
    gone = ImageCache(
        [FileSource(tmp_path / "gone.png"), *pictures.sources[1:]], pictures.shapes, [(64, 64)] * 6, pictures.digests
    )
    for workers in (0, 1):
        with pytest.raises(DataError) as caught:
            run(gone, tmp_path / "s", {"vae": parts["vae"]}, workers=workers)
        assert str(caught.value) == (
            f"error: picture `{(tmp_path / 'gone.png').as_posix()}` cannot be used\n  because it is not there"
        )
    run(pictures, tmp_path / "s", {"vae": parts["vae"]})  # nothing is held any more


# --- how it is cut -----------------------------------------------------------------------------------------------------


def test_batches_are_counted_at_the_default_size(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    counting = Counting(parts["vae"])
    run(opened([f for f in files if opened([f]).size_of(0) == (64, 64)]), tmp_path, {"vae": counting}, shard_items=100)
    assert counting.rows == [3, 3, 2]
    small = dataclasses.replace(CONFIG, geometry=dataclasses.replace(CONFIG.geometry, default_px=48))
    counting = Counting(parts["vae"])
    run(opened(files[1:2] + files[4:5]), tmp_path / "b", {"vae": counting}, config=small)
    assert counting.rows == [2]  # of 64×64 pictures there are 3·48²/64² = 1.7 in a pass
    counting = Counting(parts["vae"])
    run(opened(files[1:2] + files[4:5]), tmp_path / "c", {"vae": counting}, config=small, batch=1)
    assert counting.rows == [1, 1]


@pytest.mark.parametrize("workers", [1, 2])
def test_worker_processes_change_nothing(
    files: list[Path], parts: dict[str, Any], straight: Path, tmp_path: Path, workers: int
):
    run(opened(files), tmp_path, parts, workers=workers)
    assert contents(tmp_path) == contents(straight)


def test_workers_load_no_framework(files: list[Path], parts: dict[str, Any], tmp_path: Path):
    pictures = opened(files[:1])
    telling = ImageCache(
        [Telling(files[0], tmp_path / "said")], pictures.shapes, [pictures.size_of(0)], pictures.digests
    )
    run(telling, tmp_path / "s", {"vae": parts["vae"]}, workers=1)
    process, *modules = (tmp_path / "said").read_text().split("\n")
    assert int(process) != os.getpid() and "numpy" in modules
    assert not {"torch", "sampan.frameworks", "sampan.data.encode"} & set(modules)


def test_a_stop_between_two_stores_goes_on_in_both(
    files: list[Path], parts: dict[str, Any], straight: Path, tmp_path: Path
):
    """The ids of a shard may be there and its latents not; then the same batches are cut again."""
    calls = 0

    class Stopping(Counting):
        def encode(self, images: Any, *statistics: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls in (1, 4, 9):
                raise KeyboardInterrupt
            return super().encode(images, *statistics)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            run(opened(files), tmp_path, {**parts, "vae": Stopping(parts["vae"])})
    # a store that lacks everything beside one that is whole
    run(opened(files), tmp_path, {"tokenizer": parts["tokenizer"]})
    run(opened(files), tmp_path, parts)
    assert contents(tmp_path) == contents(straight)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="attempts are forked, so that many fit into a test")
def test_killed_at_any_moment_and_resumed_equals_straight(files: list[Path], straight: Path, tmp_path: Path):
    program = [sys.executable, "-m", "unit.data.tiny_encoder", "killed", str(files[0].parent), str(tmp_path), "7"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(program, cwd=TESTS, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 5
    assert contents(tmp_path) == contents(straight)
