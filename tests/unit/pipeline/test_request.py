"""What a model can be asked for, and the words of a refusal."""

import pytest

from sampan.errors import RequestError
from sampan.models import presets
from sampan.models.config import PaintingConfig, SamplingConfig
from sampan.pipeline.request import ImageRequest, check_length, check_size, default_size, num_tokens

RELEASED, NANO = presets.get("glm-image"), presets.get("nano")


@pytest.mark.parametrize(("height", "width"), [(1024, 1024), (512, 2048), (32, 32), (1152, 768)])
def test_multiples_of_a_prior_token_pass(height: int, width: int):
    check_size(height, width, RELEASED)


@pytest.mark.parametrize(
    ("height", "width", "nearest"),
    [(1000, 1024, "1024x992"), (1024, 1000, "992x1024"), (1, 1, "32x32"), (1023, 1025, "1024x1024")],
)
def test_other_sizes_name_the_nearest(height: int, width: int, nearest: str):
    with pytest.raises(RequestError) as caught:
        check_size(height, width, RELEASED)
    assert caught.value.render() == (
        f"error: this model cannot paint {width}x{height} pixels\n"
        "  because both sides must be multiples of 32, the pixels of one prior token\n\n"
        f"hint: the nearest size is --size {nearest}"
    )


def test_the_unit_follows_the_model():
    check_size(48, 80, NANO)
    with pytest.raises(RequestError, match="multiples of 16"):
        check_size(48, 88, NANO)


@pytest.mark.parametrize(
    ("width", "height", "needed", "largest"),
    [
        (8192, 8192, 16 + 512 * 512 + 1, "704x704"),
        (8192, 4096, 5 * 2 + 512 * 256 + 1, "992x496"),
        (16, 65536, 256 + 4096 + 1, "16x29008"),
        (720, 720, 16 + 2025 + 1, None),  # leaves 6 tokens: too few for a prompt, which says so when it is there
    ],
)
def test_a_size_beyond_the_positions_is_the_size_s_fault(width: int, height: int, needed: int, largest: str | None):
    if largest is None:
        check_size(height, width, NANO)
        return
    with pytest.raises(RequestError) as caught:
        check_size(height, width, NANO)
    assert caught.value.render() == (
        f"error: {width}x{height} pixels are too large for this model\n"
        f"  because they take {needed} tokens, and 2048 fit together with the prompt\n\n"
        f"hint: the largest size of about this shape is --size {largest}"
    )
    sides = [int(side) for side in largest.split("x")]
    check_size(sides[1], sides[0], NANO)
    check_length(64, num_tokens(sides[1], sides[0], NANO), NANO)  # with a prompt


def test_prompt_and_picture_must_fit_the_positions():
    limit = NANO.ar.text.max_position_embeddings
    check_length(limit - 81, 81, NANO)
    with pytest.raises(RequestError) as caught:
        check_length(limit - 80, 81, NANO)
    assert f"shorten the prompt to about {limit - 81} tokens" in caught.value.render()


def test_a_size_that_leaves_no_room_for_a_prompt_is_the_size_s_fault():
    with pytest.raises(RequestError) as caught:
        check_length(14, num_tokens(720, 720, NANO), NANO)
    assert caught.value.render() == (
        "error: the picture is too large for this model with its prompt\n"
        "  because it has 14 tokens with its references, the picture needs 2042, and 2048 fit together\n\n"
        "hint: ask for a smaller picture"
    )


@pytest.mark.parametrize(
    ("width", "height", "taken"),
    [
        (512, 336, (96, 160)),  # 1.52 wide; 1.67 is nearest in whole tokens
        (336, 512, (160, 96)),
        (4032, 3024, (112, 144)),
        (3024, 4032, (144, 112)),
        (1, 1, (128, 128)),
        (21, 9, (80, 192)),
        (4, 1, (64, 256)),
        (64, 64, (128, 128)),
    ],
)
def test_without_a_size_the_model_s_area_and_the_photo_s_shape_are_taken(
    width: int, height: int, taken: tuple[int, int]
):
    assert default_size((height, width), NANO) == taken
    check_size(*taken, NANO)
    assert 0.9 <= taken[0] * taken[1] / 128**2 <= 1.1


def test_a_shape_beyond_four_to_one_is_refused():
    with pytest.raises(RequestError, match="too narrow"):
        default_size((1, 5), NANO)


def test_a_request_overrides_the_checkpoint_s_sampling_value_by_value():
    released = SamplingConfig(temperature=0.9, top_p=0.75, top_k=50)
    assert ImageRequest("x").sampling(released) == released
    assert ImageRequest("x", temperature=0.0, top_k=0).sampling(released) == SamplingConfig(0.0, 0.75, 0)


@pytest.mark.parametrize(("asked", "used"), [(None, 2.5), (0.0, 0.0), (4.0, 4.0)])
def test_guidance_is_the_checkpoint_s_unless_it_is_asked_for(asked: float | None, used: float):
    assert ImageRequest("x", guidance_scale=asked).guidance(PaintingConfig(guidance_scale=2.5)) == used


@pytest.mark.parametrize(("asked", "used"), [(None, 20), (7, 7)])
def test_steps_are_the_checkpoint_s_unless_they_are_asked_for(asked: int | None, used: int):
    assert ImageRequest("x", num_inference_steps=asked).steps(PaintingConfig(num_inference_steps=20)) == used
    assert PaintingConfig().num_inference_steps == 50  # as released, where a folder states nothing
