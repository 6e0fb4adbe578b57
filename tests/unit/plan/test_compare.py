"""Two chips beside each other: what is shared cancels, what is unknown stays unknown."""

import json
import math

import pytest

from sampan.errors import SampanError
from sampan.plan import efficiency, measured_throughput
from sampan.plan.compare import _both, compare
from sampan.plan.records import Interval


@pytest.fixture(autouse=True)
def few(monkeypatch):
    """Nothing was measured: reading all runs takes seconds, and tests of evidence are elsewhere."""
    monkeypatch.setattr(measured_throughput, "measured", lambda: ())


def refused(*arguments, **named):
    with pytest.raises(SampanError) as caught:
        compare(*arguments, **named)
    return caught.value.what, caught.value.hint


def test_a_chip_beside_itself_is_itself():
    found = compare("h20", "h20", model="SDXL")
    (one,) = found.predicted
    assert one.slower == Interval(low=1.0, typical=1.0, high=1.0)
    assert one.dearer == Interval(low=1.0, typical=1.0, high=1.0)
    assert found.power == 1.0


def test_the_other_way_round_is_the_inverse():
    there, back = compare("ascend_910b2", "h100_sxm", model="SDXL"), compare("h100_sxm", "ascend_910b2", model="SDXL")
    for name in ("slower", "dearer", "hungrier"):
        a, b = getattr(there.predicted[0], name), getattr(back.predicted[0], name)
        assert a.typical == pytest.approx(1 / b.typical)
        assert a.low == pytest.approx(1 / b.high)


def test_well_measured_chips_have_the_interval_of_measured_pairs():
    (one,) = compare("a100_80", "h100_sxm", model="SDXL").predicted
    spread = efficiency.load().ratio
    assert spread is not None
    assert math.log(one.slower.high / one.slower.typical) <= spread.half + 1e-9
    (seldom,) = compare("mlu590", "h100_sxm", model="SDXL").predicted
    assert seldom.slower.high / seldom.slower.low > one.slower.high / one.slower.low


def test_what_nobody_published_is_said_to_be_unknown():
    found = compare("gaudi2", "h100_sxm", model="SDXL")
    assert found.predicted[0].dearer is None
    assert "gaudi2: no rental price is known, so nobody can say how dear it is." in found.assumed
    text = "\n".join(found.lines())
    assert "unknown times as dear" in text
    assert "nothing is known that was measured on both gaudi2 and h100_sxm" in text
    dark = compare("thead_ppu", "h100_sxm", model="SDXL")
    assert dark.predicted == ()
    assert dark.not_predicted[0][0] == "SDXL"
    assert "nobody has published its peak in bf16" in dark.not_predicted[0][1]


def test_software_that_does_not_run_there_is_left_out_with_the_reason():
    found = compare("h100_sxm", "h20", framework_a="mindspore", model="SDXL")
    assert found.not_predicted == (("SDXL", "h100_sxm: it is written for chips of Huawei"),)


def test_kinds_of_models_stand_apart_and_the_release_is_one_of_them():
    kinds = {one.kind for one in compare("a100_80", "h100_sxm").predicted}
    assert {"llm-dense", "llm-moe", "dit", "unet", "vlm", "ar"} <= kinds
    assert [one.model for one in compare("a100_80", "h100_sxm", model="glm-image").predicted] == [
        "GLM-Image's generator, 1024 px", "GLM-Image's decoder, 1024 px",
    ]  # fmt: skip


def test_it_is_json():
    document = compare("a100_80", "h100_sxm", model="SDXL").as_dict()
    assert json.loads(json.dumps(document)) == document
    assert document["predicted"][0]["slower"]["low"] < document["predicted"][0]["slower"]["typical"]


def test_a_misspelt_name_is_told():
    assert refused("a100_80", "h10O") == ("no chip `h10O` is in the catalogue", "did you mean `h100`?")
    assert refused("a100_80", "h100_sxm", framework_b="pytroch") == (
        "`pytroch` is not a framework that can be planned", "did you mean `torch`?",
    )  # fmt: skip
    assert refused("a100_80", "h100_sxm", model="SDXXL")[0].startswith("there is no model `SDXXL` in the catalogue")


def test_spreads_that_have_nothing_to_do_with_each_other_add_up_by_squares():
    one = Interval(low=1 / math.e**3, typical=1.0, high=math.e**3)
    other = Interval(low=2 / math.e**4, typical=2.0, high=2 * math.e**4)
    found = _both(one, other)
    assert found.typical == 2.0
    assert math.log(found.high / found.typical) == pytest.approx(5)
    assert math.log(found.typical / found.low) == pytest.approx(5)
