"""How far every framework is from the NumPy reference and from PyTorch, by operation and block: the table in docs/.

Runs the workers of tests/contract (the same cases, inputs and weights as its tests), writes a file into results/ and prints
the table as Markdown. Errors are max|a - b| / max|b| for each array, the greatest over a row's cases. A framework that is
not installed has no column; one that fails or exceeds a tolerance ends the script with 1, after the record is written.

    python scripts/contract_table.py [--frameworks torch,mindspore,tensorflow] [--out results/]
"""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from contract import subset  # noqa: E402
from contract.case import FORWARD_TOLERANCE, GRADIENT_TOLERANCE  # noqa: E402
from contract.catalogue import CASES  # noqa: E402
from contract.compare import Answers, forward_errors, gradient_errors  # noqa: E402
from contract.workers import FRAMEWORKS, Workers, is_installed  # noqa: E402
from sampan.report import results  # noqa: E402

KINDS = {"op": "operations", "layer": "layers", "block": "blocks", "loss": "losses"}


def measure(found: Answers, others: Sequence[Answers]) -> dict[str, dict[str, Any]]:
    """Return one record a row: the greatest forward and gradient error against each of the others."""
    rows: dict[str, dict[str, Any]] = {}
    left_out = subset.left_out(found.framework)
    for case in CASES.values():
        if not case.is_offered(left_out):
            continue
        row = rows.setdefault(case.row, {"kind": case.kind, "cases": 0, "ids": case.is_exact, "failed": []})
        row["cases"] += 1
        if case.name in found.failed:
            row["failed"].append(case.name)
            continue
        for other in others:
            entry = row.setdefault(f"from {other.framework}", {"forward": 0.0})
            entry["forward"] = max(entry["forward"], *forward_errors(case, found, other))
            gradients = gradient_errors(case, found, other)
            if gradients:
                entry["gradient"] = max(entry.get("gradient", 0.0), *gradients.values())
    return rows


def markdown(table: dict[str, dict[str, dict[str, Any]]]) -> str:
    """Return the table: by row, each framework's greatest forward and gradient error against whatever it is compared with."""
    lines = [
        "| | " + " | ".join(f"{name} forward | {name} gradient" for name in table) + " |",
        "|---|" + "--:|--:|" * len(table),
    ]
    for kind, title in KINDS.items():
        lines.append(f"| **{title}** |" + " |" * (2 * len(table)))
        for row in dict.fromkeys(case.row for case in CASES.values() if case.kind == kind):
            cells = [cell for rows in table.values() for cell in _cells(rows.get(row))]
            lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cells(row: dict[str, Any] | None) -> tuple[str, str]:
    if row is None:
        return "not offered", ""
    if row["failed"]:
        return "failed", ""
    entries = [entry for name, entry in row.items() if name.startswith("from ")]
    forward = max(entry["forward"] for entry in entries)
    gradients = [entry["gradient"] for entry in entries if "gradient" in entry]
    shown = ("equal" if forward == 0 else "different") if row["ids"] else _number(forward)
    return shown, _number(max(gradients)) if gradients else ""


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.0e}"


def _is_wrong(row: dict[str, Any]) -> bool:
    entries = [entry for name, entry in row.items() if name.startswith("from ")]
    return bool(row["failed"]) or any(
        e["forward"] > FORWARD_TOLERANCE or e.get("gradient", 0) > GRADIENT_TOLERANCE for e in entries
    )


def main() -> None:
    """Run the workers, write the record, print the table; exit with 1 when a tolerance is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frameworks", default=",".join(name for name in FRAMEWORKS if is_installed(name)))
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    arguments = parser.parse_args()
    chosen = [name for name in arguments.frameworks.split(",") if name]
    strange = [name for name in chosen if name not in FRAMEWORKS]
    if strange or not chosen:
        parser.error(f"--frameworks takes some of {', '.join(FRAMEWORKS)}, got `{arguments.frameworks}`")
    with tempfile.TemporaryDirectory() as temporary:
        workers = Workers(Path(temporary))
        reference, pytorch = workers.of("reference"), workers.of("torch")
        found = {name: workers.of(name) for name in chosen}
    table = {
        name: measure(answers, [reference] if name == "torch" else [reference, pytorch])
        for name, answers in found.items()
    }
    record = {
        "what": "greatest relative error of each operation and block against the NumPy reference (float64) and PyTorch, CPU",
        "tolerance": {"forward": FORWARD_TOLERANCE, "gradient": GRADIENT_TOLERANCE},
        "machine": {**results.machine(), "threads": 1},
        "versions": {**{name: _version(name) for name in (*chosen, "numpy")}, "python": platform.python_version()},
        "cpu_seconds": {name: answers.seconds for name, answers in found.items()},
        "frameworks": table,
    }
    file = results.add("contract", record, arguments.out)
    print(markdown(table))
    print(f"\nwritten to {file}", file=sys.stderr)
    wrong = [f"{name}: {row}" for name, rows in table.items() for row, entry in rows.items() if _is_wrong(entry)]
    if wrong:
        raise SystemExit(f"over the tolerance: {', '.join(wrong)}")


def _version(name: str) -> str:
    """Return the version of an installed library, which may be packaged under another name."""
    packages = importlib.metadata.packages_distributions().get(name, [name])
    return importlib.metadata.version(packages[0])


if __name__ == "__main__":
    main()
