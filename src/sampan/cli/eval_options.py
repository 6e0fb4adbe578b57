"""The options of `sampan eval`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sampan.cli import values
from sampan.job import DEVICES, DTYPES, MAX_SEED

# known to `sampan.evaluate.verb` too, which is not read before it is needed
SUITES = ("signs", "emoji", "edit", "cvtg")
ABLATIONS = ("prior", "glyph", "preview", "decoder")


def add(verb: Any) -> None:
    """Add them to the verb's parser. Which of them go together is for the verb to say."""
    verb.add_argument("--suite", metavar="NAME", choices=SUITES, required=True, help="%(choices)s")
    verb.add_argument(
        "--count", metavar="N", type=values.whole(1), default=100, help="questions of the main group; default: 100"
    )
    verb.add_argument(
        "--seed", metavar="S", type=values.whole(0, MAX_SEED), default=0, help="chooses the questions; default: 0"
    )
    verb.add_argument("--data", metavar="DIR", type=Path, help="folder of CVTG-2K, for `cvtg`")
    signs = verb.add_argument_group("the main group of signs")
    signs.add_argument("--layouts", metavar="LIST", type=values.words, help="kinds of signs; default: placard")
    signs.add_argument("--fonts", metavar="LIST", type=values.words, help="default: jetbrains-mono")
    signs.add_argument("--letters", metavar="MIN..MAX", type=values.span, help="of the word; default: 3..8")
    who = verb.add_argument_group("who paints")
    who.add_argument(
        "--model",
        metavar="MODEL",
        default="nano",
        help="model folder, run, or a model that is installed; default: nano",
    )
    who.add_argument(
        "--endpoint", metavar="URL", help="ask the images API of a server instead; --model is its name there"
    )
    who.add_argument("--steps", metavar="N", type=values.whole(1), default=20, help="of the decoder; default: 20")
    who.add_argument("--guidance", metavar="G", type=values.number(0), help="default: what the model states, else 1.5")
    who.add_argument(
        "--size",
        metavar="PX",
        type=values.whole(8),
        help="side of the pictures; default: the model's own, of a server 128",
    )
    who.add_argument(
        "--ablate", metavar="LIST", type=values.words, default=(), help=f"leave out, of {','.join(ABLATIONS)}"
    )
    who.add_argument(
        "--device", metavar="D", type=values.device, default="auto", help=f"{', '.join(DEVICES)}; default: auto"
    )
    who.add_argument("--dtype", metavar="T", choices=DTYPES, default="auto", help="%(choices)s; default: auto")
    who.add_argument(
        "--batch", metavar="N", type=values.whole(1, 1024), default=64, help="pictures under way; default: 64"
    )
    who.add_argument(
        "--lora",
        dest="loras",
        metavar="FILE[:SCALE]",
        action="append",
        type=values.lora,
        default=[],
        help="put this LoRA beside the weights, its scale multiplied by SCALE; may be repeated",
    )
    who.add_argument("--offload", action="store_true", help="hold one part of the model on the device at a time")
    who.add_argument("--framework", metavar="F", help="torch or mindspore; default: the first that is installed")
    written = verb.add_argument_group("what is written")
    written.add_argument(
        "--keep",
        metavar="DIR",
        type=Path,
        default=Path("eval-data"),
        help="painted pictures, to go on with; default: eval-data",
    )
    written.add_argument(
        "--fresh", action="store_true", help="paint again what is kept, as when a server has other weights now"
    )
    written.add_argument("--json", metavar="FILE", type=Path, help="the record")
    written.add_argument("--html", metavar="FILE", type=Path, help="a page with the pictures, best and worst")
