"""A tiny GLM-Image pipeline of the published libraries, with random weights: the oracle that parity is held against.

transformers and diffusers build it, so it says what the released code does with a model of these sizes. Nothing is
downloaded. Its weights are made awake: freshly initialised ones are so small that outputs hardly depend on conditions,
and wrong code could pass; noise on every parameter, norms and biases included, makes each of them matter.

    from oracle import build_tiny_pipeline        (tests/conftest.py puts this folder on the path)
    pipeline = build_tiny_pipeline()              GlmImagePipeline in fp32, on the CPU
    build_tiny_pipeline(tmp_path / "tiny")        the same, and its folder in the released layout

Geometry: 32 px per prior token, 16 px per decoder token, latents at 1/8, a preview of about 16×16 tokens.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # before the libraries are imported: a test asks no network for anything

SENTENCE = "The quick brown fox jumps over the lazy dog, and 0123456789 little boats sail to the 红苹果 maçã."
PROMPT = 'a red boat that says "hello" on the sea'
GLM_SPECIALS = (
    "<|endoftext|>", "[MASK]", "[gMASK]", "[sMASK]", "<sop>", "<eop>", "<|system|>", "<|user|>", "<|assistant|>",
    "<|observation|>", "<|begin_of_image|>", "<|end_of_image|>", "<|begin_of_video|>", "<|end_of_video|>", "<|image|>",
    "<|video|>",
)  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for item in message['content'] %}{% if item['type'] == 'image' %}{start}<|image|>{end}"
    "{% elif item['type'] == 'text' %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}{% endfor %}"
)


@dataclass(frozen=True)
class Sizes:
    """Sizes of the tiny pipeline. The defaults keep every head, group and section different from its neighbours."""

    num_codes: int = 64
    num_visual: int = 80
    ar_hidden: int = 64
    ar_mlp: int = 96
    ar_layers: int = 2
    ar_heads: int = 4
    ar_kv_heads: int = 2
    mrope_section: tuple[int, ...] = (2, 1, 1)
    vision_hidden: int = 32
    vision_mlp: int = 64
    vision_layers: int = 2
    vision_heads: int = 2
    vision_image_px: int = 64
    vq_dim: int = 24
    dit_layers: int = 2
    dit_heads: int = 4
    dit_head_dim: int = 16
    dit_time_dim: int = 32
    dit_condition_dim: int = 8
    vae_blocks: tuple[int, ...] = (8, 16, 16, 16)
    vae_layers: int = 1
    vae_groups: int = 4
    latents_mean: tuple[float, ...] = (0.1, -0.2, 0.3, 0.0)
    latents_std: tuple[float, ...] = (1.5, 2.0, 0.5, 1.0)
    glyph_dim: int = 24
    glyph_mlp: int = 48
    glyph_head_dim: int = 8
    glyph_heads: int = 3
    glyph_layers: int = 2
    reference_px: tuple[int, int] = (64, 256)  # least and greatest side of a reference


TINY = Sizes()


def build_tiny_pipeline(folder: Path | None = None, *, seed: int = 0, sizes: Sizes = TINY, wake: float = 0.05) -> Any:
    """Return a `GlmImagePipeline` with random, awake weights, in fp32 on the CPU.

    Args:
        folder: Where to write it too, in the released layout, as the library's `save_pretrained` does.
        wake: Deviation of the noise that is added to every parameter.
    """
    import torch
    from diffusers import (
        AutoencoderKL,
        FlowMatchEulerDiscreteScheduler,
        GlmImagePipeline,
        GlmImageTransformer2DModel,
    )
    from transformers import ByT5Tokenizer, GlmImageForConditionalGeneration, GlmImageProcessor, T5EncoderModel

    processor_parts = build_tokenizer(sizes), build_image_processor(sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        ar = GlmImageForConditionalGeneration(ar_config(processor_parts[0], sizes))
        dit = GlmImageTransformer2DModel(
            patch_size=2,
            in_channels=len(sizes.latents_mean),
            out_channels=len(sizes.latents_mean),
            num_layers=sizes.dit_layers,
            attention_head_dim=sizes.dit_head_dim,
            num_attention_heads=sizes.dit_heads,
            text_embed_dim=sizes.glyph_dim,
            time_embed_dim=sizes.dit_time_dim,
            condition_dim=sizes.dit_condition_dim,
            prior_vq_quantizer_codebook_size=sizes.num_codes,
        )
        vae = AutoencoderKL(
            block_out_channels=sizes.vae_blocks,
            down_block_types=("DownEncoderBlock2D",) * len(sizes.vae_blocks),
            up_block_types=("UpDecoderBlock2D",) * len(sizes.vae_blocks),
            layers_per_block=sizes.vae_layers,
            latent_channels=len(sizes.latents_mean),
            norm_num_groups=sizes.vae_groups,
            mid_block_add_attention=False,
            use_quant_conv=False,
            use_post_quant_conv=False,
            latents_mean=sizes.latents_mean,
            latents_std=sizes.latents_std,
        )
        glyph = T5EncoderModel(glyph_config(sizes))
        for part in (ar, dit, vae, glyph):
            part.eval()
            for parameter in part.parameters():
                parameter.data.add_(torch.randn_like(parameter), alpha=wake)
    ar.generation_config.update(do_sample=True, temperature=0.9, top_p=0.75)
    pipeline = GlmImagePipeline(
        tokenizer=ByT5Tokenizer(),
        processor=GlmImageProcessor(
            tokenizer=processor_parts[0], image_processor=processor_parts[1], chat_template=chat_template(sizes)
        ),
        text_encoder=glyph,
        vision_language_encoder=ar,
        vae=vae,
        transformer=dit,
        scheduler=FlowMatchEulerDiscreteScheduler(
            use_dynamic_shifting=True,
            time_shift_type="linear",
            base_shift=0.25,
            max_shift=0.75,
            base_image_seq_len=256,
            max_image_seq_len=4096,
        ),
    )
    pipeline.set_progress_bar_config(disable=True)
    if folder is not None:
        pipeline.save_pretrained(folder)
    return pipeline


def build_tokenizer(sizes: Sizes = TINY) -> Any:
    """Return a prompt tokenizer in the released layout: visual ids, then text pieces, then GLM's special tokens."""
    import json

    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    learner.train_from_iterator(
        [SENTENCE] * 8,
        trainers.BpeTrainer(
            vocab_size=320, initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()), show_progress=False
        ),
    )
    learned = json.loads(learner.to_str())["model"]
    visual = [f"<|dit_token_{i}|>" for i in range(sizes.num_visual)]
    vocab = {token: i for i, token in enumerate(visual)}
    vocab |= {piece: sizes.num_visual + i for piece, i in learned["vocab"].items()}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[tuple(pair) for pair in learned["merges"]]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False) for token in (*visual, *GLM_SPECIALS)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=visual[sizes.num_codes],
        eos_token=visual[sizes.num_codes + 1],
        pad_token="<|endoftext|>",
        padding_side="left",
        extra_special_tokens={
            "image_token": "<|image|>",
            "grid_bos_token": "<sop>",
            "grid_eos_token": "<eop>",
        },
    )


def chat_template(sizes: Sizes = TINY) -> str:
    """Return the Jinja template: image start, placeholder and end for a picture, the plain text for text."""
    start, end = (f"<|dit_token_{sizes.num_codes + i}|>" for i in (0, 1))
    return CHAT_TEMPLATE.replace("{start}", start).replace("{end}", end)


def build_image_processor(sizes: Sizes = TINY) -> Any:
    """Return the image processor on Pillow, which needs no torchvision."""
    from transformers.models.glm_image.image_processing_pil_glm_image import GlmImageImageProcessorPil

    least, greatest = sizes.reference_px
    return GlmImageImageProcessorPil(
        patch_size=16,
        temporal_patch_size=1,
        merge_size=1,
        image_mean=[0.5, 0.5, 0.5],
        image_std=[0.5, 0.5, 0.5],
        size={"shortest_edge": least * least, "longest_edge": greatest * greatest},
    )


def ar_config(tokenizer: Any, sizes: Sizes = TINY) -> Any:
    """Return the config of the vision-language encoder; the vocabulary is padded to a multiple of 64."""
    from transformers import GlmImageConfig

    return GlmImageConfig(
        text_config={
            "vocab_size": -(-len(tokenizer) // 64) * 64,
            "vision_vocab_size": sizes.num_visual,
            "hidden_size": sizes.ar_hidden,
            "intermediate_size": sizes.ar_mlp,
            "num_hidden_layers": sizes.ar_layers,
            "num_attention_heads": sizes.ar_heads,
            "num_key_value_heads": sizes.ar_kv_heads,
            "max_position_embeddings": 4096,
            "pad_token_id": tokenizer.pad_token_id,
            "eos_token_id": tokenizer.eos_token_id,
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "partial_rotary_factor": 0.5,
                "mrope_section": list(sizes.mrope_section),
            },
        },
        vision_config={
            "depth": sizes.vision_layers,
            "hidden_size": sizes.vision_hidden,
            "intermediate_size": sizes.vision_mlp,
            "num_heads": sizes.vision_heads,
            "image_size": sizes.vision_image_px,
            "patch_size": 16,
        },
        vq_config={
            "num_embeddings": sizes.num_codes,
            "embed_dim": sizes.vq_dim,
            "latent_channels": sizes.vision_hidden,
        },
        image_token_id=tokenizer.convert_tokens_to_ids("<|image|>"),
        image_start_token_id=tokenizer.bos_token_id,
        image_end_token_id=tokenizer.eos_token_id,
    )


def glyph_config(sizes: Sizes = TINY) -> Any:
    """Return the config of the glyph text encoder."""
    from transformers import T5Config

    return T5Config(
        vocab_size=384,
        d_model=sizes.glyph_dim,
        d_kv=sizes.glyph_head_dim,
        d_ff=sizes.glyph_mlp,
        num_layers=sizes.glyph_layers,
        num_heads=sizes.glyph_heads,
        feed_forward_proj="gated-gelu",
        is_encoder_decoder=False,
        use_cache=False,
    )
