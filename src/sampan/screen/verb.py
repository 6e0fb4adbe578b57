"""What `sampan screen` does with its options."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from sampan.catalog import load
from sampan.errors import PlanError
from sampan.files import write_text
from sampan.screen import cases, page, report
from sampan.screen.query import country, question

_KINDS = ("cases", "timeline", "matrix", "check_rules")


def screened(arguments: Any, given: Mapping[str, Any], put: Callable[[object], None]) -> None:
    """Answer, show, and write what was asked for.

    Raises:
        PlanError: Options that do not go together, a fact that cannot be one, a case that is not as expected, or a rule file
            with a fault.
        CatalogError: A chip is not in the catalogue.
    """
    asked = [name for name in _KINDS if getattr(arguments, name)]
    if len(asked) > 1:
        first, second = (name.replace("_", "-") for name in asked[:2])
        raise PlanError(f"--{first} and --{second} are two questions", (), "ask one at a time")
    kind = asked[0] if asked else "question"
    if arguments.html and kind not in ("timeline", "matrix"):
        raise PlanError("--html is for --timeline and --matrix", (), "leave --html out")
    if (arguments.sites or arguments.chips) and kind != "matrix":
        raise PlanError("--sites and --chips are for --matrix", (), "one site is --site, one chip is --chip")
    if given and kind in ("cases", "check_rules"):
        first = next(iter(given)).replace("_", "-")
        raise PlanError(
            f"--{first} is a fact of a question, and --{kind.replace('_', '-')} asks none", (), f"leave --{first} out"
        )
    _ANSWERS[kind](arguments, given, put)


def _question(arguments: Any, given: Mapping[str, Any], put: Callable[[object], None]) -> None:
    known, screen = report.load()
    query = question(given, known)
    answer = screen(query)
    _tell(arguments, put, report.as_dict(query, answer), report.lines(query, answer))


def _cases(arguments: Any, given: Mapping[str, Any], put: Callable[[object], None]) -> None:
    known, screen = report.load()
    ran = cases.run_cases(cases.read_cases(arguments.cases, known), screen)
    document = {
        "cases": [
            {
                "n": one.case.name, "right": list(one.case.right), "is_right": one.is_right,
                **report.as_dict(one.case.query, one.answer),
            }
            for one in ran
        ],
        "mismatches": sum(not one.is_right for one in ran),
    }  # fmt: skip
    _tell(arguments, put, document, cases.case_lines(ran))
    if document["mismatches"]:
        raise PlanError(f"{document['mismatches']} of {len(ran)} cases are not as `{arguments.cases}` expects")


def _timeline(arguments: Any, given: Mapping[str, Any], put: Callable[[object], None]) -> None:
    known, screen = report.load()
    query = question({"date": known.horizon, **given}, known)
    spans = report.timeline(query, screen)
    rows = report.timeline_rows(spans)
    document = {
        "query": report.facts(query),
        "spans": [
            {"from": str(s.first), "to": str(s.last), **report.as_dict(query, s.answer), "query": None} for s in spans
        ],
        "horizon": known.horizon.isoformat(),
    }
    text = [f"{first}  {last}  {verdict:<21}  {decided}" for first, last, verdict, decided in rows[1:]]
    _tell(
        arguments,
        put,
        document,
        [*text, "", f"{len(known.rules)} rules, looked up to {known.horizon}. {report.NO_ADVICE}"],
    )
    _page(arguments, page.timeline_page(query, spans) if arguments.html else "")


def _matrix(arguments: Any, given: Mapping[str, Any], put: Callable[[object], None]) -> None:
    known, screen = report.load()
    if not arguments.sites:
        raise PlanError("--matrix needs --sites", (), "sampan screen --matrix --sites CN,MY,SG --date 2026-02-15 …")
    for name in ("site", "chip"):
        if name in given:
            raise PlanError(f"--{name} is one of --{name}s in a matrix", (), f"leave --{name} out")
    query = question({"relation": "buy", **given}, known)
    chips = [load.chip(name) for name in arguments.chips] if arguments.chips else list(load.chips().values())
    sites = [country("sites", site) for site in arguments.sites]
    found = report.matrix(query, chips, sites, screen)
    names = [chip.variant or chip.name for chip in chips]
    width = max(len(name) for name in names)
    text = [" " * width + "  " + "  ".join(sites)]
    text += [
        f"{name:<{width}}  " + "  ".join(f"{report.MARKS[found[name, site].verdict]:<2}" for site in sites)
        for name in names
    ]
    text += ["", ", ".join(f"{mark} {word}" for word, mark in report.MARKS.items()), "", report.NO_ADVICE]
    cells = [
        {
            "chip": chip, "site": site, "verdict": answer.verdict, "worst_case": answer.worst_case,
            "confidence": answer.confidence, "rules": [rule.id for rule in answer.decided],
            "unknowns": list(answer.unknowns),
        }
        for (chip, site), answer in found.items()
    ]  # fmt: skip
    _tell(arguments, put, {"query": report.facts(query), "cells": cells, "horizon": known.horizon.isoformat()}, text)
    _page(arguments, page.matrix_page(query, found) if arguments.html else "")


def _check(arguments: Any, given: Mapping[str, Any], put: Callable[[object], None]) -> None:
    known, _ = report.load()
    found = report.check(known)
    said = [
        *found,
        f"{len(known.rules)} rules, {len(known.entities)} firms, {len(known.groups)} groups; {len(found)} faults",
    ]
    _tell(arguments, put, {"faults": found, "num_rules": len(known.rules)}, said)
    if found:
        raise PlanError(
            f"{len(found)} faults in the rules' files", tuple(found[:5]), "the files lie in src/sampan/screen/rules"
        )


_ANSWERS = {"question": _question, "cases": _cases, "timeline": _timeline, "matrix": _matrix, "check_rules": _check}


def _tell(arguments: Any, put: Callable[[object], None], document: Mapping[str, Any], text: Iterable[str]) -> None:
    if arguments.json is None:
        for line in text:
            put(line)
        return
    said = json.dumps(document, indent=2, default=_plain, ensure_ascii=False)
    if arguments.json == "-":
        put(said)
    else:
        _write(Path(arguments.json), said + "\n")


def _plain(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError(f"{value!r} is not JSON")


def _page(arguments: Any, text: str) -> None:
    if arguments.html:
        _write(arguments.html, text)


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise PlanError(f"`{path}` cannot be written", str(error)) from error
