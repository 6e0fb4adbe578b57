"""Writing the tokens of several pictures together, each with its own prompt, of which some begin while others go on.

All rows write into the same slot of one cache, so that a row's prompt lies just before it: a shorter prompt begins at a
later slot, and the mask closes what lies before. Where a token stands is told by its rotation and not by its slot; a row
therefore computes what it would alone, up to the order in which a product's terms are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.models import positions
from sampan.models.ar import ARGenerator, Cache
from sampan.models.config import SamplingConfig, TextConfig
from sampan.models.positions import Grid
from sampan.pipeline.ar_decode import drawn, nucleus
from sampan.samplers import noise

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]


class TokenSequence:
    """One picture's tokens.

    Args:
        prompt_ids: (tokens,), reference ids already in place, image-start token last.
        references: Index of the first token and grid of each reference in the prompt.
        grids: What to write, as `ar_decode.write_tokens` takes them.
        num_codes: Ids at and above it are closed.
        seed, picture: Name the draws, as in `ar_decode.write_tokens`.
    """

    def __init__(
        self,
        prompt_ids: Ints,
        references: tuple[tuple[int, Grid], ...],
        grids: tuple[Grid, ...],
        *,
        num_codes: int,
        sampling: SamplingConfig,
        seed: int,
        picture: int,
        config: TextConfig,
    ):
        self.prompt_ids, self.grids = prompt_ids, grids
        self.num_codes, self.sampling = num_codes, sampling
        self.written: list[int] = []
        self.total = sum(rows * columns for rows, columns in grids)
        self._draw = noise.generator(seed, "tokens", picture)
        prefix, following = positions.prompt_positions(len(prompt_ids), references)
        generated = positions.generated_positions(following, grids)
        self.prompt_tables = positions.rope_text(prefix[:, None], config)
        self.tables = positions.rope_text(generated[:, None], config)

    @property
    def done(self) -> bool:
        """Whether the last token is written."""
        return len(self.written) == self.total

    @property
    def num_slots(self) -> int:
        """Slots that prompt and tokens take until now; the last token is not in the cache yet."""
        return len(self.prompt_ids) + max(0, len(self.written) - 1)

    def grid_ids(self, index: int) -> Ints:
        """Return the ids (rows, columns) of one of the grids; it must be written."""
        index %= len(self.grids)
        first = sum(rows * columns for rows, columns in self.grids[:index])
        rows, columns = self.grids[index]
        return np.asarray(self.written[first : first + rows * columns], np.int64).reshape(rows, columns)

    def take(self, probabilities: NDArray[np.float64]) -> None:
        """Draw the next token."""
        self.written.append(drawn(probabilities, self._draw))


class BatchedDecoder:
    """The rows that are written together.

    Args:
        model: On `device`, in `dtype`.
    """

    def __init__(self, model: ARGenerator, device: str, dtype: str):
        self.model, self.device, self.dtype = model, device, dtype
        self.rows: list[TokenSequence] = []
        self._begins: list[int] = []  # the first slot of each row
        self._cache: Cache = ()
        self._slot = 0  # where the next token of every row goes

    def join(self, rows: Sequence[TokenSequence]) -> None:
        """Read the prompt that these rows share, write the first token of each, and take them along."""
        first, num_prompt = rows[0], len(rows[0].prompt_ids)
        assert all(row.prompt_ids is first.prompt_ids and not row.written for row in rows), "rows share a prompt"
        layers = self.model.model.language_model.layers
        shape = self.model.cache_shape(1, num_prompt)
        cache = tuple(
            (dev.zeros(shape, self.device, self.dtype), dev.zeros(shape, self.device, self.dtype)) for _ in layers
        )
        mask = np.arange(num_prompt)[None, :] <= np.arange(num_prompt)[:, None]
        with dev.no_grad():
            logits, cache = self.model(
                dev.array(first.prompt_ids[None], self.device),
                *(dev.array(table, self.device) for table in first.prompt_tables),
                dev.array(mask[None, None], self.device),
                cache,
                dev.array(np.arange(1), self.device)[0],
                num_logits=1,
            )
            assert cache is not None, "one was given"
            self._draw(rows, np.repeat(dev.to_numpy(logits)[:, -1], len(rows), axis=0))
            self._extend(cache, num_prompt, rows)

    def step(self) -> None:
        """Write the next token of every row that is not done."""
        if len(active := [row for row in self.rows if not row.done]) < len(self.rows):
            self.keep(active)
        if not self.rows:
            return
        tables = [
            np.concatenate([row.tables[axis][:, :, len(row.written) - 1 : len(row.written)] for row in self.rows])
            for axis in (0, 1)
        ]
        slots = self._cache[0][0].shape[2]
        readable = (np.arange(slots)[None] >= np.asarray(self._begins)[:, None]) & (
            np.arange(slots)[None] <= self._slot
        )
        with dev.no_grad():
            logits, cache = self.model(
                dev.array(np.asarray([[row.written[-1]] for row in self.rows], np.int64), self.device),
                *(dev.array(table, self.device) for table in tables),
                dev.array(readable[:, None, None], self.device),
                self._cache,
                dev.array(np.asarray([self._slot]), self.device)[0],
            )
            assert cache is not None, "one was given"
            self._cache = cache
            self._slot += 1
            self._draw(self.rows, dev.to_numpy(logits)[:, -1])

    def keep(self, rows: Sequence[TokenSequence]) -> None:
        """Go on with some of the rows alone."""
        kept = [index for index, row in enumerate(self.rows) if any(row is other for other in rows)]
        if len(kept) == len(self.rows):
            return
        self.rows, self._begins = [self.rows[i] for i in kept], [self._begins[i] for i in kept]
        if not self.rows:
            self._cache, self._slot = (), 0
            return
        unused = min(self._begins)
        self._begins = [begin - unused for begin in self._begins]
        self._slot -= unused
        with dev.no_grad():
            self._cache = tuple(
                (
                    ops.concat([keys[i : i + 1, :, unused:] for i in kept], 0),
                    ops.concat([values[i : i + 1, :, unused:] for i in kept], 0),
                )
                for keys, values in self._cache
            )

    def _draw(self, rows: Sequence[TokenSequence], logits: Floats) -> None:
        ways: dict[tuple[SamplingConfig, int], list[int]] = {}
        for index, row in enumerate(rows):
            ways.setdefault((row.sampling, row.num_codes), []).append(index)
        for (sampling, num_codes), members in ways.items():
            probabilities = nucleus(logits[members, :num_codes], sampling)
            for index, row_probabilities in zip(members, probabilities, strict=True):
                rows[index].take(row_probabilities)

    def _extend(self, cache: Cache, num_prompt: int, rows: Sequence[TokenSequence]) -> None:
        """Put rows that have the same prompt behind those that are there."""
        old = self._cache[0][0].shape[2] if self.rows else 0
        begin = max(self._slot, num_prompt)  # where all rows write next
        shift, front = begin - self._slot, begin - num_prompt
        self._begins = [first + shift for first in self._begins] + [front] * len(rows)
        every = [*self.rows, *rows]
        slots = begin + max(row.total - max(1, len(row.written)) for row in every) + 1
        joined = []
        for index, pair in enumerate(cache):
            both = []
            for side, new in enumerate(pair):
                pieces = [self._padded(new, front, slots - front - num_prompt)] * len(rows)
                if self.rows:
                    # what lies behind the next slot is not written yet
                    there = self._cache[index][side][:, :, : min(old, self._slot)]
                    pieces = [self._padded(there, shift, slots - shift - there.shape[2]), *pieces]
                both.append(ops.concat(pieces, 0))
            joined.append((both[0], both[1]))
        self._cache, self._slot, self.rows = tuple(joined), begin, every

    def _padded(self, array: Any, front: int, back: int) -> Any:
        rows, heads, _, width = array.shape
        pieces = [array]
        if front:
            pieces = [dev.zeros((rows, heads, front, width), self.device, self.dtype), *pieces]
        if back:
            pieces.append(dev.zeros((rows, heads, back, width), self.device, self.dtype))
        return pieces[0] if len(pieces) == 1 else ops.concat(pieces, 2)
