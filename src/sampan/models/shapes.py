"""Arrays of wrong shapes fail by name; many of them would broadcast silently, and train on something else than is meant."""

from __future__ import annotations

from typing import Any

IMAGE = ("batch", "channel", "height", "width")


def check_shapes(*arrays: tuple[str, Any, tuple[str, ...]]) -> None:
    """Check that arrays have the axes they should, and that axes of one name have one size.

    Only `.shape` is looked at: no value is read, and arrays of shapes alone will do. MindSpore compiles this by its text, and
    then knows neither dicts that grow nor comprehensions of several levels; torch.compile sees constants.

    Args:
        arrays: Of each argument its name, the array, and the names of its axes, as ("batch", "channel").

    Raises:
        ValueError: An array has another number of axes, or two arrays differ in the size of an axis. The text names the
            arguments, the axis and both sizes.
    """
    for name, array, axes in arrays:
        if len(array.shape) != len(axes):
            raise ValueError(f"`{name}` has the shape {array.shape}, and should have the axes {axes}")
    for index in range(1, len(arrays)):
        name, array, axes = arrays[index]
        for before, reference, known in arrays[:index]:
            for place in range(len(axes)):
                for there in range(len(known)):
                    if axes[place] == known[there] and array.shape[place] != reference.shape[there]:
                        raise ValueError(
                            f"`{name}` has {array.shape[place]} on the axis {axes[place]}, "
                            f"and `{before}` has {reference.shape[there]}"
                        )
