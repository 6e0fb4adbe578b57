"""Sizes of the contract's small models: each width differs from its neighbours, so that none can stand in for another."""

from __future__ import annotations

from sampan.models.config import DiTConfig, GlyphConfig, TextConfig, VAEConfig, VisionConfig, VQConfig

TEXT = TextConfig(
    vocab_size=40,
    vision_vocab_size=24,
    hidden_size=64,
    intermediate_size=56,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=64,
    mrope_section=(1, 1, 2),
    pad_token_id=30,
    eos_token_id=21,
)
DIT = DiTConfig(
    patch_size=2,
    in_channels=4,
    out_channels=4,
    num_layers=2,
    attention_head_dim=8,
    num_attention_heads=3,
    text_embed_dim=12,
    time_embed_dim=16,
    condition_dim=8,
    prior_vq_quantizer_codebook_size=20,
)
VAE = VAEConfig(
    block_out_channels=(8, 12),
    layers_per_block=1,
    latent_channels=4,
    norm_num_groups=4,
    sample_size=8,
    latents_mean=(0.1, -0.2, 0.3, 0.0),
    latents_std=(1.1, 0.9, 1.0, 1.2),
)
VISION = VisionConfig(
    depth=2, hidden_size=24, intermediate_size=40, num_heads=3, image_size=20, patch_size=4, layer_norm_eps=1e-6
)
VQ = VQConfig(num_embeddings=20, embed_dim=8, latent_channels=24)
GLYPH = GlyphConfig(
    d_model=16,
    d_kv=6,
    d_ff=20,
    num_layers=2,
    num_heads=3,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=6,
)
