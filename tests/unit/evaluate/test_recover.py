"""What is painted from the tokens of true pictures alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from sampan.checkpoint.folder import open_folder
from sampan.evaluate import recover
from sampan.pipeline.pipeline import Pipeline


def test_each_batch_begins_with_the_same_noise_and_progress_is_told(tiny_folder: Path):
    pipeline, seen = Pipeline(open_folder(tiny_folder), "cpu", "fp32"), []
    image = Image.fromarray(np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))
    count = recover.BATCH + 1
    painted = recover.through_tokens(pipeline, [image] * count, 1, 1.5, lambda *told: seen.append(told))
    first, second, again = (np.asarray(painted[k]).astype(int) for k in (0, 1, recover.BATCH))
    assert np.abs(first - again).max() <= 1 and np.abs(first - second).max() > 20
    assert seen == [("from tokens alone", done, count) for done in (0, recover.BATCH, count)]
