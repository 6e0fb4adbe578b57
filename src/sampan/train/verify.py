"""Whether a run is what it says: its files are those that were written, and its steps come out again."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sampan.checkpoint import checksums
from sampan.checkpoint.provenance import in_words
from sampan.checkpoint.run_metadata import read_record
from sampan.checkpoint.tolerance import TOLERANCES
from sampan.errors import CheckpointError
from sampan.job import read
from sampan.progress import bars
from sampan.train.replay import Replayer, ReplayResult, choose, windows
from sampan.units import format_bytes


def verify(
    out: Path,
    *,
    replay: int | None,
    seed: int,
    device: str | None,
    dtype: str | None,
    tolerances: Mapping[str, float],
    console: Any,
) -> dict[str, Any]:
    """Check a run's files against their hashes, then take `replay` windows of its steps again.

    Args:
        out: The run folder; nothing is written into it.
        replay: How many windows, drawn by `seed` from those of all stages; None replays none.
        device, dtype: Where and in what; None is as each window's steps were taken.
        tolerances: What replaces numbers of TOLERANCES.

    Returns:
        `run`, `files` (as `checksums.check`), `comes_out`, and `replay`: None, or `seed`, `asked`, `possible`, `windows` and
        `tolerances`. A window has `stage`, `from_step`, `to_step`, `recorded`, `now`, `same_place`, `bit_for_bit`, `loss`
        (`off`, `step`), for `weights`, `ema`, `exp_avg`, `exp_avg_sq` the `share` and the `worst` tensor, and `faults`.
        `not_checked` says in words what could not be.

    Raises:
        CheckpointError: It is no run, a file was changed, or there is no window to replay.
    """
    read_record(out)
    cache = read(out / "job.toml").data.cache or out / "cache"
    files = checksums.check(out, cache)
    report: dict[str, Any] = {"run": str(out), "files": files, "not_checked": files.pop("not_checked"), "replay": None}
    faults = []
    if replay is not None:
        every, gone = windows(out)
        if not every:
            raise CheckpointError(
                f"the run in `{out}` has no window of steps to replay",
                gone,
                "a window needs two kept checkpoints: train with a larger train.keep_last",
            )
        report["not_checked"] += gone
        most = {**TOLERANCES, **tolerances}
        with tempfile.TemporaryDirectory(prefix="sampan-verify-") as scratch, bars(console) as show:
            replays = Replayer(out, Path(scratch), device, dtype, console)
            results = [replays.replay(window, show) for window in choose(every, replay, seed)]
        faults = [fault for result in results for fault in result.faults(most)]
        report["replay"] = {
            "seed": seed,
            "asked": replay,
            "possible": len(every),
            "tolerances": most,
            "windows": [_facts(result, most) for result in results],
        }
    report["comes_out"] = not faults
    return report


def refuse(report: Mapping[str, Any]) -> None:
    """Raise where a report says that a window does not come out.

    Raises:
        CheckpointError: With each thing that is too far off.
    """
    if report["comes_out"]:
        return
    wrong = [f"{_name(window)}: {fault}" for window in report["replay"]["windows"] for fault in window["faults"]]
    raise CheckpointError(
        f"the run in `{report['run']}` does not come out as it was recorded",
        wrong,
        f"`--replay {report['replay']['asked']} --seed {report['replay']['seed']}` takes the same windows again",
    )


def show(report: Mapping[str, Any], console: Any) -> None:
    """Print a report for people."""
    from rich.markup import escape
    from rich.table import Table

    def say(text: str) -> None:
        console.print(escape(text), soft_wrap=True, highlight=False)

    files = report["files"]
    say(f"{report['run']}: every file is the one that was written")
    say(f"checkpoints: {files['checkpoints']}, of {files['files']} files, {format_bytes(files['bytes'])}")
    if files["model"]:
        say(f"model: {files['model']} files, and their weights are those that the stages came to")
    if files["cache"]:
        say(f"cache: {files['cache']} files")
    if replay := report["replay"]:
        say(f"replayed: {len(replay['windows'])} of {replay['possible']} windows, drawn by seed {replay['seed']}")
        if replay["asked"] > replay["possible"]:
            say(f"asked for: {replay['asked']}; there are no more than {replay['possible']}")
        table = Table("window", "taken on", "taken again on", "loss", "weights", "ema", "moments", "result")
        for window in replay["windows"]:
            table.add_row(
                _name(window),
                ", then ".join(dict.fromkeys(in_words(place) for place in window["recorded"])),
                in_words(window["now"]),
                _short(window["loss"]["off"]),
                *(_short(window[name]["share"]) for name in ("weights", "ema")),
                ", ".join(_short(window[name]["share"]) for name in ("exp_avg", "exp_avg_sq")),
                _result(window),
            )
        console.print(table)
        most = replay["tolerances"]
        say(
            f"at most: loss {most['loss']:g} of the recorded one; of the way that a window went: weights "
            f"{most['weights']:g}, ema {most['ema']:g}, moments {most['moments']:g}"
        )
    for line in report["not_checked"]:
        say(f"not checked: {line}")


def _facts(result: ReplayResult, tolerances: Mapping[str, float]) -> dict[str, Any]:
    window = result.window
    return {
        "stage": window.stage,
        "from_step": window.first,
        "to_step": window.last,
        "recorded": [dict(place) for place in result.recorded],
        "now": dict(result.now),
        "same_place": result.same_place,
        "bit_for_bit": result.is_same,
        "loss": {"off": _finite(result.loss[0]), "step": result.loss[1]},
        **{
            name: {
                "share": _finite(d.relative),
                "worst": {"name": d.worst_tensor[0], "share": _finite(d.worst_tensor[1])},
            }
            for name, d in result.differences.items()
        },
        "faults": result.faults(tolerances),
    }


def _name(window: Mapping[str, Any]) -> str:
    return f"{window['stage']} {window['from_step'] + 1}-{window['to_step']}"


def _result(window: Mapping[str, Any]) -> str:
    if window["faults"]:
        return "differs"
    if window["bit_for_bit"]:
        return "the same, bit for bit"
    # same place, other bits: some kernels of a GPU add in any order; on a CPU it should not be
    return "comes out, not bit for bit in the same place" if window["same_place"] else "comes out"


def _finite(number: float) -> float | None:
    """Return a number as JSON can hold it; None is infinitely far."""
    return number if math.isfinite(number) else None


def _short(number: float | None) -> str:
    return "infinite" if number is None else f"{number:.1e}" if number else "0"
