"""Hold counts of memory against published figures, print the table, and keep it in results/.

python scripts/memory_table.py [--dry]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from sampan.catalog.memory_points import memory_points
from sampan.plan.memory_check import counted_bytes
from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent


def main() -> None:
    """Print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dry", action="store_true", help="write nothing")
    arguments = parser.parse_args()
    rows = []
    for point in memory_points():
        if point.left_out is None:
            counted = counted_bytes(point)
            rows.append(
                {"source": point.title, "name": point.name, "published_bytes": point.bytes, "counted_bytes": counted}
            )
            sizes = f"{point.bytes / 2**30:8.2f} {counted / 2**30:8.2f} GiB {counted / point.bytes - 1:+7.1%}"
            print(f"{sizes}  {point.title}: {point.name}")
        else:
            print(f"{point.bytes / 2**30:8.2f} left out: {point.left_out}  {point.title}: {point.name}")
    errors = sorted(abs(row["counted_bytes"] / row["published_bytes"] - 1) for row in rows)
    found = {"median": statistics.median(errors), "p90": errors[int(0.9 * (len(errors) - 1))], "worst": errors[-1]}
    print(f"{len(rows)} figures: median {found['median']:.1%}, p90 {found['p90']:.1%}, worst {found['worst']:.1%}")
    if not arguments.dry:
        print(results.add("memory-figures", {"errors": found, "rows": rows}, ROOT / "results"))


if __name__ == "__main__":
    main()
