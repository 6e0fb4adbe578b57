"""The token loop: a batched autoregressive decoder with a static cache, which sequences join and leave between two steps.

One image is a batch of one. All sequences write into the same slot of the cache, so that a sequence's prompt lies just
before it: a shorter prompt begins at a later slot, and the mask closes what lies before. Where a token stands is told by its
rotation and not by its slot; a sequence therefore computes what it would alone, up to the order in which a product's terms
are added.

The number of tokens follows from the image's size, so that ids outside the codebook (the end token among them) are closed
until the last one is written. Ids are drawn on the host from counter-based numbers; a vocabulary of 16,512 logits a token is
little to bring over.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sampan.frameworks import device as dev
from sampan.frameworks import ops
from sampan.frameworks.memory import memory_for
from sampan.models import positions
from sampan.models.ar import ARGenerator, Cache
from sampan.models.config import SamplingConfig, TextConfig
from sampan.models.positions import Grid
from sampan.pipeline.request import FEWER
from sampan.samplers import noise
from sampan.samplers.top_p import sample_token, top_p_probabilities

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]
_Alike = dict[tuple[SamplingConfig, int], list[int]]
_AHEAD = 64  # steps whose rotations and masks go to the device at once


class TokenSequence:
    """The tokens of one image.

    Args:
        prompt_ids: (tokens,), reference ids already in place, image-start token last.
        references: Index of the first token and grid of each reference in the prompt.
        grids: What to write: preview then target for text to image, the target alone with references.
        num_codes: Ids at and above it are closed.
        seed, picture: Image number k of a seed gets the same tokens whatever else is in the batch.
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

    def grid_ids(self, index: int) -> Ints:
        """Return the ids (rows, columns) of one of the grids; it must be written."""
        index %= len(self.grids)
        first = sum(rows * columns for rows, columns in self.grids[:index])
        rows, columns = self.grids[index]
        return np.asarray(self.written[first : first + rows * columns], np.int64).reshape(rows, columns)

    def sample(self, probabilities: NDArray[np.float64]) -> None:
        """Draw the next token."""
        self.written.append(sample_token(probabilities, self._draw))


class BatchedDecoder:
    """The sequences that are written together.

    Args:
        model: The AR generator, on `device`, in `dtype`; it reads the prompts.
        step: What writes one token after another: the model itself, or the model compiled.
    """

    def __init__(self, model: ARGenerator, device: str, dtype: str, step: Callable[..., Any] | None = None):
        self.model, self.device, self.dtype = model, device, dtype
        self.sequences: list[TokenSequence] = []
        self._step_model = model if step is None else step  # a compiled module has no truth value
        self._begins: list[int] = []  # the first slot of each sequence
        self._cache: Cache = ()
        self._slot = 0  # where the next token of every sequence goes
        self._tables: tuple[Any, ...] = ()  # of the next steps: cos, sin, mask, slot
        self._tables_slot = 0  # the slot of the first of them
        self._alike: _Alike = {}

    @memory_for("the AR generator's tokens", FEWER)
    def join(self, sequences: Sequence[TokenSequence]) -> None:
        """Read the prompt that these sequences share, write the first token of each, and take them along."""
        first, num_prompt = sequences[0], len(sequences[0].prompt_ids)
        assert all(s.prompt_ids is first.prompt_ids and not s.written for s in sequences), "sequences share a prompt"
        shape = self.model.cache_shape(1, num_prompt + first.total)
        layers = self.model.model.language_model.layers
        cache = tuple(
            (dev.zeros(shape, self.device, self.dtype), dev.zeros(shape, self.device, self.dtype)) for _ in layers
        )
        mask = np.arange(shape[2])[None, :] <= np.arange(num_prompt)[:, None]
        with dev.no_grad():
            logits, cache = self.model(
                dev.array(first.prompt_ids[None], self.device),
                *(dev.array(table, self.device) for table in first.prompt_tables),
                dev.array(mask[None, None], self.device),
                cache,
                dev.array(np.arange(1), self.device)[0],
                num_logits=1,
            )
            assert cache is not None, "one was passed"
            _sample(sequences, _alike(sequences), np.repeat(dev.to_numpy(logits)[:, -1], len(sequences), axis=0))
            self._extend(cache, num_prompt, sequences)

    @memory_for("the AR generator's tokens", FEWER)
    def step(self) -> None:
        """Write the next token of every sequence that is not done; those that are leave."""
        if any(sequence.done for sequence in self.sequences):
            self.keep([sequence for sequence in self.sequences if not sequence.done])
        if not self.sequences:
            return
        tokens = np.asarray([[sequence.written[-1]] for sequence in self.sequences], np.int64)
        with dev.no_grad():
            if not self._tables or self._slot >= self._tables_slot + _AHEAD:
                self._tables, self._tables_slot = self._tables_ahead(), self._slot
                self._alike = _alike(self.sequences)
            cos, sin, mask, slots = self._tables
            index = self._slot - self._tables_slot
            at = slice(index, index + 1)
            logits, self._cache = self._step_model(
                dev.array(tokens, self.device), cos[:, :, at], sin[:, :, at], mask[:, :, at], self._cache, slots[index]
            )
            self._slot += 1
            _sample(self.sequences, self._alike, dev.to_numpy(logits)[:, -1])

    def keep(self, sequences: Sequence[TokenSequence]) -> None:
        """Go on with some of the sequences alone."""
        identities = {id(sequence) for sequence in sequences}
        kept = [index for index, sequence in enumerate(self.sequences) if id(sequence) in identities]
        if len(kept) == len(self.sequences):
            return
        self._tables = ()
        self.sequences, self._begins = [self.sequences[i] for i in kept], [self._begins[i] for i in kept]
        if not self.sequences:
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

    def _tables_ahead(self) -> tuple[Any, ...]:
        """Return cos and sin (sequences, 1, steps, …), mask (sequences, 1, steps, slots) and slots (steps,) of next steps."""
        ahead, keys = np.arange(_AHEAD), np.arange(self._cache[0][0].shape[2])
        tables = [
            np.concatenate(
                [s.tables[axis][:, :, np.minimum(len(s.written) - 1 + ahead, s.total - 1)] for s in self.sequences]
            )
            for axis in (0, 1)
        ]
        readable = (keys >= np.asarray(self._begins)[:, None, None]) & (keys <= self._slot + ahead[:, None])
        return tuple(dev.array(a, self.device) for a in (*tables, readable[:, None], self._slot + ahead))

    def _extend(self, cache: Cache, num_prompt: int, sequences: Sequence[TokenSequence]) -> None:
        """Put sequences that have the same prompt behind those that are there."""
        begin = max(self._slot, num_prompt)  # where all sequences write next
        shift, front = begin - self._slot, begin - num_prompt
        self._begins = [first + shift for first in self._begins] + [front] * len(sequences)
        every = [*self.sequences, *sequences]
        num_slots = begin + max(s.total - len(s.written) for s in every) + 1
        joined = []
        for index, pair in enumerate(cache):
            both = []
            for side, new in enumerate(pair):
                pieces = [self._place(new, num_prompt, front, num_slots)] * len(sequences)
                if self.sequences:
                    pieces.insert(0, self._place(self._cache[index][side], self._slot, shift, num_slots))
                both.append(pieces[0] if len(pieces) == 1 else ops.concat(pieces, 0))
            joined.append((both[0], both[1]))
        self._cache, self._slot, self.sequences, self._tables = tuple(joined), begin, every, ()

    def _place(self, array: Any, used: int, front: int, num_slots: int) -> Any:
        """Return keys or values (sequences, heads, slots, width) with their used slots moved, and zeros around them."""
        if not front and array.shape[2] == num_slots:
            return array
        rows, heads, _, width = array.shape
        gaps = [(rows, heads, count, width) for count in (front, num_slots - front - used)]
        before, after = ([dev.zeros(shape, self.device, self.dtype)] if shape[2] else [] for shape in gaps)
        return ops.concat([*before, array[:, :, :used], *after], 2)


def _alike(sequences: Sequence[TokenSequence]) -> _Alike:
    """Return the indices of sequences whose tokens are drawn in the same way."""
    alike: _Alike = {}
    for index, sequence in enumerate(sequences):
        alike.setdefault((sequence.sampling, sequence.num_codes), []).append(index)
    return alike


def _sample(sequences: Sequence[TokenSequence], alike: _Alike, logits: Floats) -> None:
    """Draw the next token of each sequence from logits (sequences, classes)."""
    for (sampling, num_codes), members in alike.items():
        rows = logits if len(alike) == 1 else logits[members]
        probabilities = top_p_probabilities(rows[:, :num_codes], sampling)
        for index, row in zip(members, probabilities, strict=True):
            sequences[index].sample(row)


def generate_tokens(
    decoder: BatchedDecoder, sequences: Sequence[TokenSequence], progress: Callable[[int, int], None] | None = None
) -> None:
    """Write every token of some sequences, together.

    Args:
        decoder: Without other sequences.
        sequences: Those that share a prompt stand next to one another; it is read once.
        progress: Called with tokens written and tokens in all.
    """
    total = sum(sequence.total for sequence in sequences)
    for _, shared in groupby(sequences, key=lambda sequence: id(sequence.prompt_ids)):
        decoder.join(list(shared))
    while not all(sequence.done for sequence in sequences):
        decoder.step()
        if progress is not None:
            progress(sum(len(sequence.written) for sequence in sequences), total)
    decoder.keep([])
