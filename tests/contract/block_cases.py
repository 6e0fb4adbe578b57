"""Cases of the model's parts, from one block to the whole, with small random weights; and the losses."""

from __future__ import annotations

from typing import Any

import numpy as np

import masks
from contract import sizes
from contract.case import Case, Inputs, normal
from sampan.frameworks import nn, ops
from sampan.models import positions

Random = np.random.Generator
TABLES = ("cos", "sin")


def _text_tables(num_tokens: int) -> Inputs:
    places = np.stack([np.arange(num_tokens), np.arange(num_tokens) // 2, np.arange(num_tokens) % 3])
    return dict(zip(TABLES, positions.rope_text(places[:, None], sizes.TEXT), strict=True))


def _module(path: str, *arguments: Any) -> Any:
    """Return what builds a class of sampan.models, imported when it is built: by then the framework is chosen."""
    name, kind = path.split(":")

    def build() -> Any:
        from importlib import import_module

        return getattr(import_module(f"sampan.models.{name}"), kind)(*arguments)

    return build


# --- the generator -----------------------------------------------------------------------------------------------------


def _layer_inputs(random: Random) -> Inputs:
    return {"x": normal(random, 2, 5, sizes.TEXT.hidden_size), **_text_tables(5)}


def _layer(module: Any, given: Inputs) -> Any:
    return module(given["x"], given["cos"], given["sin"], None, None, None, None)[0]


def _ids(random: Random, batch: int, num_tokens: int) -> Inputs:
    return {"ids": random.integers(0, sizes.TEXT.vocab_size, (batch, num_tokens)), **_text_tables(num_tokens)}


def _causal(module: Any, given: Inputs) -> Any:
    return module(given["ids"], given["cos"], given["sin"])[0]


def _recomputed(module: Any, given: Inputs) -> Any:
    return module(given["ids"], given["cos"], given["sin"], recompute=True)[0]


def _packed_inputs(random: Random) -> Inputs:
    return {**_ids(random, 1, 9), "read_at": np.array([1, 2, 3, 6, 8])}


def _packed(module: Any, given: Inputs) -> Any:
    return module(given["ids"], given["cos"], given["sin"], segments=(4, 5), logits_at=given["read_at"])[0]


def _masked_inputs(random: Random) -> Inputs:
    return {**_ids(random, 2, 6), "mask": masks.left_padded_mask((6, 4), 6)}


def _masked(module: Any, given: Inputs) -> Any:
    return module(given["ids"], given["cos"], given["sin"], given["mask"])[0]


def _cached_inputs(random: Random) -> Inputs:
    shape = (2, sizes.TEXT.num_key_value_heads, 7, sizes.TEXT.head_dim)
    empty = {f"{kind}{i}": np.zeros(shape, np.float32) for i in range(2) for kind in ("keys", "values")}
    return {
        **_ids(random, 2, 6),
        **empty,
        "mask": np.tri(7, dtype=bool)[None, None],
        "slots": np.arange(7),
    }


def _cached(module: Any, given: Inputs) -> Any:
    """Return the logits of a prompt of three tokens and of three more, one by one, and what the cache then holds."""
    # a cache is used up by the call that writes it, so that each pass has one of its own
    cache = tuple((given[f"keys{i}"] * 1.0, given[f"values{i}"] * 1.0) for i in range(2))
    found = []
    for first, last in ((0, 3), (3, 4), (4, 5), (5, 6)):
        at = slice(first, last)
        logits, cache = module(
            given["ids"][:, at],
            given["cos"][:, :, at],
            given["sin"][:, :, at],
            given["mask"][:, :, at],
            cache,
            given["slots"][first],
        )
        found.append(logits)
    return ops.concat(found, 1), cache[-1][0], cache[-1][1]


def _with_low_rank() -> Any:
    from sampan.models.ar import Layer

    layer = Layer(sizes.TEXT)
    nn.add_low_rank(layer, {"self_attn.q_proj": (2, 1.5), "mlp.gate_up_proj": (3, 0.5)})
    return layer


# --- the decoder -------------------------------------------------------------------------------------------------------


def _dit_tables(grid: tuple[int, int], num_text: int, prefix: str = "") -> Inputs:
    cos, sin = positions.rope_image(grid, sizes.DIT.attention_head_dim, num_text)
    return {f"{prefix}cos": cos, f"{prefix}sin": sin}


def _block_inputs(with_text: bool, with_reference: bool, with_mask: bool) -> Any:
    def draw(random: Random) -> Inputs:
        dim, heads = sizes.DIT.dim, sizes.DIT.num_attention_heads
        given: Inputs = {
            "x": normal(random, 2, 6, dim),
            "condition": normal(random, 2, sizes.DIT.time_embed_dim),
            **_dit_tables((2, 3), 3 if with_text else 0),
        }
        if with_text:
            given["text"] = normal(random, 2, 3, dim)
        if with_reference:
            shape = (2, heads, 4, sizes.DIT.attention_head_dim)
            given |= {"keys": normal(random, *shape), "values": normal(random, *shape)}
        if with_mask:
            given["mask"] = random.random((2, 1, 1, 6 + 3 * with_text + 4 * with_reference)) < 0.7
            given["mask"][..., -1] = True
        return given

    return draw


def _block(module: Any, given: Inputs) -> Any:
    reference = (given["keys"], given["values"]) if "keys" in given else None
    image, text, (keys, values) = module(
        given["x"], given.get("text"), given["condition"], given["cos"], given["sin"], reference, given.get("mask")
    )
    return (image, keys, values) if text is None else (image, text, keys, values)


def _picture(random: Random, grid: tuple[int, int], prefix: str = "") -> Inputs:
    rows, columns = grid
    patch, channels = sizes.DIT.patch_size, sizes.DIT.in_channels
    return {
        f"{prefix}latent": normal(random, 2, channels, rows * patch, columns * patch),
        f"{prefix}prior": random.integers(0, sizes.DIT.prior_vq_quantizer_codebook_size, (2, rows * columns)),
        f"{prefix}times": positions.sinusoid(np.array([0.0, 0.0] if prefix else [731.0, 52.0]), sizes.DIT.time_embed_dim),
        f"{prefix}sizes": positions.size_features((0, 4), (24, 16), sizes.DIT.condition_dim, 2),
    }  # fmt: skip


def _dit_inputs(random: Random) -> Inputs:
    words = normal(random, 2, 3, sizes.DIT.text_embed_dim)
    keep = np.array([1, 0], np.float32)
    return {**_picture(random, (3, 2)), "words": words, "keep": keep, **_dit_tables((3, 2), 3)}


def _dit_reference_inputs(random: Random) -> Inputs:
    mask = np.ones((2, 1, 1, 4 + 3 + 6), bool)
    mask[0, ..., :4] = False
    mask[1, ..., 4] = False
    reference = {**_picture(random, (2, 2), "r_"), **_dit_tables((2, 2), 0, "r_")}
    return {**_dit_inputs(random), **reference, "r_keep": np.ones(2, np.float32), "mask": mask}


def _dit(module: Any, given: Inputs, **more: Any) -> Any:
    return module(*(given[name] for name in ("latent", "words", "prior", "keep", "times", "sizes", *TABLES)), **more)


def _dit_reference(module: Any, given: Inputs) -> Any:
    names = ("latent", "prior", "keep", "times", "sizes", *TABLES)
    references = module.reference_kv(*(given["r_" + name] for name in names))
    return _dit(module, given, references=references, mask=given["mask"])


_DIT_TABLES = ("cos", "sin", "times", "sizes", "keep", "r_cos", "r_sin", "r_times", "r_sizes", "r_keep")


# --- the autoencoder ---------------------------------------------------------------------------------------------------


def _image(random: Random) -> Inputs:
    return {"image": np.clip(normal(random, 2, 3, 12, 8) / 2, -1, 1)}


def _channels(channels: int) -> Any:
    return lambda random: {"x": normal(random, 2, channels, 6, 4)}


def _plain(module: Any, given: Inputs) -> Any:
    return module(given["x"])


# --- the tokenizer and the glyph encoder -------------------------------------------------------------------------------


def _patches(random: Random) -> Inputs:
    ids, weights = positions.bilinear_gather((3, 2), sizes.VISION.grid_side)
    patches = normal(random, 2, 6, sizes.VISION.in_channels * sizes.VISION.patch_size**2)
    return {"patches": patches, "gather_ids": ids, "gather_weights": weights}


def _of_patches(module: Any, given: Inputs) -> Any:
    return module(given["patches"], given["gather_ids"], given["gather_weights"])


def _words(random: Random) -> Inputs:
    mask = np.arange(7)[None] < np.array([7, 4, 6])[:, None]
    return {"ids": random.integers(3, 200, (3, 7)), "mask": mask, "buckets": positions.relative_buckets(7, 8, 6)}


def _glyph_block_inputs(random: Random) -> Inputs:
    config = sizes.GLYPH
    mask = (np.arange(5)[None] < np.array([5, 3])[:, None])[:, None, None]
    return {"x": normal(random, 2, 5, config.d_model), "bias": normal(random, 1, config.num_heads, 5, 5), "mask": mask}


def _block_case(name: str, inputs: Any, compute: Any, path: str, *arguments: Any, **more: Any) -> Case:
    return Case(name, "block", inputs, compute, _module(path, *arguments), **more)


AR = ("ar:ARGenerator", sizes.TEXT)
DIT = ("dit:DiT", sizes.DIT)

GENERATOR = [
    _block_case("AR layer", _layer_inputs, _layer, "ar:Layer", sizes.TEXT, constants=TABLES),
    _block_case("AR generator/causal", lambda r: _ids(r, 2, 6), _causal, *AR, constants=TABLES),
    _block_case("AR generator/packed", _packed_inputs, _packed, *AR, constants=TABLES),
    _block_case("AR generator/mask", _masked_inputs, _masked, *AR, constants=TABLES),
    _block_case("AR generator/KV cache", _cached_inputs, _cached, *AR, has_gradient=False),
    _block_case("AR generator/recompute", lambda r: _ids(r, 2, 6), _recomputed, *AR, constants=TABLES),
]
LORA = Case(
    "Linear with LoRA", "block", _layer_inputs, _layer, _with_low_rank, constants=TABLES, needs=("add_low_rank",)
)
DECODER = [
    *(
        _block_case(f"DiT block/{name}", _block_inputs(*has), _block, "dit:DiTBlock", sizes.DIT, constants=TABLES)
        for name, has in {
            "text": (True, False, False),
            "no text": (False, False, False),
            "references": (True, True, False),
            "mask": (True, False, True),
            "references, mask": (True, True, True),
        }.items()
    ),
    _block_case("DiT/plain", _dit_inputs, _dit, *DIT, constants=_DIT_TABLES),
    _block_case("DiT/references, mask", _dit_reference_inputs, _dit_reference, *DIT, constants=_DIT_TABLES),
    _block_case("DiT/recompute", _dit_inputs, lambda m, g: _dit(m, g, recompute=True), *DIT, constants=_DIT_TABLES),
]
CONV = ("Conv2d",)
FROZEN = [
    _block_case("VAE ResNet/same width", _channels(8), _plain, "vae:ResNet", 8, 8, 4, needs=CONV),
    _block_case("VAE ResNet/wider", _channels(8), _plain, "vae:ResNet", 8, 12, 4, needs=CONV),
    _block_case("VAE down block", _channels(8), _plain, "vae:DownBlock", 8, 12, 1, 4, False, needs=CONV),
    _block_case("VAE down block/last", _channels(8), _plain, "vae:DownBlock", 8, 12, 1, 4, True, needs=CONV),
    _block_case("VAE up block", _channels(12), _plain, "vae:UpBlock", 12, 8, 2, 4, False, needs=CONV),
    _block_case("VAE up block/last", _channels(12), _plain, "vae:UpBlock", 12, 8, 2, 4, True, needs=CONV),
    _block_case("VAE mid block", _channels(8), _plain, "vae:MidBlock", 8, 4, needs=CONV),
    _block_case("VAE encoder", _image, lambda m, g: m(g["image"]), "vae:VAEEncoder", sizes.VAE, needs=CONV),
    _block_case(
        "VAE decoder", lambda r: {"x": normal(r, 2, 4, 6, 4)}, _plain, "vae:VAEDecoder", sizes.VAE, needs=CONV
    ),
    _block_case(
        "VAE/sampled", lambda r: {**_image(r), "noise": normal(r, 2, 4, 6, 4)},
        lambda m, g: m(g["image"], g["noise"]), "vae:VAE", sizes.VAE, needs=CONV,
    ),
    _block_case(
        "Vision block", lambda r: {"x": normal(r, 2, 5, sizes.VISION.hidden_size)}, _plain,
        "vision:VisionBlock", sizes.VISION,
    ),
    _block_case(
        "Vision encoder", _patches, _of_patches, "vision:VisionEncoder", sizes.VISION, constants=("gather_weights",),
        needs=CONV,
    ),
    _block_case(
        "Image tokenizer", _patches, _of_patches, "vision:ImageTokenizer", sizes.VISION, sizes.VQ,
        has_gradient=False, is_exact=True, needs=CONV,
    ),
    _block_case(
        "Glyph block", _glyph_block_inputs, lambda m, g: m(g["x"], g["bias"], g["mask"]),
        "glyph:_Block", sizes.GLYPH, False, needs=("softmax",),
    ),
    _block_case(
        "Glyph encoder", _words, lambda m, g: m(g["ids"], g["mask"], g["buckets"]), "glyph:GlyphEncoder",
        sizes.GLYPH, needs=("softmax",),
    ),
]  # fmt: skip
