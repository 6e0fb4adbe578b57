"""Which layers get a low-rank addition, and what it begins with."""

from __future__ import annotations

import numpy as np
import pytest

from sampan.errors import JobError
from sampan.frameworks import io
from sampan.models import lora, presets
from sampan.models.build import build, build_on_meta
from sampan.models.init import initial_weights

CONFIG = presets.get("nano", {})


def test_by_default_attention_and_feed_forward_of_every_layer():
    layers = lora.targets("decoder", CONFIG, None)
    assert layers == [
        f"transformer_blocks.{i}.{name}"
        for i in range(CONFIG.dit.num_layers)
        for name in ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")
    ]
    layers = lora.targets("ar", CONFIG, ())
    assert layers == [
        f"model.language_model.layers.{i}.{name}"
        for i in range(CONFIG.ar.text.num_hidden_layers)
        for name in (
            "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
            "mlp.gate_up_proj", "mlp.down_proj",
        )
    ]  # fmt: skip


def test_names_are_whole_words_between_dots_and_may_stand_for_all_in_them():
    assert lora.targets("decoder", CONFIG, ("prior_projector",)) == [
        "prior_projector.net.0.proj",
        "prior_projector.net.2",
    ]
    assert len(lora.targets("decoder", CONFIG, ("norm1.linear", "to_q"))) == 2 * CONFIG.dit.num_layers
    assert lora.targets("ar", CONFIG, ("lm_head",)) == ["lm_head"]


def test_a_name_may_be_for_the_other_part():
    assert lora.targets("ar", CONFIG, ("to_q", "lm_head")) == ["lm_head"]


@pytest.mark.parametrize(
    ("part", "names", "said"),
    [
        (
            "decoder",
            ("to_q", "attn1.to_quary"),
            (
                "error: `attn1.to_quary` names no layer that can have a low-rank addition\n"
                "  because additions are beside linear layers of ar and decoder, named by the words between dots\n"
                "\nhint: did you mean `attn1.to_q` or `attn1.to_v`?"
            ),
        ),
        (
            "ar",
            ("embed_tokens",),
            (
                "error: `embed_tokens` names no layer that can have a low-rank addition\n"
                "  because additions are beside linear layers of ar and decoder, named by the words between dots"
            ),
        ),
        (
            "ar",
            ("q_proj", "attn1.to_q"),
            "error: `attn1.to_q` names no layer of `ar`\n  because it is of `decoder`, which the job does not train",
        ),
    ],
)
def test_names_that_lead_nowhere(part: str, names: tuple[str, ...], said: str):
    with pytest.raises(JobError) as caught:
        lora.check_targets((part,), CONFIG, names)
    assert caught.value.render().startswith(said)


def test_names_of_one_adapted_part_are_enough_and_the_other_takes_its_usual_layers():
    names = ("to_q", "to_v")  # the decoder's, as the job file's reference shows them
    lora.check_targets(lora.PARTS, CONFIG, names)
    assert lora.targets("ar", CONFIG, names) == lora.targets("ar", CONFIG, ())
    assert len(lora.targets("decoder", CONFIG, names)) == 2 * CONFIG.dit.num_layers
    assert lora.targets("ar", CONFIG, (*names, "q_proj")) == lora.targets("ar", CONFIG, ("q_proj",))


def test_additions_are_attached_without_memory_and_drawn_from_counters():
    module = build_on_meta("decoder", CONFIG)
    before = io.shapes(module)
    layers = lora.attach(module, "decoder", CONFIG, 4, 2.0, ("to_q",))
    new = {name: shape for name, shape in io.shapes(module).items() if name not in before}
    assert {name for name in new if lora.trainable(name)} == set(new)
    assert list(new) == [layer + end for layer in layers for end in lora.FACTORS]
    assert not any(lora.trainable(name) for name in before)
    drawn = initial_weights(new, seed=3)
    again = initial_weights(dict(reversed(new.items())), seed=3)
    width = CONFIG.dit.dim
    for name, value in drawn.items():
        assert np.array_equal(value, again[name])
        if "lora_B" in name:
            assert not value.any()
            continue
        assert value.dtype == np.float32
        assert value.shape == (4, width)
        assert np.abs(value).max() <= width**-0.5
        assert 0.9 < value.std() / (width**-0.5 / 3**0.5) < 1.1  # of a uniform draw
        assert abs(value.mean()) < 0.1 * width**-0.5
    firsts = [value for name, value in drawn.items() if "lora_A" in name]
    assert not np.array_equal(firsts[0], firsts[1])
    assert not np.array_equal(firsts[0], initial_weights(new, seed=4)[next(iter(new))])


def test_alpha_is_the_rank_unless_it_is_given():
    for alpha, scale in ((None, 1.0), (2.0, 0.25)):
        module = build("ar", CONFIG)
        lora.attach(module, "ar", CONFIG, 8, alpha)
        assert module.model.language_model.layers[0].self_attn.q_proj.scale == scale
