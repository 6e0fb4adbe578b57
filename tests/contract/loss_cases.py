"""Cases of what training minimises."""

from __future__ import annotations

from typing import Any

import numpy as np

from contract.case import Case, Inputs, normal

Random = np.random.Generator


def _tokens(random: Random) -> Inputs:
    weights = np.array([[2, 2, 1, 1], [0, 1, 0, 1]], np.float32)
    return {"logits": 2 * normal(random, 2, 4, 9), "labels": random.integers(0, 9, (2, 4)), "weights": weights}


def _token_loss(module: Any, given: Inputs) -> Any:
    from sampan.losses.tokens import token_loss

    return token_loss(given["logits"], given["labels"], given["weights"])


def _flow(random: Random) -> Inputs:
    shape = (2, 3, 4, 5)
    return {name: normal(random, *shape) for name in ("velocity", "clean", "noise")}


def _flow_loss(module: Any, given: Inputs) -> Any:
    from sampan.losses.flow import flow_loss

    return flow_loss(given["velocity"], given["clean"], given["noise"])


def _noisy_inputs(random: Random) -> Inputs:
    return {
        "clean": normal(random, 2, 3, 4, 5),
        "noise": normal(random, 2, 3, 4, 5),
        "sigma": np.array([0.25, 0.9], np.float32),
    }


def _noisy(module: Any, given: Inputs) -> Any:
    from sampan.losses.flow import add_noise

    return add_noise(given["clean"], given["noise"], given["sigma"])


def _images(random: Random) -> Inputs:
    return {"image": normal(random, 2, 3, 8, 12), "other": normal(random, 2, 3, 8, 12)}


def _edge_loss(module: Any, given: Inputs) -> Any:
    from sampan.losses.autoencoder import edge_loss

    return edge_loss(given["image"], given["other"])


def _gaussian(random: Random) -> Inputs:
    return {"mean": normal(random, 2, 4, 3, 3), "log_variance": normal(random, 2, 4, 3, 3)}


def _divergence(module: Any, given: Inputs) -> Any:
    from sampan.losses.autoencoder import kl_divergence

    return kl_divergence(given["mean"], given["log_variance"])


def _views(random: Random) -> Inputs:
    return {
        "left": normal(random, 4, 6),
        "right": normal(random, 4, 6),
        "labels": np.arange(4),
        "weights": np.array([1, 1, 0, 1], np.float32),
    }


def _contrast(module: Any, given: Inputs) -> Any:
    from sampan.losses.contrast import contrast_loss

    return contrast_loss(given["left"], given["right"], given["labels"], given["weights"], 0.3)


def _codes(random: Random) -> Inputs:
    return {"z": normal(random, 2, 5, 4), "codes": normal(random, 7, 4), "ids": random.integers(0, 7, (2, 5))}


def _quantized(module: Any, given: Inputs) -> Any:
    from sampan.losses.quantizer import quantize_straight

    return quantize_straight(given["z"], given["codes"], given["ids"], 1.0, 0.25)


LOSSES = [
    Case("Token loss", "loss", _tokens, _token_loss, constants=("weights",)),
    Case("Flow loss", "loss", _flow, _flow_loss),
    Case("Noisy latent", "loss", _noisy_inputs, _noisy),
    Case("Edge loss", "loss", _images, _edge_loss, needs=("abs",)),
    Case("Divergence", "loss", _gaussian, _divergence, needs=("exp", "sum")),
    Case("Contrast loss", "loss", _views, _contrast, constants=("weights",), needs=("normalize",)),
    Case("Quantizer loss", "loss", _codes, _quantized, needs=("stop_gradient",)),
]
