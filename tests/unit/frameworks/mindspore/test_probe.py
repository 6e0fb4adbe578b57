"""What MindSpore sees of the machine is said in plain values."""

from __future__ import annotations

import json
import warnings
from types import SimpleNamespace
from typing import Any

import mindspore as ms
import pytest

from sampan.frameworks.mindspore import device as dev
from sampan.frameworks.mindspore import probe as looking
from sampan.frameworks.mindspore.probe import probe


def test_every_kind_of_device_is_looked_at():
    facts = probe()
    json.dumps(facts)
    assert facts["version"] == ms.__version__ and facts["threads"] >= 1
    kinds = list(dict.fromkeys(d["device"].partition(":")[0] for d in facts["devices"]))
    assert kinds == dev.available() and facts["ascend"] == ("npu" in kinds)
    cpu = facts["devices"][-1]
    assert (cpu["device"], cpu["bf16"], cpu["dtype"]) == ("cpu", "no", "fp32")
    assert set(looking._LOOK) == {"npu", "cpu"}


def chips(monkeypatch: pytest.MonkeyPatch, properties: Any) -> None:
    """Let MindSpore see two chips."""
    monkeypatch.setattr(dev, "available", lambda: ["npu", "cpu"])
    monkeypatch.setattr(ms.hal, "get_device_properties", properties)
    monkeypatch.setattr(ms, "device_context", SimpleNamespace(ascend=SimpleNamespace(device_count=lambda: 2)))


@pytest.mark.parametrize(("told", "known"), [(0, None), (64 << 30, 64 << 30)])
def test_chips_are_listed_with_what_is_told(monkeypatch: pytest.MonkeyPatch, told: int, known: int | None):
    chips(monkeypatch, lambda device_id, device_target: SimpleNamespace(name="910B", total_memory=told))
    facts = probe()
    assert facts["ascend"] and [d["device"] for d in facts["devices"]] == ["npu:0", "npu:1", "cpu"]
    first = facts["devices"][0]
    assert (first["name"], first["memory_bytes"], first["bf16"], first["dtype"]) == ("910B", known, "fast", "bf16")


def test_complaints_become_notes(monkeypatch: pytest.MonkeyPatch):
    def busy(device_id: int, device_target: str) -> Any:
        warnings.warn("this will be removed\nsoon", stacklevel=1)
        raise RuntimeError("the device is busy\nmore")

    chips(monkeypatch, busy)
    facts = probe()
    assert facts["notes"] == ["npu: the device is busy", "this will be removed"]
    assert [d["memory_bytes"] for d in facts["devices"]] == [None, None, None]
