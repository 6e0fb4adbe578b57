"""Named sizes, and replacing single values of them."""

from __future__ import annotations

import dataclasses
import math
import tracemalloc
from typing import Any

import pytest

from mutants import survives
from sampan.errors import CheckpointError, JobError
from sampan.models import presets
from sampan.models.build import PARTS, build_on_meta
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


deep: Any = 1
for _ in range(50):
    deep = {"a": deep}
VALUES: list[Any] = [
    0, -1, 1, 2, 3, 2**31 - 1, 2**31, 2**62, 10**90, 0.5, 1e300, math.nan, math.inf, -math.inf, "", "x", "3", "a" * 10_000,
    [], [1], [1] * 5000, ["a"], [[1]], (1, 2), {}, {"a": 1}, deep, True, False, None, b"x",
]  # fmt: skip


def fields_of(preset: str) -> list[tuple[str, str]]:
    config = presets.get(preset)
    sections = {name: getattr(config, name) for name in presets._TOP}
    sections |= {name: getattr(config.ar, name) for name in presets._PARTS}
    return [(name, field.name) for name, section in sections.items() for field in dataclasses.fields(section)]


@pytest.mark.parametrize("preset", ["nano", "glm-image"])
def test_no_value_of_an_override_ends_in_a_traceback(preset: str):
    tracemalloc.start()
    try:
        tried = used = 0
        for section, field in fields_of(preset):
            for value in VALUES:
                override = {section: {field: value}}
                used += survives(lambda override=override: presets.get(preset, override), override)
                tried += 1
        for section in (*presets._TOP, *presets._PARTS):
            for value in VALUES:
                survives(lambda section=section, value=value: presets.get(preset, {section: value}), (section, value))
        assert tried > 1728 and tried / 50 < used < tried / 2
        assert tracemalloc.get_traced_memory()[1] < 2**25
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("section", "field", "value", "says"),
    [
        ("dit", "num_layers", "4", "num_layers must be a whole number, got '4'"),
        ("dit", "num_layers", 0, "num_layers must be at least 1, got 0"),
        ("dit", "num_layers", 10**6, "num_layers must be at most 512, got 1000000"),
        ("dit", "num_layers", True, "num_layers must be a whole number, got True"),
        ("dit", "num_attention_heads", 2**31 - 1, "its sizes make about"),
        ("text", "rope_theta", math.nan, "rope_theta must be a number, got nan"),
        ("text", "vocab_size", 10**90, "vocab_size must be at most 2147483647, got 1000"),
        ("text", "mrope_section", [], "mrope_section must be a list of numbers, got ()"),
        ("text", "attention_bias", 1, "attention_bias must be true or false, got 1"),
        ("vae", "block_out_channels", [8] * 99, "block_out_channels has 99 blocks, and 8 are the most"),
        ("vae", "latents_std", ["a"], "latents_std must be a number, got 'a'"),
        ("sampling", "temperature", -1, "temperature must be at least 0, got -1"),
        ("painting", "guidance_scale", math.inf, "guidance_scale must be a number, got inf"),
        ("geometry", "default_px", 2**31 - 1, "default_px must be at most 65536, got 2147483647"),
        ("geometry", "prior_px", 0, "prior_px must be at least 1, got 0"),
    ],
)
def test_a_value_that_cannot_be_is_named(section: str, field: str, value: Any, says: str):
    with pytest.raises(JobError) as caught:
        presets.get("nano", {section: {field: value}})
    assert caught.value.what == "the model `nano` with these overrides cannot be built"
    assert caught.value.because[0].startswith(says)


def test_a_part_of_a_part_is_not_set_as_a_field():
    with pytest.raises(JobError) as caught:
        presets.get("nano", {"ar": {"text": {"num_hidden_layers": 2}}})
    assert caught.value.hint == "put its fields below [model.override.text]"


def test_the_most_layers_that_are_taken_are_built_without_memory():
    config = presets.get("nano", {"dit": {"num_layers": 512}})
    assert survives(lambda: build_on_meta("decoder", config), "512 layers")
    assert all(survives(lambda part=part: build_on_meta(part, presets.get("glm-image")), part) for part in PARTS)
