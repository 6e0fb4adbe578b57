"""The options of `sampan screen`: the facts of a question, and what is made of it."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sampan.options import flag, option, words

_QUESTION = "the question; what is left out is not known, or what is usual"


def _yes_or_no(meaning: str) -> Any:
    return option(f"{meaning}; alone it means yes", "yes|no", const="yes")


@dataclass(frozen=True, kw_only=True)
class ScreenFacts:
    """The facts of a question as they were given. Each is a field of sampan.screen.query.ScreenQuery."""

    date: str | None = option("the day that is asked about, as in 2026-02-15", "DAY", group=_QUESTION)
    relation: str | None = option("buy, rent, operate, host, build, export_out, fab or invest", "WHAT")
    chip: str | None = option("a chip of the catalogue", "CHIP")
    site: str | None = option("country of the machine, or where an export goes", "CC")
    site_from: str | None = option("where an export begins", "CC")
    actor_hq: str | None = option("seat or ultimate parent of who uses the chip", "CC")
    actor_id: str | None = option("a firm that rules name", "FIRM")
    actor_tags: str | None = option("other names under which rules list it", "LIST")
    customer_hq: str | None = option("seat of the customer, for --relation host", "CC")
    customer_entity_listed: str | None = _yes_or_no("whether the customer is on the US Entity List")
    entity_listed: str | None = _yes_or_no("whether the actor is")
    owned_by_listed_pct: str | None = option("share of the actor that listed parties hold", "PCT")
    ships_from: str | None = option("where the chip comes from; usually US", "CC")
    received_before: str | None = option("a day before which the chips were there", "DAY")
    certs_met: str | None = _yes_or_no("whether the certifications of the rule of 15 January 2026 are met; usually yes")
    end_use: str | None = option(
        "training, inference, supercomputer, military, military_intelligence or wmd; usually training", "WHAT"
    )
    state_funded: str | None = _yes_or_no("whether public money is in it; usually no")
    completion_pct: str | None = option("how much of the building stands", "PCT")
    domestic_share_pct: str | None = option("share of chips of the site's own country", "PCT")
    passes_us: str | None = _yes_or_no("whether the chips pass through the US")
    final_use_us: str | None = _yes_or_no("whether they stay there")
    false_end_user: str | None = _yes_or_no("whether papers name another user")
    uses_cn_personal_data: str | None = _yes_or_no("whether personal data from China is trained on")
    refuses_domestic_due_to_us: str | None = _yes_or_no("whether domestic chips are refused because of US rules")
    item: str | None = option("hbm, wafer or sme, where it is no chip", "WHAT")
    designer_hq: str | None = option("seat of who designed it, for --relation fab", "CC")
    process_nm: str | None = option("of the process, for --relation fab", "NM")
    host_hq: str | None = option("seat of who runs the site", "CC")
    investor_hq: str | None = option("seat of the investor, for --relation invest", "CC")

    def facts(self) -> dict[str, str]:
        """Return the facts that were given, by field."""
        values = {found.name: getattr(self, found.name) for found in fields(ScreenFacts)}
        return {name: value for name, value in values.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ScreenArguments(ScreenFacts):
    """The options of `sampan screen`."""

    examples: ClassVar = (
        "sampan screen --date 2026-02-15 --actor-hq SG --chip h200 --site SG --relation buy",
        "sampan screen --timeline --actor-hq CN --chip h20 --site CN --relation buy --html h20.html",
        "sampan screen --matrix --date 2026-02-15 --actor-hq CN --relation rent --sites CN,MY,SG --html matrix.html",
        "sampan screen --cases policy.yaml",
    )
    cases: Path | None = option(
        "run a file of cases (YAML or JSON); status 1 if one is not as expected", "FILE", Path,
        group="instead of an answer to it",
    )  # fmt: skip
    timeline: bool = flag("how the answer changed from 2022 to the horizon")
    matrix: bool = flag("chips by sites; with --sites and --chips, and of buying where no --relation is given")
    sites: tuple[str, ...] | None = option("countries, for --matrix", "LIST", words)
    chips: tuple[str, ...] | None = option("for --matrix; default: all of the catalogue", "LIST", words)
    check_rules: bool = flag("say what is wrong with the rules' files")
    html: Path | None = option("a page, of --timeline or --matrix", "FILE", Path, group="what is written")
    json: str | None = option("JSON instead of text; into a file if one is named", "FILE", const="-")
