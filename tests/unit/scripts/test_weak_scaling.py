"""The table of weak scaling: what is counted agrees with closed forms, and the page in docs/ is what the script writes."""

import importlib.util
from pathlib import Path

import pytest

from sampan import frameworks
from sampan.models import presets
from sampan.plan.workloads.own.stages import stage_workload

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("weak_scaling", ROOT / "scripts" / "weak_scaling.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_bytes_of_a_rank_are_those_of_a_ring_over_all_ranks(script):
    frameworks.use_shapes()
    workload = stage_workload("decoder", presets.get("glm-image", {}), resolution_px=1024, batch=4, name="glm-image")
    for row in script.rows():
        n = row["ranks"]
        # weights twice and gradients once, 2 bytes each; in a ring n - 1 of n parts are sent
        whole = (2 * workload.params + workload.trained_params) * 2
        assert row["within_node_bytes"] + row["beyond_node_bytes"] == pytest.approx(whole * (n - 1) / n)
        # twice forward, and twice its products backward
        assert row["flops"] == pytest.approx(4 * 4 * workload.forward_flops, rel=0.1)
        assert row["global_batch"] == 4 * n


def test_the_page_is_what_the_script_writes(script):
    assert (ROOT / "docs" / "weak-scaling.md").read_text("utf-8") == script.page(script.rows())
