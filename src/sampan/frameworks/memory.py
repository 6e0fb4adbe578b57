"""What is said where a device has no memory left for a piece of work."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager

from sampan.errors import DeviceError
from sampan.frameworks import device


@contextmanager
def memory_for(work: str, hint: str) -> Iterator[None]:
    """Say in words for which work a device has no memory, where a framework says so in the block.

    What the work held until then is let go, so that the device has room for other work.

    Args:
        work: What is done in the block.

    Raises:
        DeviceError: There is not enough memory.
    """
    try:
        yield
    except Exception as error:
        said = device.out_of_memory(error)
        if said is None:
            raise
        traceback.clear_frames(error.__traceback__)  # or the error would keep the tensors of every call
        raise DeviceError(f"there is not enough memory for {work}", said, hint) from error
