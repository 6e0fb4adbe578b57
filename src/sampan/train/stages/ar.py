"""The generator: next visual token, the preview weighted, on cached ids.

A micro-batch is of one kind, text to image or editing with a given number of references, so that its rows line up: prompts
are padded on the left and the generated tokens stand in the same columns.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np

from sampan.data.batches import Order, kinds
from sampan.losses import tokens
from sampan.models import positions
from sampan.models.build import build
from sampan.samplers import noise
from sampan.train.stages import Context, Stage


class KindOrder:
    """Which kind of samples a step draws, and which samples of that kind.

    Kinds are numbers of references; a kind is drawn in proportion to its samples.
    """

    def __init__(self, context: Context, purpose: str):
        members: dict[int, list[int]] = defaultdict(list)
        for index, references in enumerate(context.references_of):
            members[len(references)].append(index)
        self.members = [members[kind] for kind in sorted(members)]
        draws = context.settings.num_steps * context.settings.grad_accum_steps
        self.kinds = kinds([len(m) for m in self.members], draws, context.seed, f"{purpose}/kind")
        self.before = [np.cumsum(self.kinds == kind) - (self.kinds == kind) for kind in range(len(self.members))]
        self.orders = [Order(m, context.seed, f"{purpose}/order/{k}") for k, m in enumerate(self.members)]

    def take(self, draw: int, count: int) -> list[int]:
        """Return the sample numbers of the given draw (step·grad_accum_steps + micro-batch)."""
        kind = int(self.kinds[draw])
        return self.orders[kind].take(int(self.before[kind][draw]) * count, count)


def make(context: Context) -> Stage:
    """Return the stage."""
    settings, config, seed = context.settings, context.config, context.seed
    encoded = context.encoded()
    order = KindOrder(context, "ar")
    text = config.ar.text
    target, preview = encoded.target_ids.shape[1:], encoded.preview_ids.shape[1:]
    weight = settings.preview_weight

    def draw(step: int, micro: int) -> tuple[np.ndarray, ...]:
        chosen = order.take(step * settings.grad_accum_steps + micro, settings.micro_batch_size)
        random = noise.generator(seed, "ar/draw", step, micro)
        grids = [target] if context.references_of[chosen[0]] else [preview, target]
        prompts, generated, places = [], [], []
        for index in chosen:
            captions = context.samples[index].captions
            caption = captions[int(random.integers(len(captions)))]
            if random.random() < settings.drop_prompt:
                caption = ""
            references = [encoded.target_ids[i] for i in context.references_of[index]]
            prompt = context.prompt_tokenizer.encode(
                caption, target, None if references else preview, [r.shape for r in references]
            )
            prompts.append(prompt.with_reference_ids(references))
            picture = context.image_of[index]
            pieces = (
                [encoded.target_ids[picture]]
                if references
                else [encoded.preview_ids[picture], encoded.target_ids[picture]]
            )
            generated.append(np.concatenate([p.reshape(-1) for p in pieces]))
            prefix, following = positions.prompt_positions(len(prompts[-1]), prompt.references)
            # the end token is predicted, not read: its position is not needed
            places.append(np.concatenate([prefix, positions.generated_positions(following, grids)[:, :-1]], axis=1))
        longest = max(len(p) for p in prompts)
        num_tokens = longest + len(generated[0])
        ids = np.full((len(chosen), num_tokens), text.pad_token_id, np.int64)
        where = np.ones((3, len(chosen), num_tokens), np.int64)
        for row, (prompt, made, place) in enumerate(zip(prompts, generated, places, strict=True)):
            ids[row, num_tokens - len(prompt) - len(made) :] = np.concatenate([prompt, made])
            where[:, row, num_tokens - place.shape[1] :] = place
        cos, sin = positions.rope_text(where, text)
        mask = positions.left_padded_mask(
            [len(p) + len(g) for p, g in zip(prompts, generated, strict=True)], num_tokens
        )
        labels = np.stack([np.append(g, text.eos_token_id) for g in generated])
        num_preview = 0 if len(grids) == 1 else preview[0] * preview[1]
        num_target = target[0] * target[1]
        by_token = tokens.token_weights(
            num_preview,
            num_target,
            tokens.preview_weight(num_preview, num_target) if weight == "auto" else float(weight),
        )
        return ids, cos, sin, mask, labels, np.tile(by_token, (len(chosen), 1))

    def loss(
        module: Any, ids: Any, cos: Any, sin: Any, mask: Any, labels: Any, weights: Any
    ) -> tuple[Any, dict[str, Any]]:
        logits, _ = module(ids, cos, sin, mask, num_logits=labels.shape[1])
        return tokens.token_loss(logits, labels, weights), {}

    return Stage(build("ar", config), draw, loss)
