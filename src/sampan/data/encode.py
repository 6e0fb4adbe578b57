"""The training cache of what the frozen parts make of pictures and words: visual ids, latents, glyph embeddings.

Training looks at pictures and words through the finished parts once and keeps the result in three stores, each keyed by the
one part it comes from: `tokens`, `latents` and `glyph`.

What is written does not depend on where an earlier attempt was killed. The items that a store lacks are cut into shards in
their order, bucket by bucket, and a shard into batches; shards are written in that order, so that what is left after a kill
is cut at the same places as before.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data.bucket import Size
from sampan.data.encoded_cache import EncodedCache
from sampan.data.image_cache import ImageCache
from sampan.data.pictures import to_array
from sampan.data.transforms import TransformedImage, TransformTask, transform_images, unit_floats
from sampan.models.config import ModelConfig
from sampan.models.encoders import embed_glyphs, encode_latents, encode_tokens
from sampan.models.positions import Grid
from sampan.models.text import glyph_batch

Floats = NDArray[np.float32]
Ints = NDArray[np.int64]
Progress = Callable[[str, int, int], None]
Texts = tuple[str, ...]

_PREPARATION = 1  # of how pictures are cropped, resized and cut into patches; part of the stores' keys
_WORDS = "words"  # the one group of the glyph store


# --- what comes out ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EncodedInputs:
    """Pictures and words as the frozen parts see them, read out of the stores when asked for. Safe to use from threads.

    Args:
        stores: By kind; a part that was not there has none, and asking for what it makes is an error of the caller.
        places: For `tokens` and `latents`, where each picture is in its store.
        problems: What was in the stores and could not be used, in words; it was made again.
    """

    stores: Mapping[str, EncodedCache]
    places: Mapping[str, Ints]
    problems: tuple[str, ...] = ()

    def target_ids(self, picture: int) -> Ints:
        """Return a picture's visual ids (rows, columns)."""
        return self._of("tokens", picture)["target"].astype(np.int64)

    def preview_ids(self, picture: int) -> Ints:
        """Return the visual ids (rows, columns) of a picture's preview."""
        return self._of("tokens", picture)["preview"].astype(np.int64)

    def latents(self, pictures: Sequence[int]) -> Floats:
        """Return normalised latents (n, channels, h, w), the mode, of pictures of one size."""
        return np.stack([self._of("latents", picture)["latent"] for picture in pictures])

    def glyph(self, texts: Texts) -> Floats:
        """Return (bytes, width) of words to be drawn, one after another; of no words, the empty string's."""
        assert "glyph" in self.stores, "words were not encoded"
        place = self.stores["glyph"].locate(_WORDS, [_spelled(texts)])[0]
        assert place[0] >= 0, f"the words {texts!r} were not among those to encode"
        return np.array(self.stores["glyph"].get(place)["embeds"])

    def _of(self, kind: str, picture: int) -> dict[str, NDArray[Any]]:
        assert kind in self.stores, f"pictures were not encoded to {kind}"
        return self.stores[kind].get(self.places[kind][picture])


# --- how it is made ----------------------------------------------------------------------------------------------------


def encode(
    pictures: ImageCache,
    texts: Sequence[Texts],
    *,
    tokenizer: Callable[[], Any] | None = None,
    vae: Callable[[], Any] | None = None,
    glyph: Callable[[], Any] | None = None,
    keys: Mapping[str, str],
    folder: Path,
    config: ModelConfig,
    device: str,
    dtype: str,
    workers: int,
    shard_items: int = 256,
    batch: int = 16,
    progress: Progress,
) -> EncodedInputs:
    """Return pictures and words encoded: what the stores lack is made and written, the rest found.

    Args:
        texts: The quoted words of each caption, in their order; those of no words are always encoded.
        tokenizer, vae, glyph: Called for a frozen part on the device, if something has to go through it; None for a part
            that is not wanted.
        keys: For each part, what names its weights.
        folder: Where the stores are kept; several runs may share it.
        workers: Processes that open pictures; 0 opens them in this one.
        shard_items: Pictures, or captions' words, in a shard: as much is lost by a kill.
        batch: Pictures in one pass through a part, counted at the model's default size; of larger ones fewer.
        progress: Called with (what, done, total); what the stores had counts as done.

    Raises:
        DataError: A picture cannot be read any more, or a store cannot be written.
        RequestError: Quoted words are longer than the glyph encoder reads.
    """
    at_work = _AtWork(config, device, dtype, shard_items, batch, workers, progress)
    items, kinds = _Items(pictures), list[_Kind]()
    if tokenizer:
        kinds.append(_Tokens(EncodedCache(folder, "tokens", _tokens_key(keys, config, dtype)), tokenizer))
    if vae:
        kinds.append(_Latents(EncodedCache(folder, "latents", _latents_key(keys, config, dtype)), vae))
    _encode_pictures(items, kinds, at_work)
    stores = {kind.store.kind: kind.store for kind in kinds}
    places = {kind.store.kind: items.places(kind.store) for kind in kinds}
    if glyph:
        stores["glyph"] = EncodedCache(folder, "glyph", _glyph_key(keys, config, dtype))
        _encode_words(texts, stores["glyph"], glyph, at_work)
    return EncodedInputs(stores, places, tuple(problem for store in stores.values() for problem in store.problems))


@dataclass(frozen=True)
class _AtWork:
    """How work is done."""

    config: ModelConfig
    device: str
    dtype: str
    shard_items: int
    batch: int
    workers: int
    progress: Progress

    def batches(self, shard: Sequence[int], size: Size) -> Iterator[Sequence[int]]:
        """Yield the pictures of a shard by passes: as many at once as make `batch` pictures of the default size."""
        default_px = self.config.geometry.default_px
        count = max(1, round(self.batch * default_px**2 / (size[0] * size[1])))
        for first in range(0, len(shard), count):
            yield shard[first : first + count]


class _Items:
    """The pictures as items of stores: the bucket is the group, the digest the item. The same picture twice is one item."""

    def __init__(self, pictures: ImageCache):
        self.pictures = pictures
        self.by_size: dict[Size, list[int]] = {}  # in order of appearance, which is the order of shards
        seen: set[tuple[Size, str]] = set()
        for index, digest in enumerate(pictures.digests):
            size = pictures.size_of(index)
            if (size, digest) not in seen:
                seen.add((size, digest))
                self.by_size.setdefault(size, []).append(index)
        self.total = len(seen)

    def missing(self, store: EncodedCache) -> dict[Size, list[int]]:
        """Return the pictures that a store lacks, by size."""
        lacked_by_size = {}
        for size, members in self.by_size.items():
            there = store.locate(_group(size), [self.pictures.digests[i] for i in members])[:, 0] >= 0
            if lacked := [index for index, is_there in zip(members, there, strict=True) if not is_there]:
                lacked_by_size[size] = lacked
        return lacked_by_size

    def places(self, store: EncodedCache) -> Ints:
        """Return the place (pictures, 2) of every picture."""
        places, numbers = np.full((len(self.pictures), 2), -1, np.int64), dict[Size, list[int]]()
        for index in range(len(self.pictures)):
            numbers.setdefault(self.pictures.size_of(index), []).append(index)
        for size, members in numbers.items():
            places[members] = store.locate(_group(size), [self.pictures.digests[i] for i in members])
        return places


class _Tokens:
    """Visual ids, of the picture's own grid and of the preview's."""

    what, needs_pixels = "encoding token ids", False

    def __init__(self, store: EncodedCache, part: Callable[[], Any]):
        self.store, self.part = store, part

    def grids(self, size: Size, config: ModelConfig) -> tuple[Grid, ...]:
        return config.geometry.prior_grid(*size), config.geometry.preview_grid(*size)

    def arrays(self, part: Any, seen: Sequence[TransformedImage], size: Size, work: _AtWork) -> dict[str, NDArray[Any]]:
        found = {}
        for number, (name, grid) in enumerate(zip(("target", "preview"), self.grids(size, work.config), strict=True)):
            patches = unit_floats(np.stack([view.patches[number] for view in seen]))
            ids = encode_tokens(part, patches, grid, work.config, work.device, work.dtype)
            found[name] = ids.reshape(-1, *grid).astype(np.int32)
        return found


class _Latents:
    """Normalised latents, the mode."""

    what, needs_pixels = "encoding latents", True

    def __init__(self, store: EncodedCache, part: Callable[[], Any]):
        self.store, self.part = store, part

    def grids(self, size: Size, config: ModelConfig) -> tuple[Grid, ...]:
        return ()

    def arrays(self, part: Any, seen: Sequence[TransformedImage], size: Size, work: _AtWork) -> dict[str, NDArray[Any]]:
        images = np.stack([to_array(Image.fromarray(view.pixels)) for view in seen if view.pixels is not None])
        return {"latent": encode_latents(part, images, work.config, work.device, work.dtype).astype(np.float32)}


_Kind = _Tokens | _Latents


@dataclass(frozen=True)
class _Shard:
    """A shard to be made: its pictures, and the kinds that lack it; they look at the same views."""

    size: Size
    members: tuple[int, ...]
    kinds: list[_Kind] = field(default_factory=list)


def _encode_pictures(items: _Items, kinds: Sequence[_Kind], work: _AtWork) -> None:
    lacking = [kind for kind in kinds if items.missing(kind.store)]
    if not lacking:
        return
    with ExitStack() as stack:
        for kind in lacking:
            stack.enter_context(kind.store.writing())
        shards = _plan(items, lacking, work.shard_items)  # now: another process may have written some until then
        done = {kind.what: items.total - sum(len(s.members) for s in shards if kind in s.kinds) for kind in lacking}
        for what, count in done.items():
            work.progress(what, count, items.total)
        tasks = (
            [_task(items.pictures, index, shard, work.config) for index in members]
            for shard in shards
            for members in work.batches(shard.members, shard.size)
        )
        parts = {kind.what: kind.part() for kind in lacking if any(kind in shard.kinds for shard in shards)}
        made = stack.enter_context(closing(transform_images(tasks, work.workers)))
        for shard in shards:
            pieces_by_kind: dict[str, list[dict[str, NDArray[Any]]]] = {kind.what: [] for kind in shard.kinds}
            for members in work.batches(shard.members, shard.size):
                images = [next(made) for _ in members]
                for kind in shard.kinds:
                    pieces_by_kind[kind.what].append(kind.arrays(parts[kind.what], images, shard.size, work))
                    done[kind.what] += len(members)
                    work.progress(kind.what, done[kind.what], items.total)
            digests = [items.pictures.digests[i] for i in shard.members]
            for kind, pieces in zip(shard.kinds, pieces_by_kind.values(), strict=True):
                arrays = {name: np.concatenate([piece[name] for piece in pieces]) for name in pieces[0]}
                kind.store.append(_group(shard.size), digests, arrays)


def _plan(items: _Items, kinds: Sequence[_Kind], shard_items: int) -> list[_Shard]:
    """Return the shards to be made, in the order of their pictures; kinds that lack the same ones share them."""
    shards: dict[tuple[int, ...], _Shard] = {}
    for kind in kinds:
        for size, lacked in items.missing(kind.store).items():
            for first in range(0, len(lacked), shard_items):
                members = tuple(lacked[first : first + shard_items])
                shards.setdefault(members, _Shard(size, members)).kinds.append(kind)
    rank = {size: number for number, size in enumerate(items.by_size)}
    return sorted(shards.values(), key=lambda shard: (rank[shard.size], shard.members[0]))


def _task(pictures: ImageCache, index: int, shard: _Shard, config: ModelConfig) -> TransformTask:
    return TransformTask(
        source=pictures.sources[index],
        shape=pictures.shapes[index],
        digest=pictures.digests[index],
        size=shard.size,
        grids=tuple(grid for kind in shard.kinds for grid in kind.grids(shard.size, config)),
        patch=config.processor.patch_size,
        with_pixels=any(kind.needs_pixels for kind in shard.kinds),
    )


def _encode_words(texts: Sequence[Texts], store: EncodedCache, part: Callable[[], Any], work: _AtWork) -> None:
    wanted = {_spelled(words): words for words in [(), *texts]}
    for words in wanted.values():
        glyph_batch(words)  # an over-long word fails now
    if not store.missing(_WORDS, list(wanted)):
        return
    with store.writing():
        missing = store.missing(_WORDS, list(wanted))
        done = len(wanted) - len(missing)
        work.progress("encoding words", done, len(wanted))
        glyph = part() if missing else None
        for first in range(0, len(missing), work.shard_items):
            shard = missing[first : first + work.shard_items]
            embeds = []
            # one caption at a time, as at use: in a batch of several, sums are taken in another order
            for spelled in shard:
                embeds.append(embed_glyphs(glyph, wanted[spelled], work.config, work.device).astype(np.float32))
                done += 1
                work.progress("encoding words", done, len(wanted))
            store.append(_WORDS, shard, {}, {"embeds": embeds})


# --- what the stores depend on -----------------------------------------------------------------------------------------


def _tokens_key(keys: Mapping[str, str], config: ModelConfig, dtype: str) -> dict[str, Any]:
    return {
        "tokenizer": keys["tokenizer"],
        "vision": config.ar.vision.to_json(),
        "vq": config.ar.vq.to_json(),
        "patch_px": config.processor.patch_size,
        "prior_px": config.geometry.prior_px,
        "preview_side": config.geometry.preview_side,
        "dtype": dtype,
        "preparation": _PREPARATION,
    }


def _latents_key(keys: Mapping[str, str], config: ModelConfig, dtype: str) -> dict[str, Any]:
    # the config has the latents' statistics, by which they are normalised
    return {"vae": keys["vae"], "config": config.vae.to_json(), "dtype": dtype, "preparation": _PREPARATION}


def _glyph_key(keys: Mapping[str, str], config: ModelConfig, dtype: str) -> dict[str, Any]:
    return {"glyph": keys["glyph"], "config": config.glyph.to_json(), "dtype": dtype}


def _group(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _spelled(texts: Sequence[str]) -> str:
    return json.dumps(list(texts), ensure_ascii=False)
