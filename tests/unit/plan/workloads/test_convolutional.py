"""The U-Net of latent diffusion: counts of parameters as published, costs by hand."""

from __future__ import annotations

import dataclasses

import pytest

from sampan.plan.workloads.convolutional import UNetShape, unet_model
from sampan.plan.workloads.encoders import Autoencoder, FrozenTextEncoder, encode

SD15 = UNetShape(widths=(320, 640, 1280, 1280), depths=(1, 1, 1, 0), middle=1, context=768)
SDXL = UNetShape(
    widths=(320, 640, 1280), depths=(0, 2, 10), middle=10, context=2048, head_dim=64, vectors=2816, vae=Autoencoder()
)


@pytest.mark.parametrize(("shape", "params"), [(SD15, 859.5e6), (SDXL, 2567.5e6)])
def test_parameters_are_the_published_count(shape: UNetShape, params: float) -> None:
    assert unet_model("unet", shape, height=512, width=512).params == pytest.approx(params, rel=1e-3)


def test_convolutions_grow_with_the_area_and_attention_with_its_square() -> None:
    small, large = (unet_model("unet", SD15, height=side, width=side) for side in (512, 1024))

    def flops(workload: object, kind: str) -> float:
        return sum(b.repeat * sum(op.flops for op in b.ops if op.kind == kind) for b in workload.blocks)  # type: ignore[attr-defined]

    assert flops(large, "conv") == pytest.approx(4 * flops(small, "conv"))
    cross = sum(b.repeat * sum(op.flops for op in b.ops if op.name == "cross-attention") for b in small.blocks)
    assert flops(large, "attention") - 4 * cross == pytest.approx(16 * (flops(small, "attention") - cross))


def test_lora_trains_additions_alone() -> None:
    full, lora = (unet_model("unet", SD15, height=512, width=512, method=m) for m in ("full", "lora"))
    assert full.trained_params == full.params
    assert 0 < lora.trained_params < 0.01 * full.params
    assert full.forward_flops < lora.forward_flops < lora.flops < full.flops
    assert full.has_average and not lora.has_average


def test_encoders_run_forward_only() -> None:
    shape = dataclasses.replace(
        SDXL, encoders=(FrozenTextEncoder(layers=12, hidden=768, ffn=3072, heads=12, tokens=77, vocab=49408),)
    )
    without, with_them = (unet_model("unet", shape, height=512, width=512, with_encoders=w) for w in (False, True))
    added = with_them.forward_flops - without.forward_flops
    assert added > 0
    assert with_them.flops - without.flops == pytest.approx(added)
    assert with_them.trained_params == without.trained_params
    text = [block for block in with_them.blocks if block.name.startswith("text")]
    # the text encoder of SD 1.5 has 123.06 million parameters, positions and norms among them
    assert sum(b.repeat * b.params for b in text) == pytest.approx(123.06e6, rel=2e-3)


def test_the_autoencoder_is_the_published_one() -> None:
    (block,) = encode((), Autoencoder(), 512, 512)
    assert block.params == pytest.approx(34.16e6, rel=1e-3)
    (clip,) = encode((), Autoencoder(frame_factor=4), 512, 512, 16)
    assert clip.flops > 16 * block.flops
