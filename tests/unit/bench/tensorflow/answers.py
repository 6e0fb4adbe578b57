"""What one framework answers to a fixed set of questions about generator and decoder: a program, run once a framework.

`python answers.py FRAMEWORK FILE QUESTION…` writes arrays by name into FILE (npz). NumPy draws weights and batches from one
seed, so that two frameworks are asked the same, whatever else they are asked. A question is "PART WHAT" or
"PART WHAT compiled", with a part of PARTS and one of "gradients", "recomputed" and "steps"; its answers begin with its words.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from sampan import frameworks
from sampan.bench.backends import PACKAGES

FRAMEWORK, FILE, *QUESTIONS = sys.argv[1:]
frameworks.use(FRAMEWORK, package=PACKAGES[FRAMEWORK])

from sampan.frameworks import device as dev  # noqa: E402  # only now is it known which
from sampan.frameworks import io, train_step  # noqa: E402
from sampan.losses.flow import add_noise, flow_loss  # noqa: E402
from sampan.losses.tokens import token_loss  # noqa: E402
from sampan.models import positions  # noqa: E402
from sampan.models.ar import ARGenerator  # noqa: E402
from sampan.models.config import DiTConfig, TextConfig  # noqa: E402
from sampan.models.dit import DiT, join_references  # noqa: E402
from sampan.models.init import initial_weights  # noqa: E402

TEXT = TextConfig(
    vocab_size=90, vision_vocab_size=50, hidden_size=64, intermediate_size=88, num_hidden_layers=2,
    num_attention_heads=4, num_key_value_heads=2, mrope_section=(1, 1, 2), pad_token_id=89, eos_token_id=49,
)  # fmt: skip
DIT = DiTConfig(
    in_channels=4, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=3, text_embed_dim=20,
    time_embed_dim=32, condition_dim=12, prior_vq_quantizer_codebook_size=40,
)  # fmt: skip
SETTINGS = {
    "lr": 1e-3, "beta1": 0.9, "beta2": 0.99, "weight_decay": 0.1, "clip_norm": 1.0, "ema_decay": 0.9, "autocast": "fp32",
}  # fmt: skip
NUM_STEPS = 10
random = np.random.default_rng(5)


def on_device(values: Any) -> Any:
    """Return a batch with its arrays on the device; tuples of numbers and None stay what they are."""
    if isinstance(values, np.ndarray):
        return dev.array(values, "cpu")
    if isinstance(values, tuple) and not all(isinstance(value, int) for value in values):
        return tuple(on_device(value) for value in values)
    return values


def made(build: Callable[[], Any]) -> Any:
    """Return a module with weights of its own, all of them away from 0 so that nothing is hidden."""
    with dev.on_meta():
        module = build()
    random = np.random.default_rng(9)
    weights = {
        name: (start + 0.1 * random.standard_normal(start.shape)).astype(np.float32)
        for name, start in initial_weights(io.shapes(module), 3).items()
    }
    io.load_weights(module, {}, arrays=weights, device="cpu", dtype="fp32")
    return module


def tokens(*shape: int, below: int = TEXT.vocab_size) -> Any:
    return random.integers(0, below, shape)


def floats(*shape: int) -> Any:
    return random.standard_normal(shape).astype(np.float32)


def places(*lengths: int) -> tuple[Any, Any]:
    """Return tables of samples one after another, each with a grid at its end, where rows and columns differ."""
    found = [
        np.concatenate([positions.text_positions(0, n - 4), positions.grid_positions(n - 4, (2, 2))], 1)
        for n in lengths
    ]
    return positions.rope_text(np.concatenate(found, 1)[:, None], TEXT)


def packed_batch() -> tuple[Any, ...]:
    """Return a batch of the generator's loss: three samples in a row, some of whose tokens are predicted."""
    lengths = (9, 6, 11)
    read_at = np.concatenate([np.arange(end - 5, end) for end in np.cumsum(lengths)])
    labels = tokens(1, len(read_at), below=TEXT.vision_vocab_size)
    weights = random.uniform(0.5, 4, labels.shape).astype(np.float32)
    return (tokens(1, sum(lengths)), *places(*lengths), read_at, labels, weights, lengths)


def picture(grid: tuple[int, int], count: int, time: float, num_text: int) -> tuple[Any, ...]:
    """Return prior, keep, time, size and tables of pictures of so many DiT tokens each way."""
    side = DIT.patch_size * 8
    return (
        tokens(count, grid[0] * grid[1], below=DIT.prior_vq_quantizer_codebook_size),
        np.array([1, 0], np.float32)[:count],
        positions.sinusoid([time + i for i in range(count)], DIT.time_embed_dim),
        positions.size_features((0, 0), (side * grid[0], side * grid[1]), DIT.condition_dim, count),
        *positions.rope_image(grid, DIT.attention_head_dim, num_text),
    )


def latents(grid: tuple[int, int], count: int) -> Any:
    return floats(count, DIT.in_channels, grid[0] * DIT.patch_size, grid[1] * DIT.patch_size)


def decoder_batch() -> tuple[Any, ...]:
    """Return a batch of the decoder's loss: two pictures with two references each, one of which is not seen."""
    grid, text, small = (3, 4), 5, ((2, 3), (3, 2))
    clean, noise = latents(grid, 2), latents(grid, 2)
    seen = np.ones((2, 1, 1, 6 + 6 + text + 12), bool)
    seen[0, ..., :6] = False
    seen[1, ..., 12 : 12 + 2] = False
    references = tuple((latents(g, 2), *picture(g, 2, 0.0, 0)) for g in small)
    embeds = floats(2, text, DIT.text_embed_dim)
    return (clean, noise, np.array([0.3, 0.8], np.float32), embeds, picture(grid, 2, 412.0, text), seen, references)


def ar_loss(
    module: Any, ids: Any, cos: Any, sin: Any, at: Any, labels: Any, weights: Any, segments: Any, recompute: Any = False
) -> Any:
    logits, _ = module(ids, cos, sin, segments=segments, logits_at=at, recompute=recompute)
    return token_loss(logits, labels, weights)


def dit_loss(
    module: Any, clean: Any, noise: Any, sigma: Any, embeds: Any, image: Any, seen: Any, references: Any,
    recompute: Any = False,
) -> Any:  # fmt: skip
    written = [module.reference_kv(*reference, recompute=recompute) for reference in references]
    velocity = module(
        add_noise(clean, noise, sigma),
        embeds,
        *image,
        references=join_references(written),
        mask=seen,
        recompute=recompute,
    )
    return flow_loss(velocity, clean, noise)


def cached(module: Any) -> tuple[Any, Any]:
    """Return logits of four tokens that are read one at a time after a prompt, and of the same in one call."""
    ids, slots = tokens(2, 11), 13
    cos, sin = places(11)
    whole, _ = module(*on_device((ids, cos, sin)))
    cache = tuple(
        tuple(dev.zeros(module.cache_shape(2, slots), "cpu", "fp32") for _ in range(2))
        for _ in range(TEXT.num_hidden_layers)
    )
    found = []
    for start, end in ((0, 7), *((i, i + 1) for i in range(7, 11))):
        mask = np.arange(slots)[None, :] <= np.arange(start, end)[:, None]
        logits, cache = module(
            *on_device((ids[:, start:end], cos[:, :, start:end], sin[:, :, start:end], mask[None, None])),
            cache=cache,
            start=dev.array(np.array(start), "cpu"),
        )
        found.append(dev.to_numpy(logits))
    return np.concatenate(found, 1), dev.to_numpy(whole)


def forwards() -> dict[str, Any]:
    """Return what generator and decoder answer in each way they are called."""
    generator, decoder = made(lambda: ARGenerator(TEXT)), made(lambda: DiT(DIT))
    ids, mask = tokens(2, 10), np.tril(np.ones((2, 1, 10, 10), bool))
    mask[1, ..., :3] = np.eye(10, 3, dtype=bool)  # the second prompt is padded in front; a pad sees itself
    packed, alone, batch = packed_batch(), latents((3, 4), 2), decoder_batch()
    with dev.no_grad():
        answers = {
            "ar/causal": generator(*on_device((ids, *places(10))))[0],
            "ar/masked": generator(*on_device((ids, *places(10), mask)), num_logits=4)[0],
            "ar/packed": generator(*on_device(packed[:3]), segments=packed[6], logits_at=on_device(packed[3]))[0],
            "dit/plain": decoder(*on_device((alone, floats(2, 5, DIT.text_embed_dim), *picture((3, 4), 2, 412.0, 5)))),
            "dit/references": decoder(
                *on_device((batch[0], batch[3], *batch[4])),
                references=join_references([decoder.reference_kv(*on_device(r)) for r in batch[6]]),
                mask=on_device(batch[5]),
            ),
        }
        answers["ar/cached"], answers["ar/whole"] = cached(generator)
    return {
        name: dev.to_numpy(answer) if not isinstance(answer, np.ndarray) else answer for name, answer in answers.items()
    }


def gradients(module: Any, loss: Any, batch: Any, compiled: bool) -> dict[str, Any]:
    if FRAMEWORK == "torch":
        module.zero_grad()
        loss(module, *batch).backward()
        return {name: dev.to_numpy(parameter.grad).copy() for name, parameter in module.named_parameters()}
    return train_step.TrainStep(module, **SETTINGS, compiled=compiled).gradients(loss, batch)


def trained(module: Any, loss: Any, batches: Any, compiled: bool) -> dict[str, Any]:
    """Return losses and lengths of gradients of some steps of two micro-batches each, and what a checkpoint would keep."""
    updater = train_step.TrainStep(module, **SETTINGS, compiled=compiled)
    reports = [
        updater.step(loss, [batches[2 * i], batches[2 * i + 1]], lr=1e-3 * min(1.0, (i + 1) / 4))
        for i in range(NUM_STEPS)
    ]
    kept = {
        f"{group}/{name}": dev.to_numpy(tensor).copy()
        for group, tensors in updater.state().items()
        for name, tensor in tensors.items()
    }
    return {
        "loss": np.array([report.loss for report in reports]),
        "norm": np.array([report.grad_norm for report in reports]),
        **kept,
    }


def main() -> None:
    answers = forwards()
    batches = {
        part: [on_device(draw()) for _ in range(2 * NUM_STEPS)]
        for part, draw in (("ar", packed_batch), ("dit", decoder_batch))
    }
    for question in QUESTIONS:
        part, what, *way = question.split()
        build, loss = PARTS[part]
        compiled = way == ["compiled"]
        if what == "steps":
            found = trained(made(build), loss, batches[part], compiled)
        else:
            recompute = what == "recomputed"
            found = gradients(made(build), loss, (*batches[part][0], recompute), compiled)
        answers |= {f"{question}/{name}": values for name, values in found.items()}
    np.savez(FILE, **answers)


PARTS = {"ar": (lambda: ARGenerator(TEXT), ar_loss), "dit": (lambda: DiT(DIT), dit_loss)}
main()
