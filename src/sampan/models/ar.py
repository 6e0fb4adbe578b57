"""The autoregressive generator: a GLM-4-shaped decoder that writes visual tokens.

40 sandwich-norm layers with grouped keys, half-split rotation over three axes of position, a fused gate-and-up
projection whose first half is the gate, and an untied head over the visual ids only. Parameter names are those of
`vision_language_encoder/`. Positions, tables and masks come from sampan.models.positions.
"""

from __future__ import annotations

from collections.abc import Sequence

from sampan.frameworks import nn, ops
from sampan.models.config import TextConfig
from sampan.models.layers import Array, RMSNorm, join_heads, rotate_half_split, split_heads

Cache = tuple[tuple[Array, Array], ...]  # per layer: keys and values, (batch, kv heads, slots, head_dim)


class Attention(nn.Module):
    """Causal self-attention with grouped keys."""

    def __init__(self, config: TextConfig):
        super().__init__()
        dim, kv_dim = config.hidden_size, config.num_key_value_heads * config.head_dim
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.q_proj = nn.Linear(dim, dim, bias=config.attention_bias)
        self.k_proj = nn.Linear(dim, kv_dim, bias=config.attention_bias)
        self.v_proj = nn.Linear(dim, kv_dim, bias=config.attention_bias)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(
        self,
        x: Array,
        cos: Array,
        sin: Array,
        mask: Array | None,
        cache: tuple[Array, Array] | None,
        start: Array | None,
        segments: Sequence[int] | None,
    ) -> tuple[Array, tuple[Array, Array] | None]:
        q = rotate_half_split(split_heads(self.q_proj(x), self.num_heads), cos, sin)
        k = rotate_half_split(split_heads(self.k_proj(x), self.num_kv_heads), cos, sin)
        v = split_heads(self.v_proj(x), self.num_kv_heads)
        if cache is None:
            attended = ops.attention(q, k, v, mask=mask, causal=mask is None, segments=segments)
            return self.o_proj(join_heads(attended)), None
        assert start is not None, "a cache is written from a slot on"
        keys, values = ops.cache_write(cache[0], k, start), ops.cache_write(cache[1], v, start)
        return self.o_proj(join_heads(ops.attention(q, keys, values, mask=mask))), (keys, values)


class MLP(nn.Module):
    """SwiGLU with one fused projection: the first half is the gate."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.gate_up_proj = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x: Array) -> Array:
        gate, up = ops.chunk(self.gate_up_proj(x), 2, -1)
        return self.down_proj(up * ops.silu(gate))


class Layer(nn.Module):
    """One decoder layer with a norm before and after each half; `post_attention_layernorm` is the one before the MLP."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = Attention(config)
        self.post_self_attn_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MLP(config)
        self.post_mlp_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    def forward(
        self,
        x: Array,
        cos: Array,
        sin: Array,
        mask: Array | None,
        cache: tuple[Array, Array] | None,
        start: Array | None,
        segments: Sequence[int] | None,
    ) -> tuple[Array, tuple[Array, Array] | None]:
        attended, cache = self.self_attn(self.input_layernorm(x), cos, sin, mask, cache, start, segments)
        x = x + self.post_self_attn_layernorm(attended)
        return x + self.post_mlp_layernorm(self.mlp(self.post_attention_layernorm(x))), cache


class LanguageModel(nn.Module):
    """Embedding, layers and final norm."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)


class _Holder(nn.Module):
    """The level named `model` in the released parameter names."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.language_model = LanguageModel(config)


class ARGenerator(nn.Module):
    """The decoder with its visual head."""

    def __init__(self, config: TextConfig):
        super().__init__()
        self.config = config
        self.model = _Holder(config)
        self.lm_head = nn.Linear(config.hidden_size, config.vision_vocab_size, bias=False)

    def forward(
        self,
        input_ids: Array,
        cos: Array,
        sin: Array,
        mask: Array | None = None,
        cache: Cache | None = None,
        start: Array | None = None,
        num_logits: int | None = None,
        recompute: bool = False,
        segments: Sequence[int] | None = None,
        logits_at: Array | None = None,
    ) -> tuple[Array, Cache | None]:
        """Return logits (batch, tokens, vision_vocab_size) of all or some tokens, and the cache after this call.

        Args:
            input_ids: (batch, tokens). Visual ids are rows 0.. of the same table as text.
            cos, sin: (batch or 1, 1, tokens, rotary_dim/2), from positions.rope_text. They are cast to the dtype of the
                activations, as the reference does.
            mask: Boolean (batch or 1, 1, tokens, keys); None means causal and is only possible without a cache.
            cache: Static keys and values per layer. With it, `start` (an integer scalar array) is the slot of the first
                of these tokens, and the mask must close the slots that are not written yet.
            num_logits: Compute the head for the last so many positions only.
            recompute: Keep only layer inputs for the backward pass.
            segments: Lengths of samples packed one after another into a batch of one row; none sees another. Excludes
                mask and cache.
            logits_at: (n,), the tokens of a packed row to compute the head for; logits are then (1, n, …).
        """
        assert segments is None or (mask is None and cache is None), "a packed row has neither mask nor cache"
        assert cache is None or mask is not None, "a static cache has unwritten slots, which the mask must close"
        language = self.model.language_model
        x = language.embed_tokens(input_ids)
        cos, sin = ops.cast(cos, x.dtype), ops.cast(sin, x.dtype)
        written = []
        for index, layer in enumerate(language.layers):
            if recompute:
                x, _ = ops.checkpoint(layer, x, cos, sin, mask, None, None, segments)
            else:
                x, kv = layer(x, cos, sin, mask, None if cache is None else cache[index], start, segments)
                written.append(kv)
        if logits_at is not None:
            x = ops.take(x[0], logits_at)[None]
        x = language.norm(x)
        if num_logits is not None:
            x = x[:, x.shape[1] - num_logits :]
        return self.lm_head(x), None if cache is None else tuple(written)

    def cache_shape(self, batch: int, num_slots: int) -> tuple[int, int, int, int]:
        """Return the shape of one layer's keys (and of its values) in a static cache."""
        return batch, self.config.num_key_value_heads, num_slots, self.config.head_dim
