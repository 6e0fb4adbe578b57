"""The picture tokenizer: quantised features that paint their patch again and agree with the caption.

Codes that nothing chose for a while are moved onto features of the current batch, or a codebook dies to a handful of
entries. How many codes are in use, and how evenly, is logged. A training may begin without quantising: what then is learned
has no codes to serve, and the codebook is spread over it in one go, each code as far from the others as there is something
to stand for, which finds rare letters that a draw of features would miss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.data.batches import ShapeGroups
from sampan.data.transforms import grid_patches
from sampan.frameworks import device as dev
from sampan.losses.stages import tokenizer_loss
from sampan.models import positions
from sampan.models.encoders import encode_tokens
from sampan.models.heads import TokenizerWithHeads
from sampan.samplers import noise
from sampan.train import sample_grid
from sampan.train.stages import HostBatch, Rows, StageInputs, TrainableStage

_SEEN_STEPS = 64  # last steps without codes, whose features the codebook is spread over
_ROUNDS = 3  # of moving each code to the mean of what it stands for
_PREVIEW_SHARE = 0.25
_CODEBOOK = "part.model.vqmodel.quantize.embedding.weight"
# in the release and used by nothing: without a gradient it would decay on one framework and stay on another
_UNUSED = ("part.model.vqmodel.post_quant_conv.weight", "part.model.vqmodel.post_quant_conv.bias")


def make(inputs: StageInputs) -> TrainableStage:
    """Return the stage. A quarter of the micro-batches see the preview's grid, so that both sizes share the codes."""
    settings, config, seed = inputs.settings, inputs.config, inputs.seed
    pictures, captions, members = inputs.pictures, _captions_of(inputs), inputs.picture_members()
    batch, geometry = settings.micro_batch_size, config.geometry
    sizes = [pictures.size_of(i) for i in members]
    order = ShapeGroups(members, sizes, inputs.num_blocks, batch, seed, "tokenizer")
    with dev.on_meta():
        module = TokenizerWithHeads(config, config.ar.text.vocab_size)
    num_codes = config.ar.vq.num_embeddings
    extra: dict[str, NDArray[Any]] = {"uses": np.zeros(num_codes, np.int64)}  # since the last look
    continuous = min(settings.continuous_steps, settings.num_steps)
    if continuous:
        most_tokens = max(math.prod(geometry.prior_grid(*size)) for size in set(sizes))
        extra["seen"] = np.zeros((_SEEN_STEPS, batch * most_tokens, config.ar.vq.embed_dim), np.float32)

    def draw(step: int, micro: int) -> HostBatch:
        chosen = order.take(inputs.block(step, micro))
        size = pictures.size_of(chosen[0])
        is_preview = noise.generator(seed, "tokenizer/grid", step, micro).random() < _PREVIEW_SHARE
        grid = geometry.preview_grid(*size) if is_preview else geometry.prior_grid(*size)
        patches = np.stack([grid_patches(pictures[i], grid, config.processor.patch_size) for i in chosen])
        words: list[list[int]] = []
        for row, index in zip(inputs.rows(micro), chosen, strict=True):
            known = captions.get(index)
            random = noise.generator(seed, "tokenizer", step, row)
            words.append(known[int(random.integers(len(known)))] if known else [])
        width = max(1, *(len(w) for w in words))
        ids, mask = np.zeros((batch, width), np.int64), np.zeros((batch, width), np.float32)
        for row, word in enumerate(words):
            ids[row, : len(word)], mask[row, : len(word)] = word, 1
        has_caption = np.asarray(mask.any(1), np.float32)
        mask[:, 0] = np.maximum(mask[:, 0], 1 - has_caption)  # an empty row must not divide by nothing; it weighs 0
        gather = positions.bilinear_gather(grid, config.ar.vision.grid_side)
        return HostBatch(
            (patches, *gather, ids, mask, has_caption, np.arange(batch), np.array([step >= continuous], np.float32)),
            tuple(pictures.name_of(i) for i in chosen),
        )

    def loss(module: Any, *arrays: Any) -> tuple[Any, dict[str, Any]]:
        return tokenizer_loss(
            module, *arrays, commitment_weight=settings.commitment_weight, codebook_weight=settings.codebook_weight,
            contrast_weight=settings.contrast_weight,
        )  # fmt: skip

    def after(step: int, arrays: Mapping[str, NDArray[Any]]) -> tuple[dict[str, float], Rows]:
        chosen = arrays["ids"].reshape(-1)
        if step < continuous:
            kept = arrays["features"].reshape(len(chosen), -1)
            extra["seen"][step % _SEEN_STEPS, : len(kept)] = kept
            if step + 1 < continuous:
                return {}, {}
            seen = extra["seen"].reshape(-1, kept.shape[1])
            return {}, {_CODEBOOK: (np.arange(num_codes), _spread(seen[np.any(seen, 1)], num_codes))}
        extra["uses"] += np.bincount(chosen, minlength=num_codes)
        if (step + 1 - continuous) % settings.revive_every:
            return {}, {}
        uses = extra["uses"].copy()
        extra["uses"][:] = 0
        features = arrays["features"].reshape(len(chosen), -1)
        dead = np.flatnonzero(uses == 0)
        moved: Rows = {}
        # two thirds of a run may move codes; then they must hold still for the weights to settle on them
        if len(dead) and step < settings.num_steps * 2 // 3:
            picked = noise.generator(seed, "tokenizer/revive", step).integers(0, len(features), len(dead))
            moved[_CODEBOOK] = (dead, features[picked])
        return _usage(uses), moved

    def measure(module: Any) -> dict[str, float]:
        """Count the codes over every picture of the set, at its own grid."""
        uses = np.zeros(num_codes, np.int64)
        for index in members:
            grid = geometry.prior_grid(*pictures.size_of(index))
            uses += np.bincount(ids_of(module, index, grid).reshape(-1), minlength=num_codes)
        return {f"set_{name}": value for name, value in _usage(uses).items()}

    def ids_of(module: Any, index: int, grid: positions.Grid) -> NDArray[np.int64]:
        patches = grid_patches(pictures[index], grid, config.processor.patch_size)[None]
        return encode_tokens(module.part, patches, grid, config, inputs.device, inputs.module_dtype).reshape(grid)

    def sample(module: Any, chosen: Sequence[int]) -> Any:
        """Return originals beside what the repainting head makes of their codes."""
        images = [inputs.image_of[i] for i in chosen]
        ids = [ids_of(module, i, geometry.prior_grid(*pictures.size_of(i))) for i in images]
        painted = [sample_grid.repaint(module, i, config, inputs.device) for i in ids]
        captions = [inputs.samples[i].captions[0] for i in chosen]
        return sample_grid.pairs([pictures[i] for i in images], painted, captions)

    return TrainableStage(
        module,
        draw,
        loss,
        prefix="part.",
        after=after,
        measure=measure,
        sample=sample,
        extra=extra,
        delayed=dict.fromkeys(_UNUSED, settings.num_steps),  # never
    )


def _spread(seen: NDArray[np.float32], count: int) -> NDArray[np.float32]:
    """Return codes (count, channels) spread over unit features: the next one always where the others are farthest.

    Source: Gonzalez 1985 (farthest-first traversal), then Lloyd 1982 for a few rounds.
    """
    codes = np.empty((count, seen.shape[1]), np.float32)
    likeness = np.full(len(seen), -np.inf, np.float32)  # to the most similar code
    farthest = 0
    for code in range(count):
        codes[code] = seen[farthest]
        np.maximum(likeness, seen @ codes[code], out=likeness)
        farthest = int(likeness.argmin())
    for _ in range(_ROUNDS):
        nearest = np.concatenate([(part @ codes.T).argmax(1) for part in np.array_split(seen, 64)])
        sums = np.zeros_like(codes)
        np.add.at(sums, nearest, seen)
        lengths = np.linalg.norm(sums, axis=1, keepdims=True)
        codes = np.where(lengths > 0, sums / np.maximum(lengths, 1e-12), codes)
    return codes


def _usage(uses: NDArray[np.int64]) -> dict[str, float]:
    """Return the share of codes in use, how many are not, and the perplexity: as how many even codes they serve."""
    share = uses[uses > 0] / max(1, uses.sum())
    perplexity = float(np.exp(-(share * np.log(share)).sum()))
    return {
        "codes_used": float((uses > 0).mean()),
        "codes_dead": float((uses == 0).sum()),
        "codes_perplexity": round(perplexity, 1),
    }


def _captions_of(inputs: StageInputs) -> dict[int, list[list[int]]]:
    """Return, by picture, the token ids of its captions; references alone have none."""
    found: dict[int, list[list[int]]] = {}
    for index in inputs.members:
        sample = inputs.samples[index]
        if not sample.references:  # an instruction does not say what is in the picture
            ids = [inputs.prompt_tokenizer.text_ids(caption) for caption in sample.captions]
            found.setdefault(inputs.image_of[index], []).extend(ids)
    return found
