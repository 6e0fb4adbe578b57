"""A low-rank addition lies beside a linear layer: its arithmetic, its names, and nothing else changed."""

from __future__ import annotations

import copy

import pytest
import torch

from sampan.frameworks import NN_NAMES
from sampan.frameworks.torch import io, nn


def model() -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.ModuleDict(
        {"to_out": torch.nn.ModuleList([torch.nn.Linear(5, 3)]), "other": torch.nn.Linear(3, 2, bias=False)}
    )


def test_every_name_of_the_framework_interface_is_there():
    assert [name for name in NN_NAMES if not hasattr(nn, name)] == []


def test_linear_layers_are_listed_with_their_widths_and_additions_are_none_of_them():
    module = model()
    assert nn.linear_layers(module) == {"to_out.0": (3, 5), "other": (2, 3)}
    nn.add_low_rank(module, {"to_out.0": (2, 1.0)})
    assert nn.linear_layers(module) == {"to_out.0": (3, 5), "other": (2, 3)}


def test_an_addition_begins_at_zero_and_adds_b_a_x_times_its_scale():
    module, x = model(), torch.randn(4, 5)
    plain = copy.deepcopy(module)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    nn.add_low_rank(module, {"to_out.0": (2, 0.5)})
    assert io.shapes(module) == {
        "to_out.0.weight": (3, 5), "to_out.0.bias": (3,), "to_out.0.lora_A.weight": (2, 5),
        "to_out.0.lora_B.weight": (3, 2), "other.weight": (2, 3),
    }  # fmt: skip
    assert all(torch.equal(module.state_dict()[name], value) for name, value in before.items())
    assert torch.equal(module["to_out"][0](x), plain["to_out"][0](x))  # type: ignore[index]
    a, b = torch.randn(2, 5), torch.randn(3, 2)
    io.put_weights(module, {"to_out.0.lora_A.weight": a, "to_out.0.lora_B.weight": b.numpy()})
    wanted = x @ (before["to_out.0.weight"] + 0.5 * b @ a).T + before["to_out.0.bias"]
    assert torch.allclose(module["to_out"][0](x), wanted, atol=1e-6)  # type: ignore[index]
    assert type(module["other"]) is torch.nn.Linear  # what has no addition costs nothing


def test_whether_the_weights_train_and_where_they_lie_stays():
    with torch.device("meta"):
        module = model()
    module.requires_grad_(False).eval()
    nn.add_low_rank(module, {"to_out.0": (2, 1.0)}, dtype="bf16")
    layer = module["to_out"][0]  # type: ignore[index]
    assert layer.weight.is_meta and layer.lora_A.weight.is_meta
    assert not layer.weight.requires_grad and layer.lora_A.weight.requires_grad
    assert layer.lora_B.weight.dtype == torch.bfloat16
    assert not layer.training and not layer.lora_A.training


def test_nothing_is_drawn():
    module = model()
    before = torch.get_rng_state()
    nn.add_low_rank(module, {"to_out.0": (2, 1.0)})
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("to_in", "there is no layer `to_in`"),
        ("to_out", "`to_out` is a ModuleList, not a linear layer without an addition"),
        ("", "`` is a ModuleDict, not a linear layer without an addition"),
    ],
)
def test_only_linear_layers_get_one(name: str, said: str):
    with pytest.raises(ValueError) as caught:
        nn.add_low_rank(model(), {name: (2, 1.0)})
    assert str(caught.value) == said


def test_a_second_addition_is_refused():
    module = model()
    nn.add_low_rank(module, {"other": (2, 1.0)})
    with pytest.raises(ValueError) as caught:
        nn.add_low_rank(module, {"other": (2, 1.0)})
    assert str(caught.value) == "`other` is a _LowRankLinear, not a linear layer without an addition"


def test_it_compiles_and_copies():
    module = model()
    nn.add_low_rank(module, {"other": (2, 1.0)})
    again = copy.deepcopy(module)
    again["other"].lora_B.weight.data.fill_(1)  # type: ignore[union-attr]
    assert not module["other"].lora_B.weight.any()  # type: ignore[union-attr]
    x = torch.randn(4, 3)
    exported = torch.export.export(again["other"], (x,))  # type: ignore[arg-type]
    assert torch.allclose(exported.module()(x), again["other"](x))  # type: ignore[operator]
