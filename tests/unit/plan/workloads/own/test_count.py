"""Real modules on shapes become blocks: the same with a framework and without one, layer by layer and divided by name."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sampan.frameworks.shapes.array import Blank
from sampan.models.build import build_on_meta
from sampan.models.presets import get
from sampan.plan.records import WorkloadBlock
from sampan.plan.workloads.own import batches
from sampan.plan.workloads.own.count import count_blocks, fold
from sampan.plan.workloads.own.pictures import picture_phases
from sampan.plan.workloads.own.stages import STAGES, stage_workload

SOURCE = Path(__file__).resolve().parents[5] / "src"
NANO = get("nano")
WITHOUT_FRAMEWORK = """
import sys
from sampan import frameworks
frameworks.use_shapes()
from sampan.models.presets import get
from sampan.plan.workloads.own.pictures import picture_phases
from sampan.plan.workloads.own.stages import STAGES, stage_workload
config = get("nano")
print([stage_workload(stage, config) for stage in STAGES], picture_phases(config, (128, 128), references=[(64, 64)]))
assert not {"torch", "mindspore", "tensorflow"} & sys.modules.keys(), "a framework was loaded"
"""


def test_models_cost_the_same_in_a_process_that_has_no_framework():
    here = [stage_workload(stage, NANO) for stage in STAGES], picture_phases(NANO, (128, 128), references=[(64, 64)])
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_FRAMEWORK], env={**os.environ, "PYTHONPATH": str(SOURCE)}, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout == f"{here[0]} {here[1]}\n"


def test_tensor_parallelism_divides_a_layer_by_the_names_in_it():
    trunk = next(block for block in stage_workload("ar", NANO).blocks if block.is_trunk)
    splits = {op.name: op.split for op in trunk.ops if op.kind != "memory"}
    columns, rows = (
        ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_up_proj"),
        ("o_proj", "down_proj"),
    )
    assert all(splits[name] == "columns" for name in columns)
    assert [splits[f"{part}.{name}"] for part, name in zip(("self_attn", "mlp"), rows, strict=True)] == ["rows", "rows"]
    assert splits["attention"] == "heads"
    assert trunk.sums == 2
    text = NANO.ar.text
    assert (trunk.repeat, trunk.width) == (text.num_hidden_layers, text.hidden_size)
    # q, k, v, what attention made, and the halves of the gate with their product are divided; inputs of norms are whole
    assert trunk.kept > trunk.kept_whole > 4 * trunk.tokens * trunk.width


def test_a_part_between_layers_has_what_is_left_of_the_parameters():
    blocks = stage_workload("decoder", NANO).blocks
    module = build_on_meta("decoder", NANO)
    sizes = {name: parameter.numel() for name, parameter in module.named_parameters()}
    in_layers = sum(size for name, size in sizes.items() if name.startswith("transformer_blocks."))
    assert sum(block.repeat * block.params for block in blocks if block.is_trunk) == in_layers
    assert sum(block.params for block in blocks if not block.is_trunk) == sum(sizes.values()) - in_layers


def test_a_pass_without_gradients_keeps_nothing():
    module = build_on_meta("glyph", NANO)
    blocks = count_blocks(module, module, batches.glyph_arrays(9), grad="none", num_layers=NANO.glyph.num_layers)
    assert {(block.grad, block.kept, block.kept_whole) for block in blocks} == {("none", 0.0, 0.0)}


def test_equal_neighbours_are_put_together():
    one, other = WorkloadBlock(name="a", ops=()), WorkloadBlock(name="b", ops=())
    folded = fold([one, one, other, one])
    assert [(block.name, block.repeat) for block in folded] == [("a", 2), ("b", 1), ("a", 1)]


def test_a_module_is_as_before_when_it_has_been_counted():
    module = build_on_meta("vae", NANO)
    before = {name: id(parameter) for name, parameter in module.named_parameters()}
    with pytest.raises(ValueError, match="cannot be reshaped"):
        count_blocks(module.decoder, lambda x: module.decoder(x).reshape((7, 11)), [Blank((1, 16, 4, 4))], grad="none")
    assert {name: id(parameter) for name, parameter in module.named_parameters()} == before
