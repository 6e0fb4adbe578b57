"""What a pass costs on shapes is what it costs on real tensors, and what the formulas say.

The bound that is promised: FLOPs are equal; bytes kept are within 0.5 %, the most that lives within 2 %. The oracle follows
every storage of a pass on real tensors (`allocation.watch`), and is itself held against PyTorch's allocator here.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from sampan.frameworks.records import ParameterCount, PassCost
from sampan.frameworks.torch import meter
from sampan.frameworks.torch.adamw import WORKSPACE_BYTES
from sampan.frameworks.torch.device import DTYPES
from sampan.losses import flow, tokens
from sampan.models import lora, positions, presets
from sampan.models.build import build, build_on_meta
from sampan.models.dit import join_references
from unit.frameworks import costs
from unit.frameworks.torch.allocation import watch

NANO = presets.get("nano")
CONFIG = dataclasses.replace(
    NANO,
    ar=dataclasses.replace(NANO.ar, text=dataclasses.replace(NANO.ar.text, num_hidden_layers=2, intermediate_size=128)),
    dit=dataclasses.replace(NANO.dit, num_layers=1),
)


def ar_batch(num_tokens: int, num_labels: int, config: Any = CONFIG) -> tuple[Any, ...]:
    text = config.ar.text
    cos, sin = positions.rope_text(np.tile(np.arange(num_tokens), (3, 1))[:, None], text)
    labels, weights = np.zeros((1, num_labels), np.int64), np.ones((1, num_labels), np.float32)
    read_at = np.arange(num_tokens - num_labels, num_tokens)
    half = num_tokens // 2
    return np.zeros((1, num_tokens), np.int64), cos, sin, read_at, labels, weights, (half, num_tokens - half)


def ar_loss(recompute: bool) -> Any:
    def loss(module: Any, ids: Any, cos: Any, sin: Any, at: Any, labels: Any, weights: Any, segments: Any) -> Any:
        logits, _ = module(ids, cos, sin, recompute=recompute, segments=segments, logits_at=at)
        return tokens.token_loss(logits, labels, weights), {}

    return loss


def decoder_batch(cells: int, num_text: int, batch: int = 1) -> tuple[Any, ...]:
    dit = CONFIG.dit
    grid = (cells // dit.patch_size, cells // dit.patch_size)
    latent = np.zeros((batch, dit.in_channels, cells, cells), np.float32)
    prior, keep = np.zeros((batch, grid[0] * grid[1]), np.int64), np.ones(batch, np.float32)
    times, sizes = (
        positions.sinusoid([1.0] * batch, dit.time_embed_dim),
        np.zeros((batch, 4 * dit.condition_dim), np.float32),
    )
    return (
        latent, latent, keep, np.zeros((batch, num_text, dit.text_embed_dim), np.float32), prior, keep, times, sizes,
        *positions.rope_image(grid, dit.attention_head_dim, num_text),
        *positions.rope_image(grid, dit.attention_head_dim, 0),
        np.ones((batch, 1, 1, 2 * grid[0] * grid[1] + num_text), bool),
    )  # fmt: skip


def decoder_loss(recompute: bool) -> Any:
    """Return the loss of an editing step, with one reference."""

    def loss(
        module: Any, clean: Any, noise: Any, sigma: Any, text: Any, prior: Any, keep: Any, times: Any, sizes: Any,
        cos: Any, sin: Any, reference_cos: Any, reference_sin: Any, mask: Any,
    ) -> Any:  # fmt: skip
        read = module.reference_kv(clean, prior, keep, times, sizes, reference_cos, reference_sin, recompute=recompute)
        velocity = module(
            flow.add_noise(clean, noise, sigma), text, prior, keep, times, sizes, cos, sin, join_references([read]), mask,
            recompute=recompute,
        )  # fmt: skip
        return flow.flow_loss(velocity, clean, noise), {}

    return loss


PASSES = {"ar": (ar_batch(24, 10), ar_loss), "decoder": (decoder_batch(8, 3, batch=2), decoder_loss)}


def real(arrays: Any) -> list[Any]:
    return [torch.from_numpy(np.ascontiguousarray(a)) if isinstance(a, np.ndarray) else a for a in arrays]


@pytest.mark.parametrize(
    ("autocast", "weights", "recompute"), [("fp32", "fp32", False), ("bf16", "fp32", True), ("bf16", "bf16", False)]
)
@pytest.mark.parametrize("part", PASSES)
def test_shapes_and_real_tensors_cost_the_same(part: str, autocast: str, weights: str, recompute: bool):
    arrays, loss_of = PASSES[part]
    found = meter.measure(
        build_on_meta(part, CONFIG), loss_of(recompute), arrays, device="cpu", dtype="fp32", trainable_dtype=weights,
        autocast=autocast,
    )  # fmt: skip
    module = build(part, CONFIG).to(torch.bfloat16 if weights == "bf16" else torch.float32)
    same_cost(found, watch(module, loss_of(recompute), real(arrays), autocast=autocast))
    assert 0 < found.kept_bytes <= found.activation_bytes <= found.peak_bytes


def same_cost(ours: PassCost, theirs: PassCost, case: str = "") -> None:
    for name in ("forward_flops", "useful_flops", "executed_flops", "batch_bytes"):
        assert getattr(ours, name) == getattr(theirs, name), (case, name)
    # PyTorch's checkpoints keep its generator's state too
    state = torch.get_rng_state().nbytes
    assert ours.kept_bytes == pytest.approx(theirs.kept_bytes, rel=0.005, abs=2 * state), case
    for name in ("activation_bytes", "peak_bytes"):
        assert getattr(ours, name) == pytest.approx(getattr(theirs, name), rel=0.02, abs=2 * state), (case, name)


def test_every_stage_costs_what_it_takes_on_real_tensors(tmp_path: Path):
    for case, work, stage, arrays, trainable in costs.cases(tmp_path, "nano", ["text.num_hidden_layers=2"]):
        weights = work.job.train.weights
        found = meter.measure(
            stage.module, stage.loss, arrays, device="cpu", dtype=work.dtype, trainable=trainable,
            trainable_dtype=weights, autocast=work.dtype,
        )  # fmt: skip
        module = stage.module.to_empty(device="cpu")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(trainable(name))
            torch.nn.init.normal_(parameter, std=0.02)
            parameter.data = parameter.data.to(DTYPES[weights if trainable(name) else work.dtype])
        same_cost(found, watch(module, stage.loss, real(arrays), autocast=work.dtype), case)


def test_only_low_rank_additions_are_trained():
    part = "decoder"
    arrays, loss_of = PASSES[part]
    module = build_on_meta(part, CONFIG)
    lora.attach(module, part, CONFIG, 4)
    settings = {"device": "cpu", "dtype": "bf16", "autocast": "bf16", "trainable": lora.trainable}
    found = meter.measure(module, loss_of(False), arrays, **settings)
    whole = meter.measure(
        build_on_meta(part, CONFIG),
        loss_of(False),
        arrays,
        device="cpu",
        dtype="bf16",
        trainable_dtype="bf16",
        autocast="bf16",
    )
    assert next(module.parameters()).device.type == "meta"  # it is not touched
    # gradients of frozen matrices are not computed: two thirds of the arithmetic at most, and none of their memory
    assert 0.5 < found.useful_flops / whole.useful_flops < 0.7
    assert found.peak_bytes - found.activation_bytes < whole.peak_bytes - whole.activation_bytes


@pytest.mark.parametrize("recompute", [False, True])
def test_the_peak_is_that_of_the_allocator(recompute: bool):
    arrays = real(ar_batch(200, 100))
    module, loss = build("ar", CONFIG), ar_loss(recompute)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as seen:
        loss(module, *arrays)[0].backward()
    module.zero_grad(set_to_none=True)
    live = most = 0
    for event in seen.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            live += event.nbytes()
            most = max(most, live)
    random_state_bytes = torch.get_rng_state().nbytes  # which a layer that is computed again keeps
    assert watch(module, loss, arrays, autocast="fp32").peak_bytes == pytest.approx(most, abs=2 * random_state_bytes)


def test_what_is_kept_is_what_autograd_saves():
    arrays = real(ar_batch(24, 10))
    module, loss = build("ar", CONFIG), ar_loss(False)
    known = {t.untyped_storage().data_ptr() for t in [*module.parameters(), *(a for a in arrays if torch.is_tensor(a))]}
    saved: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            saved[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        value = loss(module, *arrays)[0]
    found = watch(module, loss, arrays, autocast="fp32").kept_bytes
    assert value.ndim == 0 and found - sum(saved.values()) == pytest.approx(0, abs=64)  # and the loss itself


def test_a_layer_computed_again_is_executed_and_not_useful():
    arrays, module = ar_batch(24, 10), build_on_meta("ar", CONFIG)
    once, again = (
        meter.measure(module, ar_loss(recompute), arrays, device="cpu", dtype="fp32") for recompute in (False, True)
    )
    assert once.useful_flops == again.useful_flops == 3 * once.forward_flops
    head = 2 * 10 * CONFIG.ar.text.hidden_size * CONFIG.ar.text.vision_vocab_size
    # the scores of attention are computed again in any case; the head is not within a layer
    assert again.executed_flops - once.executed_flops == once.forward_flops - head
    assert again.kept_bytes < once.kept_bytes / 2


def test_the_generators_arithmetic_is_the_published_formula():
    """Spec of the released sizes: linear maps, the head on generated tokens, and pairs that see each other."""
    full, s, generated = presets.get("glm-image"), 1380, 256 + 1024 + 1

    def forward(num_layers: int) -> int:
        config = dataclasses.replace(
            full, ar=dataclasses.replace(full.ar, text=dataclasses.replace(full.ar.text, num_hidden_layers=num_layers))
        )
        arrays = (*ar_batch(s, generated, config)[:-1], (s,))
        return meter.measure(
            build_on_meta("ar", config), ar_loss(False), arrays, device="cpu", dtype="bf16"
        ).forward_flops

    one, two = forward(1), forward(2)
    assert two - one == 2 * s * (2 * 4096**2 + 2 * 4096 * 256 + 3 * 4096 * 13696) + 2 * 4096 * s * (s + 1)
    assert one + 39 * (two - one) == pytest.approx(2.33e13, rel=2e-3)


def test_a_loss_that_looks_at_values_cannot_be_measured():
    def loss(module: Any, x: Any) -> Any:
        y = module(x).sum()
        return y if float(y.detach()) > 0 else -y

    with pytest.raises(AttributeError, match="ShapeArray"):
        meter.measure(torch.nn.Linear(3, 2), loss, (np.zeros((4, 3), np.float32),), device="cpu", dtype="fp32")


def test_values_are_counted_by_what_becomes_of_them():
    module = torch.nn.ModuleDict(
        {"table": torch.nn.Embedding(100, 64), "wide": torch.nn.Linear(64, 64), "low": torch.nn.Linear(8, 8)}
    )
    found = meter.count(module, lambda name: not name.startswith("low"), {"table.weight": 30})
    assert found == ParameterCount(30 * 64 + 64 * 64 + 64, 64 * 64, 8 * 8 + 8, 70 * 64, WORKSPACE_BYTES)
