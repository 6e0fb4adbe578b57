"""Heads that train a part and are not exported with it."""

from __future__ import annotations

from sampan.frameworks import nn, ops
from sampan.models.config import NUM_WAVES, ModelConfig
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
    """The glyph encoder, and a small reader of rendered words whose picture it must find.

    Bytes and columns of a picture are summed along the word with the same cosines, so that a word never seen is put
    together from letters that were. The sums say where each byte stands, so that its own embedding need not; but the
    decoder sees embeddings alone, and has to know. The first channels of an embedding are therefore asked themselves: what a
    head of its own reads may be small beside the rest, and a decoder would take long to use it.
    """

    def __init__(self, config: ModelConfig, width: int = 64):
        super().__init__()
        self.part = GlyphEncoder(config.glyph)
        self.num_told = config.glyph.num_told
        self.to_letter = nn.Linear(config.glyph.d_model, 2 * width)
        self.to_word = nn.Linear(2 * width * NUM_WAVES, 4 * width)
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(1, width // 2, 5, stride=2, padding=2),
                nn.Conv2d(width // 2, width, 3, stride=2, padding=1),
            ]
        )
        self.norms = nn.ModuleList([nn.GroupNorm(8, width // 2), nn.GroupNorm(8, width)])
        self.to_column = nn.Linear(3 * 8 * width, 2 * width)
        self.to_picture = nn.Linear(2 * width * NUM_WAVES, 4 * width)

    def spell(self, ids: Array, mask: Array, buckets: Array, waves: Array) -> tuple[Array, Array]:
        """Return (words, channels) of byte strings (words, bytes), and what each byte tells (words, bytes, num_told).

        waves: (words, NUM_WAVES, bytes).
        """
        embeds = self.part(ids, mask, buckets)
        letters = ops.gelu(self.to_letter(embeds), tanh=True)
        pooled = waves @ ops.cast(letters, ops.float32)
        return self.to_word(pooled.reshape((pooled.shape[0], -1))), embeds[:, :, : self.num_told]

    def read(self, pictures: Array, waves: Array) -> Array:
        """Return (words, channels) of rendered words (words, 1, 32, 4·columns); waves: (words, NUM_WAVES, columns).

        The outermost columns have no neighbour on one side and are left out of `waves`.
        """
        for index in range(len(self.convs)):  # not zip: what a framework compiles by its source may not know `strict`
            pictures = ops.silu(self.norms[index](self.convs[index](pictures)))
        words, channels, rows, columns = pictures.shape
        stacked = ops.permute(pictures, (0, 3, 1, 2)).reshape((words, columns, channels * rows))
        wide = ops.concat([stacked[:, :-2], stacked[:, 1:-1], stacked[:, 2:]], 2)
        pooled = waves @ ops.cast(ops.silu(self.to_column(wide)), ops.float32)
        return self.to_picture(pooled.reshape((words, -1)))
