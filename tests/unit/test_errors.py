"""Errors keep their parts, also on their way from a worker process."""

from __future__ import annotations

import pickle

from sampan.errors import CheckpointError, DataError, UnusableImageError


def test_an_error_from_another_process_is_all_of_its_parts():
    for error in (
        DataError("it failed", ("one fact", "another"), "try again"),
        CheckpointError("it failed"),
        UnusableImageError("it failed", "empty", "it is empty"),
    ):
        again = pickle.loads(pickle.dumps(error))  # noqa: S301
        assert type(again) is type(error) and vars(again) == vars(error) and str(again) == str(error) == error.render()
