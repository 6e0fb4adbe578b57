"""A compiled step takes the steps that an eager one takes."""

from __future__ import annotations

import pytest
import torch

from unit.frameworks.torch.small_net import error, examples, wide

pytestmark = [
    pytest.mark.slow,  # the compiler starts
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # of PyTorch's own, when it loads its compiler
]


def test_compiled_and_eager_steps_are_the_same():
    (one, eager), (two, compiled) = wide(), wide(compiled=True)
    batches = examples(4)
    for batch in batches:
        first, second = eager.step(error, [batch], 0.01), compiled.step(error, [batch], 0.01)
        assert second.loss == pytest.approx(first.loss, rel=1e-5)
        assert second.grad_norm == pytest.approx(first.grad_norm, rel=1e-4)
    for mine, theirs in zip(two.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)
    assert compiled.evaluate(error, batches[0]) == pytest.approx(eager.evaluate(error, batches[0]), rel=1e-4)


def test_a_loss_is_compiled_once():
    _, updater = wide(compiled=True)
    with torch.compiler.set_stance("fail_on_recompile"):
        for batch in examples(3):
            updater.step(error, [batch], 0.01)
    assert updater.compiled is not None and list(updater.compiled) == [error]
