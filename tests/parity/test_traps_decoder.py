"""The mistakes a re-implementation makes, continued: the decoder and the words to be drawn."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from parity.compare import FP32_TOLERANCE, Bites, decoder_inputs, relative_error
from parity.gradients import GRADIENTS
from parity.ours import Ours
from parity.theirs import Theirs
from sampan.frameworks import ops
from sampan.models import dit, positions, text
from sampan.models.layers import join_heads, rotate_half_split, split_heads

Patch = pytest.MonkeyPatch
ONE, DROPPED = "DiT: one picture", "DiT: prior dropped"


def test_trap_15_a_dropped_prior_is_zero_before_the_projector(bites: Bites, ours: Ours):
    def after(
        self: Any, latent: Tensor, ids: Tensor, keep: Tensor, time: Tensor, size: Tensor
    ) -> tuple[Tensor, Tensor]:
        prior = self.prior_projector(self.prior_token_embedding(ids)) * keep[:, None, None]
        return self.image_projector(latent) + prior, self.time_condition_embed(time, size)

    bites(DROPPED, lambda patch: patch.setattr(dit.DiT, "_embed", after))
    # in training: nothing reaches the table of a dropped sample, the projector learns all the same
    got = GRADIENTS["DiT: prior dropped"][1](ours)
    assert got["prior_token_embedding.weight"].abs().max() == 0
    assert min(got[f"prior_projector.net.{name}"].abs().max() for name in ("0.proj.bias", "2.weight", "2.bias")) > 0


class _Around(nn.Module):
    """A module with something wrong before or after it."""

    def __init__(
        self, inner: nn.Module, before: Callable[..., Tensor] | None = None, after: Callable[..., Tensor] | None = None
    ):
        super().__init__()
        self.inner, self.before, self.after = inner, before, after

    def forward(self, x: Tensor) -> Tensor:
        x = self.inner(x if self.before is None else self.before(x))
        return x if self.after is None else self.after(x)


def test_trap_16_conditions_come_in_their_order_and_meet_one_silu(bites: Bites, ours: Ours):
    sinusoid, features = positions.sinusoid, positions.size_features

    def sine_first(values: Any, channels: int) -> np.ndarray:
        return np.roll(sinusoid(values, channels), channels // 2, axis=-1)

    def silu_of_each(self: Any, time: Tensor, size: Tensor) -> Tensor:
        return ops.silu(self.timestep_embedder(time)) + ops.silu(self.condition_embedder(size))

    def no_silu(self: Any, time: Tensor, size: Tensor) -> Tensor:
        return self.timestep_embedder(time) + self.condition_embedder(size)

    def in_blocks(**wrong: Callable[..., Tensor]) -> Callable[[Patch], None]:
        def apply(patch: Patch) -> None:
            for block in ours.decoder.transformer_blocks:
                patch.setitem(block.norm1._modules, "linear", _Around(block.norm1.linear, **wrong))

        return apply

    def at_the_end(**wrong: Callable[..., Tensor]) -> Callable[[Patch], None]:
        linear = ours.decoder.norm_out.linear
        return lambda patch: patch.setitem(ours.decoder.norm_out._modules, "linear", _Around(linear, **wrong))

    def reordered(order: list[int]) -> Callable[[Tensor], Tensor]:
        return lambda x: torch.cat([x.chunk(len(order), -1)[i] for i in order], -1)

    embed = dit.TimeSizeEmbedding
    for wrong in (
        lambda patch: patch.setattr(positions, "size_features", lambda crop, size, n, b: features(size, crop, n, b)),
        lambda patch: patch.setattr(
            positions, "size_features", lambda crop, size, n, b: features(crop, size[::-1], n, b)
        ),
        lambda patch: patch.setattr(positions, "sinusoid", sine_first),
        lambda patch: patch.setattr(embed, "forward", silu_of_each),
        lambda patch: patch.setattr(embed, "forward", no_silu),
        in_blocks(before=ops.silu),
        at_the_end(before=ops.silu),
        at_the_end(after=reordered([1, 0])),
        in_blocks(after=reordered([2, 3, 0, 1, 4, 5, 8, 9, 6, 7, 10, 11])),  # scale before shift
        in_blocks(after=reordered([1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10])),  # text before picture
    ):
        bites("DiT: prior dropped for one of two, cropped", wrong)


def test_trap_17_heads_are_layer_normed_before_rotation_in_both_streams_without_a_mask(bites: Bites):
    norm, attend = ops.layer_norm, ops.attention
    num_text = 5  # of the cases used here

    def on_heads(wrong: Callable[[Tensor, float], Tensor]) -> Callable[[Patch], Any]:
        def changed(x: Tensor, eps: float, weight: Tensor | None = None, bias: Tensor | None = None) -> Tensor:
            return wrong(x, eps) if x.ndim == 4 else norm(x, eps, weight, bias)

        return lambda patch: patch.setattr(ops, "layer_norm", changed)

    def after_rotation(
        self: Any, x: Tensor, cos: Tensor, sin: Tensor, reference: Any, mask: Any
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        q, k = (
            norm(rotate_half_split(split_heads(part(x), self.num_heads), cos, sin), 1e-5)
            for part in (self.to_q, self.to_k)
        )
        v = split_heads(self.to_v(x), self.num_heads)
        return self.to_out[0](join_heads(attend(q, k, v))), (k, v)

    def text_closed(q: Tensor, k: Tensor, v: Tensor, mask: Any = None, causal: bool = False) -> Tensor:
        return attend(q, k, v, mask=(torch.arange(k.shape[2]) != 0)[None, None, None])

    bites(ONE, on_heads(lambda x, eps: ops.rms_norm(x, torch.ones(x.shape[-1]), eps)))
    bites(ONE, on_heads(lambda x, eps: x))
    bites(ONE, on_heads(lambda x, eps: torch.cat((x[:, :, :num_text], norm(x[:, :, num_text:], eps)), 2)))
    bites(ONE, lambda patch: patch.setattr(dit.JointAttention, "forward", after_rotation))
    bites(ONE, lambda patch: patch.setattr(ops, "attention", text_closed))


def test_trap_18_each_activation_is_the_right_one(bites: Bites, ours: Ours):
    decoder = ours.decoder
    places: dict[str, tuple[str, list[Any]]] = {
        "gelu-tanh": (ONE, [block.ff for block in decoder.transformer_blocks]),
        "gelu": ("DiT: projected words", [decoder.glyph_projector]),
        "silu": (ONE, [decoder.prior_projector]),
    }
    for right, (label, modules) in places.items():
        for wrong in places.keys() - {right}:

            def change(patch: Patch, modules: list[Any] = modules, wrong: str = wrong) -> None:
                for module in modules:
                    patch.setattr(module, "activation", wrong)

            bites(label, change)
    gelu = ops.gelu
    bites('Glyph encoder: one "word"', lambda patch: patch.setattr(ops, "gelu", lambda x, tanh: gelu(x, not tanh)))


# --- words to be drawn -----------------------------------------------------------------------------------------------


def test_trap_19_quotes_are_read_in_order_padded_by_their_number_and_attended_in_batches(
    bites: Bites, ours: Ours, theirs: Theirs
):
    batch = text.glyph_batch

    def never_padded(texts: Any) -> Any:
        ids, mask = batch(texts)
        return ids[:, 1:], mask[:, 1:]

    def front_masked(texts: Any) -> Any:
        ids, mask = batch(texts)
        return ids, mask & (ids != 0)

    two = "Glyph encoder: two 'words' and \"more\""
    bites(two, lambda patch: patch.setattr("parity.ours.glyph_batch", never_padded))
    bites(two, lambda patch: patch.setattr("parity.ours.glyph_batch", front_masked))
    bites(
        'Glyph encoder: one "word"', lambda patch: patch.setattr("parity.ours.glyph_batch", lambda t: batch([*t, *t]))
    )
    bites("Quoted words: all", lambda patch: patch.setattr(text, "_QUOTES", text._QUOTES[::-1]))
    curly = (r"[‘']([^'’]*)['’]", *text._QUOTES[1:])
    assert text.glyph_texts("It's Bob's") == theirs.glyph_texts("It's Bob's") == ["s Bob"]
    assert text.glyph_texts("‘curly’") == theirs.glyph_texts("‘curly’") == []
    assert re.findall(curly[0], "‘curly’") == ["curly"]
    # two prompts of one batch: the shorter is padded on the left with zero vectors, which the decoder attends to
    with torch.no_grad():
        glyph = theirs.pipeline._get_glyph_embeds(['"a"', '"a longer one"'], device="cpu")
        alone = [ours.glyph(prompt) for prompt in ('"a"', '"a longer one"')]
        padded = torch.cat([torch.nn.functional.pad(one, (0, 0, glyph.shape[1] - one.shape[1], 0)) for one in alone])
        assert relative_error(padded, glyph) <= FP32_TOLERANCE
        inputs = decoder_inputs(ours, (4, 4), keep=(True, True))
        wanted = theirs.velocity(**{**inputs, "glyph": glyph})
        assert relative_error(ours.velocity(**{**inputs, "glyph": padded}), wanted) <= FP32_TOLERANCE
        mine = {
            **inputs,
            "latent": inputs["latent"][:1],
            "prior": inputs["prior"][:1],
            "keep": (True,),
            "t": inputs["t"][:1],
        }
        assert relative_error(ours.velocity(**{**mine, "glyph": alone[0]}), wanted[:1]) > 10 * FP32_TOLERANCE
