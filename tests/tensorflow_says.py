"""What TensorFlow's library says of itself on some processors whatever it was told, which no test is about."""

from __future__ import annotations

import re

_OF_ITSELF = re.compile(r"^(WARNING: All log messages before absl::InitializeLog|I\d{4} .*\bport\.cc:\d+\])")


def without_start_up(stderr: str) -> str:
    """Return what was said beside that."""
    return "".join(line for line in stderr.splitlines(keepends=True) if not _OF_ITSELF.match(line))
