"""The real stages' losses on tensors that have shapes and nothing else, under PyTorch's FLOP counter."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from sampan.job.stages import StagesSection
from sampan.models import lora
from sampan.models.config import NUM_WAVES, ModelConfig
from sampan.train.stages import TrainableStage, make

Size = tuple[int, int]


def arrays_of(
    stage: str, config: ModelConfig, size: Size, prompt: int, glyph: int, references: Sequence[Size], device: str
) -> list[Any]:
    """Return what a stage's loss takes after the module, for one sample."""

    def floats(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=device)

    def ids(*shape: int) -> torch.Tensor:
        return torch.empty(shape, device=device, dtype=torch.int64)

    def area(grid: tuple[int, int]) -> int:
        return grid[0] * grid[1]

    geometry, dit, vae = config.geometry, config.dit, config.vae
    prior = area(geometry.prior_grid(*size))
    cells = (vae.latent_channels, size[0] // vae.factor, size[1] // vae.factor)
    if stage == "vae":
        return [floats(1, 3, *size), floats(1, *cells)]
    if stage == "tokenizer":
        patch = 3 * config.processor.patch_size**2
        return [
            floats(1, prior, patch), ids(4, prior), floats(4, prior), ids(1, prompt), floats(1, prompt), floats(1),
            ids(1), floats(1),
        ]  # fmt: skip
    if stage == "glyph":
        mask = torch.empty((1, glyph), device=device, dtype=torch.bool)
        return [
            ids(1, glyph), mask, ids(glyph, glyph), floats(1, NUM_WAVES, glyph), floats(1, glyph, config.glyph.num_told),
            floats(1, glyph), floats(1, 1, 32, 128), floats(1, NUM_WAVES, 30), ids(1), floats(1),
        ]  # fmt: skip
    if stage == "ar":
        written = prior + (0 if references else area(geometry.preview_grid(*size)))
        tokens = prompt + sum(area(geometry.prior_grid(*one)) for one in references) + written
        half = config.ar.text.rotary_dim // 2
        return [
            ids(1, tokens), floats(1, 1, tokens, half), floats(1, 1, tokens, half), ids(written + 1),
            ids(1, written + 1), floats(1, written + 1), (tokens,),
        ]  # fmt: skip

    def own(one: Size) -> tuple[tuple[int, int, int], int]:
        latent = (vae.latent_channels, one[0] // vae.factor, one[1] // vae.factor)
        return latent, latent[1] * latent[2] // dit.patch_size**2

    half = dit.attention_head_dim // 2
    latent, tokens = own(size)
    found: list[Any] = [
        floats(1, *latent), floats(1, *latent), floats(1), floats(1, glyph, dit.text_embed_dim), ids(1, tokens),
        floats(1), floats(1, dit.time_embed_dim), floats(1, 4 * dit.condition_dim), floats(1, 1, glyph + tokens, half),
        floats(1, 1, glyph + tokens, half), None,
    ]  # fmt: skip
    for one in references:
        latent, tokens = own(one)
        found += [
            floats(1, *latent), ids(1, tokens), floats(1), floats(1, dit.time_embed_dim),
            floats(1, 4 * dit.condition_dim), floats(1, 1, tokens, half), floats(1, 1, tokens, half),
        ]  # fmt: skip
    return found


def stage_of(name: str, config: ModelConfig) -> TrainableStage:
    """Return the real stage, made with a data set of one blank picture."""
    pictures = SimpleNamespace(size_of=lambda index: (config.geometry.default_px,) * 2)
    context = SimpleNamespace(
        settings=getattr(StagesSection(), name), config=config, seed=0,
        samples=[SimpleNamespace(captions=[""], references=())],
        image_of=[0], references_of=[()], members=[0], pictures=pictures, adapting=False, num_blocks=64,
        encoded=lambda: None, picture_members=lambda: [0], prompt_tokenizer=SimpleNamespace(text_ids=lambda text: []),
    )  # fmt: skip
    return make(name, context)  # pyright: ignore[reportArgumentType]


def counted(
    name: str, config: ModelConfig, size: Size, *, prompt: int = 1, glyph: int = 8, references: Sequence[Size] = (),
    rank: int | None = None, targets: tuple[str, ...] = (),
) -> tuple[int, int, dict[str, int], torch.nn.Module]:  # fmt: skip
    """Return FLOPs forward, and forward and backward, the latter by kind of operator, and the module."""
    stage = stage_of(name, config)
    module = stage.module
    if rank is not None:
        lora.attach(module, name, config, rank, None, targets)
    for parameter_name, parameter in module.named_parameters():
        parameter.requires_grad_(
            lora.trainable(parameter_name) if rank is not None else parameter_name not in stage.delayed
        )
    # what a low-rank layer asks of autocast has no answer on the meta device: fake tensors on another one stand in
    device = "meta" if rank is None else "cpu"
    with ExitStack() as stack:
        if rank is not None:
            stack.enter_context(FakeTensorMode())
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            for child in module.modules():
                for key, given in list(child._parameters.items()):
                    if given is not None:
                        fake = torch.empty(given.shape, device=device)
                        child._parameters[key] = torch.nn.Parameter(fake, requires_grad=given.requires_grad)
        arrays = arrays_of(name, config, size, prompt, glyph, references, device)
        counter = stack.enter_context(FlopCounterMode(display=False))
        loss = stage.loss(module, *arrays)
        value = loss[0] if isinstance(loss, tuple) else loss
        forward = counter.get_total_flops()
        value.backward()
    by_kind: dict[str, int] = defaultdict(int)
    for op, flops in counter.get_flop_counts()["Global"].items():
        kind = str(op).removeprefix("aten.")
        by_kind["conv" if kind.startswith("conv") else "bmm" if kind in ("bmm", "baddbmm") else "mm"] += flops
    return forward, counter.get_total_flops(), dict(by_kind), module
