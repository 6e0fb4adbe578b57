"""The diffusion decoder as sampan.models.dit computes it, with reference pictures, for training and for one step of use."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sampan.models.config import ModelConfig
from sampan.plan.records import WorkloadBlock
from sampan.plan.workloads.own.tape import Additions, Tape, grouped

TARGETS = ("attn1.to_q", "attn1.to_k", "attn1.to_v", "attn1.to_out.0", "ff.net.0.proj", "ff.net.2")
Size = tuple[int, int]


def painter_tokens(config: ModelConfig, size: Size) -> int:
    """Return the decoder's tokens of a picture (height, width) in pixels."""
    cell = config.vae.factor * config.dit.patch_size
    return (size[0] // cell) * (size[1] // cell)


def painter_blocks(
    config: ModelConfig, size: Size, *, glyph_tokens: float, references: Sequence[Size] = (),
    added: Additions | None = None, is_forward: bool = False,
) -> list[WorkloadBlock]:  # fmt: skip
    """Return the decoder over one picture: its references' passes, then its own.

    Args:
        size: (height, width) in pixels, as are `references`.
        glyph_tokens: Bytes of text to be drawn.
        added: What is trained, where that is not everything.
        is_forward: Nothing is trained.
    """
    blocks: list[WorkloadBlock] = []
    written: list[_Live] = []
    for one in references:
        made, written = _reference(config, one, added, is_forward)  # what is live does not depend on the size
        blocks += made
    keys = sum(painter_tokens(config, one) for one in references)
    return [*blocks, *_picture(config, size, glyph_tokens, keys, written, added, is_forward)]


def step_blocks(
    config: ModelConfig, size: Size, *, glyph_tokens: float, reference_tokens: float = 0
) -> list[WorkloadBlock]:
    """Return one forward pass over a picture whose references' keys and values are there."""
    return _picture(config, size, glyph_tokens, reference_tokens, [], None, True)


def reference_blocks(config: ModelConfig, size: Size) -> list[WorkloadBlock]:
    """Return the forward pass of one reference picture, which writes keys and values."""
    return _reference(config, size, None, True)[0]


class _Live(NamedTuple):
    """What of a layer's results needs gradients."""

    tokens: bool
    words: bool
    keys: bool
    values: bool


def _reference(
    config: ModelConfig, size: Size, added: Additions | None, is_forward: bool
) -> tuple[list[WorkloadBlock], list[_Live]]:
    tokens, h = painter_tokens(config, size), config.dit.dim
    first = Tape(added, is_shared=True, is_forward=is_forward)
    live, told = _embed(first, config, tokens)
    blocks: list[WorkloadBlock] = []
    found: list[_Live] = []
    for number in range(config.dit.num_layers):
        is_last = number == config.dit.num_layers - 1
        layer, one = _layer(config, number, tokens, 0, 0, added, is_forward, live, False, told, None, is_last, True)
        blocks, live = blocks + layer, one.tokens
        found.append(one)
    return [first.block("reference: patches, prior and time", tokens=tokens, width=h), *grouped(blocks)], found


def _picture(
    config: ModelConfig, size: Size, glyph_tokens: float, reference_tokens: float, written: Sequence[_Live],
    added: Additions | None, is_forward: bool,
) -> list[WorkloadBlock]:  # fmt: skip
    dit, tokens = config.dit, painter_tokens(config, size)
    h, cell = dit.dim, dit.patch_size**2
    first = Tape(added, is_forward=is_forward)
    live, told = _embed(first, config, tokens)
    words = first.linear("glyph_projector.net.0.proj", glyph_tokens, dit.text_embed_dim, h, live=False)
    first.moves("activation", 2 * glyph_tokens * h)
    if words:
        first.keep(glyph_tokens * h, whole=True)
    if first.reads("glyph_projector.net.2"):
        first.keep(glyph_tokens * h, whole=True)
    words = first.linear("glyph_projector.net.2", glyph_tokens, h, h, live=words)
    layers: list[WorkloadBlock] = []
    for number in range(dit.num_layers):
        joined = written[number] if written else None
        layer, found = _layer(
            config, number, tokens, glyph_tokens, reference_tokens, added, is_forward, live, words, told, joined,
            False, False,
        )  # fmt: skip
        layers, live, words = layers + layer, found.tokens, found.words
    last = Tape(added, is_forward=is_forward)
    told = last.linear("norm_out.linear", 1, dit.time_embed_dim, 2 * h, live=told)
    last.moves("norm and modulation", 6 * tokens * h)
    _modulated(last, tokens * h, live, told)
    if last.reads("proj_out"):
        last.keep(tokens * h, whole=True)
    last.linear("proj_out", tokens, h, cell * dit.out_channels, live=live or told)
    if not is_forward:
        last.moves("loss", 12 * tokens * cell * dit.out_channels)
        last.keep(2 * tokens * cell * dit.out_channels, whole=True)
    return [
        first.block("patches, prior, words and time", tokens=tokens + glyph_tokens, width=h),
        *grouped(layers),
        last.block("velocity", tokens=tokens, width=h),
    ]


def _embed(tape: Tape, config: ModelConfig, tokens: float) -> tuple[bool, bool]:
    """Write down what makes tokens of latent and prior, and the condition of time and size; return what is live."""
    dit, h = config.dit, config.dit.dim
    live = tape.linear("image_projector.proj", tokens, dit.in_channels * dit.patch_size**2, h, live=False)
    if tape.reads("image_projector.proj"):
        tape.keep(tokens * dit.in_channels * dit.patch_size**2, whole=True)
    tape.weigh(dit.prior_vq_quantizer_codebook_size * h)
    tape.moves("lookup and drop", 4 * tokens * h)
    prior = tape.is_full
    if tape.reads("prior_projector.net.0.proj"):
        tape.keep(tokens * h, whole=True)
    prior = tape.linear("prior_projector.net.0.proj", tokens, h, h, live=prior)
    tape.moves("activation", 2 * tokens * h)
    if prior:
        tape.keep(tokens * h, whole=True)
    if tape.reads("prior_projector.net.2"):
        tape.keep(tokens * h, whole=True)
    prior = tape.linear("prior_projector.net.2", tokens, h, h, live=prior)
    tape.moves("sum", 3 * tokens * h)
    told = False
    for name, width in (("timestep", dit.time_embed_dim), ("condition", 4 * dit.condition_dim)):
        one = f"time_condition_embed.{name}_embedder"
        inner = tape.linear(f"{one}.linear_1", 1, width, dit.time_embed_dim, live=False)
        told |= tape.linear(f"{one}.linear_2", 1, dit.time_embed_dim, dit.time_embed_dim, live=inner)
    return live or prior, told


def _layer(
    config: ModelConfig, number: int, tokens: float, words: float, references: float, added: Additions | None,
    is_forward: bool, live: bool, words_live: bool, told: bool, joined: _Live | None, is_last: bool, is_shared: bool,
) -> tuple[list[WorkloadBlock], _Live]:  # fmt: skip
    """Return a layer and what of its results needs gradients.

    Args:
        live, words_live, told: Whether tokens, words and the condition need gradients.
        joined: What of the references' results in this layer does.
        is_last: Of a reference's pass: of what it computes only keys and values are used, and the rest has no gradient.
        is_shared: In a reference's pass, whose weights are counted in the picture's own.
    """
    dit, name = config.dit, f"transformer_blocks.{number}"
    h, heads, n = dit.dim, dit.num_attention_heads, tokens + words
    tape = Tape(added, is_shared=is_shared, is_forward=is_forward)
    rest = Tape(added, is_shared=is_shared, is_forward=True) if is_last else tape
    made = tape.linear(f"{name}.norm1.linear", 1, dit.time_embed_dim, 12 * h, live=told)
    tape.moves("norm and modulation", 6 * n * h)
    either = live or words_live
    _modulated(tape, n * h, either, made)
    both, (to_q, *to_kv) = either or made, [f"{name}.attn1.to_{one}" for one in "qkv"]
    if tape.reads(*to_kv) or rest.reads(to_q):
        tape.keep(n * h, whole=True)
    q = rest.linear(to_q, n, h, h, live=both, split="columns")
    k, v = (tape.linear(one, n, h, h, live=both, split="columns") for one in to_kv)
    own = _Live(False, False, k, v)
    tape.moves("norms and rotation", 12 * n * h, split="heads")
    tape.keep((q + k) * n * h)  # before the norm
    keys = references + n
    if joined is not None:
        k, v = k or joined.keys, v or joined.values
    if references:
        tape.moves("joined keys and values", 4 * keys * h, split="heads")
    attended = rest.attend(n, keys, heads, dit.attention_head_dim, live=(q, k, v))
    if attended:
        rest.keep(2 * (n + keys) * h)
    out = rest.linear(f"{name}.attn1.to_out.0", n, h, h, live=attended, split="rows")
    rest.moves("gate and residual", 5 * n * h)
    after = either or out or made
    rest.moves("norm and modulation", 6 * n * h)
    if made:
        rest.keep(n * h, whole=True)
    _modulated(rest, n * h, after, made)
    if rest.reads(f"{name}.ff.net.0.proj"):
        rest.keep(n * h, whole=True)
    inner = rest.linear(f"{name}.ff.net.0.proj", n, h, 4 * h, live=after, split="columns")
    rest.moves("activation", 8 * n * h, split="columns")
    if inner:
        rest.keep(4 * n * h)
    if rest.reads(f"{name}.ff.net.2"):
        rest.keep(4 * n * h)
    out = rest.linear(f"{name}.ff.net.2", n, 4 * h, h, live=inner, split="rows")
    rest.moves("gate and residual", 5 * n * h)
    if made:
        rest.keep(n * h, whole=True)
    blocks = [
        tape.block(
            "reference: layers" if is_shared else "layers", tokens=n, width=h, sums=2, is_trunk=not is_shared
        )
    ]  # fmt: skip
    if is_last:
        blocks.append(rest.block("reference: what nothing reads", tokens=n, width=h))
    return blocks, _Live(after or out, words > 0 and (after or out), own.keys, own.values)


def _modulated(tape: Tape, values: float, live: bool, made: bool) -> None:
    """Count what a norm and its modulation keep: the norm's input where it is live, its output where the scale is."""
    if live:
        tape.keep(values, whole=True)
    if made:
        tape.keep(values, whole=True)
