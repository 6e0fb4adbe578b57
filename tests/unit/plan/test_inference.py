"""Making pictures: held against the release's own times, and what follows from memory, batch and sites."""

import math
from dataclasses import replace

import pytest

from sampan import job
from sampan.catalog import load
from sampan.catalog.records import Memory
from sampan.errors import PlanError
from sampan.plan import efficiency
from sampan.plan.cost import Assumptions
from sampan.plan.inference import NUM_PICTURES, Infeasible, InferenceEstimate, InferenceEstimator, of_job
from sampan.plan.time import speeds

JOB = 'out = "runs/x"\ndata.path = "pictures"\n'
# Seconds from prompt to picture on one H100. Source: github.com/zai-org/GLM-Image, README.md, "Inference Cost" (commit
# 12a4eef): text to picture, a prompt of about 1,000 tokens; its number of steps is not said and taken to be diffusers' 50.
PUBLISHED_S = [(2048, 1, 252.59), (1024, 1, 64.34), (1024, 4, 108.22), (512, 1, 27.30), (512, 4, 39.34)]


def recipe(*overrides, preset="glm-image"):
    return of_job(job.parse(JOB, [f"model.preset={preset}", *overrides]))


def maker(*overrides, preset="glm-image", **assumptions):
    return InferenceEstimator(recipe(*overrides, preset=preset), Assumptions(**assumptions))


def seconds(maker, chip, batch):
    phases = maker._phases(chip, speeds(chip, "bf16"), "torch", batch)
    return [sum(getattr(one, end) for one in phases.values()) for end in ("low_s", "step_s", "high_s")]


def test_the_releases_own_times_lie_in_the_intervals_and_near_the_middle():
    chip, off = load.chip("h100_sxm"), []
    for side, batch, published_s in PUBLISHED_S:
        low, typical, high = seconds(maker(f"plan.picture_px={side}", "plan.prompt_tokens=1000"), chip, batch)
        assert low < published_s < high
        off.append(abs(math.log(typical / published_s)))
    assert sorted(off)[2] < 0.25


def test_the_releases_parts_are_its_weights():
    # 35.4e9 bytes of weights in 16 bits lie in the release
    assert recipe().params * 2 == pytest.approx(35.4e9, rel=0.01)
    assert max(recipe().part_params, key=recipe().part_params.__getitem__) == "generator"


def test_writing_tokens_is_bound_by_memory_and_painting_by_arithmetic():
    made, chip = maker(), load.chip("h100_sxm")
    fast_memory = replace(chip, memory=Memory(bytes=80e9, bytes_per_s=2 * (chip.memory.bytes_per_s or 0)))
    fast_arithmetic = replace(chip, peak_dense_flops_per_s={"bf16": 2 * (chip.peak("bf16") or 0)})
    plain, memory, arithmetic = (
        made._phases(c, speeds(c, "bf16"), "torch", 8) for c in (chip, fast_memory, fast_arithmetic)
    )

    def device_s(found, phase):  # without launches, which no chip makes shorter
        return sum(found[phase].parts[name] for name in ("matmul_s", "attention_s", "memory_s"))

    write, paint = "write a token", "a step with the prompt"
    assert device_s(memory, write) < 0.8 * device_s(plain, write)
    assert device_s(arithmetic, paint) < 0.7 * device_s(plain, paint)
    assert device_s(memory, paint) > 0.8 * device_s(plain, paint)


def test_parts_add_up_and_intervals_hold_the_middle():
    found = maker().estimate(load.chip("h100_sxm"), "torch")
    assert isinstance(found, InferenceEstimate)
    assert sum(found.parts_s.values()) == pytest.approx(found.time_s.typical)
    assert found.time_s.low < found.time_s.typical < found.time_s.high
    assert found.chip_hours.typical == pytest.approx(found.time_s.typical / 3600)
    assert found.time_s.typical <= NUM_PICTURES * found.alone_s.typical  # several at once are no slower


def test_the_batch_is_the_quickest_that_fits():
    made, chip = maker(), load.chip("h100_sxm")
    found = made.estimate(chip, "torch")
    assert isinstance(found, InferenceEstimate)
    room = 0.94 * 80e9
    fitting = [batch for batch in (1, 2, 4, 8, 16, 32, 64) if made.need(batch, False, "torch").total <= room]
    assert found.batch == min(fitting, key=lambda batch: seconds(made, chip, batch)[1] / batch)
    assert found.memory.total <= room


def test_one_part_at_a_time_where_all_do_not_fit():
    made = maker()
    chip = replace(load.chip("h100_sxm"), memory=Memory(bytes=36e9, bytes_per_s=3.35e12))
    found = made.estimate(chip, "torch")
    assert isinstance(found, InferenceEstimate)
    assert found.is_offloaded
    assert found.memory.frozen == pytest.approx(2 * made.recipe.part_params["generator"])


def test_what_fits_nowhere_says_how_many_chips_would_do():
    found = maker().estimate(replace(load.chip("h100_sxm"), memory=Memory(bytes=24e9, bytes_per_s=3e12)), "torch")
    assert found == Infeasible(
        chip="h100_sxm", framework="torch", smallest_count=4,
        reason="one picture does not fit: all parts need 37.8 GiB, one part at a time 23.8 GiB, and a chip has 21.0 GiB for "
        "it; spread over 4 chips they would fit",
    )  # fmt: skip
    tiny = maker().estimate(replace(load.chip("h100_sxm"), memory=Memory(bytes=1e9, bytes_per_s=3e12)), "torch")
    assert isinstance(tiny, Infeasible)
    assert tiny.smallest_count is None
    assert tiny.reason.endswith("they fit on no number of chips up to 1,024")


def test_unknown_facts_of_a_chip():
    chip = load.chip("h100_sxm")
    blind = maker().estimate(replace(chip, memory=Memory(bytes=80e9)), "torch")
    assert isinstance(blind, Infeasible)
    assert blind.reason == "its time cannot be computed: nobody has published its memory bandwidth"
    small = maker().estimate(replace(chip, memory=Memory(bytes_per_s=1e12)), "torch")
    assert isinstance(small, Infeasible)
    assert small.reason == "whether it fits cannot be computed: nobody has published its memory"


def test_settings_of_a_job():
    few, many = recipe("plan.num_inference_steps=10"), recipe("plan.num_inference_steps=20")
    steps = [
        next(phase.repeats for phase in one.phases if phase.name == "a step with the prompt") for one in (few, many)
    ]
    assert steps == [10, 20]
    assert recipe("plan.references=1").said() == "1024 x 1024 px in 50 steps from 1 references, with guidance"
    with pytest.raises(PlanError, match="a picture of 1000x1000 px cannot be planned"):
        recipe("plan.picture_px=1000")


def test_references_of_one_name_are_one_phase():
    made, chip = maker("plan.references=2"), load.chip("h100_sxm")
    one = maker("plan.references=1")._phases(chip, speeds(chip, "bf16"), "torch", 1)["read a reference"].step_s
    two = made._phases(chip, speeds(chip, "bf16"), "torch", 1)["read a reference"]
    assert two.step_s == pytest.approx(2 * one)
    assert sum(two.parts.values()) == pytest.approx(two.step_s)


def test_own_measurements_are_heard():
    class Twice:
        def calibrate(self, prediction, chip, framework):
            return replace(prediction, step_s=2 * prediction.step_s)

    chip, known = load.chip("h100_sxm"), efficiency.load()
    plain = InferenceEstimator(recipe(preset="nano"), Assumptions(), known).estimate(chip, "torch")
    moved = InferenceEstimator(recipe(preset="nano"), Assumptions(), known, Twice()).estimate(chip, "torch")  # type: ignore[arg-type]
    assert isinstance(plain, InferenceEstimate)
    assert isinstance(moved, InferenceEstimate)
    assert moved.time_s.typical == pytest.approx(2 * plain.time_s.typical)
