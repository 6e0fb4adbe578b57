"""Time of one generated token and of one decoder step, ours beside the libraries', on the same random weights.

Both sides get the same weights and inputs in one process and one thread pool; their outputs are compared first and a wrong
answer is not timed. Then they take turns, and the ratio is the median of the per-round ratios, so that outside load hits
both alike. Ratios are the result; the milliseconds only say what kind of size was run.

    python benchmarks/step_time.py [--rounds 9] [--out results/]
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

import numpy as np  # noqa: E402
import torch  # noqa: E402

from oracle import Sizes, build_tiny_pipeline  # noqa: E402
from parity.ours import Ours  # noqa: E402
from sampan.models import positions  # noqa: E402
from sampan.models.config import SamplingConfig  # noqa: E402
from sampan.pipeline.tokens import BatchedDecoder, TokenSequence, generate_tokens  # noqa: E402
from sampan.report import results  # noqa: E402

# the shape of the nano preset, in the released geometry
SIZES = Sizes(
    num_codes=1024, num_visual=1088, ar_hidden=256, ar_mlp=704, ar_layers=6, ar_heads=4, ar_kv_heads=2,
    mrope_section=(4, 6, 6), dit_layers=6, dit_heads=4, dit_head_dim=64, dit_time_dim=128, dit_condition_dim=32,
    glyph_dim=128, glyph_mlp=320, glyph_head_dim=32, glyph_heads=4, glyph_layers=3,
)  # fmt: skip
PX = 256  # 8×8 target tokens after a 16×16 preview; 16×16 decoder tokens
PROMPT = 'a red boat that says "hello" on the sea'


def ar_pair(pipeline: Any, ours: Ours) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], int]:
    """Return greedy decoding of one picture's tokens by the library and by us, and how many tokens."""
    inputs = pipeline.processor.apply_chat_template(
        [[{"role": "user", "content": [{"type": "text", "text": PROMPT}]}]],
        tokenize=True, target_h=PX, target_w=PX, return_dict=True, return_tensors="pt",
    )  # fmt: skip
    geometry, codes = ours.config.geometry, SIZES.num_codes
    target, preview = geometry.prior_grid(PX, PX), geometry.preview_grid(PX, PX)
    total = target[0] * target[1] + preview[0] * preview[1]
    closed = list(range(codes, SIZES.num_visual))
    prompt = ours.tokenizer.encode(PROMPT, target, preview)
    assert (prompt.ids == inputs["input_ids"][0].numpy()).all(), "the prompts differ"

    def library() -> np.ndarray:
        with torch.inference_mode():
            out = pipeline.vision_language_encoder.generate(
                **inputs, max_new_tokens=total, min_new_tokens=total, do_sample=False, suppress_tokens=closed
            )
        return out[0, len(prompt.ids) :].numpy()

    def sampan() -> np.ndarray:
        sequence = TokenSequence(
            prompt.ids, (), (preview, target), num_codes=codes, sampling=SamplingConfig(temperature=0), seed=0, picture=0,
            config=ours.config.ar.text,
        )  # fmt: skip
        generate_tokens(BatchedDecoder(ours.ar, "cpu", "fp32"), [sequence])
        return np.array(sequence.written)

    return library, sampan, total


def dit_pair(pipeline: Any, ours: Ours) -> tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], int]:
    """Return one conditional pass of the decoder by the library and by us; one pass."""
    random = np.random.default_rng(0)
    cells = PX // 8
    latent = random.standard_normal((1, len(SIZES.latents_mean), cells, cells), np.float32)
    text = random.standard_normal((1, 8, SIZES.glyph_dim), np.float32)
    prior = random.integers(0, SIZES.num_codes, (1, (cells // 2) ** 2))
    dit = ours.config.dit
    tables = [torch.from_numpy(t) for t in positions.rope_image((cells // 2, cells // 2), dit.attention_head_dim, 8)]
    time_features = torch.from_numpy(positions.sinusoid([499.0], dit.time_embed_dim))
    size_features = torch.from_numpy(positions.size_features((0, 0), (PX, PX), dit.condition_dim, 1))
    tensors = [torch.from_numpy(a) for a in (latent, text, prior)]

    def library() -> np.ndarray:
        with torch.inference_mode():
            return pipeline.transformer(
                hidden_states=tensors[0], encoder_hidden_states=tensors[1], prior_token_id=tensors[2],
                prior_token_drop=torch.zeros_like(tensors[2], dtype=torch.bool), timestep=torch.tensor([499.0]),
                target_size=torch.tensor([[PX, PX]]), crop_coords=torch.zeros(1, 2), return_dict=False,
            )[0].numpy()  # fmt: skip

    def sampan() -> np.ndarray:
        with torch.inference_mode():
            return ours.decoder(*tensors, torch.ones(1), time_features, size_features, *tables).numpy()

    return library, sampan, 1


def measure(
    pair: tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], int], repeats: int, rounds: int
) -> dict[str, float]:
    """Compare once, warm up once, then time in turns; milliseconds are per token or per pass."""
    library, sampan, units = pair
    theirs, mine = library(), sampan()
    error = float(np.abs(mine - theirs).max() / max(1e-30, np.abs(theirs).max()))
    if error > 1e-5:
        raise SystemExit(f"outputs differ by {error:.1e}; a wrong answer is not timed")
    library(), sampan()
    times: dict[str, list[float]] = {"library": [], "sampan": []}
    for _ in range(rounds):
        for name, call in (("library", library), ("sampan", sampan)):
            begun = time.perf_counter()
            for _ in range(repeats):
                call()
            times[name].append((time.perf_counter() - begun) / repeats / units * 1000)
    ratios = np.array(times["library"]) / np.array(times["sampan"])
    low, middle, high = np.percentile(ratios, [25, 50, 75])
    return {
        "max_relative_error": error,
        "library_ms": float(np.median(times["library"])),
        "sampan_ms": float(np.median(times["sampan"])),
        "speedup": float(middle),
        "speedup_quartile_low": float(low),
        "speedup_quartile_high": float(high),
    }


def main() -> None:
    """Run both comparisons, print a Markdown table, and add a file to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    arguments = parser.parse_args()
    import diffusers
    import transformers

    pipeline = build_tiny_pipeline(sizes=SIZES)
    ours = Ours(pipeline)
    found = {
        "ar_decode_per_token": measure(ar_pair(pipeline, ours), 1, arguments.rounds),
        "dit_step": measure(dit_pair(pipeline, ours), 20, arguments.rounds),
    }
    record = {
        "what": "one generated token (greedy, cached) and one decoder pass, fp32, beside the libraries",
        "machine": {**results.machine(), "threads": torch.get_num_threads()},
        "load_average": results.load_average(),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "diffusers": diffusers.__version__,
        },
        "rounds": arguments.rounds,
        "results": found,
    }
    path = results.add("step-time", record, arguments.out)
    print("| what | library ms | sampan ms | library / sampan (quartiles) | outputs differ by |\n|---|---|---|---|---|")
    for name, row in found.items():
        quartiles = f"{row['speedup_quartile_low']:.2f}-{row['speedup_quartile_high']:.2f}"
        print(
            f"| {name} | {row['library_ms']:.2f} | {row['sampan_ms']:.2f} | {row['speedup']:.2f} ({quartiles}) "
            f"| {row['max_relative_error']:.0e} |"
        )
    print(f"written to {path}")


if __name__ == "__main__":
    main()
