"""Workloads by name: defaults are said, geometry is read out of notes, wrong values are refused."""

from __future__ import annotations

import time

import pytest

from sampan.errors import CatalogError, PlanError
from sampan.plan.workloads.named import geometry_from_text, workload_of


@pytest.mark.parametrize(
    ("note", "found"),
    [
        ("51x720x1280; recompute not printed", (51, 720, 1280)),
        ("stage 4 29x1280x720 SP8", (29, 1280, 720)),
        ("resolution 512; flash attention off", (1, 512, 512)),
        ("256x256, FA on", (1, 256, 256)),
        ("T2I 384x384, max_length 1024", (1, 384, 384)),
        ("16x256x256; img/s printed 77.67", (16, 256, 256)),
        ("printed unit FPS, cluster total", None),
        ("per-card batch; resolution not in the table", None),
        ("", None),
    ],
)
def test_geometry_is_read_out_of_a_note(note: str, found: tuple[int, int, int] | None) -> None:
    assert geometry_from_text(note) == found


def test_what_a_run_does_not_say_is_taken_and_noted() -> None:
    assert workload_of("Llama-3.1-8B").notes == ("seq_len is not given: 8192 is taken",)
    assert workload_of("Llama-3.1-8B", seq_len=8192).notes == ()
    clip = workload_of("CogVideoX-T2V", height_px=480, width_px=720)
    assert "frames is not given: 49 is taken" in clip.notes
    assert clip.sample == "clip of 49 frames of 720x480 px"


def test_the_family_is_the_catalogues() -> None:
    names = ("Llama-2-7B", "DeepSeek-V3", "FLUX.1", "SDXL", "Qwen2-VL-7B", "VAR-d16", "Nemotron-H-56B")
    assert [workload_of(name).family for name in names] == [
        "llm-dense", "llm-moe", "dit", "unet", "vlm", "other", "other",
    ]  # fmt: skip


def test_a_language_model_costs_about_six_flops_a_parameter_and_token() -> None:
    workload = workload_of("Llama-3.1-8B", seq_len=2048)
    assert workload.flops == pytest.approx(6 * 8.03e9 * 2048, rel=0.08)


def test_a_hybrid_model_costs_about_six_flops_a_parameter_and_token() -> None:
    workload = workload_of("Nemotron-H-56B", seq_len=8192)
    assert workload.flops == pytest.approx(6 * 56e9 * 8192, rel=0.08)


def test_what_a_vision_language_model_trains() -> None:
    full, language, connector = (workload_of("LLaVA-1.5-7B", trains=t) for t in ("all", "language", "connector"))
    assert full.params == language.params == connector.params
    assert connector.trained_params == pytest.approx(21e6, rel=0.01)
    assert language.trained_params == pytest.approx(6.76e9, rel=0.01)
    assert full.trained_params == full.params
    assert connector.flops < language.flops < full.flops
    assert full.forward_flops == language.forward_flops == connector.forward_flops


def test_windows_of_a_tower_cost_less_than_seeing_everything() -> None:
    windowed = workload_of("Qwen2.5-VL-7B", picture_tokens=2048, seq_len=4096)
    blocks = {block.name: block for block in windowed.blocks}
    within, everything = blocks["vision layers within windows"], blocks["vision layers"]
    assert (within.repeat, everything.repeat) == (28, 4)
    assert within.flops / 28 < everything.flops / 4


def test_wrong_values_are_refused() -> None:
    with pytest.raises(PlanError) as caught:
        workload_of("SDXL", resolution_px=-512)
    assert caught.value.what == "`resolution_px` of `SDXL` must be above 0, got -512"
    with pytest.raises(PlanError) as caught:
        workload_of("SDXL", method="laura")
    assert (caught.value.what, caught.value.hint) == ("the method `laura` is not known", "did you mean `lora`?")
    with pytest.raises(CatalogError):
        workload_of("no such model")


def test_a_workload_is_made_in_a_millisecond() -> None:
    workload_of("DeepSeek-V3", seq_len=4096)
    begun = time.perf_counter()
    for length in range(4097, 4197):
        workload_of("DeepSeek-V3", seq_len=length)
    assert time.perf_counter() - begun < 0.1
