"""Diffusion transformers: published counts, and operators by hand."""

from __future__ import annotations

import pytest

from sampan.plan.records import Workload
from sampan.plan.workloads.diffusion import DiffusionShape, diffusion_model
from sampan.plan.workloads.layers import TransformerLayers, convolution, transformer

DIT = DiffusionShape(
    time_matrices=1.22,
    table=1001 * 1152,
    layers=(TransformerLayers(repeat=28, hidden=1152, heads=16, ffn=4608, modulations=6),),
)


def flops_of(workload: Workload, kind: str) -> float:
    return sum(b.repeat * sum(op.flops for op in b.ops if op.kind == kind) for b in workload.blocks)


def test_dit_xl_2_costs_what_its_paper_says() -> None:
    # Peebles and Xie 2023, table 4: 675 M parameters, 118.6 billion multiply-additions at 256 px
    workload = diffusion_model("DiT-XL/2", DIT, height=256, width=256)
    assert workload.params == pytest.approx(675e6, rel=2e-3)
    assert workload.forward_flops / 2 == pytest.approx(118.64e9, rel=2e-3)
    assert workload.sample == "picture of 256x256 px"


def test_a_full_step_is_three_forward_passes_but_for_inputs_without_gradients() -> None:
    workload = diffusion_model("DiT-XL/2", DIT, height=256, width=256)
    patches = workload.blocks[0].ops[0].flops
    assert workload.flops == pytest.approx(3 * workload.forward_flops - patches)


@pytest.mark.parametrize(
    ("shape", "frames", "grid"),
    [
        (DiffusionShape(layers=DIT.layers, frame_factor=4), 49, (1024, 13)),
        (DiffusionShape(layers=DIT.layers, frame_factor=4, frame_patch=2), 81, (1024, 11)),
        (DiffusionShape(layers=DIT.layers, frame_factor=4, chunk=17), 51, (1024, 15)),
        (DiffusionShape(layers=DIT.layers, first_frame_alone=False), 16, (1024, 16)),
        (DiffusionShape(layers=DIT.layers, frame_factor=4), 1, (1024, 1)),
        (DiffusionShape(layers=DIT.layers, scales=(1, 2, 3)), 1, (14, 1)),
    ],
)
def test_tokens_of_pictures_and_clips(shape: DiffusionShape, frames: int, grid: tuple[int, int]) -> None:
    assert shape.grid(512, 512, frames) == grid


def test_spatial_and_temporal_attention_see_a_frame_and_a_place() -> None:
    def attention(*reach: str) -> float:
        layers = TransformerLayers(repeat=1, hidden=64, heads=4, ffn=0, reach=reach)  # type: ignore[arg-type]
        return sum(op.flops for op in transformer("layers", layers, places=100, frames=8).ops if op.kind == "attention")

    assert attention("full") == 4 * 800 * 800 * 64
    assert attention("spatial") == 4 * 100 * 100 * 8 * 64
    assert attention("temporal") == 4 * 8 * 8 * 100 * 64
    assert attention("spatial", "temporal") == attention("spatial") + attention("temporal")


def test_two_streams_double_weights_and_not_products() -> None:
    one, two = (
        transformer(
            "layers",
            TransformerLayers(repeat=2, hidden=64, heads=4, ffn=256, streams=s, joined=True),
            places=100,
            text=20,
        )
        for s in (1, 2)
    )
    assert two.params == 2 * one.params
    assert two.flops == one.flops


def test_experts_multiply_parameters_and_tokens_meet_some() -> None:
    plain = TransformerLayers(repeat=1, hidden=64, heads=4, ffn=256, biases=False)
    many = TransformerLayers(repeat=1, hidden=64, heads=4, ffn=256, biases=False, experts=8, per_token=2)
    one, several = (transformer("layers", layers, places=100) for layers in (plain, many))
    assert several.expert_params == 8 * 2 * 64 * 256
    assert several.params == one.params + 7 * 2 * 64 * 256 + 64 * 8
    assert several.flops == one.flops + 2 * 100 * 2 * 64 * 256 + 2 * 100 * 64 * 8


def test_linear_attention_grows_with_the_number_of_tokens() -> None:
    layers = TransformerLayers(repeat=1, hidden=64, heads=2, ffn=0, linear=True)
    small, large = (transformer("layers", layers, places=n).flops for n in (100, 400))
    assert large == 4 * small


def test_lora_keeps_weights_and_trains_additions() -> None:
    lora = diffusion_model("DiT-XL/2", DIT, height=256, width=256, method="lora", rank=16)
    per_layer = 16 * ((1152 + 3 * 1152) + (1152 + 1152) + (1152 + 4608) + (4608 + 1152))
    assert lora.trained_params == 28 * per_layer
    full = diffusion_model("DiT-XL/2", DIT, height=256, width=256)
    assert lora.params == full.params + lora.trained_params
    assert lora.flops < 0.75 * full.flops


def test_a_convolution_is_a_product_over_its_kernel() -> None:
    op = convolution("convolution", 100, 16, 32, stride=4)
    assert (op.flops, op.weights, op.values) == (2 * 100 * 9 * 16 * 32, 9 * 16 * 32, 100 * (4 * 16 + 32))
    assert flops_of(diffusion_model("DiT", DIT, height=256, width=256), "conv") == 0
