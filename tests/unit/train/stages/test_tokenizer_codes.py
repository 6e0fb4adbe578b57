"""How codes are spread over what was learned without them."""

from __future__ import annotations

import numpy as np

from sampan.train.stages.tokenizer import _spread


def test_codes_find_what_is_rare():
    random = np.random.default_rng(0)
    kinds = np.eye(8, dtype=np.float32)
    rows = np.concatenate([np.repeat(kinds[:1], 5000, 0), np.repeat(kinds[1:], 2, 0)])  # seven kinds in 14 of 5,014
    rows += random.normal(0, 0.01, rows.shape).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    codes = _spread(random.permutation(rows), 8)
    nearest = (kinds @ codes.T).max(1)
    assert (nearest > 0.99).all()


def test_more_codes_than_there_is_to_stand_for_are_no_error():
    rows = np.eye(3, dtype=np.float32)
    codes = _spread(rows, 6)
    assert codes.shape == (6, 3) and np.isfinite(codes).all()
