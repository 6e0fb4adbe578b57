"""What `sampan screen` does with its options."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sampan.catalog import load
from sampan.errors import PlanError
from sampan.files import write_text
from sampan.screen import cases, page, report
from sampan.screen.matching import load_matcher
from sampan.screen.query import country, read_query


@dataclass(frozen=True, kw_only=True)
class _Output:
    """What is shown and written, and the error that follows where something is not as it should be."""

    document: Mapping[str, Any]
    text: Iterable[str]
    page: str = ""
    failure: PlanError | None = None


def screen(arguments: Any, facts: Mapping[str, Any], put: Callable[[object], None]) -> None:
    """Answer, show, and write what was asked for.

    Args:
        facts: Those of the query, by field, as words.

    Raises:
        PlanError: Options that do not go together, a fact that cannot be one, a case that is not as expected, or a rule file
            with a fault.
        CatalogError: A chip is not in the catalogue.
    """
    asked = [name for name in _ANSWERS if getattr(arguments, name)]
    if len(asked) > 1:
        first, second = (name.replace("_", "-") for name in asked[:2])
        raise PlanError(f"--{first} and --{second} are two questions", (), "ask one at a time")
    kind = asked[0] if asked else None
    if arguments.html and kind not in ("timeline", "matrix"):
        raise PlanError("--html is for --timeline and --matrix", (), "leave --html out")
    if (arguments.sites or arguments.chips) and kind != "matrix":
        raise PlanError("--sites and --chips are for --matrix", (), "one site is --site, one chip is --chip")
    if facts and kind in ("cases", "check_rules"):
        first = next(iter(facts)).replace("_", "-")
        raise PlanError(
            f"--{first} is a fact of a question, and --{kind.replace('_', '-')} asks none", (), f"leave --{first} out"
        )
    output = _ANSWERS[kind](arguments, facts) if kind else _one_query(facts)
    if arguments.json is None:
        for line in output.text:
            put(line)
    else:
        document = json.dumps(output.document, indent=2, default=_date_text, ensure_ascii=False)
        if arguments.json == "-":
            put(document)
        else:
            _write(Path(arguments.json), document + "\n")
    if arguments.html:
        _write(arguments.html, output.page)
    if output.failure is not None:
        raise output.failure


def _one_query(facts: Mapping[str, Any]) -> _Output:
    matcher = load_matcher()
    query = read_query(facts, matcher.rules)
    result = matcher(query)
    return _Output(document=report.as_dict(query, result), text=report.lines(query, result))


def _cases(arguments: Any, _: Mapping[str, Any]) -> _Output:
    matcher = load_matcher()
    results = cases.run_cases(cases.read_cases(arguments.cases, matcher.rules), matcher)
    num_wrong = sum(not result.is_right for result in results)
    document = {
        "cases": [
            {
                "n": result.case.name, "right": list(result.case.right), "is_right": result.is_right,
                **report.as_dict(result.case.query, result.answer),
            }
            for result in results
        ],
        "mismatches": num_wrong,
    }  # fmt: skip
    failure = PlanError(f"{num_wrong} of {len(results)} cases are not as `{arguments.cases}` expects")
    return _Output(document=document, text=cases.case_lines(results), failure=failure if num_wrong else None)


def _timeline(arguments: Any, facts: Mapping[str, Any]) -> _Output:
    matcher = load_matcher()
    rules = matcher.rules
    query = read_query({"date": rules.horizon, **facts}, rules)
    periods = report.timeline(query, matcher)
    rows = report.timeline_rows(periods)
    document = {
        "query": report.facts(query),
        "spans": [
            {
                "from": str(period.first), "to": str(period.last),
                **report.as_dict(query, period.answer), "query": None,
            }
            for period in periods
        ],
        "horizon": rules.horizon.isoformat(),
    }  # fmt: skip
    text = [f"{first}  {last}  {verdict:<21}  {decided}" for first, last, verdict, decided in rows[1:]]
    text += ["", f"{len(rules.rules)} rules, looked up to {rules.horizon}. {report.NO_ADVICE}"]
    return _Output(document=document, text=text, page=page.timeline_page(query, periods) if arguments.html else "")


def _matrix(arguments: Any, facts: Mapping[str, Any]) -> _Output:
    matcher = load_matcher()
    if not arguments.sites:
        raise PlanError("--matrix needs --sites", (), "sampan screen --matrix --sites CN,MY,SG --date 2026-02-15 …")
    for name in ("site", "chip"):
        if name in facts:
            raise PlanError(f"--{name} is one of --{name}s in a matrix", (), f"leave --{name} out")
    query = read_query({"relation": "buy", **facts}, matcher.rules)
    chips = [load.chip(name) for name in arguments.chips] if arguments.chips else list(load.chips().values())
    sites = [country("sites", site) for site in arguments.sites]
    results = report.matrix(query, chips, sites, matcher)
    names = [chip.label for chip in chips]
    width = max(len(name) for name in names)
    text = [" " * width + "  " + "  ".join(sites)]
    text += [
        f"{name:<{width}}  " + "  ".join(f"{report.MARKS[results[name, site].verdict]:<2}" for site in sites)
        for name in names
    ]
    text += ["", ", ".join(f"{mark} {word}" for word, mark in report.MARKS.items()), "", report.NO_ADVICE]
    cells = [
        {
            "chip": chip, "site": site, "verdict": result.verdict, "worst_case": result.worst_case,
            "confidence": result.confidence, "rules": [rule.id for rule in result.decided],
            "unknowns": list(result.unknowns),
        }
        for (chip, site), result in results.items()
    ]  # fmt: skip
    document = {"query": report.facts(query), "cells": cells, "horizon": matcher.rules.horizon.isoformat()}
    return _Output(document=document, text=text, page=page.matrix_page(query, results) if arguments.html else "")


def _check_rules(_: Any, __: Mapping[str, Any]) -> _Output:
    rules = load_matcher().rules
    faults = report.check(rules)
    counts = f"{len(rules.rules)} rules, {len(rules.entities)} firms, {len(rules.groups)} groups; {len(faults)} faults"
    hint = "the files lie in src/sampan/screen/rules"
    failure = PlanError(f"{len(faults)} faults in the rules' files", tuple(faults[:5]), hint) if faults else None
    return _Output(document={"faults": faults, "num_rules": len(rules.rules)}, text=[*faults, counts], failure=failure)


_ANSWERS = {"cases": _cases, "timeline": _timeline, "matrix": _matrix, "check_rules": _check_rules}


def _date_text(value: Any) -> str:
    if isinstance(value, datetime.date):
        return value.isoformat()
    raise TypeError(f"{value!r} is not JSON")


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, text)
    except OSError as error:
        raise PlanError(f"`{path}` cannot be written", str(error)) from error
