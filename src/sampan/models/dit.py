"""The diffusion decoder: a single-stream transformer that paints latents from prior tokens and glyph embeddings.

Image and text tokens share every weight; twelve modulation vectors a block come from one linear map of the time-and-size
embedding, with the one SiLU before it. Sequence order is [text, image]. Reference pictures enter as keys and values
written by a pass of their own at t = 0. Parameter names are those of `transformer/`.
"""

from __future__ import annotations

from sampan.frameworks import nn, ops
from sampan.models.config import DiTConfig
from sampan.models.layers import Array, join_heads, modulate, rotate_half_split, split_heads

KV = tuple[Array, Array]  # keys (rotated, normalised) and values of one layer, (batch, heads, tokens, head_dim)


class _Projection(nn.Module):
    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.proj = nn.Linear(width_in, width_out)


class FeedForward(nn.Module):
    """Linear, activation, linear; the activation is "gelu" (erf), "gelu-tanh" or "silu"."""

    def __init__(self, width_in: int, width_inner: int, width_out: int, activation: str):
        super().__init__()
        self.activation = activation
        self.net = nn.ModuleList([_Projection(width_in, width_inner), nn.Identity(), nn.Linear(width_inner, width_out)])

    def forward(self, x: Array) -> Array:
        x = self.net[0].proj(x)
        x = ops.silu(x) if self.activation == "silu" else ops.gelu(x, tanh=self.activation == "gelu-tanh")
        return self.net[2](x)


class ImageProjector(nn.Module):
    """Patches of a latent to tokens; a patch is flattened as channel, row, column."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.patch = config.patch_size
        self.proj = nn.Linear(config.in_channels * config.patch_size**2, config.dim)

    def forward(self, latent: Array) -> Array:
        batch, channels, height, width = latent.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        x = ops.permute(latent.reshape((batch, channels, rows, p, columns, p)), (0, 2, 4, 1, 3, 5))
        return self.proj(x.reshape((batch, rows * columns, channels * p * p)))


class _TwoLinear(nn.Module):
    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.linear_1 = nn.Linear(width_in, width_out)
        self.linear_2 = nn.Linear(width_out, width_out)

    def forward(self, x: Array) -> Array:
        return self.linear_2(ops.silu(self.linear_1(x)))


class TimeSizeEmbedding(nn.Module):
    """Time and size features to one conditioning vector; SiLU once, on the sum."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.timestep_embedder = _TwoLinear(config.time_embed_dim, config.time_embed_dim)
        self.condition_embedder = _TwoLinear(4 * config.condition_dim, config.time_embed_dim)

    def forward(self, time_features: Array, size_features: Array) -> Array:
        return ops.silu(self.timestep_embedder(time_features) + self.condition_embedder(size_features))


class _Modulation(nn.Module):
    def __init__(self, width_in: int, width_out: int):
        super().__init__()
        self.linear = nn.Linear(width_in, width_out)


class JointAttention(nn.Module):
    """Attention over [references, text, image] keys for [text, image] queries; LayerNorm without weights on each head."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.num_heads = config.num_attention_heads
        self.to_q = nn.Linear(config.dim, config.dim)
        self.to_k = nn.Linear(config.dim, config.dim)
        self.to_v = nn.Linear(config.dim, config.dim)
        self.to_out = nn.ModuleList([nn.Linear(config.dim, config.dim)])

    def forward(self, x: Array, cos: Array, sin: Array, reference: KV | None, mask: Array | None) -> tuple[Array, KV]:
        q = rotate_half_split(ops.layer_norm(split_heads(self.to_q(x), self.num_heads), 1e-5), cos, sin)
        k = rotate_half_split(ops.layer_norm(split_heads(self.to_k(x), self.num_heads), 1e-5), cos, sin)
        v = split_heads(self.to_v(x), self.num_heads)
        keys = k if reference is None else ops.concat((reference[0], k), 2)
        values = v if reference is None else ops.concat((reference[1], v), 2)
        return self.to_out[0](join_heads(ops.attention(q, keys, values, mask=mask))), (k, v)


class DiTBlock(nn.Module):
    """One transformer block. Both streams use the same attention and feed-forward weights, each its own modulation."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.norm1 = _Modulation(config.time_embed_dim, 12 * config.dim)
        self.attn1 = JointAttention(config)
        self.ff = FeedForward(config.dim, 4 * config.dim, config.dim, "gelu-tanh")

    def forward(
        self,
        x: Array,
        text: Array | None,
        condition: Array,
        cos: Array,
        sin: Array,
        reference: KV | None,
        mask: Array | None,
    ) -> tuple[Array, Array | None, KV]:
        (
            shift_attn, text_shift_attn, scale_attn, text_scale_attn, gate_attn, text_gate_attn,
            shift_ff, text_shift_ff, scale_ff, text_scale_ff, gate_ff, text_gate_ff,
        ) = ops.chunk(self.norm1.linear(condition), 12, -1)  # fmt: skip
        normed = modulate(x, shift_attn, scale_attn)
        if text is None:
            attended, kv = self.attn1(normed, cos, sin, reference, mask)
            x = x + attended * gate_attn[:, None]
            return x + self.ff(modulate(x, shift_ff, scale_ff)) * gate_ff[:, None], None, kv
        lengths = (text.shape[1], x.shape[1])
        both = ops.concat((modulate(text, text_shift_attn, text_scale_attn), normed), 1)
        attended, kv = self.attn1(both, cos, sin, reference, mask)
        to_text, to_image = ops.split(attended, lengths, 1)
        words: Array = text + to_text * text_gate_attn[:, None]
        x = x + to_image * gate_attn[:, None]
        both = ops.concat((modulate(words, text_shift_ff, text_scale_ff), modulate(x, shift_ff, scale_ff)), 1)
        to_text, to_image = ops.split(self.ff(both), lengths, 1)
        return x + to_image * gate_ff[:, None], words + to_text * text_gate_ff[:, None], kv


class DiT(nn.Module):
    """Velocity of a noisy latent."""

    def __init__(self, config: DiTConfig):
        super().__init__()
        self.config = config
        self.image_projector = ImageProjector(config)
        self.glyph_projector = FeedForward(config.text_embed_dim, config.dim, config.dim, "gelu")
        self.prior_token_embedding = nn.Embedding(config.prior_vq_quantizer_codebook_size, config.dim)
        self.prior_projector = FeedForward(config.dim, config.dim, config.dim, "silu")
        self.time_condition_embed = TimeSizeEmbedding(config)
        self.transformer_blocks = nn.ModuleList([DiTBlock(config) for _ in range(config.num_layers)])
        self.norm_out = _Modulation(config.time_embed_dim, 2 * config.dim)
        self.proj_out = nn.Linear(config.dim, config.patch_size**2 * config.out_channels)

    def forward(
        self,
        latent: Array,
        glyph_embeds: Array,
        prior_ids: Array,
        prior_keep: Array,
        time_features: Array,
        size_features: Array,
        cos: Array,
        sin: Array,
        references: tuple[KV, ...] | None = None,
        mask: Array | None = None,
        recompute: bool = False,
    ) -> Array:
        """Return the velocity (batch, out_channels, h, w): noise minus clean latent.

        Args:
            latent: Noisy latent (batch, in_channels, h, w), normalised per channel.
            glyph_embeds: (batch, tokens, text_embed_dim).
            prior_ids: (batch, h·w/patch²), in raster order, already upsampled to DiT tokens.
            prior_keep: (batch,) of 1 or 0: 0 zeroes the embedding before the projector (whose biases still act).
            time_features: (batch, time_embed_dim), positions.sinusoid of t on the scale 0..999.
            size_features: (batch, 4·condition_dim), positions.size_features.
            cos, sin: positions.rope_image, fp32, over [text, image].
            references: Keys and values per layer from `reference_kv`, or None.
            mask: Boolean (batch or 1, 1, 1, reference + text + image tokens), False where a key is not to be seen: dropped
                references and padding of a training batch. Inference passes none, as the reference does.
            recompute: Keep only block inputs for the backward pass.
        """
        x, condition = self._embed(latent, prior_ids, prior_keep, time_features, size_features)
        text = self.glyph_projector(glyph_embeds)
        for index, block in enumerate(self.transformer_blocks):
            reference = None if references is None else references[index]
            if recompute:
                x, text, _ = ops.checkpoint(block, x, text, condition, cos, sin, reference, mask)
            else:
                x, text, _ = block(x, text, condition, cos, sin, reference, mask)
        scale, shift = ops.chunk(self.norm_out.linear(condition), 2, -1)
        x = self.proj_out(modulate(x, shift, scale))
        batch, _, height, width = latent.shape
        p, channels = self.config.patch_size, self.config.out_channels
        x = x.reshape((batch, height // p, width // p, channels, p, p))
        return ops.permute(x, (0, 3, 1, 4, 2, 5)).reshape((batch, channels, height, width))

    def reference_kv(
        self,
        latent: Array,
        prior_ids: Array,
        prior_keep: Array,
        time_features: Array,
        size_features: Array,
        cos: Array,
        sin: Array,
        recompute: bool = False,
    ) -> tuple[KV, ...]:
        """Return keys and values per layer of one clean reference picture, written without text tokens.

        Arguments are those of `forward` for the reference itself: its latent, its own prior ids, t = 0, its own size, and
        positions that start at 0 again. Several references are joined with `join_references`.
        """
        x, condition = self._embed(latent, prior_ids, prior_keep, time_features, size_features)
        written = []
        for block in self.transformer_blocks:
            arguments = (x, None, condition, cos, sin, None, None)
            x, _, kv = ops.checkpoint(block, *arguments) if recompute else block(*arguments)
            written.append(kv)
        return tuple(written)

    def _embed(
        self, latent: Array, prior_ids: Array, prior_keep: Array, time_features: Array, size_features: Array
    ) -> tuple[Array, Array]:
        x = self.image_projector(latent)
        prior = self.prior_token_embedding(prior_ids)
        prior = prior * ops.cast(prior_keep, prior.dtype)[:, None, None]
        x = x + self.prior_projector(prior)
        return x, self.time_condition_embed(ops.cast(time_features, x.dtype), ops.cast(size_features, x.dtype))


def join_references(references: list[tuple[KV, ...]]) -> tuple[KV, ...]:
    """Put the keys and values of several references one after another, layer by layer."""
    layers = range(len(references[0]))  # not zip: what a framework compiles by its source may not know `strict`
    keys = [ops.concat([one[layer][0] for one in references], 2) for layer in layers]
    values = [ops.concat([one[layer][1] for one in references], 2) for layer in layers]
    return tuple([(keys[layer], values[layer]) for layer in layers])
