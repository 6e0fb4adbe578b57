"""Time of a training step, ours beside a training script on diffusers and transformers, on the same weights and pictures.

All sides begin with the same random weights, in the released geometry, and take the same samples, noise, times and drops and
the same optimizer settings in fp32. Their losses over five steps are compared first; a step that learns something else is not
timed. Then they take turns, in one process and one thread pool, each taking the same steps in a round; ratios are medians of
the per-round ratios.

Our step is all of it: drawing samples and noise, reading the stores, words to ids, packing, positions, the step itself with
its average. Of theirs, what the host prepares is left out: opening and cutting pictures, words to ids, positions, noise and
padding are ready when the clock starts. Neither side writes a log.

    plain     what widely used scripts do in every step, the frozen encoders included; its ratio is the result
    cached    plain, with what the encoders make kept from before: plain over cached is what caching alone gives
    careful   cached, with fused AdamW, a fused average, no attention mask and only the logits that count

How much caching gives depends on how large the encoders are beside what is trained, so there are two models that differ in
their encoders alone: those of the nano preset, and smaller ones whose share of a step's FLOPs is that of the released model.
Shares are counted and stand in the results. How much packing gives depends on how unequal the lengths are: pictures are of
two resolutions and three shapes, each with a text-to-image row and an edit of one reference, and the share of padding in the
scripts' batches stands in the results too.

    python benchmarks/train_step.py [--rounds 9] [--steps 4] [--out results/]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "benchmarks")]

import numpy as np  # noqa: E402
import torch  # noqa: E402
from step_time import SIZES  # noqa: E402
from training import library  # noqa: E402
from training.shares import encoder_share  # noqa: E402
from training.world import Ours, World, ar_batch, decoder_batch, make_world  # noqa: E402

from sampan.models.config import ModelConfig  # noqa: E402
from sampan.report import results  # noqa: E402

_ENCODERS = replace(
    SIZES, vae_groups=8, latents_mean=(0.0,) * 16, latents_std=(1.0,) * 16, reference_px=(128, 1024), vq_dim=32
)
MODELS = {
    "nano": replace(
        _ENCODERS, vae_blocks=(16, 32, 64, 96),
        vision_hidden=192, vision_mlp=768, vision_layers=4, vision_heads=3, vision_image_px=128,
    ),
    "released-share": replace(
        _ENCODERS, vae_blocks=(8, 32, 48, 48),
        vision_hidden=144, vision_mlp=576, vision_layers=2, vision_heads=2, vision_image_px=512,
    ),
}  # fmt: skip
RESOLUTIONS_PX = (256, 512)
NUM_PICTURES = 48
MICRO_BATCH_SIZE = {"decoder": 4, "ar": 8}
NUM_COMPARED = 5
FIRST_TOLERANCE, TOLERANCE = 1e-5, 1e-4  # of the loss, relative: of the first step, and once weights have been updated


class Race:
    """One stage: our side and every form of the script, with the same steps before them."""

    def __init__(self, world: World, name: str, forms: Sequence[str] = tuple(library.FORMS)):
        self.world, self.name = world, name
        self.ours = Ours(world, name)
        kind = {"decoder": library.DecoderScript, "ar": library.ARScript}[name]
        self.scripts = {form: kind(world.pipeline, library.FORMS[form], self.ours.optimizer()) for form in forms}
        self.padding: list[float] = []  # its share of each batch

    def batch(self, step: int) -> Any:
        """Return a step's batch for the scripts, with what the encoders make of it."""
        drawn = self.ours.stage.draw(step, 0)
        made = {"decoder": decoder_batch, "ar": ar_batch}[self.name](self.world, drawn)
        if isinstance(made, library.ARBatch):
            self.padding.append(1 - made.mask.float().mean().item())
        return replace(made, encoded=next(iter(self.scripts.values())).encode(made))

    def compare(self, num_steps: int = NUM_COMPARED) -> dict[str, list[float]]:
        """Take the first steps on all sides; return for each form how far its losses are from ours, relative.

        Raises:
            SystemExit: They are too far apart.
        """
        found: dict[str, list[float]] = {form: [] for form in self.scripts}
        for step in range(num_steps):
            batch, mine = self.batch(step), self.ours.step(step)
            for form, script in self.scripts.items():
                error = abs(script.step(batch) - mine) / abs(mine)
                found[form].append(error)
                if not error <= (TOLERANCE if step else FIRST_TOLERANCE):
                    raise SystemExit(f"{self.name}, {form}: the loss of step {step} differs by {error:.1e}; not timed")
        return found

    def time(self, first: int, rounds: int, steps: int) -> dict[str, list[float]]:
        """Return milliseconds per step of every round, on each side; another side begins each round."""
        times: dict[str, list[float]] = {name: [] for name in ("sampan", *self.scripts)}
        sides = list(times)
        for number in range(rounds):
            wanted = range(first + number * steps, first + (number + 1) * steps)
            batches = [self.batch(step) for step in wanted]
            for name in sides[number % len(sides) :] + sides[: number % len(sides)]:
                begun = time.perf_counter()
                for step, batch in zip(wanted, batches, strict=True):
                    self.ours.step(step) if name == "sampan" else self.scripts[name].step(batch)
                times[name].append((time.perf_counter() - begun) / steps * 1000)
        return times


def measure(world: World, name: str, rounds: int, steps: int) -> dict[str, Any]:
    """Compare a stage's losses, then time it; milliseconds are per step."""
    race = Race(world, name)
    errors = race.compare()
    times = race.time(NUM_COMPARED, rounds, steps)
    found: dict[str, Any] = {
        "encoder_share": {f"{px}_px": encoder_share(world.work.config, px, name) for px in RESOLUTIONS_PX},
        "padding_share": float(np.mean(race.padding)) if race.padding else None,
        "sampan_ms": float(np.median(times["sampan"])),
        "scripts": {},
    }
    for form in race.scripts:
        ratios = np.array(times[form]) / np.array(times["sampan"])
        low, middle, high = (float(v) for v in np.percentile(ratios, [25, 50, 75]))
        found["scripts"][form] = {
            "ms": float(np.median(times[form])),
            "speedup": middle,
            "speedup_quartile_low": low,
            "speedup_quartile_high": high,
            "loss_error_first": errors[form][0],
            "loss_error_max": max(errors[form]),
        }
    return found


def main() -> None:
    """Measure both stages of both models, print a Markdown table, and add a file to the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4, help="steps in a round")
    parser.add_argument("--out", type=Path, default=ROOT / "results")
    arguments = parser.parse_args()
    import diffusers
    import transformers

    found: dict[str, dict[str, Any]] = {}
    for model, sizes in MODELS.items():
        with tempfile.TemporaryDirectory() as folder:
            world = make_world(
                Path(folder),
                sizes=sizes,
                resolutions_px=RESOLUTIONS_PX,
                num_pictures=NUM_PICTURES,
                num_steps=NUM_COMPARED + arguments.rounds * arguments.steps,
                micro_batch_size=MICRO_BATCH_SIZE,
            )
            found[model] = {name: measure(world, name, arguments.rounds, arguments.steps) for name in MICRO_BATCH_SIZE}
    released = {
        name: {f"{px}_px": encoder_share(ModelConfig(), px, name) for px in (*RESOLUTIONS_PX, 1024)}
        for name in MICRO_BATCH_SIZE
    }
    record = {
        "what": "one training step, fp32, beside a training script on the libraries",
        "machine": {**results.machine(), "threads": torch.get_num_threads()},
        "load_average": results.load_average(),
        "versions": {
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "diffusers": diffusers.__version__,
        },
        "rounds": arguments.rounds,
        "steps_in_a_round": arguments.steps,
        "micro_batch_size": MICRO_BATCH_SIZE,
        "resolutions_px": RESOLUTIONS_PX,
        "released_encoder_share": released,
        "results": found,
    }
    path = results.add("train-step", record, arguments.out)
    print(table(found))
    print(f"written to {path}")


def table(found: dict[str, dict[str, Any]]) -> str:
    """Return the results in Markdown."""
    lines = [
        "| encoders | step | script | script ms | sampan ms | script / sampan (quartiles) | losses differ by |",
        "|---|---|---|---|---|---|---|",
    ]
    for model, by_stage in found.items():
        for name, row in by_stage.items():
            for form, one in row["scripts"].items():
                quartiles = f"{one['speedup_quartile_low']:.2f}-{one['speedup_quartile_high']:.2f}"
                lines.append(
                    f"| {model} | {name} | {form} | {one['ms']:.0f} | {row['sampan_ms']:.0f} "
                    f"| {one['speedup']:.2f} ({quartiles}) | {one['loss_error_max']:.0e} |"
                )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
