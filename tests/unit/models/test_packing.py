"""Samples packed into one row are what they are alone: the same logits, the same loss, the same gradients."""

from __future__ import annotations

import numpy as np
import torch

from sampan.frameworks.torch import ops
from sampan.losses import tokens
from sampan.models import positions, presets
from sampan.models.ar import ARGenerator

LENGTHS = (7, 23, 1, 12)


def generator() -> ARGenerator:
    torch.manual_seed(0)
    config = presets.get("nano", {"text": {"num_hidden_layers": 2}}).ar.text
    model = ARGenerator(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return model


def packed(model: ARGenerator) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return ids (1, tokens), and cos and sin of each sample's own positions."""
    ids = torch.randint(0, 1000, (1, sum(LENGTHS)), generator=torch.Generator().manual_seed(1))
    places = np.concatenate([positions.text_positions(0, n) for n in LENGTHS], axis=1)[:, None]
    cos, sin = positions.rope_text(places, model.config)
    return ids, torch.from_numpy(cos), torch.from_numpy(sin)


def test_attention_over_segments_is_attention_of_each():
    random = torch.Generator().manual_seed(2)
    q = torch.randn(1, 4, sum(LENGTHS), 8, generator=random)
    k, v = torch.randn(2, 1, 2, sum(LENGTHS), 8, generator=random)
    together = ops.attention(q, k, v, causal=True, segments=LENGTHS)
    first = 0
    for length in LENGTHS:
        part = slice(first, first + length)
        alone = ops.attention(q[:, :, part], k[:, :, part], v[:, :, part], causal=True)
        assert torch.equal(together[:, :, part], alone)
        first += length
    # and it is what a mask of all against all would give
    block = torch.block_diag(*(torch.ones(n, n).tril() for n in LENGTHS)).bool()
    torch.testing.assert_close(together, ops.attention(q, k, v, mask=block[None, None]), rtol=1e-5, atol=1e-6)


def test_a_packed_row_has_the_logits_loss_and_gradients_of_its_samples():
    model = generator()
    ids, cos, sin = packed(model)
    ends = np.cumsum(LENGTHS)
    # the last few tokens of each sample carry labels; a sample of one token has one
    counts = [min(5, n) for n in LENGTHS]
    read_at = torch.from_numpy(np.concatenate([np.arange(e - c, e) for e, c in zip(ends, counts, strict=True)]))
    labels = torch.randint(0, 1000, (1, len(read_at)), generator=torch.Generator().manual_seed(3))
    weights = torch.rand(1, len(read_at), generator=torch.Generator().manual_seed(4))

    logits, _ = model(ids, cos, sin, segments=LENGTHS, logits_at=read_at)
    loss = tokens.token_loss(logits, labels, weights)
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()

    alone, first = [], 0
    for length, count in zip(LENGTHS, counts, strict=True):
        part = slice(first, first + length)
        made, _ = model(ids[:, part], cos[:, :, part], sin[:, :, part], num_logits=count)
        alone.append(made)
        first += length
    unpacked = tokens.token_loss(torch.cat(alone, 1), labels, weights)
    unpacked.backward()
    torch.testing.assert_close(logits, torch.cat(alone, 1), rtol=1e-5, atol=1e-5)
    assert abs(float(loss.detach() - unpacked.detach())) < 1e-5 * float(unpacked.detach())
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-4, atol=1e-6, msg=name)


def test_samples_that_saw_each_other_would_be_noticed():
    model = generator()
    ids, cos, sin = packed(model)
    apart, _ = model(ids, cos, sin, segments=LENGTHS)
    mixed, _ = model(ids, cos, sin)
    assert (apart - mixed).abs().max() > 1e-2


def test_recomputing_a_packed_row_changes_nothing():
    model = generator()
    ids, cos, sin = packed(model)
    found = []
    for recompute in (False, True):
        model.zero_grad()
        logits, _ = model(ids, cos, sin, segments=LENGTHS, recompute=recompute)
        logits.square().mean().backward()
        found.append([p.grad.clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))
