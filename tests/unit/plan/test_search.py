"""The search returns what trying everything returns, and says in words why there is nothing."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampan.plan.conventions import CONVENTIONS
from sampan.plan.memory import MemoryModel
from sampan.plan.records import ParallelLayout
from sampan.plan.search import LayoutLimits, LayoutSearch, layouts
from sampan.plan.workloads.language import ExpertsShape, LanguageShape, language_model

SMALL = language_model("small", LanguageShape(layers=6, hidden=64, ffn=160, heads=4, kv_heads=2, vocab=500), 64)
ROUTED = ExpertsShape(num=8, per_token=2, ffn=32)
EXPERTS = language_model(
    "experts", LanguageShape(layers=4, hidden=64, ffn=160, heads=4, kv_heads=4, vocab=500, experts=ROUTED), 64
)
WIDE = LayoutLimits(max_virtual=4, max_micro_batch=8, min_cp_tokens=16, zero_stages=(0, 1, 2, 3))
CONVENTION = CONVENTIONS["fsdp"]
RECOMPUTE = {"none": 0, "selective": 1, "full": 2}


def numbers(layout: ParallelLayout) -> tuple[int, ...]:
    return (
        layout.dp,
        layout.tp,
        layout.pp,
        layout.cp,
        layout.ep,
        layout.virtual,
        layout.zero_stage,
        layout.micro_batch,
    )


def work(layout: ParallelLayout) -> float:
    """A step as one would sketch it: work, a bubble, and what is sent."""
    bubble = (layout.pp - 1) / (layout.virtual * layout.accum)
    again = 1 + RECOMPUTE[layout.recompute] / 6
    sent = layout.tp**0.5 + layout.cp**0.3 + 0.1 * layout.zero_stage + 0.05 * layout.ep
    return again * layout.accum * layout.micro_batch**0.9 * (1 + bubble) / layout.tp / layout.cp + sent


def rugged(layout: ParallelLayout) -> float:
    """Nothing follows from anything, recomputation apart."""
    return hash(numbers(layout)) % 1009 + RECOMPUTE[layout.recompute]


def level(layout: ParallelLayout) -> float:
    """All are alike: the order decides."""
    return 1.0


TIMES = [work, rugged, level]


def best(workload, count, batch, time_of, memory_of, *, memory_bytes, domain=8, limits=WIDE):
    return LayoutSearch(workload, batch, memory_of, limits).best(count, domain, memory_bytes, time_of)


def by_trying_all(workload, count, batch, domain, memory_bytes, time_of, memory_of):
    fits = [
        layout
        for layout in layouts(workload, count, batch, scale_up_domain=domain, limits=WIDE)
        if memory_of(layout) <= memory_bytes
    ]
    return min(fits, key=time_of, default=None)


@settings(max_examples=40, deadline=None)
@given(
    workload=st.sampled_from([SMALL, EXPERTS]),
    count=st.sampled_from([1, 2, 3, 4, 6, 8, 12, 16]),
    batch=st.sampled_from([1, 4, 6, 16, 24]),
    domain=st.sampled_from([1, 2, 8]),
    memory_mb=st.floats(0.2, 30),
    time_of=st.sampled_from(TIMES),
)
def test_the_search_is_as_good_as_trying_everything(workload, count, batch, domain, memory_mb, time_of):
    memory_bytes = memory_mb * 1e6 + CONVENTION.context_bytes
    memory_of = MemoryModel(workload, CONVENTION).total
    layout = best(workload, count, batch, time_of, memory_of, memory_bytes=memory_bytes, domain=domain)
    wanted = by_trying_all(workload, count, batch, domain, memory_bytes, time_of, memory_of)
    if wanted is None:
        assert isinstance(layout, str)
        assert layout
    else:
        assert layout == wanted


def test_a_search_used_for_many_chips_finds_the_same_as_a_fresh_one():
    memory_of = MemoryModel(SMALL, CONVENTION).total
    shared = LayoutSearch(SMALL, 24, memory_of, WIDE)
    for memory_bytes in (1.003e9, 1.02e9, 1.0005e9, 1.005e9):
        for domain in (8, 2):
            fresh = best(SMALL, 12, 24, work, memory_of, memory_bytes=memory_bytes, domain=domain)
            assert shared.best(12, domain, memory_bytes, work) == fresh


def test_what_interleaving_makes_too_large_is_still_tried_without_it():
    def memory_of(layout: ParallelLayout) -> float:
        return layout.micro_batch * (9 if layout.virtual > 1 else 1)

    layout = best(SMALL, 2, 8, lambda layout: layout.accum * layout.dp**2, memory_of, memory_bytes=8.0)
    assert isinstance(layout, ParallelLayout)
    assert (layout.micro_batch, layout.virtual) == (8, 1)


@given(
    workload=st.sampled_from([SMALL, EXPERTS]),
    count=st.integers(1, 24),
    batch=st.integers(1, 24),
    domain=st.sampled_from([1, 2, 4, 8]),
)
@settings(max_examples=60, deadline=None)
def test_every_layout_uses_all_chips_and_the_whole_batch(workload, count, batch, domain):
    seen = list(layouts(workload, count, batch, scale_up_domain=domain, limits=WIDE))
    assert len(set(seen)) == len(seen)
    num_layers = sum(block.repeat for block in workload.blocks if block.is_trunk)
    for layout in seen:
        assert layout.num_chips == count
        assert layout.global_batch == batch
        assert layout.tp <= domain and 4 % layout.tp == 0
        assert layout.pp * layout.virtual <= num_layers
        assert layout.virtual == 1 or (num_layers % (layout.pp * layout.virtual) == 0 and layout.accum % layout.pp == 0)
        assert 64 % layout.cp == 0 and 64 // layout.cp >= 16
        assert layout.dp * layout.cp * layout.tp % layout.ep == 0
        assert layout.ep == 1 or workload is EXPERTS


def test_the_layouts_of_two_chips_by_hand():
    limits = LayoutLimits(max_virtual=1, recompute=("none",), min_cp_tokens=64)
    seen = [(x.dp, x.tp, x.pp, x.zero_stage, x.micro_batch, x.accum) for x in layouts(SMALL, 2, 2, limits=limits)]
    assert seen == [
        (2, 1, 1, 0, 1, 1),
        (2, 1, 1, 1, 1, 1),
        (1, 1, 2, 0, 1, 2),
        (1, 1, 2, 0, 2, 1),
        (1, 2, 1, 0, 1, 2),
        (1, 2, 1, 0, 2, 1),
    ]


def test_a_model_that_is_too_large_says_what_is_needed_and_how_many_chips_would_do():
    search = LayoutSearch(
        SMALL, 16, lambda layout: 100e9 / layout.num_chips * layout.micro_batch, LayoutLimits(min_cp_tokens=64)
    )
    assert search.best(1, 8, 30e9, work) == (
        "the job does not fit on 1 chip: the least, 93.1 GiB a chip, is needed with one chip, 1 x 16 samples, and a "
        "chip has 27.9 GiB for it; 4 chips would do"
    )
    assert search.smallest_count(8, 30e9) == 4


def test_a_model_that_fits_nowhere_says_so():
    search = LayoutSearch(SMALL, 16, lambda layout: 40e9, LayoutLimits(min_cp_tokens=64))
    assert search.best(2, 8, 30e9, work) == (
        "the job does not fit on 2 chips: the least, 37.3 GiB a chip, is needed with dp 2, 1 x 8 samples, and a chip has "
        "27.9 GiB for it; it fits on no number of chips up to 65,536"
    )
    assert search.smallest_count(8, 30e9) is None


@pytest.mark.parametrize(
    ("count", "batch", "reason"),
    [
        (
            1024,
            4,
            (
                "a global batch of 4 is too small for 1,024 chips: one sample can be divided over at most 16 of them, "
                "which leaves 64 groups to feed"
            ),
        ),
        (7, 16, "a global batch of 16 cannot be divided evenly over 7 chips, whatever the layout"),
    ],
)
def test_a_batch_that_cannot_be_shared_says_why(count, batch, reason):
    limits = LayoutLimits(min_cp_tokens=64)
    assert best(SMALL, count, batch, work, lambda layout: 1.0, memory_bytes=2.0, limits=limits) == reason


@pytest.mark.parametrize(("count", "batch", "domain"), [(0, 1, 1), (1, 0, 1), (1, 1, 0), (-4, 1, 8)])
def test_counts_below_one_are_the_callers_mistake(count, batch, domain):
    with pytest.raises(ValueError) as caught:
        list(layouts(SMALL, count, batch, scale_up_domain=domain))
    assert str(caught.value) == f"counts are at least 1: {count} chips, {batch} samples, domain of {domain}"


@settings(max_examples=25, deadline=None)
@given(memory_mb=st.floats(0.5, 20), count=st.sampled_from([2, 4, 8]))
def test_more_chips_of_the_same_kind_never_make_the_best_layout_slower_per_sample(memory_mb, count):
    memory_of = MemoryModel(SMALL, CONVENTION).total
    memory_bytes = memory_mb * 1e6 + CONVENTION.context_bytes

    def seconds(layout: ParallelLayout) -> float:
        return layout.accum * layout.micro_batch / (layout.tp * layout.pp * layout.cp)

    def best_of(chips: int) -> float:
        layout = best(SMALL, chips, 16, seconds, memory_of, memory_bytes=memory_bytes)
        return math.inf if isinstance(layout, str) else seconds(layout)

    assert best_of(2 * count) <= best_of(count)
