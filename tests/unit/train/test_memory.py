"""What a stage needs, what is said of it, and what is refused."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import pytest

from sampan.errors import JobError
from sampan.frameworks import meter
from sampan.frameworks.records import ParameterCount, PassCost
from sampan.models import lora, presets
from sampan.models.build import build_on_meta
from sampan.train.memory import MemorySetting, StageMemory, alternatives, needed, refuse_or_say

GIB = 2**30
PASS = PassCost(
    forward_flops=1,
    useful_flops=3,
    executed_flops=4,
    kept_bytes=0,
    activation_bytes=700,
    peak_bytes=4500,
    batch_bytes=5,
)
COUNT = ParameterCount(trained=1000, coded=512, frozen=100, frozen_rows=10, workspace_bytes=10**9)
PLAIN: dict[str, Any] = {"trained_dtype": "fp32", "frozen_dtype": "bf16", "moments": "fp32", "averaged": True}


def test_what_is_held_follows_from_counts():
    need = needed(COUNT, PASS, **PLAIN)
    assert need == StageMemory(
        weights=1010 * 4 + 100 * 2, gradients=4000, moments=8000, average=4000, activations=500, workspace=0, batch=5
    )
    assert need.total == 4240 + 4000 + 8000 + 4000 + 500 + 5


def test_when_passes_add_up_gradients_are_there_from_the_second_on():
    assert needed(COUNT, PASS, **PLAIN, grad_accum_steps=2).activations == 700


def test_each_mode_saves_what_it_says():
    low = needed(COUNT, PASS, **PLAIN | {"trained_dtype": "bf16", "averaged": False}, parts_bytes=7)
    assert (low.weights, low.gradients, low.average, low.parts) == (1010 * 2 + 200, 2000, 0, 7)
    coded = needed(COUNT, PASS, **PLAIN | {"moments": "8bit"})
    assert coded.moments == 8 * 488 + 2 * 512 + 2 * 4 * 2
    # the update's own memory counts where it is more than that of a pass, which is gone by then
    assert coded.workspace == 36 * 1000 - 500


def test_ranks_share_what_the_update_needs_and_not_working_weights():
    count = dataclasses.replace(COUNT, workspace_bytes=0, update_bytes=6 * 4 * 250, num_ranks=4)
    full = needed(count, PASS, **PLAIN)
    assert (full.weights, full.gradients, full.moments, full.average) == (1010 * 4 + 200, 1000, 2000, 1000)
    assert (full.activations, full.workspace) == (700, 6000 - 700)  # a pass makes its gradients beside the sum
    below = needed(count, dataclasses.replace(PASS, working_bytes=1010 * 2), **PLAIN)
    assert below.weights == 1010 * 2 + 1000 * 4 // 4 + 200  # what the products read, and a share of the fp32 ones


@pytest.mark.parametrize(
    ("part", "method", "settings", "gib"),
    [  # 20 bytes a trained weight, and what is saved of them
        ("decoder", "full", {}, 129.0),
        ("decoder", "full", {"moments": "8bit", "averaged": False}, 65.1),
        ("decoder", "full", {"trained_dtype": "bf16", "moments": "8bit", "averaged": False}, 39.3),
        ("decoder", "lora", {}, 13.6),
        ("ar", "full", {}, 156.8),
        ("ar", "lora", {}, 17.5),
    ],
)
def test_the_released_sizes_without_a_pass(part: str, method: str, settings: dict[str, Any], gib: float):
    config = presets.get("glm-image")
    module, trainable = build_on_meta(part, config), lambda name: True
    rows = {}
    if method == "lora":
        lora.attach(module, part, config, 16)
        trainable = lora.trainable
    elif part == "ar":
        rows = {"model.language_model.embed_tokens.weight": config.ar.text.vision_vocab_size}
    count = meter.count(module, trainable, rows)
    total = {"decoder": 6_926_882_880, "ar": 8_847_155_200 + 67_633_152}[part]
    additions = count.trained if method == "lora" else 0
    assert count.trained + count.frozen + count.frozen_rows == total + additions
    need = needed(count, PassCost(0, 0, 0, 0, 0, 0, 0), **PLAIN | settings)
    assert (need.total - need.workspace) / GIB == pytest.approx(gib, abs=0.06)


def gib(**amounts: float) -> StageMemory:
    nothing = {"weights": 0, "gradients": 0, "moments": 0, "average": 0, "activations": 0}
    return StageMemory(**{name: int(amount * GIB) for name, amount in {**nothing, **amounts}.items()})


LARGE = gib(weights=14, gradients=14, moments=28, activations=25)
LAST = 'stage.ar.recompute = true and train.moments = "8bit" and stage.ar.micro_batch_size = 2'
NO_HELP = (
    "use a device with more memory, or smaller pictures: no setting makes it fit; the least, 36.2 GiB, is needed with "
)
DIALS = [
    MemorySetting("stage.ar.recompute", (True,)),
    MemorySetting("train.moments", ("8bit",)),
    MemorySetting("stage.ar.micro_batch_size", (4, 2)),
]


def need_of(replaced: Mapping[str, Any]) -> StageMemory:
    rows = replaced.get("stage.ar.micro_batch_size", 8)
    return gib(
        weights=14,
        gradients=14,
        moments=7 if "train.moments" in replaced else 28,
        activations=(5 if "stage.ar.recompute" in replaced else 25) * rows / 8,
    )


def test_what_fits_is_said():
    assert refuse_or_say("ar", "cuda", LARGE, 141 * GIB, 100 * GIB, ()) == [
        f"ar needs {LARGE}; 100.0 GiB are free on `cuda`"
    ]
    assert refuse_or_say("ar", "cuda", LARGE, 141 * GIB, 82 * GIB, ())[1:] == [
        "that is close: what kernels take for themselves is not counted"
    ]
    assert refuse_or_say("ar", "mps", LARGE, None, None, ())[1:] == ["how much memory `mps` has free is not known"]


@pytest.mark.parametrize(
    ("free_gib", "hint"),
    [
        (62, "stage.ar.recompute = true needs 61.0 GiB and fits"),
        (60.5, 'train.moments = "8bit" needs 60.0 GiB and fits'),
        (50, 'stage.ar.recompute = true and train.moments = "8bit" needs 40.0 GiB and fits'),
        (36.5, LAST + " needs 36.2 GiB and fits"),
        (30, NO_HELP + LAST),
    ],
)
def test_what_does_not_fit_is_refused_with_the_smallest_change_that_would(free_gib: float, hint: str):
    free = int(free_gib * GIB)
    with pytest.raises(JobError) as caught:
        refuse_or_say("ar", "cuda", LARGE, 64 * GIB, free, alternatives(DIALS, need_of))
    assert str(caught.value) == (
        "error: stage ar does not fit on `cuda`\n"
        f"  because {free_gib:.1f} GiB of 64.0 GiB are free there\n"
        "  because it would need 81.0 GiB: weights 14.0 GiB, gradients 14.0 GiB, moments 28.0 GiB, activations 25.0 GiB\n"
        f"\nhint: {hint}"
    )


def test_no_more_is_counted_than_is_looked_at():
    asked: list[Mapping[str, Any]] = []

    def watched(replaced: Mapping[str, Any]) -> StageMemory:
        asked.append(replaced)
        return need_of(replaced)

    with pytest.raises(JobError):
        refuse_or_say("ar", "cuda", LARGE, None, 62 * GIB, alternatives(DIALS, watched))
    assert asked == [{"stage.ar.recompute": True}]


def test_all_combinations_are_offered_once_the_small_ones_first():
    words = [words for words, _ in alternatives(DIALS, need_of)]
    assert len(words) == len(set(words)) == 11
    assert [words.count(" and ") for words in words] == sorted(words.count(" and ") for words in words)


def test_slices_divide_all_that_is_held_and_not_what_a_pass_makes():
    need = needed(COUNT, PASS, **PLAIN, num_slices=4, whole_bytes=300)
    assert (need.weights, need.gradients, need.moments, need.average) == (1050, 1000, 2000, 1000)
    assert need.frozen_rows == 40  # whole on every rank
    assert need.activations == 700 + 300
