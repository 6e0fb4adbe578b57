"""What PyTorch sees of the machine is said in plain values."""

from __future__ import annotations

import json
import warnings

import torch

from sampan.frameworks.torch import device as dev
from sampan.frameworks.torch import probe as looking
from sampan.frameworks.torch.probe import probe


def test_every_kind_of_device_is_looked_at():
    facts = probe()
    json.dumps(facts)
    assert facts["version"] == torch.__version__
    kinds = list(dict.fromkeys(d["device"].partition(":")[0] for d in facts["devices"]))
    assert kinds == dev.available()
    cpu = facts["devices"][-1]
    assert cpu["device"] == "cpu"
    assert cpu["bf16"] == ("fast" if dev.cpu_multiplies_bf16() else "slow")
    assert cpu["dtype"] == dev.resolve_dtype("auto", "cpu")
    assert set(looking._LOOK) == {"cuda", "npu", "mps", "cpu"}


def test_complaints_become_notes(monkeypatch):
    def complaining() -> list[str]:
        warnings.warn("CUDA initialization: the driver is too old\nand more", stacklevel=1)
        return ["cpu"]

    monkeypatch.setattr(looking.dev, "available", complaining)
    assert probe()["notes"] == ["CUDA initialization: the driver is too old"]


def test_a_device_that_does_not_answer_has_unknown_free_memory():
    notes: list[str] = []

    def busy() -> int:
        raise RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable\nmore")

    assert looking._free(notes, "cuda:0", busy) is None
    assert looking._free(notes, "cuda:1", lambda: 5) == 5
    assert notes == ["cuda:0: CUDA error: all CUDA-capable devices are busy or unavailable"]
