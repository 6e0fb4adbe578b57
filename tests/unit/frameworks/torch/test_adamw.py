"""Moments in 8 bits and weights in bf16: what they learn, what they are saved as, and that they go on bit for bit."""

from __future__ import annotations

import pytest
import torch

from sampan.frameworks.torch import adamw, io
from sampan.frameworks.torch.adamw import TensorwiseAdamW
from sampan.frameworks.torch.train_step import TrainStep
from unit.frameworks.torch.small_net import SETTINGS, copied, error, examples, trained, wide


def test_moments_in_8_bits_learn_as_fp32_ones_do():
    assert trained(160, 3e-3, moments="8bit") == pytest.approx(trained(160, 3e-3), rel=0.02)


def test_only_large_matrices_have_codes_and_they_take_a_quarter():
    _, updater = wide(moments="8bit")
    updater.step(error, examples(1), 1e-3)
    moments = updater.state()["optimizer"]
    assert moments["0.weight.exp_avg.codes"].dtype == torch.uint8
    assert moments["0.weight.exp_avg.codes"].shape == (96, 64)
    assert moments["0.weight.exp_avg_sq.scales"].shape == (96 * 64 // 256,)
    assert "0.weight.exp_avg" not in moments
    assert moments["2.weight.exp_avg"].dtype == torch.float32  # 768 values
    table = torch.nn.Sequential(torch.nn.Embedding(128, 64), torch.nn.Linear(64, 128))
    updater = TrainStep(table, ema_decay=0, moments="8bit", **SETTINGS)
    updater.step(lambda m, x: m(x).square().mean(), [(torch.arange(4),)], 1e-3)
    assert {"0.weight.exp_avg", "1.weight.exp_avg.codes"} <= updater.state()["optimizer"].keys()


def test_one_tensor_after_another_is_the_same_arithmetic_as_all_at_once():
    (one, fused), (other, tensorwise) = wide(), wide()
    tensorwise.optimizer = TensorwiseAdamW(
        tensorwise.trained, fused_decays(tensorwise), 0.9, 0.99, quantized=(), seed=0
    )
    for batch in examples(5):
        fused.step(error, [batch], 1e-2)
        tensorwise.step(error, [batch], 1e-2)
    for mine, theirs in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


def fused_decays(updater: TrainStep) -> dict[str, float]:
    return {name: 0.01 if tensor.ndim > 1 else 0.0 for name, tensor in updater.trained.items()}


def test_stretches_of_a_tensor_are_the_tensor(monkeypatch):
    (one, whole), (other, parts) = wide(moments="8bit"), wide(moments="8bit")
    for batch in examples(3):
        monkeypatch.setattr(adamw, "CHUNK", 2**23)
        whole.step(error, [batch], 1e-2)
        monkeypatch.setattr(adamw, "CHUNK", 1024)
        parts.step(error, [batch], 1e-2)
    assert torch.equal(one[0].weight, other[0].weight)


def test_rounding_by_draws_learns_where_rounding_to_the_nearest_stalls(monkeypatch):
    """At this rate most steps are smaller than half of the last digit of a bf16 weight."""
    lr, num_steps = 1e-4, 200
    untrained, full = trained(num_steps, 0.0), trained(num_steps, lr)
    by_draws = trained(num_steps, lr, bf16=True, master=False)
    monkeypatch.setattr(adamw, "stochastic_bf16", lambda x, draws: x.to(torch.bfloat16))
    to_nearest = trained(num_steps, lr, bf16=True, master=False)
    assert untrained - by_draws == pytest.approx(untrained - full, rel=0.1)
    assert untrained - to_nearest < 0.25 * (untrained - full)


def test_draws_round_to_the_mean():
    x = torch.full((200_000,), 1 + 2**-7 * 0.3)  # three tenths of the way between two bf16 numbers
    rounded = adamw.stochastic_bf16(x, adamw.draw(200_000, torch.Generator().manual_seed(0)))
    assert rounded.dtype == torch.bfloat16 and set(rounded.unique().tolist()) == {1.0, 1 + 2**-7}
    assert float(rounded.float().mean()) == pytest.approx(float(x[0]), abs=2e-5)
    exact = torch.tensor([0.0, -2.0, 0.15625, 1e-30]).bfloat16()
    assert torch.equal(adamw.stochastic_bf16(exact.float(), adamw.draw(4, torch.Generator().manual_seed(0))), exact)


MODES = {
    "fp32": {},
    "8bit": {"moments": "8bit"},
    "bf16": {"bf16": True, "master": False},
    "both": {"bf16": True, "master": False, "moments": "8bit", "ema_decay": 0},
}


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_goes_on_bit_for_bit(mode: str, tmp_path):
    batches = examples(6)
    _, updater = wide(**MODES[mode])
    for batch in batches[:3]:
        updater.step(error, [batch], 1e-2)
    for group, tensors in updater.state().items():
        io.save_tensors(tmp_path / f"{group}.safetensors", tensors, {})
    _, fresh = wide(**MODES[mode])
    fresh.step(error, [batches[5]], 1.0)  # what was there is replaced
    groups = ("weights", "ema", "optimizer")
    assert fresh.load_state({g: io.read_tensors(tmp_path / f"{g}.safetensors", "cpu") for g in groups}) == ()
    torch.manual_seed(99)  # the framework's own generator has no say
    for batch in batches[3:]:
        assert updater.step(error, [batch], 1e-2) == fresh.step(error, [batch], 1e-2)
    mine, theirs = updater.state(), fresh.state()
    for group in groups:
        assert mine[group].keys() == theirs[group].keys()
        assert all(torch.equal(mine[group][name], theirs[group][name]) for name in mine[group])


@pytest.mark.parametrize(
    ("before", "after", "notes"),
    [
        ("fp32", "8bit", ("2 moments go on in 8 bits",)),
        ("8bit", "fp32", ("2 moments were saved in 8 bits and go on in fp32",)),
        ("both", "bf16", ("2 moments go on in fp32",)),
        ("fp32", "both", ("4 weights were saved in float32 and go on in bfloat16", "2 moments go on in 8 bits")),
    ],
)
def test_a_state_goes_on_in_another_mode(before: str, after: str, notes: tuple[str, ...]):
    _, updater = wide(**MODES[before])
    for batch in examples(40):
        updater.step(error, [batch], 3e-3)
    state = copied(updater.state())
    _, other = wide(**MODES[after])
    assert other.load_state(state) == notes
    following = examples(10, seed=2)
    stayed = sum(updater.step(error, [batch], 3e-3).loss for batch in following)
    changed = sum(other.step(error, [batch], 3e-3).loss for batch in following)
    assert changed == pytest.approx(stayed, rel=0.03)


@pytest.mark.parametrize("chunk", [2**23, 512])
def test_slices_round_by_the_draws_of_the_whole(monkeypatch: pytest.MonkeyPatch, chunk: int):
    """Wherever a tensor is cut, its bf16 weights become the same: draws belong to places in the whole tensor."""
    monkeypatch.setattr(adamw, "CHUNK", chunk)
    start = torch.randn(7, 301, generator=torch.Generator().manual_seed(1)).bfloat16()
    gradients = [torch.randn(7, 301, generator=torch.Generator().manual_seed(n)) for n in range(2, 5)]

    def updated(rows: slice) -> torch.Tensor:
        weights = start[rows].clone()
        stretch = adamw.Stretch(rows.start * 301, start.numel())
        optimizer = adamw.TensorwiseAdamW({"w": weights}, {"w": 0.1}, 0.9, 0.95, (), 3, {"w": stretch})
        for gradient in gradients:
            weights.grad = gradient[rows].bfloat16()
            optimizer.update(1e-2, torch.tensor(0.7))
        return weights

    whole = updated(slice(0, 7))
    pieces = torch.cat([updated(slice(first, first + 2)) for first in range(0, 7, 2)])
    assert torch.equal(pieces, whole)
    assert not torch.equal(whole, start)
