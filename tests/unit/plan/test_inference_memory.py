"""Memory of making pictures, held against what the release's README says of it."""

from functools import cache

import pytest

from sampan.models.presets import get
from sampan.plan.inference import inference_memory
from sampan.plan.records import Op, Phase, WorkloadBlock, memory_op
from sampan.plan.workloads.own.parts import ar_blocks, decoder_blocks, glyph_blocks, tokenizer_blocks, vae_blocks

GIB = 2**30
# The README's unit is not said. Weights alone are 35.4e9 bytes, and its smallest figure is 34.26, so it counts GiB.
# Source: github.com/zai-org/GLM-Image, README.md, "Inference Cost" (commit 12a4eef).
PUBLISHED = [(2048, 1, 45.08), (1024, 1, 37.82), (1024, 4, 52.09), (512, 1, 34.26), (512, 4, 37.83)]


@cache
def release(size: int) -> tuple[tuple[Phase, ...], float]:
    config = get("glm-image")
    generator = ar_blocks(config, 1000, 1000)
    step = decoder_blocks(config, (size, size), 100)
    pixels = vae_blocks("decoder", config, (size, size))
    others = [
        *tokenizer_blocks(config, 1024),
        *glyph_blocks(config, 100),
        *vae_blocks("encoder", config, (size, size)),
    ]
    params = sum(block.repeat * block.params for block in (*generator, *step, *pixels, *others))
    phases = (
        Phase(name="prompt", blocks=tuple(generator)),
        Phase(name="step", blocks=tuple(step), rows=2),
        Phase(name="pixels", blocks=tuple(pixels)),
    )
    return phases, params


@pytest.mark.parametrize(("size", "batch", "published_gib"), PUBLISHED)
def test_the_releases_own_figures_within_a_tenth(size, batch, published_gib):
    phases, params = release(size)
    need = inference_memory(phases, params=params, batch=batch)
    assert need.total / GIB == pytest.approx(published_gib, rel=0.1)


def test_a_phase_by_hand():
    conv = Op(name="c", kind="conv", flops=1, rows=100, inner=27, cols=8, values=100 * (3 + 8), weights=216)
    phase = Phase(
        name="p", blocks=(WorkloadBlock(name="b", ops=(conv, memory_op("norm", 400))),), rows=2, cache_values=50
    )
    need = inference_memory([phase], params=1000, batch=3, context_bytes=7)
    assert (need.frozen, need.activations, need.workspace, need.reserve) == (2000, 300, 2 * 3 * 2 * 2200, 7)
