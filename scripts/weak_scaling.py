"""Weak scaling as a plan has it: what a rank computes and sends in a step, from 8 to 1,024 ranks, beside the planned step.

Everything is counted by arithmetic; nothing here has run on more than the ranks that the tests start. Writes
docs/weak-scaling.md, and with --record a file in results/.

python scripts/weak_scaling.py [--record]
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from sampan import frameworks
from sampan.catalog import load
from sampan.models import presets
from sampan.plan.conventions import CONVENTIONS
from sampan.plan.device_work import device_work
from sampan.plan.memory import MemoryModel
from sampan.plan.predict import predict
from sampan.plan.records import ParallelLayout
from sampan.plan.workloads.own.stages import stage_workload
from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent
RANKS = (8, 16, 32, 64, 128, 256, 512, 1024)
CHIPS = ("h200", "ascend_910b2")
NODE = 8  # chips of one scale-up domain, of both
PX, MICRO_BATCH = 1024, 4
NOTE = "<!-- written by scripts/weak_scaling.py; change the program, then run it -->"
_COMPUTE = ("matmul_s", "attention_s", "memory_s", "launch_s", "optimizer_s", "host_s")


def rows() -> list[dict[str, Any]]:
    """Return a row for each number of ranks: FLOPs and bytes of a rank, and seconds on each chip."""
    frameworks.use_shapes()
    config = presets.get("glm-image", {})
    workload = stage_workload("decoder", config, resolution_px=PX, batch=MICRO_BATCH, name="glm-image")
    found = []
    for ranks in RANKS:
        layout = ParallelLayout(dp=ranks, zero_stage=3, recompute="full", micro_batch=MICRO_BATCH)
        work = device_work(workload, layout)
        # a pass gathers all weights twice and scatters all gradients once
        moved = work.passes * (2 * work.gathered_bytes + work.shared_bytes)
        row: dict[str, Any] = {
            "ranks": ranks,
            "global_batch": layout.global_batch,
            "flops": work.passes * (work.middle.matmul_flops + work.middle.attention_flops
                                    + work.ends.matmul_flops + work.ends.attention_flops),
            "within_node_bytes": moved * (NODE - 1) / NODE,
            "beyond_node_bytes": moved / NODE * (1 - NODE / ranks),
            "memory_bytes": MemoryModel(workload, CONVENTIONS["deepspeed"])(layout).total,
            "chips": {},
        }  # fmt: skip
        for name in CHIPS:
            step = predict(workload, layout, load.chip(name), framework="torch")
            row["chips"][name] = {
                "step_s": step.step_s, "low_s": step.low_s, "high_s": step.high_s,
                "compute_s": sum(step.parts[part] for part in _COMPUTE),
                "data_parallel_s": step.parts["data_parallel_s"], "rests_on": step.rests_on,
            }  # fmt: skip
        found.append(row)
    for row in found:
        for name in CHIPS:
            row["chips"][name]["efficiency"] = found[0]["chips"][name]["step_s"] / row["chips"][name]["step_s"]
    return found


def page(found: list[dict[str, Any]]) -> str:
    """Return the page of docs/."""
    head = [
        "ranks",
        "global batch",
        "TFLOP a rank",
        "GB a rank within its node",
        "GB a rank beyond",
        "memory a chip, GiB",
    ]
    for name in CHIPS:
        head += [f"{name}: step, s", "computing, s", "waiting for data, s", "efficiency"]
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for row in found:
        cells = [
            f"{row['ranks']:,}", f"{row['global_batch']:,}", f"{row['flops'] / 1e12:,.0f}",
            f"{row['within_node_bytes'] / 1e9:.1f}", f"{row['beyond_node_bytes'] / 1e9:.2f}",
            f"{row['memory_bytes'] / 2**30:.1f}",
        ]  # fmt: skip
        for name in CHIPS:
            at = row["chips"][name]
            cells += [
                f"{at['step_s']:.2f} ({at['low_s']:.2f}-{at['high_s']:.2f})", f"{at['compute_s']:.2f}",
                f"{at['data_parallel_s']:.3f}", f"{at['efficiency']:.1%}",
            ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    bases = "\n".join(f"- {name}: {found[0]['chips'][name]['rests_on']}." for name in CHIPS)
    return f"""{NOTE}
# Weak scaling, counted

The decoder of `glm-image` at {PX} px, {MICRO_BATCH} pictures a rank, weights divided over all ranks (FSDP2, zero 3), layers
computed a second time. More ranks make the batch larger and leave each rank the same work.

{chr(10).join(lines)}

FLOPs, bytes and memory are counted by arithmetic (`plan/device_work.py`, `plan/memory.py`): in every pass a rank receives
all weights twice and gives all gradients once, in 16 bits; the {NODE} chips of a node do that among themselves first, and
each sends its eighth beyond. Seconds are what `sampan plan` predicts of the same layout, with the ends of the interval that
holds 80 % of such predictions; "waiting for data" is what does not hide behind computing. They rest on published runs:

{bases}

**None of it has been run**: this project's tests start two ranks on a CPU. The prediction is a best case. A plan knows no
stragglers, no congested or failing links and no latency that grows with the number of ranks, which are what a real run of a
thousand ranks loses to; and an efficiency above 100 % is the update, of which each rank does a smaller share the more there
are. NVIDIA's runs of FLUX.1 in MLPerf Training 5.1 kept about 95 % from 16 to 128 chips. After a run of your own,
`sampan plan JOB --measured RUN` says how far a plan is off there. `python scripts/weak_scaling.py` writes this page.
"""


def main() -> None:
    """Write the page, and the record if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help="also keep the rows in results/")
    arguments = parser.parse_args()
    found = rows()
    (ROOT / "docs" / "weak-scaling.md").write_text(page(found), "utf-8")
    print(ROOT / "docs" / "weak-scaling.md")
    if arguments.record:
        print(results.add("weak-scaling", {**results.commit(), "rows": found}, ROOT / "results"))


if __name__ == "__main__":
    main()
