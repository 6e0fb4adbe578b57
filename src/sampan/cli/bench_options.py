"""The options of `sampan bench`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sampan.cli import values
from sampan.job import DEVICES, DTYPES, MAX_SEED


def add(verb: Any) -> None:
    """Add them to the verb's parser. Which of them go together is for the verb to say."""
    verb.add_argument(
        "job", metavar="JOB", nargs="?", type=Path, help="measure this job's model and micro-batches; default: built in"
    )
    verb.add_argument(
        "--frameworks", metavar="LIST", type=values.words, help="separated by commas; default: all that are installed"
    )
    verb.add_argument("--modes", metavar="LIST", type=values.words, help="of eager,compiled; default: both")
    verb.add_argument("--parts", metavar="LIST", type=values.words, help="of ar,decoder; default: both")
    verb.add_argument("--rounds", metavar="N", type=values.whole(1), help="rounds that count; default: 9")
    verb.add_argument(
        "--seed", metavar="S", type=values.whole(0, MAX_SEED), default=0, help="of weights and batches; default: 0"
    )
    where = verb.add_argument_group("where it is measured; a job says it too")
    where.add_argument("--device", metavar="D", type=values.device, help=f"{', '.join(DEVICES)}; default: auto")
    where.add_argument("--dtype", metavar="T", choices=DTYPES, help="%(choices)s; default: auto")
    where.add_argument(
        "--threads", metavar="N", type=values.whole(1), help="CPU threads of every side; default: one for each core"
    )
    kit = verb.add_argument_group("single blocks of the released size, for a row from your device")
    kit.add_argument("--kit", action="store_true", help="time one block of each part with random weights")
    kit.add_argument("--tokens", metavar="N", type=values.whole(1), help="default: those of a picture of 1024 px")
    kit.add_argument("--budget", metavar="S", type=values.number(1), help="seconds in all; default: 600")
    lockstep = verb.add_argument_group("where two frameworks part")
    lockstep.add_argument(
        "--diverge",
        metavar=("A", "B"),
        nargs=2,
        help="run two in lockstep, each FRAMEWORK or FRAMEWORK:MODE, and name the first operation that differs",
    )
    lockstep.add_argument("--steps", metavar="N", type=values.whole(1), help="how many; default: 3")
    lockstep.add_argument(
        "--tolerance", metavar="T", type=values.share, help="of a tensor's largest value; default: 0.001"
    )
    written = verb.add_argument_group("what is written")
    written.add_argument("--json", metavar="FILE", type=Path, help="default: a new file in results/")
    written.add_argument("--html", metavar="FILE", type=Path, help="also write a page with bars")
