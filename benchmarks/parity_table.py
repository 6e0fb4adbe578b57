"""How far every part is from the published implementation, on small random weights: the table in the README.

Runs the comparisons of tests/parity (the same cases, inputs and weights as its tests), writes a file into results/ and
prints the table as Markdown. Relative errors are max|ours - oracle| / max|oracle|, the greatest over a part's cases.

    python benchmarks/parity_table.py [--out results/]
"""

from __future__ import annotations

import argparse
import platform
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import torch  # noqa: E402

from parity.compare import (  # noqa: E402
    BF16_RATIO,
    CASES,
    FP32_TOLERANCE,
    ID_CASES,
    HalfPrecision,
    error,
    half_precision,
)
from parity.gradients import GRADIENT_TOLERANCE, GRADIENTS, gradient_errors  # noqa: E402
from parity.ours import Ours  # noqa: E402
from parity.theirs import Theirs  # noqa: E402
from parity.tiny import build  # noqa: E402
from sampan.report import results  # noqa: E402

TRANSFORMERS, DIFFUSERS = "transformers", "diffusers"
ORACLES = {
    "DiT": DIFFUSERS,
    "DiT with references": DIFFUSERS,
    "AR, teacher-forced": TRANSFORMERS,
    "AR, cached": TRANSFORMERS,
    "Greedy tokens": TRANSFORMERS,
    "Vision features": TRANSFORMERS,
    "VQ ids": TRANSFORMERS,
    "VAE encode": DIFFUSERS,
    "VAE decode": DIFFUSERS,
    "Glyph encoder": TRANSFORMERS,
    "Quoted words": DIFFUSERS,
    "Prompt ids": TRANSFORMERS,
    "Position ids": TRANSFORMERS,
    "Patches": TRANSFORMERS,
    "Scheduler": DIFFUSERS,
    "Text to image": f"{DIFFUSERS}, {TRANSFORMERS}",
    "Image to image": f"{DIFFUSERS}, {TRANSFORMERS}",
}


def measure() -> dict[str, dict[str, Any]]:
    """Return one record a part."""
    rows: dict[str, dict[str, Any]] = {part: {"oracle": oracle, "cases": 0} for part, oracle in ORACLES.items()}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "tiny"
        pipeline = build(folder)
        ours, theirs = Ours(pipeline, folder), Theirs(pipeline)
        ours_bf16, theirs_bf16 = Ours(pipeline, folder, torch.bfloat16), Theirs(pipeline, torch.bfloat16)
        halves: dict[str, list[HalfPrecision]] = defaultdict(list)
        for case in CASES:
            row = rows[case.part]
            row["cases"] += 1
            row["fp32_max_relative_error"] = max(row.get("fp32_max_relative_error", 0.0), error(case, ours, theirs))
            if case.part != "Scheduler":  # host arithmetic, which has no bf16
                halves[case.part].append(half_precision(case, ours_bf16, theirs_bf16, theirs))
        for case in ID_CASES:
            row = rows[case.part]
            row["cases"] += 1
            row["identical"] = row.get("identical", True) and error(case, ours, theirs) == 0
        for part, found in halves.items():
            rows[part]["bf16_error_ours"] = max(one.ours for one in found)
            rows[part]["bf16_error_oracle"] = max(one.theirs for one in found)
            rows[part]["bf16_between"] = max(one.between for one in found)
        for name, (part, _) in GRADIENTS.items():
            worst = max(gradient_errors(name, ours, theirs).values())
            rows[part]["gradient_max_relative_error"] = max(rows[part].get("gradient_max_relative_error", 0.0), worst)
    return rows


def markdown(rows: dict[str, dict[str, Any]]) -> str:
    """Return the table."""
    lines = [
        "| part | oracle | cases | fp32 | gradient | bf16: ours, oracle's, between |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for part, row in rows.items():
        fp32 = "identical" if row.get("identical") else _number(row.get("fp32_max_relative_error", float("inf")))
        gradient = _number(row["gradient_max_relative_error"]) if "gradient_max_relative_error" in row else ""
        half = [row.get(f"bf16_{name}") for name in ("error_ours", "error_oracle", "between")]
        bf16 = "" if half[0] is None else ", ".join(_number(value) for value in half)
        lines.append(f"| {part} | {row['oracle']} | {row['cases']} | {fp32} | {gradient} | {bf16} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    return "0" if value == 0 else f"{value:.1e}"


def main() -> None:
    """Measure, write the record, print the table; exit with 1 when a tolerance is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    arguments = parser.parse_args()
    import diffusers
    import transformers

    diffusers.utils.logging.disable_progress_bar()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    rows = measure()
    record = {
        "what": "greatest relative error of each part against the published implementation, small random weights, CPU",
        "tolerance": {"fp32": FP32_TOLERANCE, "gradient": GRADIENT_TOLERANCE, "bf16_times_oracle_error": BF16_RATIO},
        "machine": {"cpu": platform.processor() or platform.machine(), "system": platform.system(), "threads": 1},
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "diffusers": diffusers.__version__,
            "python": platform.python_version(),
        },
        "parts": rows,
    }
    file = results.add("parity", record, arguments.out)
    print(markdown(rows))
    print(f"\nwritten to {file}", file=sys.stderr)
    failed = [
        part
        for part, row in rows.items()
        if row.get("fp32_max_relative_error", 0) > FP32_TOLERANCE
        or not row.get("identical", True)
        or row.get("gradient_max_relative_error", 0) > GRADIENT_TOLERANCE
        or max(row.get("bf16_error_ours", 0), row.get("bf16_between", 0)) > BF16_RATIO * row.get("bf16_error_oracle", 1)
    ]
    if failed:
        raise SystemExit(f"over the tolerance: {', '.join(failed)}")


if __name__ == "__main__":
    main()
