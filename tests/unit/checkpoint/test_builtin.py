"""The weights that come with the package: small enough for a wheel, whole, and theirs by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sampan.checkpoint import builtin
from sampan.checkpoint.detect_layout import resolve
from sampan.checkpoint.folder import open_folder
from sampan.errors import CheckpointError

MOST_BYTES = 30_000_000


@pytest.fixture
def nano() -> Path:
    return builtin.builtin_models()["nano"]


def test_nano_is_whole_and_small(nano: Path):
    open_folder(nano).check()
    assert sum(path.stat().st_size for path in nano.rglob("*") if path.is_file()) < MOST_BYTES
    assert not [path for path in nano.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    card = (nano / "README.md").read_text(encoding="utf-8")
    assert all(word in card for word in ("## Data", "## Training", "## Measured", "## Limits", "OFL-1.1"))


def test_a_name_stands_for_the_folder_unless_something_lies_there(nano: Path, tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolve(Path("nano")) == nano
    (tmp_path / "nano").mkdir()
    assert builtin.find(Path("nano")) == Path("nano")
    with pytest.raises(CheckpointError, match="no weights for `glm-image`"):
        resolve(Path("glm-image"))


def test_nano_paints_the_colour_that_is_asked_for(nano: Path):
    pytest.importorskip("torch")
    from sampan.metrics import color
    from sampan.pipeline.batch import generate_images
    from sampan.pipeline.options import PipelineOptions
    from sampan.pipeline.pipeline import open_pipeline
    from sampan.pipeline.prepare import prepare
    from sampan.pipeline.request import ImageRequest

    pipeline = open_pipeline(PipelineOptions(model=str(nano), device="cpu", dtype="fp32"))
    asked = [("red", 1), ("blue", 2), ("yellow", 3)]
    requests = [
        ImageRequest(prompt=f'a {plate} sign that says "OLÁ"', num_inference_steps=6, seed=seed)
        for plate, seed in asked
    ]
    painted = generate_images(pipeline, [prepare(pipeline, request) for request in requests])
    found = [color.plate_and_ink(Image.fromarray(np.asarray(one)), (0, 0.3, 1, 0.7))[0] for (one,) in painted]
    assert found == [plate for plate, _ in asked]
