"""A job as work: which stages, how often, of what, and what is supposed."""

import pytest

from sampan import job
from sampan.errors import PlanError
from sampan.plan import inference
from sampan.plan.jobs import of_job

JOB = 'out = "runs/x"\ndata.path = "pictures"\n'


def work(*overrides, stages=None):
    return of_job(job.parse(JOB, [*overrides]), stages, name="j")


def test_all_stages_and_the_preparation_before_them():
    found = work("stage.ar.grad_accum_steps=3", "stage.ar.num_steps=7")
    assert [stage.name for stage in found.stages] == ["preparation", "vae", "tokenizer", "glyph", "ar", "decoder"]
    ar = found.stages[4]
    assert (ar.num_steps, ar.global_batch, ar.num_samples) == (7, 48, 336)  # the preset's micro-batch is 16


def test_chosen_stages_keep_their_order():
    assert [stage.name for stage in work(stages=("decoder", "vae")).stages] == ["vae", "decoder"]


def test_a_stage_that_the_job_has_not():
    with pytest.raises(PlanError) as caught:
        work('train.stages=["vae"]', stages=("ar",))
    assert str(caught.value) == "error: --stages: `ar` is not a stage of this job\n\nhint: its stages: vae"


def test_sizes_share_the_steps_of_a_stage_and_add_up():
    found = work("data.resolutions_px=[128,256]", "stage.decoder.num_steps=10", stages=("decoder",))
    assert [(stage.name, stage.num_steps) for stage in found.stages] == [
        ("decoder at 128 px", 5),
        ("decoder at 256 px", 5),
    ]
    small, large = (stage.workload.flops for stage in found.stages)
    assert large > 3 * small


def test_no_more_pictures_are_prepared_than_there_are_or_are_drawn():
    assert work("stage.ar.num_steps=100000").stages[0].num_samples == 1_600_000
    assert work("data.limit=12").stages[0].num_samples == 12
    assert work("data.limit=12").stages[0].global_batch is None


def test_low_rank_additions_are_trained_alone():
    full = work(stages=("ar",)).stages[0].workload
    lora = work('train.method="lora"', 'train.stages=["ar"]', 'model.start="runs/y"', stages=("ar",)).stages[0]
    assert lora.method == "lora"
    assert lora.workload.trained_params < 0.2 * full.trained_params


@pytest.mark.parametrize(
    ("overrides", "moments"), [((), 8.0), (('train.moments="8bit"',), 2.03125), (('train.weights="bf16"',), 8.0)]
)
def test_moments_as_the_job_holds_them(overrides, moments):
    assert work(*overrides).convention("deepspeed").moments == moments


def test_what_is_supposed_is_said():
    said = " ".join(work('model.start="runs/y"', "plan.prompt_tokens=77").assumptions)
    assert "The folder `runs/y` is not read: sizes are the preset's." in said
    assert "A prompt has 77 tokens" in said
    assert "Products are in 16 bits (place.dtype is auto)." in said


@pytest.mark.parametrize(
    ("setting", "count"), [("plan.picture_px=8192", inference.of_job), ("data.resolutions_px=[8192]", of_job)]
)
def test_a_picture_beyond_the_models_positions_is_refused_by_its_size(setting, count):
    small = job.parse('out = "runs/x"\ndata.path = "pictures"\n', [setting])
    with pytest.raises(PlanError) as caught:
        count(small)
    assert caught.value.what == "a picture of 8192x8192 px is too large for this model"
    assert caught.value.because == ("it takes 262,161 tokens, and 2,048 fit together with the prompt",)
