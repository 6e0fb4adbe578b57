"""Heads that train a part and are not exported with it."""

from __future__ import annotations

from sampan.frameworks import nn, ops
from sampan.models.config import ModelConfig
from sampan.models.glyph import GlyphEncoder
from sampan.models.layers import Array
from sampan.models.vision import ImageTokenizer, VisionBlock


class TokenizerWithHeads(nn.Module):
    """The tokenizer, a head that paints each token's patch again, and one that names the picture.

    Source of the recipe: vector quantisation aligned with language as in X-Omni (2025), in small.
    """

    def __init__(self, config: ModelConfig, text_rows: int):
        super().__init__()
        vision, vq = config.ar.vision, config.ar.vq
        self.part = ImageTokenizer(vision, vq)
        self.inflate = nn.Linear(vq.embed_dim, vision.hidden_size)
        self.position_embedding = nn.Embedding(vision.grid_side**2, vision.hidden_size)
        self.blocks = nn.ModuleList([VisionBlock(vision) for _ in range(2)])
        self.to_patch = nn.Linear(vision.hidden_size, vision.in_channels * vision.patch_size**2)
        self.to_caption = nn.Linear(vq.embed_dim, 128)
        self.embed_tokens = nn.Embedding(text_rows, 128)

    def paint(self, codes: Array, gather_ids: Array, gather_weights: Array) -> Array:
        """Return patches (pictures, tokens, 3·patch²) of code vectors (pictures, tokens, embed_dim)."""
        corners = ops.take(self.position_embedding.weight, gather_ids)
        x = self.inflate(codes) + ops.sum(corners * gather_weights[:, :, None], 0)[None]
        for block in self.blocks:
            x = block(x)
        return self.to_patch(x)

    def captions(self, ids: Array, mask: Array) -> Array:
        """Return (captions, 128): the mean embedding of each caption's tokens; mask is 1 on tokens, 0 on padding."""
        kept = self.embed_tokens(ids) * mask[:, :, None]
        return ops.sum(kept, 1) / ops.sum(mask, 1)[:, None]


class GlyphWithHeads(nn.Module):
    """The glyph encoder and a small convolutional reader of rendered words, which it must agree with."""

    def __init__(self, config: ModelConfig, width: int = 64):
        super().__init__()
        self.part = GlyphEncoder(config.glyph)
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(1, width, 5, stride=2, padding=2),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
                nn.Conv2d(width, width, 3, stride=2, padding=1),
            ]
        )
        self.norms = nn.ModuleList([nn.GroupNorm(8, width) for _ in range(3)])
        self.to_picture = nn.Linear(width * 4 * 8, config.glyph.d_model)
        self.to_word = nn.Linear(config.glyph.d_model, config.glyph.d_model)

    def read(self, pictures: Array) -> Array:
        """Return (words, d_model) of rendered words (words, 1, 32, 128): what is written, column by column."""
        for conv, norm in zip(self.convs, self.norms, strict=True):
            pictures = ops.silu(norm(conv(pictures)))
        words, width, rows, columns = pictures.shape  # 4 rows, 16 columns: halve the columns
        pooled = ops.mean(pictures.reshape((words, width, rows, columns // 2, 2)), 4)
        return self.to_picture(pooled.reshape((words, width * rows * (columns // 2))))

    def spell(self, ids: Array, mask: Array, buckets: Array) -> Array:
        """Return (words, d_model): the mean over each word's bytes."""
        kept = ops.cast(mask, ops.float32)
        embeds = self.part(ids, mask, buckets) * kept[:, :, None]
        return self.to_word(ops.sum(embeds, 1) / ops.sum(kept, 1)[:, None])
