"""The user's own measurements: whose they are, how far they move a prediction, and files that say nothing."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sampan.catalog import load
from sampan.errors import PlanError
from sampan.plan import measured
from sampan.plan.predict import StepPrediction, predict
from sampan.plan.records import ParallelLayout

HALF = 0.6
PREDICTED = StepPrediction(
    step_s=2.0, low_s=2 * math.exp(-HALF), high_s=2 * math.exp(HALF), parts={"matmul_s": 1.5, "memory_s": 0.5},
    num_measurements=7, basis="runs of torch",
)  # fmt: skip


def side(device="cuda", name="NVIDIA H100 80GB HBM3", framework="torch", mode="eager", dtype="bf16"):
    return {"framework": framework, "mode": mode, "device": device, "device_name": name, "dtype": dtype}


def kit(*rows, px=1024):
    return {"what": "kit", "machine": {"cpu": "AMD EPYC"}, "px": px, "rows": list(rows)}


def row(seconds, part="ar", **of):
    return {**side(**of), "part": part, "step": {"seconds": {"median": seconds}}}


def race(seconds, **of):
    result = {"framework": "torch", "mode": "eager", "step_s": {"median": seconds}}
    shape = {"preset": "nano", "override": {}, "px": 128, "micro_batch_size": {"ar": 4}}
    return {
        "machine": {"cpu": "AMD EPYC"},
        "shape": shape,
        "sides": [side(**of)],
        "parts": {"ar": {"results": [result]}},
    }


@pytest.fixture
def put(tmp_path):
    def write(document, name="bench.json"):
        path = tmp_path / name
        path.write_text(document if isinstance(document, str) else json.dumps(document), encoding="utf-8")
        return path

    return write


@pytest.mark.parametrize(
    ("device", "chip"),
    [
        ("NVIDIA H100 80GB HBM3", "h100_sxm"),
        ("NVIDIA H100 PCIe", "h100_pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA H20", "h20"),
        ("NVIDIA A100-SXM4-80GB", "a100_80"),
        ("NVIDIA A100-SXM4-40GB", "a100_40"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx4090"),
        ("NVIDIA GeForce RTX 4090 D", "rtx4090d"),
        ("Ascend910B2", "ascend_910b2"),
        ("Ascend910B4", "ascend_910b4"),
        ("AMD Instinct MI300X", "mi300x"),
        ("Tesla V100-SXM2-32GB", "v100"),
    ],
)
def test_a_drivers_name_is_a_chip_of_the_catalogue(device, chip):
    assert measured.chip_of(device).name == chip


def test_a_kits_block_is_predicted_as_one_layer_of_the_released_model(put):
    found = measured.read([put(kit(row(0.01), row(0.02, part="decoder")))]).steps
    assert [(one.chip.name, one.part, one.measured_s) for one in found] == [
        ("h100_sxm", "block of ar", 0.01),
        ("h100_sxm", "block of decoder", 0.02),
    ]
    assert all(0 < one.predicted_s < 1 for one in found)


def test_a_race_is_predicted_with_its_own_shape(put):
    (one,) = measured.read([put(race(0.5))]).steps
    workload, layout = measured._whole(race(0.5), "ar")
    assert layout == ParallelLayout(micro_batch=4)
    assert one.predicted_s == predict(workload, layout, load.chip("h100_sxm")).step_s
    assert (one.part, one.ratio) == ("ar of nano", 0.5 / one.predicted_s)


def test_a_measurement_moves_its_chip_and_software_and_nothing_else(put):
    (one,) = measured.read([put(race(0.5))]).steps
    slow = measured.read([put(race(3 * one.predicted_s))])
    moved = slow.calibrate(PREDICTED, load.chip("h100_sxm"), "torch")
    assert 2.0 < moved.step_s < 6.0
    assert moved.high_s / moved.low_s < PREDICTED.high_s / PREDICTED.low_s
    assert sum(moved.parts.values()) == pytest.approx(moved.step_s)
    assert (moved.num_measurements, moved.basis) == (8, "runs of torch, and 1 measurement of your own")
    assert slow.calibrate(PREDICTED, load.chip("h200"), "torch") is PREDICTED
    assert slow.calibrate(PREDICTED, load.chip("h100_sxm"), "mindspore") is PREDICTED
    (line,) = slow.lines()
    assert line == (
        "Measured by you: h100_sxm with torch takes 3.00 times what is predicted (ar of nano in bf16); predictions there "
        "move toward it, and their intervals narrow."
    )


def test_the_weight_by_hand():
    # variances 0.36 = 0.27 shared + 0.09 own; one measurement weighs 0.27 / 0.36, and 0.09 + 0.27 x 1/4 remain
    shift, half = measured.combine(0.6, 0.3, [0.4])
    assert shift == pytest.approx(0.75 * 0.4)
    assert half == pytest.approx(math.sqrt(0.09 + 0.27 / 4))


@given(st.floats(0.05, 2), st.floats(0.05, 2), st.lists(st.floats(-2, 2), min_size=1, max_size=6))
def test_measurements_narrow_and_never_overshoot(half, least, logs):
    shift, narrower = measured.combine(half, least, logs)
    mean = sum(logs) / len(logs)
    assert abs(shift) <= abs(mean) + 1e-12
    assert shift * mean >= 0
    assert 0 < narrower < half
    assert measured.combine(half, least, [*logs, mean])[1] < narrower  # one more, one surer


def test_modes_of_a_job_that_is_not_compiled(put):
    path = put(kit(row(0.01, mode="compiled"), row(0.02)))
    (one,) = measured.read([path]).steps
    assert one.measured_s == 0.02
    (other,) = measured.read([path], compiled=True).steps
    assert other.measured_s == 0.01


def test_a_pattern_and_files_that_say_nothing(put, tmp_path):
    put(race(0.5), "one.json")
    put({"what": "a table"}, "two.json")
    found = measured.read([tmp_path / "*.json"])
    assert len(found.steps) == 1
    assert found.left_out == (f"`{tmp_path / 'two.json'}` is not a result of a race or of the kit of `sampan bench`.",)


HINT = "\n\nhint: on the chip: sampan bench --kit --json FILE"
NOTHING = "error: --measured: nothing that was given measures a chip of the catalogue\n  because "


@pytest.mark.parametrize(
    ("document", "because"),
    [
        (
            race(0.5, device="cpu", name=None),
            "`{}` is left out: it was measured on a CPU (AMD EPYC), and the catalogue has accelerators alone",
        ),
        (race(0.5, name="Fancy 3000"), "`{}` is left out: no chip of the catalogue is called `Fancy 3000`"),
        (race(0.0), "`{}` is left out: its time of ar is 0 s"),
        (kit(row(0.01), px=None), "`{}` is left out: its number of tokens was set by hand"),
        (kit({"device": "cuda", "step": 1}), "`{}` is left out: it is not a result of `sampan bench`"),
        (kit(), "`{}` is left out: it is not a result of `sampan bench`"),
        ([], "`{}` is not a result of a race or of the kit of `sampan bench`"),
    ],
)
def test_a_file_that_measures_nothing_of_use(put, document, because):
    path = put(document)
    with pytest.raises(PlanError) as caught:
        measured.read([path])
    assert str(caught.value) == NOTHING + because.format(path) + HINT


def test_a_file_that_cannot_be_read(put, tmp_path):
    with pytest.raises(PlanError) as caught:
        measured.read([tmp_path / "none.json"])
    assert (
        str(caught.value)
        == f"error: --measured: `{tmp_path / 'none.json'}` cannot be read\n  because No such file or directory"
    )
    with pytest.raises(PlanError) as caught:
        measured.read([tmp_path / "b*.json"])
    assert str(caught.value) == (
        f"error: --measured: no file is named like `{tmp_path / 'b*.json'}`\n\n"
        "hint: make one on the chip: sampan bench --kit --json FILE"
    )
    with pytest.raises(PlanError) as caught:
        measured.read([put("{]")])
    assert str(caught.value).startswith(f"error: --measured: `{tmp_path / 'bench.json'}` is not JSON\n  because ")
