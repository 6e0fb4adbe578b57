"""The framework interface on TensorFlow, for the comparison: a training step of generator and decoder on a CPU, in fp32.

It offers what those two parts, their losses and an AdamW step need, eager and as a graph (`tf.function`), and nothing
else: the contract's tests name what is not here. Keras is not used, so that parameters have the released names.

Importing the package keeps TensorFlow from logging its start-up, unless the user has said what it shall log, and gives its
tensors a method `reshape`. That is all of an array's interface that model code uses and TensorFlow's tensors lack. The
library's own switch for it, `experimental_enable_numpy_behavior`, adds the same method, but also changes for the whole
process how tensors are indexed and which dtypes may meet: an integer times a Python float would then silently be a float,
where it now is an error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # warnings and errors only; read once, when the library is loaded

import tensorflow as tf


def _reshape(self: tf.Tensor, shape: Sequence[int]) -> tf.Tensor:
    return tf.reshape(self, shape)


tf.Tensor.reshape = _reshape  # pyright: ignore[reportAttributeAccessIssue]
