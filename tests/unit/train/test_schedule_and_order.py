"""What a step sees and how fast it learns is decided by its number alone."""

import itertools

import numpy as np

from sampan.data.batches import ShapeGroups, ShuffledOrder
from sampan.models.init import initial_weights
from sampan.train.schedule import learning_rate


def test_the_rate_rises_peaks_and_falls():
    rates = [learning_rate(step, 100, 10, 1e-3, 0.1) for step in range(100)]
    assert rates[0] == 1e-4 and np.isclose(rates[9], 1e-3) and np.isclose(rates[10], 1e-3)
    assert all(a >= b for a, b in itertools.pairwise(rates[10:]))
    assert np.isclose(rates[-1], 1e-4, rtol=0.02)
    assert learning_rate(0, 5, 20, 1e-3, 0.1) == 1e-3 / 5  # a short stage rises to its end


def test_each_pass_visits_every_sample_once_and_differs_from_the_last():
    order = ShuffledOrder(range(7), seed=1, purpose="x")
    passes = [order.take(start, 7) for start in (0, 7, 14)]
    assert all(sorted(p) == list(range(7)) for p in passes)
    assert passes[0] != passes[1]


def test_a_place_in_the_order_does_not_depend_on_how_it_was_reached():
    whole = ShuffledOrder(range(10), 3, "x").take(0, 35)
    pieces = [i for start in range(0, 35, 5) for i in ShuffledOrder(range(10), 3, "x").take(start, 5)]
    assert whole == pieces
    assert whole != ShuffledOrder(range(10), 4, "x").take(0, 35)


def test_blocks_are_of_one_kind_follow_its_share_and_a_longer_run_begins_like_a_shorter_one():
    members, kind_of = list(range(40)), ["plain"] * 30 + ["edit"] * 10
    long = ShapeGroups(members, kind_of, 4000, 2, 0, "x")
    assert abs((long.kinds == 1).mean() - 0.75) < 0.03  # sorted: edit, plain
    short = ShapeGroups(members, kind_of, 100, 2, 0, "x")
    np.testing.assert_array_equal(long.kinds[:100], short.kinds)
    blocks = [short.take(block) for block in range(100)]
    assert blocks == [long.take(block) for block in range(100)]
    assert all(len({kind_of[i] for i in block}) == 1 for block in blocks)
    plain = [i for block in blocks for i in block if i < 30]
    assert sorted(plain[:30]) == list(range(30))  # a pass of its kind, whole


def test_initial_weights_depend_on_seed_and_name_only():
    shapes = {
        "a.weight": (4, 8),
        "a.bias": (4,),
        "norm.weight": (8,),
        "transformer_blocks.0.norm1.linear.weight": (6, 2),
    }
    found = initial_weights(shapes, seed=5)
    again = initial_weights(dict(reversed(shapes.items())), seed=5)
    for name in shapes:
        np.testing.assert_array_equal(found[name], again[name])
    assert not np.array_equal(found["a.weight"], initial_weights(shapes, seed=6)["a.weight"])
    assert not found["a.bias"].any() and (found["norm.weight"] == 1).all()
    assert not found["transformer_blocks.0.norm1.linear.weight"].any()
