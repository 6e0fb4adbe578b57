"""Hold counts of memory against published figures, print the table, and keep it in results/.

python scripts/memory_table.py [--dry]
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path

from sampan.catalog.memory_points import MemoryPoint, memory_points
from sampan.job import parse
from sampan.plan import inference
from sampan.plan.conventions import CONVENTIONS
from sampan.plan.memory import MemoryModel
from sampan.plan.records import ParallelLayout, Phase
from sampan.plan.workloads.named import workload_of
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


def counted_bytes(point: MemoryPoint) -> float:
    """Return the bytes that are counted for a figure, by the counter it was read from.

    Raises:
        CatalogError: Its model is not in the catalogue.
        ValueError: It is left out.
    """
    if point.left_out is not None:
        raise ValueError(f"`{point.name}` is left out: {point.left_out}")
    if point.training is not None:
        at = dict(point.training)
        name, convention = at.pop("model"), CONVENTIONS[at.pop("convention")]
        need = MemoryModel(workload_of(name, **at), convention)(ParallelLayout(**point.layout))
        return need.allocated if point.counter == "allocated" else need.total
    if point.pictures is not None:
        return _picture_bytes(**point.pictures)
    assert point.forward is not None, "the file's reader sees to it"
    at = dict(point.forward)
    name, batch = at.pop("model"), at.pop("batch")
    if "side_px" in at:
        at["resolution_px"] = at.pop("side_px")
        at["with_encoders"] = False
    workload = workload_of(name, **at)
    phase = Phase(name="forward", blocks=tuple(workload.blocks))
    return inference.inference_memory([phase], params=workload.params, batch=batch).total


def _picture_bytes(model: str, side_px: int, batch: int) -> float:
    job = parse(f'out = "runs/x"\ndata.path = "pictures"\nmodel.preset = "{model}"\nplan.picture_px = {side_px}\n')
    recipe = inference.of_job(job)
    return inference.inference_memory(recipe.phases, params=recipe.params, batch=batch).total


if __name__ == "__main__":
    main()
