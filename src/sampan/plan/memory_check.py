"""Published figures of memory, counted: what the model of memory says of a figure's own set-up."""

from __future__ import annotations

from sampan.catalog.memory_points import MemoryPoint
from sampan.models import presets
from sampan.plan.conventions import CONVENTIONS
from sampan.plan.generation_memory import generation_needed
from sampan.plan.memory import needed
from sampan.plan.records import ParallelLayout, Phase
from sampan.plan.workloads.named import workload_of
from sampan.plan.workloads.own.parts import tokenizer_blocks, vae_blocks
from sampan.plan.workloads.own.pictures import picture_phases


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
        need = needed(workload_of(name, **at), ParallelLayout(**point.layout), convention)
        return need.allocated if point.counter == "allocated" else need.total
    if point.pictures is not None:
        return _pictures(**point.pictures)
    assert point.forward is not None, "the file's reader sees to it"
    at = dict(point.forward)
    name, batch = at.pop("model"), at.pop("batch")
    if "side_px" in at:
        at["resolution_px"] = at.pop("side_px")
        at["with_encoders"] = False
    workload = workload_of(name, **at)
    phase = Phase(name="forward", blocks=tuple(workload.blocks))
    return generation_needed([phase], params=workload.params, batch=batch).total


_PARTS = (
    "read the prompt",
    "spell the words",
    "a step with the prompt",
    "pixels",
)  # phases that between them have all parts


def _pictures(model: str, side_px: int, batch: int) -> float:
    config = presets.get(model)
    phases = picture_phases(config, (side_px, side_px))
    blocks = {phase.name: phase.blocks for phase in phases}
    rows, columns = config.geometry.prior_grid(side_px, side_px)
    parts = [
        *(block for name in _PARTS for block in blocks[name]),
        *tokenizer_blocks(config, rows * columns),
        *vae_blocks("encoder", config, (side_px, side_px)),
    ]
    params = sum(block.repeat * block.params for block in parts)
    return generation_needed(phases, params=params, batch=batch).total
