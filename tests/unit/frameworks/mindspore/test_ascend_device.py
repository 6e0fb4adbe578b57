"""What MindSpore is asked for on Ascend besides operators: a chip's memory, and the collective that the CPU has not."""

from __future__ import annotations

from types import SimpleNamespace

import mindspore as ms
import numpy as np
import pytest
from mindspore import Tensor, ops

from sampan.frameworks.mindspore import device, parallel
from unit.frameworks.mindspore import stand_ins


def test_the_parts_of_all_ranks_are_the_sum(monkeypatch):
    vectors = [np.random.default_rng(rank).standard_normal(12, np.float32) for rank in range(4)]
    monkeypatch.setattr(parallel, "is_ascend", lambda: True)
    parts = []
    for rank in range(4):
        others = [vector for other, vector in enumerate(vectors) if other != rank]
        monkeypatch.setattr(ops, "ReduceScatter", stand_ins.reduce_scatter(rank, others))
        monkeypatch.setattr(parallel, "_state", {"rank": rank, "ranks": 4})
        parts.append(parallel.scattered(Tensor(vectors[rank])).asnumpy())
    np.testing.assert_allclose(np.concatenate(parts), sum(vectors), rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="does not divide by 4"):
        parallel.scattered(Tensor(vectors[0][:10]))


def test_a_chip_is_asked_for_its_memory_after_its_first_operation(monkeypatch):
    """Before it MindSpore says 0, and everything would be refused as too large."""
    operations = []
    monkeypatch.setattr(device, "zeros", lambda *given: operations.append(given) or Tensor(np.zeros(1, np.float32)))

    def properties(number: int) -> SimpleNamespace:
        return SimpleNamespace(total_memory=64 * len(operations), free_memory=50 * len(operations))

    monkeypatch.setattr(ms.hal, "get_device_properties", properties)
    monkeypatch.setattr(ms.runtime, "memory_reserved", lambda: 9)
    monkeypatch.setattr(ms.runtime, "memory_allocated", lambda: 4)
    assert device.memory_bytes("npu") == (64, 55)
