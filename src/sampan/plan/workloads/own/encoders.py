"""Autoencoder, picture tokenizer and glyph encoder as sampan.models computes them, and the heads that train the last two.

Their weights are all trained or none; what is kept for the backward pass is the input of every product, norm and activation.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

from sampan.models.config import GlyphConfig, ModelConfig, VAEConfig, VisionConfig
from sampan.plan.records import Op, WorkloadBlock, attention, product
from sampan.plan.workloads.layers import convolution
from sampan.plan.workloads.own.tape import Tape, grouped

Grid = tuple[int, int]
PAINTING_BLOCKS = 2  # layers of the head that paints a token's patch again
CAPTION_WIDTH = 128
WORD_PX = (32, 128)  # of the pictures of words that the glyph encoder is trained on
NUM_WAVES = 12
NUM_TOLD = 54  # channels that tell where a byte stands and which letter it is
READER_WIDTH = 64


def _convolve(
    tape: Tape, name: str, cells: float, wide: float, channels: float, *, taps: int = 9, stride: int = 1,
    live: bool = True,
) -> None:  # fmt: skip
    """Write down a convolution with its bias."""
    tape.ops.append(convolution(name, cells, wide, channels, taps=taps, stride=stride, input_grad=live))
    tape.weigh(taps * wide * channels + channels)
    tape.keep(cells * stride * wide, whole=True)


def _norm(tape: Tape, cells: float, channels: float) -> None:
    """Write down a group norm with its activation; both keep what they read."""
    tape.weigh(2 * channels)
    tape.moves("norm and activation", 4 * cells * channels)
    tape.keep(2 * cells * channels, whole=True)


def _resnet(tape: Tape, cells: float, wide: float, channels: float) -> None:
    _norm(tape, cells, wide)
    _convolve(tape, "conv1", cells, wide, channels)
    _norm(tape, cells, channels)
    _convolve(tape, "conv2", cells, channels, channels)
    if wide != channels:
        _convolve(tape, "conv_shortcut", cells, wide, channels, taps=1)
    tape.moves("residual", 3 * cells * channels)


def vae_encoder(config: VAEConfig, height: int, width: int, *, is_forward: bool = False) -> list[WorkloadBlock]:
    """Return the half that makes latents of pixels, a block for each level."""
    blocks, cells = [], height * width
    widths = config.block_out_channels
    tape = Tape(is_forward=is_forward)
    _convolve(tape, "conv_in", cells, config.in_channels, widths[0], live=False)
    for level, (wide, channels) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)):
        for one, other in itertools.pairwise([wide] + [channels] * config.layers_per_block):
            _resnet(tape, cells, one, other)
        if level < len(widths) - 1:
            cells //= 4
            _convolve(tape, "half the side", cells, channels, channels, stride=4)
        blocks.append(tape.block(f"vae encoder, level {level + 1}", tokens=cells, width=channels))
        tape = Tape(is_forward=is_forward)
    for _ in range(2):
        _resnet(tape, cells, widths[-1], widths[-1])
    _norm(tape, cells, widths[-1])
    _convolve(tape, "conv_out", cells, widths[-1], 2 * config.latent_channels)
    tape.moves("draw", 6 * cells * config.latent_channels)
    tape.keep(6 * cells * config.latent_channels, whole=True)
    return [*blocks, tape.block("vae encoder, latent", tokens=cells, width=widths[-1])]


def vae_decoder(config: VAEConfig, height: int, width: int, *, is_forward: bool = False) -> list[WorkloadBlock]:
    """Return the half that makes pixels of latents, a block for each level."""
    widths = config.block_out_channels[::-1]
    cells = (height // config.factor) * (width // config.factor)
    blocks, tape = [], Tape(is_forward=is_forward)
    _convolve(tape, "conv_in", cells, config.latent_channels, widths[0])
    for _ in range(2):
        _resnet(tape, cells, widths[0], widths[0])
    for level, (wide, channels) in enumerate(zip((widths[0], *widths[:-1]), widths, strict=True)):
        for one, other in itertools.pairwise([wide] + [channels] * (config.layers_per_block + 1)):
            _resnet(tape, cells, one, other)
        if level < len(widths) - 1:
            cells *= 4
            tape.moves("twice the side", 1.25 * cells * channels)
            _convolve(tape, "convolution", cells, channels, channels)
        blocks.append(tape.block(f"vae decoder, level {level + 1}", tokens=cells, width=channels))
        tape = Tape(is_forward=is_forward)
    _norm(tape, cells, widths[-1])
    _convolve(tape, "conv_out", cells, widths[-1], config.out_channels)
    if not is_forward:
        tape.moves("loss", 30 * cells * config.out_channels)
        tape.keep(12 * cells * config.out_channels, whole=True)
    return [*blocks, tape.block("vae decoder, pixels", tokens=cells, width=widths[-1])]


def _vision_layer(config: VisionConfig, tokens: float, is_forward: bool) -> WorkloadBlock:
    n, h, f = tokens, config.hidden_size, config.intermediate_size
    tape = Tape(is_forward=is_forward)
    for _ in range(2):
        tape.weigh(2 * h)
        tape.moves("norm", 2 * n * h)
    tape.linear("attn.qkv", n, h, 3 * h, live=True, split="columns")
    tape.attend(n, n, config.num_heads, h // config.num_heads)
    tape.linear("attn.proj", n, h, h, live=True, split="rows")
    tape.linear("mlp.fc1", n, h, f, live=True, split="columns")
    tape.moves("activation", 2 * n * f, split="columns")
    tape.linear("mlp.fc2", n, f, h, live=True, split="rows")
    tape.moves("residuals", 6 * n * h)
    tape.keep(4 * n * h, whole=True)
    tape.keep(n * (4 * h + 2 * f))
    return tape.block("vision layers", tokens=n, width=h, sums=2, is_trunk=True)


def _patches(tape: Tape, config: VisionConfig, tokens: float) -> None:
    inner = config.in_channels * config.patch_size**2
    tape.linear("patch_embed.proj", tokens, inner, config.hidden_size, live=False)
    tape.keep(tokens * inner, whole=True)


def _positions(tape: Tape, config: VisionConfig, tokens: float) -> None:
    """Write down the reading of a learned table at four corners a token."""
    tape.weigh(config.grid_side**2 * config.hidden_size)
    tape.moves("positions", 16 * tokens * config.hidden_size)
    tape.keep(4 * tokens, whole=True)


def tokenizer_blocks(config: ModelConfig, tokens: float, *, is_forward: bool = False) -> list[WorkloadBlock]:
    """Return vision encoder and quantizer over a picture of so many tokens."""
    vision, vq = config.ar.vision, config.ar.vq
    first = Tape(is_forward=is_forward)
    _patches(first, vision, tokens)
    _positions(first, vision, tokens)
    layers = [_vision_layer(vision, tokens, is_forward) for _ in range(vision.depth)]
    last = Tape(is_forward=is_forward)
    if not is_forward:
        last.linear("quant_conv", tokens, vq.latent_channels, vq.embed_dim, live=True)
        last.keep(tokens * (vq.latent_channels + 4 * vq.embed_dim), whole=True)
        last.moves("codebook", 4 * vq.num_embeddings * vq.embed_dim)
        last.keep(vq.num_embeddings * vq.embed_dim, whole=True)
    else:
        last.weigh(vq.latent_channels * vq.embed_dim + vq.embed_dim)
    last.weigh(vq.num_embeddings * vq.embed_dim)
    # in the release and used by nothing; it is never trained
    last.params += vq.embed_dim * vq.latent_channels + vq.latent_channels
    # which code is nearest has no gradient: the features are projected once more for it
    nearest = Tape(is_forward=True)
    nearest.ops = [
        product("quant_conv", tokens, vq.latent_channels, vq.embed_dim),
        product("distances", tokens, vq.embed_dim, vq.num_embeddings),
    ]
    nearest.moves("nearest code", 4 * tokens * vq.num_embeddings)
    h = vision.hidden_size
    blocks = [first.block("patches", tokens=tokens, width=h), *grouped(layers)]
    return [
        *blocks,
        last.block("quantizer", tokens=tokens, width=h),
        nearest.block("nearest code", tokens=tokens, width=h),
    ]


def tokenizer_head_blocks(config: ModelConfig, tokens: float, batch: int) -> list[WorkloadBlock]:
    """Return the heads that train the tokenizer: one paints patches again, one tells pictures apart by their captions.

    Args:
        batch: Pictures that are told apart.
    """
    vision, vq = config.ar.vision, config.ar.vq
    h, inner = vision.hidden_size, vision.in_channels * vision.patch_size**2
    first = Tape()
    first.linear("inflate", tokens, vq.embed_dim, h, live=True)
    first.keep(tokens * vq.embed_dim, whole=True)
    _positions(first, vision, tokens)
    layers = [_vision_layer(vision, tokens, False) for _ in range(PAINTING_BLOCKS)]
    last = Tape()
    last.linear("to_patch", tokens, h, inner, live=True)
    last.moves("loss", 6 * tokens * inner)
    last.keep(tokens * (h + inner), whole=True)
    last.linear("to_caption", 1, vq.embed_dim, CAPTION_WIDTH, live=True)
    last.weigh(config.ar.text.vocab_size * CAPTION_WIDTH)
    last.ops.append(_contrast(batch, CAPTION_WIDTH))
    return [
        first.block("head: codes", tokens=tokens, width=h),
        *(_head(block, "head: layers") for block in grouped(layers)),
        last.block("head: patches and captions", tokens=tokens, width=h),
    ]


def _head(block: WorkloadBlock, name: str) -> WorkloadBlock:
    """Return a block under another name, out of a pipeline's reach."""
    return replace(block, name=name, is_trunk=False)


def _contrast(batch: int, width: float) -> Op:
    """Return the scores of one thing against the batch's; both sides have gradients."""
    return product("contrast", 1, width, batch, has_weights=False)


def glyph_blocks(
    config: GlyphConfig, num_bytes: float, *, strings: float = 1, is_forward: bool = False
) -> list[WorkloadBlock]:
    """Return the glyph encoder over strings of so many bytes, which do not see each other."""
    n, h, f = num_bytes * strings, config.d_model, config.d_ff
    inner = config.num_heads * config.d_kv
    first = Tape(is_forward=is_forward)
    first.weigh(config.vocab_size * h + config.relative_attention_num_buckets * config.num_heads)
    first.moves("lookup", 2 * n * h)
    layers = []
    for _ in range(config.num_layers):
        tape = Tape(is_forward=is_forward)
        tape.weigh(2 * h)
        tape.moves("norms", 8 * n * h)
        for one in "qkv":
            tape.linear(one, n, h, inner, live=True, bias=False, split="columns")
        whole = attention("attention", n, num_bytes, config.num_heads, config.d_kv)
        tape.ops.append(whole)
        tape.moves("scores", 8 * n * num_bytes * config.num_heads, split="heads")  # they are written out
        tape.linear("o", n, inner, h, live=True, bias=False, split="rows")
        for one in ("wi_0", "wi_1"):
            tape.linear(one, n, h, f, live=True, bias=False, split="columns")
        tape.moves("gate", 5 * n * f, split="columns")
        tape.linear("wo", n, f, h, live=True, bias=False, split="rows")
        tape.moves("residuals", 6 * n * h)
        tape.keep(6 * n * h, whole=True)
        tape.keep(n * (4 * inner + 4 * f) + 2 * n * num_bytes * config.num_heads)
        layers.append(tape.block("glyph layers", tokens=n, width=h, sums=2, is_trunk=True))
    last = Tape(is_forward=is_forward)
    last.weigh(h)
    last.moves("norm", 4 * n * h)
    last.keep(3 * n * h, whole=True)
    return [
        first.block("table of bytes", tokens=n, width=h),
        *grouped(layers),
        last.block("last norm", tokens=n, width=h),
    ]


def glyph_head_blocks(config: GlyphConfig, num_bytes: float, batch: int) -> list[WorkloadBlock]:
    """Return the heads that train the glyph encoder: a reader of rendered words, the sum of a word's letters, and
    the question what each byte tells.

    Args:
        batch: Words that are told apart.
    """
    width = READER_WIDTH
    rows, columns = WORD_PX[0] // 4, WORD_PX[1] // 4
    tape = Tape()
    tape.moves("activation", 4 * num_bytes * min(NUM_TOLD, config.d_model))
    tape.linear("to_letter", num_bytes, config.d_model, 2 * width, live=True)
    tape.moves("activation", 4 * num_bytes * width)
    tape.keep(num_bytes * (config.d_model + 4 * width), whole=True)
    tape.ops.append(_waves(num_bytes))
    tape.linear("to_word", 1, 2 * width * NUM_WAVES, 4 * width, live=True)
    cells = 4 * rows * columns
    _convolve(tape, "convs.0", cells, 1, width // 2, taps=25, stride=4, live=False)
    _norm(tape, cells, width // 2)
    _convolve(tape, "convs.1", cells // 4, width // 2, width, stride=4)
    _norm(tape, cells // 4, width)
    tape.linear("to_column", columns - 2, 3 * 8 * width, 2 * width, live=True)
    tape.keep((columns - 2) * (3 * 8 * width + 4 * width), whole=True)
    tape.ops.append(_waves(columns - 2))
    tape.linear("to_picture", 1, 2 * width * NUM_WAVES, 4 * width, live=True)
    tape.ops.append(_contrast(batch, 4 * width))
    return [tape.block("head: words and pictures", tokens=num_bytes, width=width)]


def _waves(places: float) -> Op:
    """Return the sums of letters or columns along a word; the cosines have no gradient."""
    return product("sums along the word", NUM_WAVES, places, 2 * READER_WIDTH, input_grad=False)
