"""Dated rules of export and procurement, as published: what they are about, when, what they say, and where that was read.

One file a rule in screen/rules/, with a query that it matches and one that it does not; groups.toml and entities.toml beside
them. Evaluation is in sampan.screen.matching. Nothing here is legal advice.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from functools import cache
from pathlib import Path
from typing import Any

from sampan import documents
from sampan.errors import CatalogError, did_you_mean

FOLDER = Path(__file__).parent / "rules"
GROUPS, ENTITIES = "groups.toml", "entities.toml"
SEVERITY = (
    "permitted", "notification", "revenue_share", "guidance_red_flag", "case_by_case", "licence_required",
    "presumption_of_denial", "prohibited",
)  # fmt: skip
"""Effects, from mildest to most severe."""
NO_RULE = "no_rule"
STATUSES = (
    "in_force", "reported", "announced", "proposed", "superseded", "suspended", "rescinded", "expired", "withdrawn",
    "uncertain",
)  # fmt: skip
CONFIDENCE = ("memory", "low", "medium", "high")  # from least to most
RELATIONS = ("buy", "rent", "operate", "host", "build", "export_out", "fab", "invest")
CHIP_BOUNDS = (
    "tpp_gte", "tpp_lt", "pd_gte", "pd_lt", "mem_bw_gbs_gte", "mem_bw_gbs_lt", "interconnect_gbs_gte",
    "interconnect_gbs_lt", "datacenter_marketed",
)  # fmt: skip
LISTS = (
    "relation", "site", "site_not", "site_from", "actor_hq", "actor_hq_not", "customer_hq", "actor_ids", "actor_tags",
    "chip_ids", "chip_origin", "chip_vendor", "ships_from", "ships_from_not", "end_use", "item", "designer_hq", "host_hq",
    "investor_hq",
)  # fmt: skip
FLAGS = (
    "entity_listed", "customer_entity_listed", "certs_met", "state_funded", "passes_us", "final_use_us", "false_end_user",
    "uses_cn_personal_data", "refuses_domestic_due_to_us",
)  # fmt: skip
BOUNDS = (
    "owned_by_listed_pct_gte", "domestic_share_pct_lt", "completion_pct_lt", "completion_pct_gte", "process_nm_lte",
)  # fmt: skip
CONDITIONS = (*LISTS, *FLAGS, *BOUNDS, "received_before", "chip")


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A rule.

    Args:
        effective_from, effective_to: Days on which it begins and ends to hold, both within; None has no end.
        compliance_from: Where given, the day from which it has to be followed, in place of `effective_from`.
        binding: Whether it sets a verdict; what does not bind informs.
        when: Alternatives; within one every condition must hold.
        overrides: Rules that it takes out where both match.
        severity: Of guidance, as its source has it: "low", "medium", "high".
        checked: When somebody last held it against its source.
        verify: Whether the text must be read again before anybody relies on it.
        matches, differs: Queries: one that it matches, and one that it does not.
    """

    id: str
    jurisdiction: str
    title: str
    effective_from: datetime.date
    effective_to: datetime.date | None = None
    compliance_from: datetime.date | None = None
    status: str
    binding: bool
    binds: str
    effect: str
    severity: str | None = None
    overrides: tuple[str, ...] = ()
    summary: str
    note: str | None = None
    conditions: tuple[str, ...] = ()
    detail: Mapping[str, Any] = field(default_factory=dict)
    source_title: str
    source_url: str = ""
    more_urls: tuple[str, ...] = ()
    source_date: datetime.date
    confidence: str
    checked: datetime.date
    verify: bool = False
    when: tuple[Mapping[str, Any], ...]
    matches: Mapping[str, Any]
    differs: Mapping[str, Any]

    @property
    def begins(self) -> datetime.date:
        """The first day on which it matters."""
        return self.compliance_from or self.effective_from

    def is_in_force(self, date: datetime.date) -> bool:
        """Return whether it matters on a day."""
        return self.begins <= date and (self.effective_to is None or date <= self.effective_to)


@dataclass(frozen=True, kw_only=True)
class Group:
    """A named group of countries.

    Args:
        members: ISO 3166, two letters.
    """

    members: frozenset[str]
    confidence: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Entity:
    """A firm that rules name.

    Args:
        listed_from: When it came onto the US Entity List; None is not on it as far as is known.
    """

    hq: str
    listed_from: datetime.date | None = None
    confidence: str
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Rules:
    """All rules, with what they refer to.

    Args:
        horizon: The day up to which anybody looked for changes.
    """

    rules: tuple[Rule, ...]
    groups: Mapping[str, Group]
    entities: Mapping[str, Entity]
    horizon: datetime.date

    @property
    def by_id(self) -> dict[str, Rule]:
        """The rules by their names."""
        return {rule.id: rule for rule in self.rules}

    def countries(self, words: tuple[str, ...]) -> frozenset[str]:
        """Return countries, with every `@group` spelled out."""
        found: set[str] = set()
        for word in words:
            found |= self.groups[word[1:]].members if word.startswith("@") else {word}
        return frozenset(found)


@cache
def load_rules(folder: Path = FOLDER) -> Rules:
    """Return all rules of a folder.

    Raises:
        CatalogError: A file is not a rule; names file and field.
    """
    table = _toml(folder / GROUPS)
    horizon = table.pop("information_horizon")
    groups = {
        name: Group(members=frozenset(one.pop("members")), **one) for name, one in table.items()
    }  # fmt: skip
    entities = {name: Entity(**one) for name, one in _toml(folder / ENTITIES).items()}
    every = tuple(read(path, groups) for path in sorted(folder.glob("*.toml")) if path.name not in (GROUPS, ENTITIES))
    return Rules(rules=every, groups=groups, entities=entities, horizon=horizon)


def read(path: Path, groups: Mapping[str, Group]) -> Rule:
    """Return the rule of a file.

    Raises:
        CatalogError: As `load_rules`.
    """
    table = _toml(path)
    wrong = _wrong(table, groups)
    if wrong:
        raise CatalogError(f"the rule file `{path.name}` cannot be used", wrong)
    for key in ("overrides", "conditions", "more_urls", "when"):
        if key in table:
            table[key] = tuple(table[key])
    return Rule(id=path.stem, **table)


def _toml(path: Path) -> dict[str, Any]:
    try:
        return documents.parse_toml(documents.read_text(path))
    except (OSError, ValueError) as error:
        raise CatalogError(f"the rule file `{path.name}` cannot be read", str(error)) from error


def _wrong(table: Mapping[str, Any], groups: Mapping[str, Group]) -> str | None:
    """Return what is wrong with a rule's table; None if nothing is."""
    known = {f.name for f in fields(Rule)} - {"id"}
    required = known - {
        "effective_to", "compliance_from", "severity", "overrides", "note", "conditions", "detail", "source_url",
        "more_urls", "verify",
    }  # fmt: skip
    for key in table:
        if key not in known:
            return f"it has `{key}`, which is not a field; {did_you_mean(key, known)}"
    missing = sorted(required - table.keys())
    if missing:
        return f"it has no `{missing[0]}`"
    for key, words in (("effect", SEVERITY), ("status", STATUSES), ("confidence", CONFIDENCE)):
        if table[key] not in words:
            return f"its `{key}` is {table[key]!r}; {did_you_mean(str(table[key]), words)}"
    if table.get("effective_to") is not None and table["effective_to"] < table["effective_from"]:
        return "it ends before it begins"
    if not table.get("source_url") and table["confidence"] not in ("memory", "low"):
        return f"it has no `source_url`, and its confidence is {table['confidence']!r}"
    if not table["when"]:
        return "it has no alternative in `when`"
    for alternative in table["when"]:
        for key, value in alternative.items():
            said = _wrong_condition(key, value, groups)
            if said:
                return said
    return None


def _wrong_condition(key: str, value: Any, groups: Mapping[str, Group]) -> str | None:
    if key not in CONDITIONS:
        return f"it has the condition `{key}`, which is not one; {did_you_mean(key, CONDITIONS)}"
    if key == "chip":
        strange = next((name for name in value if name not in CHIP_BOUNDS), None)
        return f"it bounds `{strange}` of a chip; {did_you_mean(strange, CHIP_BOUNDS)}" if strange else None
    if key in LISTS:
        if not isinstance(value, list) or not value:
            return f"its condition `{key}` is not a list"
        for word in value:
            if word.startswith("@") and word[1:] not in groups:
                return f"its condition `{key}` names the group `{word}`; {did_you_mean(word[1:], groups)}"
            if key == "relation" and word not in RELATIONS:
                return f"its relation is `{word}`; {did_you_mean(word, RELATIONS)}"
    if key in FLAGS and not isinstance(value, bool):
        return f"its condition `{key}` is not true or false"
    return None
