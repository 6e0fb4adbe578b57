"""A run's columns become work on chips; what a run says is kept, what it does not say is chosen and named."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.catalog.load import RUN_COLUMNS
from sampan.errors import NotPredictable
from sampan.plan import published_run as cases

RUN = dict.fromkeys(RUN_COLUMNS, "") | {
    "id": "r1", "model": "Llama-2-7B", "family": "llm-dense", "params_b": "6.7", "layers": "32", "hidden": "4096",
    "ffn": "11008", "heads": "32", "vocab": "32000", "seq_len": "4096", "global_batch": "64", "micro_batch": "2",
    "precision": "bf16", "framework": "MindSpeed-LLM 1.0.0", "chip": "Ascend910B", "chips": "8", "tp": "2", "pp": "2",
    "recompute": "none", "metric": "tokens_per_s_per_chip", "value": "2500", "vendor": "ascend", "workload": "pretrain",
    "quality": "ok",
}  # fmt: skip


def run(**cells):
    return RUN | cells


def reason(**cells):
    with pytest.raises(NotPredictable) as caught:
        cases.read(run(**cells))
    return str(caught.value)


def test_what_a_run_says_is_kept():
    case = cases.read(RUN)
    layout = case.layout
    assert (layout.num_chips, layout.tp, layout.pp, layout.dp) == (8, 2, 2, 2)
    assert (layout.micro_batch, layout.global_batch, layout.recompute) == (2, 64, "none")
    assert case.chip.name == "ascend_910b3"
    assert case.assumed == ("cp", "ep", "zero_stage")
    assert case.workload.tokens == 4096
    # 7 billion parameters: the gate is seen from the count
    assert case.workload.params == pytest.approx(6.74e9, rel=0.01)


def test_a_feed_forward_layer_without_a_gate_is_seen_from_the_count_too():
    plain = cases.read(run(model="GPT", params_b="5.3"))
    assert plain.workload.params == pytest.approx(5.3e9, rel=0.05)


def test_what_a_run_does_not_say_is_chosen_and_named():
    case = cases.read(run(tp="", pp="", global_batch="", micro_batch="", recompute=""))
    assert case.layout.num_chips == 8
    assert case.assumed == ("tp", "pp", "cp", "ep", "zero_stage", "micro_batch", "global_batch", "recompute")


def test_pieces_of_a_pipeline_are_read_from_the_note_or_chosen_where_the_pipeline_is():
    assert cases.read(run(note="VP 4; more", framework="NeMo 24.07")).layout.virtual == 4
    assert cases.read(run(framework="NeMo 24.07")).layout.virtual == 1


@given(value=st.floats(1e-3, 1e6), metric=st.sampled_from(cases.METRICS), tokens=st.sampled_from(["", "1e12"]))
def test_a_metric_and_a_time_are_two_ways_to_say_the_same(value, metric, tokens):
    case = cases.read(run(metric=metric, tokens_total=tokens))
    if metric in ("days", "chip_hours") and not tokens:
        with pytest.raises(NotPredictable, match="needs `tokens_total`"):
            case.step_s(value)
        return
    assert case.value(case.step_s(value)) == pytest.approx(value)


def test_metrics_are_what_their_names_say():
    def value(metric, **more):
        return cases.read(run(metric=metric, **more)).value(2.0)

    flops = cases.read(RUN).workload.flops
    assert value("step_s") == 2.0
    assert value("samples_per_s") == 32
    assert value("tokens_per_s_per_chip") == 64 * 4096 / 2 / 8
    assert value("tflops_per_chip") == pytest.approx(64 * flops / 2 / 8 / 1e12)
    assert value("mfu") == pytest.approx(64 * flops / 2 / 8 / 313e12)
    assert value("days", tokens_total="1e9") == pytest.approx(1e9 / (64 * 4096 / 2) / 86400)
    assert value("chip_hours", tokens_total="1e9") == pytest.approx(1e9 / (64 * 4096 / 2) * 8 / 3600)
    # who says that everything was computed again counts it as achieved
    assert value("tflops_per_chip", recompute="full") == pytest.approx(4 / 3 * value("tflops_per_chip"))


@given(
    cell=st.sampled_from(
        ["value", "id", "source_title", "source_url", "source_locator", "confidence", "pair_id", "quality"]
    )
)
def test_a_run_is_read_the_same_whatever_it_measured_and_whoever_says_so(cell):
    first, second = cases.read(RUN), cases.read(run(**{cell: "17"}))
    assert (first.layout, first.device_work, first.workload, first.speeds) == (
        second.layout, second.device_work, second.workload, second.speeds,
    )  # fmt: skip


def test_notes_that_are_about_the_work_are_read():
    base = {
        "family": "unet", "model": "SD2", "layers": "", "hidden": "", "ffn": "", "heads": "", "vocab": "", "seq_len": "",
        "params_b": "", "metric": "samples_per_s", "tp": "", "pp": "", "framework": "Composer", "chip": "A100-80G",
    }  # fmt: skip
    with_encoders = cases.read(run(**base)).workload.flops
    assert cases.read(run(**base, note="UNet only: VAE and text latents precomputed")).workload.flops < with_encoders
    assert cases.read(run(**base, note="latent precompute not stated")).workload.flops == with_encoders
    assert cases.read(run(**base, note="resolution 1024")).workload.flops > 2 * with_encoders


def test_what_cannot_be_read_says_why():
    assert reason(metric="joules") == "the metric `joules` is not one that is predicted"
    assert reason(chip="H1000") == "no chip `H1000` is in the catalogue"
    assert reason(chips="") == "it does not say how many chips ran"
    assert reason(seq_len="") == "it does not say how long its sequences are"
    assert reason(recompute="half") == "`recompute` is 'half'"
    assert reason(chip="TPU-v4", precision="fp32") == "of the chip its peak in fp32 is not known"
    assert reason(chips="8", tp="4", pp="4") == (
        "its numbers of chips, parallel degrees and samples do not go together"
    )
    said = reason(family="dit", model="No Such Model", layers="", hidden="")
    assert (
        said
        == "there is no model `No Such Model` in the catalogue: neither its name nor the name of its series is known"
    )


def test_a_language_model_that_nobody_knows_is_taken_by_its_parameters():
    unknown = {
        "model": "No Such Model 9B",
        "layers": "",
        "hidden": "",
        "ffn": "",
        "heads": "",
        "vocab": "",
        "params_b": "9",
    }
    case = cases.read(run(**unknown))
    assert case.workload.params == pytest.approx(9e9, rel=0.1)
    experts = cases.read(run(**unknown | {"family": "llm-moe", "params_b": "90", "active_params_b": "9"}))
    assert experts.workload.params == pytest.approx(90e9, rel=0.1)
    assert reason(**unknown | {"family": "llm-moe"}).startswith("there is no model `No Such Model 9B` in the catalogue")
