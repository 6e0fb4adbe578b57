"""The pictures of a set, each once: opened when asked for, at the size of its bucket, kept as memory allows.

Nothing here loads a framework: worker processes import it.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from sampan.data import bucket
from sampan.data.bucket import Size
from sampan.data.image_source import ImageSource
from sampan.data.pictures import MAX_PIXELS, fit, load_rgb, to_array
from sampan.errors import DataError

Floats = NDArray[np.float32]

_AHEAD_BYTES = 500_000_000  # of pictures opened ahead and not asked for yet


def load(source: ImageSource, shape: Size, digest: str, size: Size) -> Image.Image:
    """Return a picture as RGB at the (height, width) of its bucket: its largest centred part, resized.

    Args:
        shape: The (height, width) that it was found to have.
        digest: BLAKE2b of its file's bytes, as sampan.data.pictures.examine says it.

    Raises:
        DataError: It cannot be read, or has changed since it was examined; named by the source's name.
    """
    what = f"picture `{source.name}` cannot be used"
    try:
        data = source.read()
    except OSError as error:
        raise DataError(what, "it is not there" if isinstance(error, FileNotFoundError) else str(error)) from error
    if hashlib.blake2b(data, digest_size=16).hexdigest() != digest:
        raise DataError(what, "it has changed since it was examined", "start again: what has changed is examined again")
    try:
        image = load_rgb(data, max(MAX_PIXELS, shape[0] * shape[1]))
    except DataError as error:
        raise DataError(what, error.because, error.hint) from error
    return fit(image, size[1], size[0])


class ImageCache:
    """Pictures by number. Safe to use from several threads.

    Args:
        sources: Each picture once.
        shapes: The (height, width) of each, upright, as found when it was examined.
        sizes: The (height, width) of the bucket of each.
        digests: What each picture's file hashes to; names it in stores.
        cache_bytes: Opened pictures are kept until they take this much, and after that opened anew each time.
        threads: How many open pictures that are asked for ahead.
    """

    def __init__(
        self,
        sources: Sequence[ImageSource],
        shapes: Sequence[Size],
        sizes: Sequence[Size],
        digests: Sequence[str],
        *,
        cache_bytes: int = 2_000_000_000,
        threads: int = 2,
    ):
        if not len(sources) == len(shapes) == len(sizes) == len(digests):
            raise ValueError(
                f"{len(sources)} sources, {len(shapes)} shapes, {len(sizes)} sizes and {len(digests)} digests"
            )
        self.sources, self.shapes, self.digests = tuple(sources), tuple(shapes), tuple(digests)
        self._sizes = tuple(sizes)
        self._lock = threading.Lock()
        self._kept: dict[int, Image.Image] = {}
        self._room = cache_bytes
        self._ahead: dict[int, Future[Image.Image]] = {}
        self._threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def __len__(self) -> int:
        return len(self.sources)

    def __getitem__(self, index: int) -> Image.Image:
        """Return a picture, RGB, at its bucket's size; it is shared and must not be changed.

        Raises:
            DataError: It cannot be read any more.
        """
        with self._lock:
            image, opening = self._kept.get(index), self._ahead.get(index)
        if image is not None:
            return image
        try:
            image = opening.result() if opening else self._load(index)
        except CancelledError:  # another thread made room just now
            image = self._load(index)
        finally:
            with self._lock:
                self._ahead.pop(index, None)
        with self._lock:
            if index not in self._kept and self._room >= self._bytes(index):
                self._kept[index] = image
                self._room -= self._bytes(index)
        return image

    def size_of(self, index: int) -> Size:
        """Return the (height, width) of a picture's bucket in pixels."""
        return self._sizes[index]

    def crop_of(self, index: int) -> tuple[int, int]:
        """Return the (top, left) of the part that is kept, in pixels of the picture scaled to its bucket."""
        return bucket.crop(self.shapes[index], self._sizes[index])[1]

    def name_of(self, index: int) -> str:
        """Return what reports call a picture."""
        return self.sources[index].name

    def arrays(self, indices: Sequence[int]) -> Floats:
        """Return (n, 3, height, width) in [-1, 1] of pictures of one size.

        Raises:
            DataError: One cannot be read any more.
        """
        assert len({self._sizes[i] for i in indices}) == 1, "pictures of one size make an array"
        return np.stack([to_array(self[i]) for i in indices])

    def prefetch(self, indices: Sequence[int]) -> None:
        """Begin to open pictures that will be asked for soon; what goes wrong is raised when they are.

        As many as fit in 500 MB are opened ahead; those asked for ahead earlier and never taken make room first.
        """
        wanted = dict.fromkeys(indices)
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="pictures")
            taken = sum(map(self._bytes, self._ahead))
            for index in wanted:
                if index in self._kept or index in self._ahead:
                    continue
                for old in [i for i in self._ahead if i not in wanted]:
                    if taken + self._bytes(index) <= _AHEAD_BYTES:
                        break
                    self._ahead.pop(old).cancel()
                    taken -= self._bytes(old)
                if taken + self._bytes(index) > _AHEAD_BYTES:
                    break
                self._ahead[index] = self._pool.submit(self._load, index)
                taken += self._bytes(index)

    def _load(self, index: int) -> Image.Image:
        return load(self.sources[index], self.shapes[index], self.digests[index], self._sizes[index])

    def _bytes(self, index: int) -> int:
        height, width = self._sizes[index]
        return height * width * 3
