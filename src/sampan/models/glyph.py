"""The glyph text encoder: ByT5's encoder, which reads the words to be drawn as bytes.

Gated GELU (tanh), RMS norms, relative position bias shared by all blocks, attention without a scale and without any bias
vector. Parameter names are those of `text_encoder/`.
"""

from __future__ import annotations

from sampan.frameworks import nn, ops
from sampan.models.config import GlyphConfig
from sampan.models.layers import Array, RMSNorm, join_heads, split_heads


class GlyphAttention(nn.Module):
    """Self-attention with an added bias per relative position; scores are not scaled."""

    def __init__(self, config: GlyphConfig, has_bias: bool):
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.num_heads = config.num_heads
        self.q = nn.Linear(config.d_model, inner, bias=False)
        self.k = nn.Linear(config.d_model, inner, bias=False)
        self.v = nn.Linear(config.d_model, inner, bias=False)
        self.o = nn.Linear(inner, config.d_model, bias=False)
        if has_bias:
            self.relative_attention_bias = nn.Embedding(config.relative_attention_num_buckets, config.num_heads)

    def forward(self, x: Array, bias: Array, mask: Array) -> Array:
        q, k, v = (split_heads(part(x), self.num_heads) for part in (self.q, self.k, self.v))
        scores = q @ ops.permute(k, (0, 1, 3, 2)) + bias
        scores = ops.where(mask, scores, -1e9)
        return self.o(join_heads(ops.softmax(scores, -1) @ v))


class _GatedMLP(nn.Module):
    def __init__(self, config: GlyphConfig):
        super().__init__()
        self.wi_0 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wi_1 = nn.Linear(config.d_model, config.d_ff, bias=False)
        self.wo = nn.Linear(config.d_ff, config.d_model, bias=False)

    def forward(self, x: Array) -> Array:
        return self.wo(ops.gelu(self.wi_0(x), tanh=True) * self.wi_1(x))


class _AttentionLayer(nn.Module):
    def __init__(self, config: GlyphConfig, has_bias: bool):
        super().__init__()
        self.SelfAttention = GlyphAttention(config, has_bias)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


class _MLPLayer(nn.Module):
    def __init__(self, config: GlyphConfig):
        super().__init__()
        self.DenseReluDense = _GatedMLP(config)
        self.layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


class _Block(nn.Module):
    def __init__(self, config: GlyphConfig, has_bias: bool):
        super().__init__()
        self.layer = nn.ModuleList([_AttentionLayer(config, has_bias), _MLPLayer(config)])

    def forward(self, x: Array, bias: Array, mask: Array) -> Array:
        attention, mlp = self.layer
        x = x + attention.SelfAttention(attention.layer_norm(x), bias, mask)
        return x + mlp.DenseReluDense(mlp.layer_norm(x))


class _Encoder(nn.Module):
    def __init__(self, config: GlyphConfig):
        super().__init__()
        self.block = nn.ModuleList([_Block(config, has_bias=i == 0) for i in range(config.num_layers)])
        self.final_layer_norm = RMSNorm(config.d_model, config.layer_norm_epsilon)


class GlyphEncoder(nn.Module):
    """Byte strings to one vector a byte."""

    def __init__(self, config: GlyphConfig):
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocab_size, config.d_model)
        self.encoder = _Encoder(config)

    def forward(self, input_ids: Array, mask: Array, buckets: Array) -> Array:
        """Return (strings, bytes, d_model). Strings of a batch do not see each other.

        Args:
            input_ids: (strings, bytes), right-padded.
            mask: Boolean (strings, bytes), False on right padding. (A pad id in front of a string is not masked.)
            buckets: (bytes, bytes), from positions.relative_buckets.
        """
        x = self.shared(input_ids)
        blocks = self.encoder.block
        table = blocks[0].layer[0].SelfAttention.relative_attention_bias.weight
        bias = ops.permute(ops.take(table, buckets), (2, 0, 1))[None]
        for block in blocks:
            x = block(x, bias, mask[:, None, None, :])
        return self.encoder.final_layer_norm(x)
