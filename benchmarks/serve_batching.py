"""What the server gains by writing the tokens of several requests together, and by painting several pictures at once.

python benchmarks/serve_batching.py [MODEL] [--requests N] [--rounds N]

The generator's part is measured as the server runs it: N pictures with prompts of their own, one after another (at most one
row of tokens under way) and together (N rows). It is checked that each picture's tokens are the same both ways.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np

from sampan.pipeline.denoise import stack_inputs
from sampan.pipeline.options import PipelineOptions
from sampan.pipeline.pipeline import Pipeline, open_pipeline
from sampan.pipeline.prepare import Prepared
from sampan.pipeline.request import ImageRequest
from sampan.report import results

ROOT = Path(__file__).resolve().parent.parent
BAR = 1.5
PROMPTS = (
    "a red apple", "a cat", "a long prompt about a dog with a blue hat on a green hill", 'a sign "OPEN"', "um carro azul",
    "一只猫", "a smiling face", "two trees and a house by the sea",
)  # fmt: skip


def written(pipeline: Pipeline, requests: int, together: int, px: int) -> tuple[float, list[Any]]:
    """Return the seconds until all tokens are written, with so many rows under way, and the tokens."""
    rows = []
    for seed in range(requests):
        request = ImageRequest(PROMPTS[seed % len(PROMPTS)], width_px=px, height_px=px, seed=seed)
        rows.append(Prepared(pipeline, request).sequence(0))
    writer, waiting = pipeline.token_decoder(), list(rows)
    begun = time.perf_counter()
    while waiting or writer.sequences:
        while waiting and len(writer.sequences) < together:
            writer.join([waiting.pop(0)])
        writer.step()
    return time.perf_counter() - begun, [row.grid_ids(-1) for row in rows]


def painted(pipeline: Pipeline, together: int, px: int, steps: int) -> float:
    """Return the seconds that one decoder step takes for each of several pictures that are painted at once."""
    request = ImageRequest("", width_px=px, height_px=px, num_inference_steps=steps, guidance_scale=1.5)
    prepared, prior = Prepared(pipeline, request), np.zeros(pipeline.config.geometry.prior_grid(px, px), np.int64)
    inputs, denoiser = (
        stack_inputs([prepared.denoise_inputs(prior, 0, k) for k in range(together)]),
        pipeline.denoiser(),
    )
    begun = time.perf_counter()
    denoiser.denoise(inputs)
    return (time.perf_counter() - begun) / steps / together


def main() -> None:
    """Measure rounds in turn, print medians and keep them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="nano", help="folder, run or nano; default: nano")
    parser.add_argument("--requests", type=int, default=8, help="default: 8")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--device", default="cpu", help="default: cpu")
    arguments = parser.parse_args()
    pipeline = open_pipeline(PipelineOptions(model=arguments.model, device=arguments.device, dtype="auto"))
    px, count = pipeline.config.geometry.default_px, arguments.requests
    written(pipeline, 1, 1, px)  # warm-up
    sides: dict[int, list[float]] = {1: [], 2: [], 4: [], count: []}
    same = True
    first: list[Any] = []
    for _ in range(arguments.rounds):
        for together, seconds in sides.items():
            took, ids = written(pipeline, count, together, px)
            seconds.append(count / took)
            first = first or ids
            same = same and all(np.array_equal(one, other) for one, other in zip(first, ids, strict=True))
    steps: dict[int, list[float]] = {1: [], 2: [], 4: [], 8: []}
    painted(pipeline, 1, px, 2)
    for _ in range(arguments.rounds):
        for together, seconds in steps.items():
            seconds.append(painted(pipeline, together, px, 4))
    rate = {together: float(np.median(each)) for together, each in sides.items()}
    step_s = {together: float(np.median(each)) for together, each in steps.items()}
    gain = rate[count] / rate[1]
    for together, value in rate.items():
        print(f"generator: {together} rows together, {value:.2f} pictures a second, {value / rate[1]:.2f}x")
    for together, value in step_s.items():
        print(f"decoder: {together} at once, {value * 1e3:.1f} ms a step and picture, {step_s[1] / value:.2f}x")
    print(f"tokens are the same however many are written together: {same}; bar {BAR}x, measured {gain:.2f}x")
    record = {
        "what": "serve: tokens of several requests written together, and decoder steps of several pictures",
        "machine": results.machine(), "device": pipeline.device,
        "dtype": pipeline.dtype, "model_hash": pipeline.folder.hash, "picture_px": px, "requests": count,
        "generator_pictures_per_s": {str(k): {"median": rate[k], "each": v} for k, v in sides.items()},
        "decoder_s_per_step_and_picture": {str(k): {"median": step_s[k], "each": v} for k, v in steps.items()},
        "gain": gain, "bar": BAR, "same_tokens": same,
    }  # fmt: skip
    print(results.add("serve-batching", record, ROOT / "results"))


if __name__ == "__main__":
    main()
