"""Change one constant of the recipe at a time and see which quick test notices.

    python scripts/mutation_check.py                 all of them, about a quarter of an hour; writes docs/mutations.md
    python scripts/mutation_check.py --only NAME …   some, and writes nothing

Each change is made in a copy of src/ below a temporary folder; the tests are those of this checkout, without their slow ones. A
mutation names the files whose tests should notice, so that the whole suite does not run for each; what they catch the quick
suite catches. Exit status 1 where a change went unnoticed, 2 where a constant has moved and the list has to follow.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "mutations.md"
QUICK = "not slow and not gpu and not npu and not network"
GOLDEN, MINDSPORE = "tests/golden/test_golden.py::*torch*", "tests/golden/test_golden.py::*mindspore*"
RECIPE = "tests/golden/test_recipe.py"


@dataclass(frozen=True)
class Mutation:
    """One changed constant.

    Args:
        name: What is changed, in the field's words.
        file: Below src/sampan.
        before, after: Text that stands in the file exactly once, and what takes its place.
        tests: Files that should notice, or FILE::PATTERN for the tests of a file whose names match.
    """

    name: str
    file: str
    before: str
    after: str
    tests: tuple[str, ...]


def recipe(name: str, file: str, before: str, after: str) -> Mutation:
    """Return a mutation of a default that a user may set."""
    return Mutation(name, file, before, after, (RECIPE,))


STEP, PARITY_TABLES = "optimizer", "tests/parity/test_tables.py"
MUTATIONS = (
    # --- time and noise
    Mutation("time that the decoder is told in training", "losses/flow.py", "1000 * unshifted - 1", "1000 * unshifted", (GOLDEN,)),
    Mutation("time that the decoder is told in sampling", "samplers/euler.py", "return raw - 1,", "return raw,", ("tests/unit/samplers",)),
    Mutation("exponent of the resolution shift", "samplers/euler.py", "** 0.5 *", "** 0.6 *", ("tests/unit/samplers",)),
    Mutation("direction of the flow", "losses/flow.py", "(1 - s) * clean + s * noise", "s * clean + (1 - s) * noise", ("tests/unit/losses", GOLDEN)),
    recipe("base_shift of the scheduler", "models/config.py", "base_shift: float = 0.25", "base_shift: float = 0.5"),
    recipe("max_shift of the scheduler", "models/config.py", "max_shift: float = 0.75", "max_shift: float = 1.15"),
    recipe("mean of the logit-normal time", "job/stages.py", '"Mean of the logit of the flow time; greater is noisier.", 0.0', '"Mean of the logit of the flow time; greater is noisier.", 0.1'),
    recipe("deviation of the logit-normal time", "job/stages.py", '"Standard deviation of the logit of the flow time.", 1.0', '"Standard deviation of the logit of the flow time.", 1.1'),
    # --- conditioning
    recipe("share without any condition", "job/stages.py", '"Share of the rows without any conditioning.", 0.1', '"Share of the rows without any conditioning.", 0.11'),
    recipe("share without text to be drawn", "job/stages.py", '"Share of the rows without text to be drawn.", 0.05', '"Share of the rows without text to be drawn.", 0.06'),
    recipe("share without references", "job/stages.py", '"Share of the rows without their references.", 0.05', '"Share of the rows without their references.", 0.04'),
    recipe("noise on prior tokens", "job/stages.py", "generator's errors.\",\n        0.05,", "generator's errors.\",\n        0.06,"),
    Mutation("what a dropped condition does to prior tokens", "train/stages/decoder.py", "0.0 if drop_all or drop_prior else 1.0", "0.0 if drop_prior else 1.0", (GOLDEN,)),
    Mutation("guidance formula", "samplers/euler.py", "unconditional + scale *", "conditional + scale *", ("tests/unit/samplers", "tests/unit/pipeline")),
    recipe("guidance scale", "models/config.py", "guidance_scale: float = 1.5", "guidance_scale: float = 1.4"),
    Mutation("steps of the decoder", "pipeline/request.py", "DEFAULT_STEPS = 50", "DEFAULT_STEPS = 49", (RECIPE,)),
    # --- losses
    Mutation("scales of the edge loss", "losses/autoencoder.py", "num_scales: int = 3", "num_scales: int = 2", (GOLDEN,)),
    recipe("weight of the edge loss", "job/stages.py", '"Weight of the error of edges, beside that of pixels.", 0.5', '"Weight of the error of edges, beside that of pixels.", 0.4'),
    Mutation("divergence of the latent", "losses/autoencoder.py", "0.5 * (mean * mean", "0.6 * (mean * mean", ("tests/unit/losses",)),
    recipe("weight of the divergence", "job/stages.py", 'unit Gaussian.", 1e-6', 'unit Gaussian.", 1e-5'),
    recipe("commitment weight", "job/stages.py", 'towards their code.", 1.0', 'towards their code.", 0.9'),
    recipe("codebook weight", "job/stages.py", 'that chose them.", 0.25', 'that chose them.", 0.3'),
    Mutation("stopped gradient of the quantizer", "losses/quantizer.py", "to_features = z - ops.stop_gradient(chosen)", "to_features = z - chosen", ("tests/unit/losses", GOLDEN)),
    Mutation("temperature of the tokenizer's contrast", "train/stages/tokenizer.py", "_TEMPERATURE = 0.07", "_TEMPERATURE = 0.1", (GOLDEN,)),
    Mutation("share of preview grids in the tokenizer", "train/stages/tokenizer.py", "_PREVIEW_SHARE = 0.25", "_PREVIEW_SHARE = 0.5", (GOLDEN,)),
    Mutation("greatest weight of a preview token", "losses/tokens.py", "min(4.0,", "min(3.0,", ("tests/unit/losses",)),
    Mutation("mirrored images of the autoencoder", "train/stages/vae.py", "random.random() < 0.5", "random.random() < 0.9", (GOLDEN,)),
    # --- optimizer
    Mutation("ramp of the moving average, torch", f"frameworks/torch/{STEP}.py", "(1 + self.num_updates) / (10 + self.num_updates)", "(1 + self.num_updates) / (20 + self.num_updates)", (GOLDEN,)),
    Mutation("ramp of the moving average, MindSpore", f"frameworks/mindspore/{STEP}.py", "(1 + self.num_updates) / (10 + self.num_updates)", "(1 + self.num_updates) / (20 + self.num_updates)", (MINDSPORE,)),
    Mutation("epsilon of AdamW, torch", "frameworks/torch/adamw.py", "EPS = 1e-8", "EPS = 1e-7", (GOLDEN, "tests/unit/frameworks/torch/test_adamw.py")),
    Mutation("epsilon of AdamW, MindSpore", f"frameworks/mindspore/{STEP}.py", "EPS = 1e-8", "EPS = 1e-7", (MINDSPORE,)),
    Mutation("clipping, torch", f"frameworks/torch/{STEP}.py", "self.clip_norm / (norm + 1e-6)", "2 * self.clip_norm / (norm + 1e-6)", (GOLDEN,)),
    Mutation("clipping, MindSpore", f"frameworks/mindspore/{STEP}.py", "self.clip_norm / (seen.norm + 1e-6)", "2 * self.clip_norm / (seen.norm + 1e-6)", (MINDSPORE,)),
    recipe("length that gradients are clipped to", "job/stages.py", "is shortened to this length.\", 1.0", "is shortened to this length.\", 1.1"),
    recipe("beta2 of AdamW", "job/stages.py", 'memory of the squared gradient.", 0.99', 'memory of the squared gradient.", 0.999'),
    recipe("weight decay", "job/stages.py", '"AdamW\'s decay of matrices.", 0.01', '"AdamW\'s decay of matrices.", 0.1'),
    Mutation("cosine of the learning rate", "train/schedule.py", "math.cos(math.pi * done)", "math.cos(0.9 * math.pi * done)", ("tests/unit/train/test_schedule_and_order.py", GOLDEN)),
    recipe("lowest learning rate", "job/stages.py", 'as a share of `lr`.", 0.1', 'as a share of `lr`.", 0.0'),
    # --- model
    Mutation("base of rotary positions", "models/positions.py", "theta: float = 10000.0", "theta: float = 5000.0", ("tests/unit/models/test_positions.py",)),
    recipe("rotary base of the AR model", "models/config.py", "rope_theta: float = 10000.0", "rope_theta: float = 500000.0"),
    Mutation("longest wave of time features", "models/positions.py", "-np.log(10000.0)", "-np.log(1000.0)", ("tests/unit/models/test_positions.py", GOLDEN)),
    recipe("sections of the AR model's rotary channels", "models/config.py", "mrope_section: tuple[int, ...] = (8, 12, 12)", "mrope_section: tuple[int, ...] = (12, 8, 12)"),
    recipe("epsilon of the AR model's norms", "models/config.py", "rms_norm_eps: float = 1e-5", "rms_norm_eps: float = 1e-6"),
    Mutation("epsilon of the autoencoder's norms", "models/vae.py", "_EPS = 1e-6", "_EPS = 1e-5", ("tests/parity/test_parity.py", GOLDEN)),
    Mutation("normalisation of latents", "models/vae.py", "(self.encoder(image)[0] - latents_mean) / latents_std", "self.encoder(image)[0] / latents_std - latents_mean", ("tests/unit/models/test_modules.py", "tests/parity/test_parity.py")),
    Mutation("deviation of token tables at the start", "models/init.py", '"embed_tokens.weight": 1.0', '"embed_tokens.weight": 0.9', (GOLDEN,)),
    Mutation("residual blocks of the autoencoder at the start", "models/init.py", "deviation *= 0.1", "deviation *= 0.2", (GOLDEN,)),
    Mutation("scale of a LoRA", "models/lora.py", "alpha / rank))", "alpha))", ("tests/unit/models/test_lora.py",)),
    # --- drawing tokens
    Mutation("token that crosses top-p", "SAMPLE_FILE", "before < config.top_p", "before + weights < config.top_p", ("tests/unit/samplers", "tests/unit/pipeline")),
    recipe("temperature of the AR model", "models/config.py", "temperature: float = 0.9", "temperature: float = 1.0"),
    recipe("top-p of the AR model", "models/config.py", "top_p: float = 0.75", "top_p: float = 0.8"),
)  # fmt: skip


def problem(mutation: Mutation) -> str | None:
    """Return why a mutation cannot be made, or None."""
    path = ROOT / "src/sampan" / mutation.file
    if not path.is_file():
        return f"there is no {mutation.file}"
    count = path.read_text(encoding="utf-8").count(mutation.before)
    return None if count == 1 else f"`{mutation.before}` stands {count} times in {mutation.file}"


def noticed_by(mutation: Mutation, copy: Path) -> str | None:
    """Make the change in a copy of src/, run the tests that should notice, and return the first one that failed."""
    path = copy / "sampan" / mutation.file
    right = path.read_text(encoding="utf-8")
    path.write_text(right.replace(mutation.before, mutation.after), encoding="utf-8")
    try:
        for test in mutation.tests:
            file, _, pattern = test.partition("::")
            words = ["-k", pattern.strip("*")] if pattern else []
            done = subprocess.run(
                [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-m", QUICK, *words, file],
                cwd=ROOT, env={**os.environ, "PYTHONPATH": str(copy), "OMP_NUM_THREADS": "1"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode not in (0, 1, 2):
                raise SystemExit(f"{mutation.name}: pytest ended with {done.returncode}\n{done.stdout[-2000:]}")
            failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
            if failed:
                return failed.group(1).partition("[")[0]
        return None
    finally:
        path.write_text(right, encoding="utf-8")


def page(rows: Sequence[tuple[Mutation, str | None]]) -> str:
    """Return the table in Markdown."""
    caught = sum(test is not None for _, test in rows)
    lines = [
        "# Mutations of the recipe",
        "",
        "One constant is changed at a time, and the quick tests run; written by `python scripts/mutation_check.py`.",
        f"{caught} of {len(rows)} changes are caught.",
        "",
        "| constant | file | from | to | caught by |",
        "|---|---|---|---|---|",
    ]
    for mutation, test in rows:
        before, after = (_changed(text).replace("|", "\\|") for text in _difference(mutation.before, mutation.after))
        lines.append(
            f"| {mutation.name} | `{mutation.file}` | `{before}` | `{after}` | {f'`{test}`' if test else '**nothing**'} |"
        )
    return "\n".join(lines) + "\n"


def _difference(before: str, after: str) -> tuple[str, str]:
    """Return the two texts from the last quotation mark or line's begin before their first difference."""
    same = len(os.path.commonprefix([before, after]))
    begin = max(before.rfind(sign, 0, same) for sign in '"\n') + 1
    return before[begin:], after[begin:]


def _changed(text: str) -> str:
    return " ".join(text.strip(" ,\n").split())


def main() -> int:
    """Run the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="mutations whose names contain one of these")
    options = parser.parse_args()
    chosen = [m for m in MUTATIONS if not options.only or any(word in m.name for word in options.only)]
    moved = [f"{m.name}: {why}" for m in chosen if (why := problem(m))]
    if moved:
        print("\n".join(["constants have moved:", *moved]), file=sys.stderr)
        return 2
    rows: list[tuple[Mutation, str | None]] = []
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "src"
        shutil.copytree(ROOT / "src", copy, ignore=shutil.ignore_patterns("__pycache__"))
        for number, mutation in enumerate(chosen, 1):
            began = time.perf_counter()
            rows.append((mutation, noticed_by(mutation, copy)))
            result = rows[-1][1] or "NOT CAUGHT"
            print(
                f"{number:2}/{len(chosen)} {mutation.name}: {result} ({time.perf_counter() - began:.0f} s)", flush=True
            )
    if not options.only:
        PAGE.write_text(page(rows), encoding="utf-8")
        print(f"wrote {PAGE.relative_to(ROOT)}")
    return 0 if all(test for _, test in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
