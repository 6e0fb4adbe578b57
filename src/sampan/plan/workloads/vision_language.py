"""Vision-language models from the numbers of their shape: a vision tower whose tokens stand in a language model's sequence.

One sample is a sequence of text and picture tokens. Left out: how pictures are cut into tiles (the number of picture tokens
is given), and what a tower does beside its layers.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from sampan.plan.records import Grad, Workload, WorkloadBlock, product
from sampan.plan.workloads.language import LanguageShape, language_model
from sampan.plan.workloads.layers import TransformerLayers, transformer


@dataclass(frozen=True, kw_only=True)
class VisionTower:
    """A vision tower.

    Args:
        patch_px: Side of a patch.
        merge: Patches that become one token of the language model.
        connector_hidden: Inner width of the two matrices between tower and language model; 0 is one matrix.
        window: Patches that see each other in all layers but `full_layers`; 0 is all in all layers.
        connector_params: Of a connector that is more than these matrices, beside them.
    """

    layers: int
    hidden: int
    heads: int
    ffn: float
    gated: bool = False
    patch_px: int = 14
    merge: int = 1
    connector_hidden: float = 0
    window: int = 0
    full_layers: int = 0
    connector_params: float = 0
    positions: int = 0


def vision_language_model(
    name: str,
    tower: VisionTower,
    shape: LanguageShape,
    seq_len: float,
    *,
    picture_tokens: float,
    tiles: float = 1,
    method: str = "full",
    trains: str = "all",
    rank: int = 16,
) -> Workload:
    """Return what one sequence costs.

    Args:
        seq_len: Tokens of the sequence, picture tokens among them.
        picture_tokens: Tokens of the language model that come from pictures, all tiles together.
        tiles: Pictures, or pieces of pictures, that the tower looks at apart from one another.
        method: "full", or "lora": the language model has additions of `rank`, and the rest is frozen.
        trains: "all", "language" (the tower is frozen), or "connector" (the language model too, and gradients pass it).
    """
    patches = picture_tokens * tower.merge
    tower_grad: Grad = "full" if method == "full" and trains == "all" else "none"
    layers = TransformerLayers(
        repeat=tower.layers, hidden=tower.hidden, heads=tower.heads, ffn=tower.ffn, gated=tower.gated
    )  # fmt: skip
    each = patches / tiles
    blocks: list[WorkloadBlock] = [
        WorkloadBlock(
            name="patches", ops=(product("patches", patches, 3 * tower.patch_px**2, tower.hidden, input_grad=False),),
            grad=tower_grad, params=(3 * tower.patch_px**2 + tower.positions) * tower.hidden, tokens=patches,
            width=tower.hidden, num_kernels=4,
        )
    ]  # fmt: skip
    # what tiles and windows are to a tower, frames are to spatial attention: they do not see each other
    runs: list[tuple[int, str, float]] = [(tower.layers, "vision layers", each)]
    if tower.window:
        windowed = tower.layers - tower.full_layers
        runs = [(windowed, "vision layers within windows", tower.window), (tower.full_layers, "vision layers", each)]
    for number, called, length in runs:
        kind = replace(layers, repeat=number, reach=("spatial",))
        block = transformer(called, kind, places=length, frames=patches / length, grad=tower_grad)
        blocks.append(replace(block, is_trunk=False))
    merged = tower.hidden * tower.merge
    if tower.connector_hidden:
        ops = (
            product("connector, in", picture_tokens, merged, tower.connector_hidden, input_grad=tower_grad == "full"),
            product("connector, out", picture_tokens, tower.connector_hidden, shape.hidden),
        )
    else:
        ops = (product("connector", picture_tokens, merged, shape.hidden, input_grad=tower_grad == "full"),)
    blocks.append(
        WorkloadBlock(
            name="connector", ops=ops, grad="none" if method == "lora" else "full",
            params=sum(op.weights for op in ops) + tower.connector_params, tokens=picture_tokens, width=shape.hidden,
            kept=sum(op.rows * op.inner for op in ops), num_kernels=4,
        )
    )  # fmt: skip
    spoken = language_model(name, shape, seq_len, method=method, rank=rank)
    if trains == "connector" and method == "full":
        blocks += [replace(block, grad="none" if block.name == "embedding" else "through") for block in spoken.blocks]
    else:
        blocks += spoken.blocks
    return Workload(
        name=name,
        family="vlm",
        sample=f"sequence of {seq_len:.0f} tokens, {picture_tokens:.0f} of them of pictures",
        blocks=tuple(blocks),
        tokens=seq_len,
        input_bytes=4 * seq_len + 0.2 * patches * tower.patch_px**2,
    )
