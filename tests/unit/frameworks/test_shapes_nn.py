"""Layers without values have the parameters of the others, by name and by shape."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.frameworks import NN_NAMES
from sampan.frameworks.shapes import nn
from sampan.models import lora
from sampan.models.build import PARTS, build_on_meta
from sampan.models.presets import get

SOURCE = Path(__file__).resolve().parents[3] / "src"
ON_SHAPES = """
import json
from sampan import frameworks
frameworks.use_shapes()
from sampan.frameworks.shapes.count import parameters
from sampan.frameworks.shapes.nn import parameter_slots
from sampan.models import lora
from sampan.models.build import PARTS, build_on_meta
from sampan.models.presets import get
found = {}
for part in PARTS:
    module = build_on_meta(part, get("nano"))
    if part in lora.PARTS:
        lora.attach(module, part, get("nano"), 4)
    found[part] = {name: list(parameter.shape) for name, _, _, parameter in parameters(parameter_slots(module))}
print(json.dumps(found))
"""


def test_every_part_has_the_same_parameters():
    ran = subprocess.run(
        [sys.executable, "-c", ON_SHAPES], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    found = json.loads(ran.stdout)
    for part in PARTS:
        module = build_on_meta(part, get("nano"))
        if part in lora.PARTS:
            lora.attach(module, part, get("nano"), 4)
        assert found[part] == {name: list(parameter.shape) for name, parameter in module.named_parameters()}


def test_every_class_of_the_interface_is_there():
    assert [name for name in NN_NAMES if not hasattr(nn, name)] == []


def test_only_a_plain_linear_layer_takes_an_addition():
    module = nn.ModuleList([nn.Linear(3, 5), nn.Embedding(7, 3)])
    assert nn.linear_layers(module) == {"0": (5, 3)}
    nn.add_low_rank(module, {"0": (2, 0.5)})
    assert nn.linear_layers(module) == {"0": (5, 3)}
    for name in ("0", "1", "2", ""):
        with pytest.raises(ValueError, match=f"`{name}` is not a linear layer without an addition"):
            nn.add_low_rank(module, {name: (2, 0.5)})


def test_what_a_module_does_not_have_is_said():
    with pytest.raises(AttributeError, match="Identity has no `weight`"):
        nn.Identity().weight  # noqa: B018
