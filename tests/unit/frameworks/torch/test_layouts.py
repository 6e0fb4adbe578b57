"""Which layout ranks get, and what is refused."""

from __future__ import annotations

import pytest
import torch

from sampan.errors import DeviceError, JobError
from sampan.frameworks.torch import parallel, sharding
from sampan.train import distributed


@pytest.mark.parametrize(
    ("ranks", "a_node", "settings", "layout"),
    [
        (8, 8, ("auto", None, None), (1, 8)),
        (32, 8, ("auto", None, None), (4, 8)),
        (6, 4, ("auto", None, None), (1, 6)),  # nodes of different sizes
        (32, 8, ("ddp", None, None), (32, 1)),
        (32, 8, ("fsdp", None, None), (1, 32)),
        (16, 8, ("auto", 2, None), (2, 8)),
        (16, 8, ("auto", None, 4), (4, 4)),
        (16, 8, ("ddp", 4, 4), (4, 4)),
        (1, 1, ("auto", None, None), (1, 1)),
    ],
)
def test_the_layout_follows_from_ranks_and_job(
    ranks: int, a_node: int, settings: tuple[str, int | None, int | None], layout: tuple[int, int]
):
    assert parallel.degrees(ranks, a_node, *settings) == layout


def test_a_mesh_that_is_not_the_ranks_is_refused():
    with pytest.raises(JobError) as caught:
        parallel.degrees(8, 8, "auto", 3, 2)
    assert caught.value.render() == (
        "error: the job's mesh is not that of 8 ranks\n"
        "  because place.dp_replicate = 3 times place.dp_shard = 2 is 6\n\n"
        'hint: start 6 ranks, or leave both out: place.parallel = "auto" follows the ranks'
    )
    with pytest.raises(JobError, match=r"place\.dp_replicate = 1 times place\.dp_shard = 3 is 3"):
        parallel.degrees(2, 2, "auto", None, 3)


def test_a_device_of_one_rank_is_not_that_of_several():
    with pytest.raises(DeviceError, match="`cuda:1` cannot be the device of several ranks"):
        parallel.own_device("cuda:1", 0)
    assert parallel.own_device("cpu", 3) == "cpu"


@pytest.mark.parametrize(
    ("count", "ranks", "rounds"),
    [
        (4, 2, [[0, 2], [1, 3]]),
        (5, 3, [[0, 2, 4], [1, 3, 0]]),
        (2, 3, [[0, 1, 0]]),
        (3, 1, [[0], [1], [2]]),
    ],
)
def test_every_micro_batch_is_taken_once(
    monkeypatch: pytest.MonkeyPatch, count: int, ranks: int, rounds: list[list[int]]
):
    monkeypatch.setattr(parallel, "_state", {"rank": 0, "ranks": ranks})
    assert distributed.rounds(count) == rounds
    assert [i for rank in range(ranks) for i in distributed.shard(count, rank)] == list(range(count))


def test_ranks_that_differ_are_named(monkeypatch: pytest.MonkeyPatch):
    one = {"sampan": "1.0", "torch": "2.13", "job": "a", "host": "left"}
    with pytest.raises(JobError, match=r"torch: rank 0 on left has 2.13, rank 1 on right has 2.12"):
        distributed._compare([one, {**one, "torch": "2.12", "host": "right"}], "ranks do not do the same", "")
    distributed._compare([one, {**one, "host": "right"}], "ranks do not do the same", "")


def test_what_is_whole_at_a_time_is_two_blocks_and_what_is_in_none():
    module = torch.nn.Module()
    module.blocks = torch.nn.ModuleList([torch.nn.Linear(3, size, bias=False) for size in (1, 4, 2)])
    module.head = torch.nn.Linear(5, 1, bias=False)
    assert sharding.gathered_bytes(module, 2, 4, frozen_rows={}) == 2 * ((12 + 6) * 2 + 5 * 4)
    module.table = torch.nn.Embedding(9, 2)  # of which only the trained rows are gathered
    assert sharding.gathered_bytes(module, 2, 4, frozen_rows={"table.weight": 6}) == 2 * (
        (12 + 6) * 2 + (5 + 6 * 2) * 4
    )
