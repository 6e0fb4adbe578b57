"""Every loss refuses every axis that is wrong, and names it; a compiled loss does too."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from sampan.losses import autoencoder, contrast, flow, quantizer, tokens

IMAGE = {"batch": 2, "channel": 3, "height": 4, "width": 8}
ROW = {"batch": 2, "channel": 3}
PLACE = {"batch": 2, "token": 5}

# loss, its arguments in order (integers for ids), and the axes of each
LOSSES: dict[str, tuple[Callable[..., Any], dict[str, dict[str, int]]]] = {
    "flow_loss": (flow.flow_loss, {"velocity": IMAGE, "clean": IMAGE, "noise": IMAGE}),
    "add_noise": (flow.add_noise, {"clean": IMAGE, "noise": IMAGE, "sigma": {"batch": 2}}),
    "edge_loss": (autoencoder.edge_loss, {"image": IMAGE, "target": IMAGE}),
    "kl_divergence": (autoencoder.kl_divergence, {"mean": IMAGE, "log_variance": IMAGE}),
    "contrast_loss": (
        lambda *arrays: contrast.contrast_loss(*arrays, 0.1),
        {"left": ROW, "right": ROW, "labels": {"batch": 2}, "weights": {"batch": 2}},
    ),
    "quantize_straight": (
        lambda z, codes, ids: quantizer.quantize_straight(z, codes, ids, 1.0, 0.25),
        {"z": {**PLACE, "channel": 3}, "codes": {"code": 7, "channel": 3}, "ids": PLACE},
    ),
    "token_loss": (tokens.token_loss, {"logits": {**PLACE, "id": 9}, "labels": PLACE, "weights": PLACE}),
}
WRONG = [
    (loss, argument, axis)
    for loss, (_, arguments) in LOSSES.items()
    for argument, axes in list(arguments.items())
    for axis in axes
    if sum(axis in other for other in arguments.values()) > 1  # the size of an axis that no other has is free
]


def array(argument: str, shape: Sequence[int]) -> torch.Tensor:
    ids = argument in ("ids", "labels")
    return torch.zeros(tuple(shape), dtype=torch.int64) if ids else torch.ones(tuple(shape))


@pytest.mark.parametrize("loss", LOSSES)
def test_right_shapes_pass(loss: str):
    function, arguments = LOSSES[loss]
    function(*(array(name, axes.values()) for name, axes in arguments.items()))


@pytest.mark.parametrize(("loss", "argument", "axis"), WRONG)
@pytest.mark.parametrize("size", [1, 11])  # 1 would broadcast
def test_an_axis_of_another_size_is_named_with_both_sizes(loss: str, argument: str, axis: str, size: int):
    function, arguments = LOSSES[loss]
    arrays = [
        array(name, (axes | ({axis: size} if name == argument else {})).values()) for name, axes in arguments.items()
    ]
    with pytest.raises(ValueError, match=rf"on the axis {axis}, and `\w+` has \d+") as refusal:
        function(*arrays)
    right = arguments[argument][axis]
    assert f"`{argument}` has" in str(refusal.value) or f"and `{argument}` has" in str(refusal.value)
    assert f"has {size} " in str(refusal.value) or str(refusal.value).endswith(f"has {size}")
    assert f"has {right} " in str(refusal.value) or str(refusal.value).endswith(f"has {right}")


@pytest.mark.parametrize("loss", LOSSES)
def test_an_array_of_another_number_of_axes_is_named_with_its_shape(loss: str):
    function, arguments = LOSSES[loss]
    names = list(arguments)
    for wrong in names[1:] if loss == "quantize_straight" else names:  # features may have any number of axes
        arrays = [
            array(name, [*axes.values(), 1] if name == wrong else list(axes.values()))
            for name, axes in arguments.items()
        ]
        with pytest.raises(ValueError, match=f"`{wrong}` has the shape"):
            function(*arrays)


def test_what_broadcast_silently_before_is_refused():
    with pytest.raises(ValueError, match="`clean` has 1 on the axis batch, and `velocity` has 2"):
        flow.flow_loss(torch.zeros(2, 3, 4, 4), torch.zeros(1, 3, 4, 4), torch.zeros(2, 1, 4, 4))


def test_only_shapes_are_looked_at():
    meta = torch.zeros((2, 3, 4, 4), device="meta")
    assert flow.flow_loss(meta, meta, meta).device.type == "meta"
    with pytest.raises(ValueError, match="on the axis width"):
        flow.flow_loss(meta, meta, meta[..., :2])


def test_a_loss_compiled_by_pytorch_refuses_too():
    given = torch.ones(2, 3, 4, 4)
    assert float(torch.compile(flow.flow_loss, fullgraph=True, backend="eager")(given, given, given)) == 1
    with pytest.raises(ValueError, match="`clean` has 1 on the axis batch, and `velocity` has 2"):
        torch.compile(flow.flow_loss, backend="eager")(given, given[:1], given)


def test_a_loss_compiled_by_mindspore_refuses_too():
    ms = pytest.importorskip("mindspore")
    from sampan.frameworks.mindspore import device
    from sampan.models.shapes import IMAGE as axes
    from sampan.models.shapes import check_shapes

    device.resolve("cpu")

    def error(image: Any, target: Any) -> Any:
        check_shapes(("image", image, axes), ("target", target, axes))
        return (image - target).sum()

    compiled = ms.jit(error)
    given = ms.Tensor(np.ones((2, 3, 4, 4), np.float32))
    assert float(compiled(given, given).asnumpy()) == 0
    with pytest.raises(ValueError, match="`target` has 1 on the axis batch, and `image` has 2"):
        compiled(given, given[:1])
