"""Which blocks lie on which pipeline stage. What that costs is counted elsewhere."""

from __future__ import annotations

from sampan.plan.records import Workload, WorkloadBlock

Part = tuple[WorkloadBlock, int]
"""A block and how many of its repeats are meant."""


def stages(workload: Workload, pp: int, virtual: int = 1) -> tuple[tuple[Part, ...], ...]:
    """Return what lies on each of `pp` ranks, in the order in which a sample passes it.

    The trunk's repeats are cut into pp·virtual pieces that differ by one repeat at most; the ends, which also have
    embedding and head, are not among the longer ones while there are others. Rank r has the pieces r, r + pp, …, and what
    is not trunk stays beside the repeat before it (or after it, at the start).

    Raises:
        ValueError: There are fewer repeats than pieces.
    """
    num_pieces = pp * virtual
    num_repeats = trunk_repeats(workload)
    if num_pieces > max(1, num_repeats):
        raise ValueError(f"{num_repeats} layers cannot be cut into {num_pieces} pieces")
    lengths = piece_lengths(num_repeats, num_pieces)
    pieces: list[list[Part]] = [[] for _ in range(num_pieces)]
    at, room = 0, lengths[0]
    for block in workload.blocks:
        left = block.repeat
        while block.is_trunk and left:
            if not room:
                at += 1
                room = lengths[at]
            taken = min(left, room)
            pieces[at].append((block, taken))
            left, room = left - taken, room - taken
        if not block.is_trunk:
            pieces[at].append((block, block.repeat))
    return tuple(tuple(part for piece in pieces[rank::pp] for part in piece) for rank in range(pp))


def trunk_repeats(workload: Workload) -> int:
    """Return how many layers a pipeline may cut between."""
    return sum(block.repeat for block in workload.blocks if block.is_trunk)


def piece_lengths(num_repeats: int, num_pieces: int) -> list[int]:
    """Return how many repeats each piece has; the longer ones are in the middle."""
    short, num_longer = divmod(num_repeats, num_pieces)
    first = (num_pieces - num_longer) // 2
    return [short + (first <= index < first + num_longer) for index in range(num_pieces)]
