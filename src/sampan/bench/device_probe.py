"""Single blocks of the released size with random weights, timed within ten minutes: a row from whoever has the device.

Nothing is downloaded. One block stands for all of its kind, 40 of the generator and 30 of the decoder.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sampan.bench import shapes
from sampan.bench.arguments import BUDGET_S
from sampan.bench.backends import Backend
from sampan.bench.process import BackendProcess, ComputeTarget, running
from sampan.bench.timing import METERS, WARM_UP_STEPS, quartiles
from sampan.errors import DeviceError, SampanError
from sampan.report import results

REPEATS = 5
_LEAST_TOKENS = {"ar": 1, "decoder": shapes.NUM_GLYPH + 1}
PX = 1024  # of the picture whose tokens a block sees when nothing else is said
HAND_IN = (
    "hand it in: commit {path} to results/ and open a pull request, or attach the file to an issue; "
    "say how the device is cooled and capped if you know it"
)
# of a compiled backend the step alone: not every framework compiles a forward pass for itself
_PASSES = {"eager": {"forward": "evaluate", "step": "step"}, "compiled": {"step": "step"}}


def num_tokens(part: str, tokens: int | None) -> int:
    """Return how many tokens a block sees: as many as were asked for, or those of a picture of 1024 px.

    Raises:
        SampanError: Fewer were asked for than a block can see.
    """
    if tokens is None:
        return shapes.block_tokens(part, PX)
    if tokens < _LEAST_TOKENS[part]:
        raise SampanError(
            f"--tokens {tokens} is too few for a block of the {part}", f"the least is {_LEAST_TOKENS[part]}"
        )
    return tokens


def probe_device(
    backends: Sequence[Backend],
    parts: Sequence[str],
    *,
    tokens: int | None = None,
    budget_s: float = BUDGET_S,
    target: ComputeTarget,
    seed: int = 0,
    say: Callable[[str], None],
    notes: Sequence[str] = (),
    clock: Callable[[], float] = time.monotonic,
) -> dict[str, Any]:
    """Time a block of every part on every backend, one process after another; return the record.

    Args:
        tokens: Of one picture, instead of those that 1024 px have.
        budget_s: Within it as many as five repeats are made of each pass; at least one, once a block has begun. What has
            not begun when it is over is left out and said to be; so is what a backend cannot compute.

    Raises:
        SampanError: Fewer tokens were asked for than a block can see.
        DeviceError: Nothing was measured: says for each why not.
    """
    counts = {part: num_tokens(part, tokens) for part in parts}
    before, ends = results.load_average(), clock() + budget_s
    rows: list[dict[str, Any]] = []
    left_out: list[str] = []
    work = [(backend, part) for backend in backends for part in parts]
    for number, (backend, part) in enumerate(work):
        left_s = ends - clock()
        if left_s <= 0:
            left_out.append(f"block of the {part}, {backend.label}: the {budget_s:.0f} s were over")
            continue
        share_ends = clock() + left_s / (len(work) - number)  # what one leaves is the next ones'
        say(f"{backend.label}: one block of the {part}, {counts[part]} tokens")
        try:
            with tempfile.TemporaryDirectory() as folder, running([backend], Path(folder), target) as [process]:
                rows.append(_row(process, part, counts[part], seed, Path(folder), clock, share_ends))
        except SampanError as error:  # one that does not fit, say; the others are worth a row all the same
            left_out.append("; ".join([f"block of the {part}, {error.what}", *error.because]))
    if not rows:
        raise DeviceError("nothing was measured", left_out, "--budget gives it more time, --tokens less to do")
    return {
        "what": "single blocks of the released size, random weights",
        **results.conditions(before),
        "px": PX if tokens is None else None,
        "tokens": counts,
        "seed": seed,
        "budget_s": budget_s,
        "rows": rows,
        "left_out": left_out,
        "notes": [*notes, *([] if tokens is None else [f"{tokens} tokens, not those of a picture of {PX} px"])],
    }


def device_slug(record: Mapping[str, Any]) -> str:
    """Return a word for the device of a record's first row, for the name of its file."""
    first = record["rows"][0] if "rows" in record else record["sides"][0]
    name = first["device_name"] or first["device"]
    slug = "".join(c if c.isalnum() else "-" for c in name.lower()).strip("-")
    return f"cpu-{record['machine']['usable_cores']}core" if first["device"] == "cpu" else slug


def _row(
    process: BackendProcess, part: str, tokens: int, seed: int, folder: Path, clock: Callable[[], float], ends: float
) -> dict[str, Any]:
    batch = folder / "batch.npz"
    shapes.save(batch, shapes.block_batch(part, tokens, seed))
    num_parameters = process.load(part, batch, seed)
    passes: dict[str, Any] = {}
    wanted = _PASSES[process.backend.mode]
    for number, (name, do) in enumerate(wanted.items()):
        pass_ends = clock() + max(0.0, ends - clock()) / (len(wanted) - number)
        begun, warm_up = clock(), 0
        last_s = first_s = _run_pass(process, do)
        while warm_up < WARM_UP_STEPS[process.backend.mode] and clock() + 2 * last_s < (begun + pass_ends) / 2:
            last_s, warm_up = _run_pass(process, do), warm_up + 1
        taken = [_run_pass(process, do)]
        while len(taken) < REPEATS and clock() + taken[-1] < pass_ends:
            taken.append(_run_pass(process, do))
        passes[name] = {
            "first_s": first_s,
            "warm_up_steps": 1 + warm_up,
            "seconds": quartiles(taken),
            "repeats": len(taken),
        }
    memory = process.ask("memory")
    flops = process.ask("flops") if process.backend.framework in METERS else {}
    rate = process.ask("rate")["flops_per_s"]
    for name, timed in passes.items():
        timed["flops"] = flops.get(f"{name}_flops")
        timed["mfu"] = None if timed["flops"] is None else timed["flops"] / timed["seconds"]["median"] / rate
    return {
        **process.describe(), "part": part, "tokens": tokens, "num_parameters": num_parameters, "forward": None, **passes,
        "peak_flops_per_s": rate, **memory,
    }  # fmt: skip


def _run_pass(process: BackendProcess, do: str) -> float:
    """Do a pass and return its seconds.

    Raises:
        SampanError: What comes of it is not finite.
    """
    answer = process.ask(do)
    if answer.get("skipped") or not abs(answer["loss"]) < float("inf"):
        raise SampanError(f"{process.backend.label} makes a pass that is not finite", f"its loss is {answer['loss']}")
    return answer["seconds"]
