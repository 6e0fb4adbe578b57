"""Phases of a picture: FLOPs of the real parts under PyTorch's counter, forward only."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sampan.models.build import build_on_meta
from sampan.models.config import PaintingConfig
from sampan.models.presets import get
from sampan.plan.records import Phase
from sampan.plan.workloads.own.pictures import DEFAULT_STEPS, picture_phases

NANO = get("nano")
SIZE = (128, 128)
LATENT = (1, NANO.vae.latent_channels, *(side // NANO.vae.factor for side in SIZE))


def flops(phase: Phase) -> float:
    return sum(block.flops for block in phase.blocks)


def named(phases: list[Phase]) -> dict[str, Phase]:
    return {phase.name: phase for phase in phases}


def counted(module: torch.nn.Module, *arrays: Any, **more: Any) -> int:
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*arrays, **more)
    return counter.get_total_flops()


def floats(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta")


def ids(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=torch.int64)


@pytest.mark.parametrize("prompt", [5, 40])
def test_the_generator_reads_and_writes_over_all_slots(prompt: int) -> None:
    phases = named(picture_phases(NANO, SIZE, prompt_tokens=prompt))
    model, text = build_on_meta("ar", NANO), NANO.ar.text
    slots, half = prompt + 64 + 16, text.rotary_dim // 2
    shape = (1, text.num_key_value_heads, slots, text.head_dim)
    for name, tokens in (("read the prompt", prompt), ("write a token", 1)):
        cache = tuple((floats(*shape), floats(*shape)) for _ in range(text.num_hidden_layers))
        mask = torch.empty((1, 1, tokens, slots), device="meta", dtype=torch.bool)
        angles = floats(1, 1, tokens, half)
        seen = counted(model, ids(1, tokens), angles, angles, mask=mask, cache=cache, start=ids(1)[0], num_logits=1)
        assert flops(phases[name]) == seen
    assert phases["write a token"].repeats == 64 + 16 - 1
    assert phases["write a token"].cache_values == 2 * text.num_hidden_layers * shape[1] * shape[2] * shape[3]


def test_the_decoder_paints_with_the_prompt_and_without_it() -> None:
    phases = named(picture_phases(NANO, SIZE, glyph_tokens=11, num_inference_steps=30))
    model, dit = build_on_meta("decoder", NANO), NANO.dit
    for name, words in (("a step with the prompt", 11), ("a step without the prompt", 1)):
        angles = floats(1, 1, words + 64, dit.attention_head_dim // 2)
        seen = counted(
            model, floats(*LATENT), floats(1, words, dit.text_embed_dim), ids(1, 64), floats(1),
            floats(1, dit.time_embed_dim), floats(1, 4 * dit.condition_dim), angles, angles,
        )  # fmt: skip
        assert flops(phases[name]) == seen
        assert phases[name].repeats == 30


def test_pixels() -> None:
    phases = named(picture_phases(NANO, SIZE))
    assert flops(phases["pixels"]) == counted(build_on_meta("vae", NANO).decoder, floats(*LATENT))


def test_guidance_and_references_are_phases_of_their_own() -> None:
    plain = named(picture_phases(NANO, SIZE, has_guidance=False))
    assert "a step without the prompt" not in plain
    edited = named(picture_phases(NANO, SIZE, references=[SIZE]))
    assert {"read a reference", "show a reference to the decoder"} <= edited.keys()
    assert flops(edited["a step with the prompt"]) > flops(plain["a step with the prompt"])
    assert edited["write a token"].repeats == 64 - 1  # without a preview
    assert PaintingConfig().num_inference_steps == DEFAULT_STEPS
