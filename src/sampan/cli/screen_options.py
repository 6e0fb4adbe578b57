"""The options of `sampan screen`: the facts of a question, and what is made of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sampan.cli import values

FACTS = {
    "date": ("DAY", "the day that is asked about, as in 2026-02-15"),
    "relation": ("WHAT", "buy, rent, operate, host, build, export_out, fab or invest"),
    "chip": ("CHIP", "a chip of the catalogue"),
    "site": ("CC", "country of the machine, or where an export goes"),
    "site-from": ("CC", "where an export begins"),
    "actor-hq": ("CC", "seat or ultimate parent of who uses the chip"),
    "actor-id": ("FIRM", "a firm that rules name"),
    "actor-tags": ("LIST", "other names under which rules list it"),
    "customer-hq": ("CC", "seat of the customer, for --relation host"),
    "customer-entity-listed": ("YES", "whether the customer is on the US Entity List"),
    "entity-listed": ("YES", "whether the actor is"),
    "owned-by-listed-pct": ("PCT", "share of the actor that listed parties hold"),
    "ships-from": ("CC", "where the chip comes from; usually US"),
    "received-before": ("DAY", "a day before which the chips were there"),
    "certs-met": ("YES", "whether the certifications of the rule of 15 January 2026 are met; usually yes"),
    "end-use": ("WHAT", "training, inference, supercomputer, military, military_intelligence or wmd; usually training"),
    "state-funded": ("YES", "whether public money is in it; usually no"),
    "completion-pct": ("PCT", "how much of the building stands"),
    "domestic-share-pct": ("PCT", "share of chips of the site's own country"),
    "passes-us": ("YES", "whether the chips pass through the US"),
    "final-use-us": ("YES", "whether they stay there"),
    "false-end-user": ("YES", "whether papers name another user"),
    "uses-cn-personal-data": ("YES", "whether personal data from China is trained on"),
    "refuses-domestic-due-to-us": ("YES", "whether domestic chips are refused because of US rules"),
    "item": ("WHAT", "hbm, wafer or sme, where it is no chip"),
    "designer-hq": ("CC", "seat of who designed it, for --relation fab"),
    "process-nm": ("NM", "of the process, for --relation fab"),
    "host-hq": ("CC", "seat of who runs the site"),
    "investor-hq": ("CC", "seat of the investor, for --relation invest"),
}
"""Facts by option: what stands for the value, and its help. Each is a field of sampan.screen.matching.ScreenQuery."""


def add(verb: Any) -> None:
    """Add them to the verb's parser."""
    asked = verb.add_argument_group("the question; what is left out is not known, or what is usual")
    for name, (stands, words) in FACTS.items():
        if stands == "YES":
            asked.add_argument(
                f"--{name}", metavar="yes|no", nargs="?", const="yes", help=f"{words}; alone it means yes"
            )
        else:
            asked.add_argument(f"--{name}", metavar=stands, help=words)
    other = verb.add_argument_group("instead of an answer to it")
    other.add_argument(
        "--cases",
        metavar="FILE",
        type=Path,
        help="run a file of cases (YAML or JSON); status 1 if one is not as expected",
    )
    other.add_argument("--timeline", action="store_true", help="how the answer changed from 2022 to the horizon")
    other.add_argument(
        "--matrix",
        action="store_true",
        help="chips by sites; with --sites and --chips, and of buying where no --relation is given",
    )
    other.add_argument("--sites", metavar="LIST", type=values.words, help="countries, for --matrix")
    other.add_argument("--chips", metavar="LIST", type=values.words, help="for --matrix; default: all of the catalogue")
    other.add_argument("--check-rules", action="store_true", help="say what is wrong with the rules' files")
    written = verb.add_argument_group("what is written")
    written.add_argument("--html", metavar="FILE", type=Path, help="a page, of --timeline or --matrix")
    written.add_argument(
        "--json", metavar="FILE", nargs="?", const="-", help="JSON instead of text; into a file if one is named"
    )


def facts(arguments: Any) -> dict[str, Any]:
    """Return the facts that were given, by field."""
    found = {name.replace("-", "_"): getattr(arguments, name.replace("-", "_")) for name in FACTS}
    return {name: value for name, value in found.items() if value is not None}
