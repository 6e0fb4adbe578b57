"""The decoder: velocity of a rectified flow from cached latents, prior ids and glyph embeddings, with references.

Conditions are dropped as guidance and robustness need: everything at once (the unconditional branch), the words alone, the
prior alone (where it says where letters stand and what they are like, nothing else makes the words heard), the references
alone. And the prior is made worse, because at use the generator makes mistakes: a share of its ids is replaced at random, and
a share of the rows with words has the ids of other words of the same lengths on the same sign. A micro-batch
is of one size and its references have the same sizes, so that its rows line up.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.data.batches import ShapeGroups
from sampan.losses import flow
from sampan.losses.stages import decoder_loss
from sampan.models import positions
from sampan.models.build import build_on_meta
from sampan.models.positions import Grid
from sampan.models.text import glyph_texts
from sampan.pipeline.denoise import DenoiseInputs, Denoiser, initial_noise
from sampan.samplers import euler, noise
from sampan.train import sample_grid
from sampan.train.stages import HostBatch, StageInputs, TrainableStage

Floats = NDArray[np.float32]


def make(inputs: StageInputs) -> TrainableStage:
    """Return the stage."""
    settings, config, seed = inputs.settings, inputs.config, inputs.seed
    dit, encoded, pictures = config.dit, inputs.encoded(), inputs.pictures
    codes, count = config.ar.vq.num_embeddings, settings.micro_batch_size
    order = ShapeGroups(
        inputs.members,
        [tuple(map(pictures.size_of, (inputs.image_of[i], *inputs.references_of[i]))) for i in inputs.members],
        inputs.num_blocks, count, seed, "decoder",
    )  # fmt: skip

    alike = _alike(inputs) if settings.other_words else {}

    def grid_of(size: Grid) -> Grid:
        pixels = config.vae.factor * dit.patch_size
        return size[0] // pixels, size[1] // pixels

    def prior_of(ids: Any) -> Any:
        return positions.upsample_ids(ids, config.upsample).reshape(-1)

    def num_references(sample: int) -> int:
        return len(inputs.references_of[sample])

    def draw(step: int, micro: int) -> HostBatch:
        chosen = order.take(inputs.block(step, micro))
        size = pictures.size_of(inputs.image_of[chosen[0]])
        grid = grid_of(size)
        mu = euler.shift(grid[0] * grid[1], config.scheduler)
        clean = encoded.latents([inputs.image_of[i] for i in chosen])
        texts: list[Floats] = []
        priors, noises, normals, keep, open_references, sizes = [], [], [], [], [], []
        for row, index in zip(inputs.rows(micro), chosen, strict=True):
            random = noise.generator(seed, "decoder", step, row)
            normals.append(random.standard_normal())
            drop_all, drop_words, drop_references = random.random(3) < (
                settings.drop_condition, settings.drop_glyph, settings.drop_references,
            )  # fmt: skip
            words = () if drop_all or drop_words else tuple(glyph_texts(inputs.caption(index, random)))
            texts.append(encoded.glyph(words))
            open_references.append(not (drop_all or drop_references))
            shown = index
            if index in alike and random.random() < settings.other_words:
                shown = alike[index][int(random.integers(len(alike[index])))]
            prior = encoded.target_ids(inputs.image_of[shown])
            replaced = random.random(prior.shape) < settings.prior_noise
            priors.append(prior_of(np.where(replaced, random.integers(0, codes, prior.shape), prior)))
            noises.append(random.standard_normal(clean.shape[1:], np.float32))
            drop_prior = random.random() < settings.drop_prior
            keep.append(0.0 if drop_all or drop_prior else 1.0)
            sizes.append(positions.size_features(pictures.crop_of(inputs.image_of[index]), size, dit.condition_dim, 1))
        sigma, t = flow.flow_times(np.array(normals), settings.time_mean, settings.time_std, mu)
        num_text = max(len(text) for text in texts)
        references = [
            _reference([inputs.references_of[i][k] for i in chosen]) for k in range(num_references(chosen[0]))
        ]
        num_reference_tokens = sum(ids.shape[1] for _, ids, *_ in references)
        return HostBatch(
            (
                clean,
                np.stack(noises),
                sigma,
                np.stack([np.pad(text, ((num_text - len(text), 0), (0, 0))) for text in texts]),
                np.stack(priors),
                np.array(keep, np.float32),
                positions.sinusoid(t, dit.time_embed_dim),
                np.concatenate(sizes),
                *positions.rope_image(grid, dit.attention_head_dim, num_text),
                _mask([len(text) for text in texts], open_references, num_reference_tokens, num_text, len(priors[0])),
                *(array for reference in references for array in reference),
            ),
            tuple(inputs.samples[i].key for i in chosen),
        )

    def _reference(members: list[int]) -> tuple[Any, ...]:
        """Return what `reference_kv` takes for one reference of each row; the keep of its prior is 1."""
        size = pictures.size_of(members[0])
        return (
            encoded.latents(members),
            np.stack([prior_of(encoded.target_ids(i)) for i in members]),
            np.ones(count, np.float32),
            positions.sinusoid([0.0] * count, dit.time_embed_dim),
            positions.size_features((0, 0), size, dit.condition_dim, count),
            *positions.rope_image(grid_of(size), dit.attention_head_dim, 0),
        )

    def loss(module: Any, *arrays: Any) -> tuple[Any, dict[str, Any]]:
        num_idle = 0
        if isinstance(arrays[-1], tuple):
            num_idle, arrays = arrays[-1][0], arrays[:-1]
        return decoder_loss(module, *arrays, recompute=settings.recompute, num_idle=num_idle)

    def num_extra(step: int, micro: int) -> int:
        return num_references(order.take(inputs.block(step, micro))[0])

    def idle(batch: HostBatch, more: int) -> HostBatch:
        """Return the batch with references of the smallest size that nothing sees."""
        side, vae = config.geometry.prior_px, config.vae
        cells = side // vae.factor
        rows, columns = grid_of((side, side))
        nothing = (
            np.zeros((1, vae.latent_channels, cells, cells), np.float32),
            np.zeros((1, rows * columns), np.int64),
            np.zeros(1, np.float32),
            positions.sinusoid([0.0], dit.time_embed_dim),
            positions.size_features((0, 0), (side, side), dit.condition_dim, 1),
            *positions.rope_image((rows, columns), dit.attention_head_dim, 0),
        )
        return HostBatch((*batch.arrays, *nothing * more, (more,)), batch.keys)

    def sample(module: Any, chosen: Sequence[int]) -> Any:
        """Return originals beside what is painted from their true tokens."""
        shown = [inputs.image_of[i] for i in chosen]

        denoiser = Denoiser(module, config, inputs.device, inputs.module_dtype)

        def told(number: int, index: int) -> DenoiseInputs:
            picture, words = inputs.image_of[index], glyph_texts(inputs.samples[index].captions[0])
            size, references = pictures.size_of(picture), inputs.references_of[index]
            return DenoiseInputs(
                encoded.target_ids(picture)[None],
                initial_noise(seed, number, size, config, "preview")[None],
                encoded.glyph(tuple(words))[None],
                size,
                sample_grid.NUM_STEPS,
                sample_grid.GUIDANCE,
                encoded.glyph(())[None],
                denoiser.reference_kv(
                    [(encoded.latents([r]), encoded.target_ids(r), pictures.size_of(r)) for r in references]
                ),
            )

        painted = sample_grid.denoise_samples(
            denoiser, lambda: inputs.frozen("vae"), (told(number, index) for number, index in enumerate(chosen))
        )
        return sample_grid.pairs([pictures[i] for i in shown], painted, [inputs.samples[i].captions[0] for i in chosen])

    return TrainableStage(build_on_meta("decoder", config), draw, loss, sample=sample, num_extra=num_extra, idle=idle)


def _alike(inputs: StageInputs) -> dict[int, list[int]]:
    """Return for each sample with words, references apart, those that by what is said of them differ in the letters alone."""
    groups: dict[tuple[Any, ...], list[int]] = {}
    for index in inputs.members:
        caption = max(inputs.samples[index].captions, key=len)  # the one that says most
        if inputs.references_of[index] or not (texts := glyph_texts(caption)):
            continue
        for text in texts:
            caption = caption.replace(text, "_" * len(text))
        groups.setdefault((inputs.pictures.size_of(inputs.image_of[index]), caption), []).append(index)
    return {index: group for group in groups.values() if len(group) > 1 for index in group}


def _mask(
    text_lengths: list[int], open_references: list[bool], num_references: int, num_text: int, num_image: int
) -> NDArray[np.bool_] | None:
    """Return which keys (rows, 1, 1, references + text + image) are open, or None where all are.

    The padding in front of a shorter text is closed: a picture made alone has none.
    """
    mask = np.ones((len(text_lengths), 1, 1, num_references + num_text + num_image), bool)
    for row, (length, is_open) in enumerate(zip(text_lengths, open_references, strict=True)):
        mask[row, ..., num_references : num_references + num_text - length] = False
        mask[row, ..., :num_references] = is_open
    return None if mask.all() else mask
