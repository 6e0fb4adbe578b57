"""The generator: next visual token, the preview weighted, on cached ids.

The samples of a micro-batch, of any size and with any number of references, are packed one after another into one row. Each
keeps its own positions and sees nothing of the others, so that the loss is that of the samples one by one and no token is
padding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.data.batches import ShuffledOrder
from sampan.frameworks import io
from sampan.losses import tokens
from sampan.losses.stages import ar_loss
from sampan.models import positions
from sampan.models.build import build_on_meta
from sampan.pipeline.prepare import lay_out_tokens
from sampan.pipeline.tokens import BatchedDecoder, generate_tokens
from sampan.samplers import noise
from sampan.train import sample_grid
from sampan.train.stages import HostBatch, StageInputs, TrainableStage

Ints = NDArray[np.int64]
_TABLE = "model.language_model.embed_tokens.weight"
_HEAD = "lm_head.weight"


def make(inputs: StageInputs) -> TrainableStage:
    """Return the stage."""
    settings, config, seed = inputs.settings, inputs.config, inputs.seed
    encoded, order = inputs.encoded(), ShuffledOrder(inputs.members, seed, "ar/order")
    text, size = config.ar.text, settings.micro_batch_size

    def draw(step: int, micro: int) -> HostBatch:
        chosen = order.take(inputs.block(step, micro) * size, size)
        samples = []
        for row, index in zip(inputs.rows(micro), chosen, strict=True):
            random = noise.generator(seed, "ar", step, row)
            caption = inputs.caption(index, random)
            caption = "" if random.random() < settings.drop_prompt else caption
            samples.append(_sample(inputs, index, caption))
        ids, places, labels, weights = zip(*samples, strict=True)
        lengths = [len(i) for i in ids]
        # the first label of a sample is read off its image-start token, the last token of its prompt
        ends = np.cumsum(lengths)
        read_at = np.concatenate([np.arange(end - len(one), end) for end, one in zip(ends, labels, strict=True)])
        cos, sin = positions.rope_text(np.concatenate(places, axis=1)[:, None], text)
        return HostBatch(
            (
                np.concatenate(ids)[None],
                cos,
                sin,
                read_at,
                np.concatenate(labels)[None],
                np.concatenate(weights)[None],
                tuple(lengths),
            ),
            tuple(inputs.samples[i].key for i in chosen),
        )

    def loss(module: Any, *arrays: Any) -> tuple[Any, dict[str, Any]]:
        return ar_loss(module, *arrays, recompute=settings.recompute)

    def sample(module: Any, chosen: Sequence[int]) -> Any:
        """Return what is painted from true tokens beside what is painted from those the generator writes."""
        captions = [inputs.samples[i].captions[0] for i in chosen]
        decoder, sequences = BatchedDecoder(module, inputs.device, inputs.module_dtype), []
        for number, (caption, index) in enumerate(zip(captions, chosen, strict=True)):
            layout = lay_out_tokens(
                caption,
                inputs.pictures.size_of(inputs.image_of[index]),
                [encoded.target_ids(reference) for reference in inputs.references_of[index]],
                tokenizer=inputs.prompt_tokenizer,
                config=config,
            )
            sequences.append(layout.sequence(config, config.sampling, seed, number))
            generate_tokens(decoder, sequences[-1:])
        found = [sequence.grid_ids(-1) for sequence in sequences]
        truths = [encoded.target_ids(inputs.image_of[i]) for i in chosen]
        return sample_grid.written_grid(truths, found, captions, inputs.paint_ids())

    module = build_on_meta("ar", config)
    freeze_text = inputs.adapting if settings.freeze_text is None else settings.freeze_text
    later = set(io.shapes(module)) - {_TABLE, _HEAD}
    delayed: dict[str, int] = dict.fromkeys(sorted(later), int(settings.head_steps)) if settings.head_steps else {}
    return TrainableStage(
        module,
        draw,
        loss,
        sample=sample,
        frozen_rows={_TABLE: text.vision_vocab_size} if freeze_text else {},
        delayed=delayed,
    )


def _sample(inputs: StageInputs, index: int, caption: str) -> tuple[Ints, Ints, Ints, NDArray[np.float32]]:
    """Return one sample's input ids (tokens,), positions (3, tokens), labels (generated,) and their weights.

    The end token is predicted and not read, so that the generated tokens read are one fewer than the labels.
    """
    config, encoded, picture = inputs.config, inputs.encoded(), inputs.image_of[index]
    references = [encoded.target_ids(i) for i in inputs.references_of[index]]
    target = encoded.target_ids(picture)
    pieces = [target] if references else [encoded.preview_ids(picture), target]
    grids = [positions.grid_of(piece) for piece in pieces]
    prompt = inputs.prompt_tokenizer.encode(
        caption, grids[-1], None if references else grids[0], [positions.grid_of(r) for r in references]
    )
    generated = np.concatenate([piece.reshape(-1) for piece in pieces])
    prefix, following = positions.prompt_positions(len(prompt.ids), prompt.references)
    places = np.concatenate([prefix, positions.generated_positions(following, grids)[:, :-1]], axis=1)
    num_preview = 0 if references else pieces[0].size
    given = inputs.settings.preview_weight
    weight = tokens.preview_weight(num_preview, target.size) if given == "auto" else float(given)
    return (
        np.concatenate([prompt.with_reference_ids(references), generated]),
        places,
        np.append(generated, config.ar.text.eos_token_id),
        tokens.token_weights(num_preview, target.size, weight),
    )
