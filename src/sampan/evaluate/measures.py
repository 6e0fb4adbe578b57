"""Many scores as numbers; and against which questions pictures are held to find what chance gives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sampan.evaluate.case import EvalCase
from sampan.evaluate.scorer import CaseScore
from sampan.samplers import noise

KEYS = ("word_accuracy", "ned", "color_accuracy", "layout", "top1", "top5", "edit_done")


def measures(scores: Sequence[CaseScore]) -> dict[str, Any]:
    """Return the measures that apply, each a share in [0, 1].

    Words count each by itself over all pictures, as in CVTG-2K: a picture of two words counts twice.
    """
    found: dict[str, Any] = {"count": len(scores)}
    words = [one.words for one in scores if one.words is not None]
    if total := sum(one.total for one in words):
        found["word_accuracy"] = sum(one.right for one in words) / total
        found["ned"] = sum(one.similarity for one in words) / total
    if colors := [right for one in scores for right in one.colors]:
        found["color_accuracy"] = sum(colors) / len(colors)
    if placed := [one.placed for one in scores if one.placed is not None]:
        found["layout"] = sum(placed) / len(placed)
    if ranks := [one.rank for one in scores if one.rank is not None]:
        found["top1"] = sum(rank < 1 for rank in ranks) / len(ranks)
        found["top5"] = sum(rank < 5 for rank in ranks) / len(ranks)
    if done := [one.done for one in scores if one.done is not None]:
        found["edit_done"] = sum(done) / len(done)
        found["edit_changed"] = sum(bool(one.changed) for one in scores) / len(done)
        found["edit_kept"] = sum(bool(one.kept) for one in scores) / len(done)
        if similar := [one.kept_ssim for one in scores if one.kept_ssim is not None]:
            found["kept_ssim"] = sum(similar) / len(similar)
    return {name: round(value, 4) if isinstance(value, float) else value for name, value in found.items()}


def mismatched_cases(cases: Sequence[EvalCase], seed: int) -> list[int | None]:
    """Return for each case another one of its slice and kind of edit, in a ring, or None where it is alone.

    A picture held against another's question shows what is right by chance; none keeps its own.
    """
    groups: dict[tuple[str, str | None], list[int]] = {}
    for index, case in enumerate(cases):
        groups.setdefault((case.slice, case.edit), []).append(index)
    found: list[int | None] = [None] * len(cases)
    for (slice_name, kind), members in groups.items():
        order = noise.generator(seed, f"quality/floor/{slice_name}/{kind}").permutation(len(members))
        for place, at in enumerate(order):
            other = members[int(order[(place + 1) % len(order)])]
            found[members[int(at)]] = other if other != members[int(at)] else None
    return found
