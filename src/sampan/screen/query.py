"""Queries to dated rules: which facts may be stated, and how they are read from words; an error names what is near."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any

from sampan.catalog import load
from sampan.catalog.records import Chip
from sampan.errors import PlanError, did_you_mean
from sampan.screen.rules import FLAGS, RELATIONS, Rules

_CODES = """
AD AE AF AG AI AL AM AO AQ AR AS AT AU AW AX AZ BA BB BD BE BF BG BH BI BJ BL BM BN BO BQ BR BS BT BV BW BY
BZ CA CC CD CF CG CH CI CK CL CM CN CO CR CU CV CW CX CY CZ DE DJ DK DM DO DZ EC EE EG EH ER ES ET FI FJ FK
FM FO FR GA GB GD GE GF GG GH GI GL GM GN GP GQ GR GS GT GU GW GY HK HM HN HR HT HU ID IE IL IM IN IO IQ IR
IS IT JE JM JO JP KE KG KH KI KM KN KP KR KW KY KZ LA LB LC LI LK LR LS LT LU LV LY MA MC MD ME MF MG MH MK
ML MM MN MO MP MQ MR MS MT MU MV MW MX MY MZ NA NC NE NF NG NI NL NO NP NR NU NZ OM PA PE PF PG PH PK PL PM
PN PR PS PT PW PY QA RE RO RS RU RW SA SB SC SD SE SG SH SI SJ SK SL SM SN SO SR SS ST SV SX SY SZ TC TD TF
TG TH TJ TK TL TM TN TO TR TT TV TW TZ UA UG UM US UY UZ VA VC VE VG VI VN VU WF WS YE YT ZA ZM ZW
"""
COUNTRIES = frozenset(_CODES.split())
"""ISO 3166, two letters."""
_OFTEN = {
    "UK": "GB",
    "ENG": "GB",
    "USA": "US",
    "PRC": "CN",
    "CHN": "CN",
    "UAE": "AE",
    "KOR": "KR",
    "ROK": "KR",
    "SGP": "SG",
}
END_USES = ("training", "inference", "supercomputer", "military", "military_intelligence", "wmd")
ITEMS = ("hbm", "wafer", "sme")


@dataclass(frozen=True, kw_only=True)
class ScreenQuery:
    """A question. What is None was not said.

    Args:
        relation: What the actor does: one of sampan.screen.rules.RELATIONS.
        site: Country of the machine, and of the destination of an export; `site_from` is where an export begins.
        actor_hq: Country of the seat, or of the ultimate parent, of who uses the chip; `actor_id` is a firm that rules name.
        received_before: A day before which the chips were there.
    """

    date: datetime.date
    relation: str
    site: str | None = None
    site_from: str | None = None
    chip: Chip | None = None
    actor_id: str | None = None
    actor_hq: str | None = None
    actor_tags: tuple[str, ...] | None = None
    customer_hq: str | None = None
    customer_entity_listed: bool | None = None
    entity_listed: bool | None = None
    owned_by_listed_pct: float | None = None
    ships_from: str | None = None
    received_before: datetime.date | None = None
    certs_met: bool | None = None
    end_use: str | None = None
    state_funded: bool | None = None
    completion_pct: float | None = None
    domestic_share_pct: float | None = None
    passes_us: bool | None = None
    final_use_us: bool | None = None
    false_end_user: bool | None = None
    uses_cn_personal_data: bool | None = None
    refuses_domestic_due_to_us: bool | None = None
    item: str | None = None
    designer_hq: str | None = None
    process_nm: float | None = None
    host_hq: str | None = None
    investor_hq: str | None = None


DEFAULTS: Mapping[str, Any] = {
    "ships_from": "US", "entity_listed": False, "owned_by_listed_pct": 0.0, "certs_met": True, "end_use": "training",
    "state_funded": False, "final_use_us": False, "uses_cn_personal_data": False,
}  # fmt: skip
"""What is usual, where nobody says: the table's own defaults."""


def read_query(table: Mapping[str, Any], rules: Rules) -> ScreenQuery:
    """Return the query that a table of words asks.

    Raises:
        PlanError: A field is not known or missing, or a value cannot be one; names what is near.
        CatalogError: The chip is not in the catalogue.
    """
    known = {f.name for f in fields(ScreenQuery)}
    for name in table:
        if name not in known:
            raise PlanError(f"`{name}` is not a fact that is screened", (), did_you_mean(name, known))
    for name in ("date", "relation"):
        if table.get(name) is None:
            raise PlanError(
                f"a question needs `{name}`", (), "a day as in 2026-02-15" if name == "date" else ", ".join(RELATIONS)
            )
    return ScreenQuery(**{name: _read(name, value, rules) for name, value in table.items() if value is not None})


def _read(name: str, value: Any, rules: Rules) -> Any:
    if name in _READERS:
        return _READERS[name](name, value)
    if name == "actor_id":
        named = {firm for rule in rules.rules for alternative in rule.when for firm in alternative.get("actor_ids", ())}
        return _one_of(name, value, sorted({*rules.entities, *named}))
    return value


def date(name: str, value: Any) -> datetime.date:
    """Return a day that is written 2026-02-15."""
    if isinstance(value, datetime.date):
        return value
    try:
        if len(str(value)) != 10:
            raise ValueError
        return datetime.date.fromisoformat(str(value))
    except ValueError:
        raise PlanError(f"`{value}` of `{name}` is not a day", (), "year, month, day, as in 2026-02-15") from None


def country(name: str, value: Any) -> str:
    """Return a country's two letters."""
    word = str(value).strip().upper()
    if word in COUNTRIES:
        return word
    hint = f"did you mean `{_OFTEN[word]}`?" if word in _OFTEN else "two letters of ISO 3166, as in CN, US, SG, MY"
    raise PlanError(f"`{value}` of `{name}` is not a country", (), hint)


def _chip(name: str, value: Any) -> Any:
    return load.chip(str(value))


def _flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    word = str(value).strip().lower()
    if word in ("true", "yes", "1"):
        return True
    if word in ("false", "no", "0"):
        return False
    raise PlanError(f"`{value}` of `{name}` is not yes or no", (), "yes or no")


def _number(value: Any) -> float:
    """Return a number, or one that no fact can be."""
    try:
        return float(value)
    except (TypeError, ValueError):
        return -1.0


def _percent(name: str, value: Any) -> float:
    number = _number(value)
    if not 0 <= number <= 100:
        raise PlanError(f"`{value}` of `{name}` is not a percentage", (), "a number from 0 to 100")
    return number


def _amount(name: str, value: Any) -> float:
    number = _number(value)
    if not 0 < number < 1e6:
        raise PlanError(f"`{value}` of `{name}` is not an amount", (), "a number above 0")
    return number


def _words(name: str, value: Any) -> tuple[str, ...]:
    return tuple(value) if isinstance(value, list | tuple) else tuple(str(value).split(","))


def _one_of(name: str, value: Any, words: Any) -> str:
    word = str(value).strip()
    if word not in words:
        raise PlanError(f"`{value}` of `{name}` is not known", (), did_you_mean(word, words))
    return word


def _choice(words: tuple[str, ...]) -> Callable[[str, Any], str]:
    return lambda name, value: _one_of(name, value, words)


_READERS: Mapping[str, Callable[[str, Any], Any]] = {
    "date": date,
    "received_before": date,
    "chip": _chip,
    "relation": _choice(RELATIONS),
    "end_use": _choice(END_USES),
    "item": _choice(ITEMS),
    "actor_tags": _words,
    "process_nm": _amount,
    **dict.fromkeys(
        ("site", "site_from", "actor_hq", "customer_hq", "ships_from", "designer_hq", "host_hq", "investor_hq"), country
    ),
    **dict.fromkeys(("owned_by_listed_pct", "completion_pct", "domestic_share_pct"), _percent),
    **dict.fromkeys(FLAGS, _flag),
}  # fmt: skip
