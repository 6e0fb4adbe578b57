"""A framework's answers beside those of the reference and of PyTorch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from contract.case import Case, error

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Answers:
    """What a worker wrote.

    Args:
        outputs: By case, in order.
        gradients: By case, by input or `weight:NAME`; of the reference's blocks, slopes along one direction each.
        states: By question, arrays by name.
        facts: Answers to the questions.
        failed: Errors by case or question.
    """

    framework: str
    outputs: dict[str, list[NDArray[Any]]]
    gradients: dict[str, Arrays]
    states: dict[str, Arrays]
    facts: dict[str, Any]
    failed: dict[str, str]
    seconds: dict[str, float]


def read(folder: Path, framework: str) -> Answers:
    """Read what a worker wrote."""
    outputs: dict[str, list[NDArray[Any]]] = {}
    gradients: dict[str, Arrays] = {}
    states: dict[str, Arrays] = {}
    with np.load(folder / f"{framework}.npz") as file:
        for key in file.files:
            case, kind, leaf = key.split("|")
            if kind == "out":
                outputs.setdefault(case, []).append(file[key])
            else:
                kept = gradients if kind == "gradient" else states
                kept.setdefault(case, {})[leaf] = file[key]
    record = json.loads((folder / f"{framework}.json").read_text(encoding="utf-8"))
    return Answers(framework, outputs, gradients, states, record["answers"], record["failed"], record["seconds"])


def forward_errors(case: Case, found: Answers, wanted: Answers) -> Iterator[float]:
    """Give the error of every output; of ids, 0 or infinite."""
    for one, other in zip(found.outputs[case.name], wanted.outputs[case.name], strict=True):
        if case.is_exact:
            yield 0.0 if np.array_equal(one, other) else float("inf")
        else:
            yield error(one, other)


def gradient_errors(case: Case, found: Answers, wanted: Answers) -> dict[str, float]:
    """Return the error of every gradient.

    Against the slopes of the reference's blocks it is |slope - gradient·direction| / |gradient|: along a random direction,
    an error of the gradient shows with about its own length.
    """
    ours, others = found.gradients.get(case.name, {}), wanted.gradients.get(case.name, {})
    assert ours.keys() == others.keys(), f"gradients of {sorted(ours)} and of {sorted(others)}"
    if wanted.framework != "reference" or case.kind != "block":
        return {leaf: error(ours[leaf], others[leaf]) for leaf in others}
    result = {}
    for leaf, gradient in ours.items():
        whole = gradient.astype(np.float64)
        length = float(np.linalg.norm(whole))
        slope = float((whole * case.direction(leaf, whole.shape)).sum())
        result[leaf] = abs(slope - float(others[leaf])) / (length or 1.0)
    return result
