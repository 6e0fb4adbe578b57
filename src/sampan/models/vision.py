"""The picture tokenizer: a vision encoder and a vector quantizer.

A SigLIP2-shaped encoder (pre-norm blocks, exact GELU, learned positions sampled bilinearly; no rotation, no class token
and no final norm), a 1×1 projection and the nearest codebook entry by direction. Frozen while the generator and the
decoder train. Parameter names are those of `vision_language_encoder/`.
"""

from __future__ import annotations

from sampan.frameworks import nn, ops
from sampan.models.config import VisionConfig, VQConfig
from sampan.models.layers import Array, LayerNorm, join_heads, split_heads


class VisionAttention(nn.Module):
    """Full attention inside one picture, with fused query, key and value."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.num_heads = config.num_heads
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.proj = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, x: Array) -> Array:
        q, k, v = (split_heads(part, self.num_heads) for part in ops.chunk(self.qkv(x), 3, -1))
        return self.proj(join_heads(ops.attention(q, k, v)))


class VisionMLP(nn.Module):
    """Two layers with the exact (erf) GELU."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.hidden_size, config.intermediate_size)
        self.fc2 = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Array) -> Array:
        return self.fc2(ops.gelu(self.fc1(x), tanh=False))


class VisionBlock(nn.Module):
    """Pre-norm transformer block."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.norm1 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.norm2 = LayerNorm(config.hidden_size, config.layer_norm_eps)
        self.attn = VisionAttention(config)
        self.mlp = VisionMLP(config)

    def forward(self, x: Array) -> Array:
        x = x + self.attn(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class _Positions(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.position_embedding = nn.Embedding(config.grid_side**2, config.hidden_size)


class _PatchEmbed(nn.Module):
    def __init__(self, config: VisionConfig):
        super().__init__()
        self.proj = nn.Conv2d(config.in_channels, config.hidden_size, config.patch_size, stride=config.patch_size)


class VisionEncoder(nn.Module):
    """Patches of pictures that share one grid to features."""

    def __init__(self, config: VisionConfig):
        super().__init__()
        self.embeddings = _Positions(config)
        self.patch_embed = _PatchEmbed(config)
        self.blocks = nn.ModuleList([VisionBlock(config) for _ in range(config.depth)])

    def forward(self, patches: Array, gather_ids: Array, gather_weights: Array) -> Array:
        """Return features (pictures, rows·columns, hidden_size).

        Args:
            patches: (pictures, rows·columns, channels·patch²), each patch as channel, row, column.
            gather_ids, gather_weights: (4, rows·columns), from positions.bilinear_gather.
        """
        # a convolution whose stride is its kernel is a linear map of flattened patches
        projection = self.patch_embed.proj
        weight = projection.weight.reshape((projection.weight.shape[0], patches.shape[-1]))
        x = ops.linear(patches, weight, projection.bias)
        table = self.embeddings.position_embedding.weight
        corners = ops.cast(ops.take(table, gather_ids), ops.float32)
        position = ops.sum(corners * gather_weights[:, :, None], 0)
        x = x + ops.cast(position, x.dtype)[None]
        for block in self.blocks:
            x = block(x)
        return x


class _Quantizer(nn.Module):
    def __init__(self, config: VQConfig):
        super().__init__()
        self.embedding = nn.Embedding(config.num_embeddings, config.embed_dim)


class VectorQuantizer(nn.Module):
    """Nearest codebook direction of a feature. `post_quant_conv` is in the released weights and used by nothing."""

    def __init__(self, config: VQConfig):
        super().__init__()
        self.quantize = _Quantizer(config)
        self.quant_conv = nn.Conv2d(config.latent_channels, config.embed_dim, 1)
        self.post_quant_conv = nn.Conv2d(config.embed_dim, config.latent_channels, 1)

    def project(self, features: Array) -> Array:
        """Return unit vectors (…, embed_dim) in fp32, where ids do not depend on the dtype of the encoder."""
        conv = self.quant_conv
        assert conv.bias is not None, "built with one"
        weight = conv.weight.reshape((conv.weight.shape[0], conv.weight.shape[1]))
        projected = ops.linear(
            ops.cast(features, ops.float32), ops.cast(weight, ops.float32), ops.cast(conv.bias, ops.float32)
        )
        return ops.normalize(projected)

    def codebook(self) -> Array:
        """Return the unit codebook vectors (num_embeddings, embed_dim) in fp32."""
        return ops.normalize(ops.cast(self.quantize.embedding.weight, ops.float32))

    def forward(self, features: Array) -> Array:
        """Return ids (…,) of the nearest codes of features (…, latent_channels); of equal distances, the lowest id."""
        z = self.project(features)
        flat = z.reshape((-1, z.shape[-1]))
        codes = self.codebook()
        distance = ops.sum(flat * flat, -1)[:, None] + ops.sum(codes * codes, -1)[None] - 2 * ops.linear(flat, codes)
        return ops.argmin(distance, -1).reshape(tuple(z.shape[:-1]))


class _Holder(nn.Module):
    """The level named `model` in the released parameter names."""

    def __init__(self, vision: VisionConfig, vq: VQConfig):
        super().__init__()
        self.visual = VisionEncoder(vision)
        self.vqmodel = VectorQuantizer(vq)


class ImageTokenizer(nn.Module):
    """Pictures to visual token ids."""

    def __init__(self, vision: VisionConfig, vq: VQConfig):
        super().__init__()
        self.model = _Holder(vision, vq)

    def forward(self, patches: Array, gather_ids: Array, gather_weights: Array) -> Array:
        """Return ids (pictures, rows·columns) in 0..num_embeddings-1; arguments as in VisionEncoder.forward."""
        return self.model.vqmodel(self.model.visual(patches, gather_ids, gather_weights))
