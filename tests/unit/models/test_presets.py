"""Named sizes, and replacing single values of them."""

from __future__ import annotations

from typing import Any

import pytest

from sampan.errors import CheckpointError, JobError
from sampan.models import presets
from sampan.models.config import ModelConfig


def test_the_release_is_the_default_of_every_section():
    assert presets.get("glm-image") == ModelConfig()


def test_values_are_replaced_where_they_belong():
    config = presets.get("nano", {"dit": {"num_layers": 4}, "text": {"num_hidden_layers": 2}, "sampling": {"top_k": 9}})
    nano = presets.get("nano")
    assert (config.dit.num_layers, config.ar.text.num_hidden_layers, config.sampling.top_k) == (4, 2, 9)
    assert config.dit.num_attention_heads == nano.dit.num_attention_heads
    assert config.vae == nano.vae
    # lists, as TOML has them
    assert presets.get("nano", {"text": {"mrope_section": [6, 5, 5]}}).ar.text.mrope_section == (6, 5, 5)


@pytest.mark.parametrize(
    ("name", "override", "said"),
    [
        ("nanno", {}, "error: `model.preset = 'nanno'` is not a preset\n\nhint: did you mean `nano`?"),
        ("nano", {"dti": {}}, "error: `model.override.dti` is not a part of a model\n\nhint: did you mean `dit`?"),
        (
            "nano",
            {"dit": {"num_layer": 3}},
            "error: `model.override.dit.num_layer` is not a field\n\nhint: did you mean `num_layers`?",
        ),
        (
            "nano",
            {"dit": {"attention_head_dim": 6}},
            (
                "error: the model `nano` with these overrides cannot be built\n"
                "  because attention_head_dim 6 must be a multiple of 4 for rows and columns"
            ),
        ),
    ],
)
def test_what_cannot_be_replaced(name: str, override: dict[str, Any], said: str):
    with pytest.raises(JobError) as caught:
        presets.get(name, override)
    assert str(caught.value) == said


def test_values_that_parts_disagree_on():
    with pytest.raises(CheckpointError, match="the decoder and the glyph encoder differ in width"):
        presets.get("nano", {"glyph": {"d_model": 64}})
