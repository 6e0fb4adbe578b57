"""Cases of rules: questions with the answers that count as right, for a firm's own policy as tests."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from sampan.errors import PlanError
from sampan.screen.matching import RuleMatcher, ScreenResult
from sampan.screen.query import ScreenQuery, read_query
from sampan.screen.report import facts
from sampan.screen.rules import NO_RULE, SEVERITY, Rules


@dataclass(frozen=True, kw_only=True)
class ScreenCase:
    """A question with the answers that count as right."""

    name: str
    query: ScreenQuery
    right: tuple[str, ...]


def read_cases(path: Path, rules: Rules) -> list[ScreenCase]:
    """Return the cases of a YAML or JSON file: a list of `n`, `query`, `verdict` and `also_ok`.

    Raises:
        PlanError: The file is not of this form; names the case.
        CatalogError: A case's chip is not in the catalogue.
    """
    import yaml

    try:
        table = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise PlanError(f"`{path}` cannot be read as a file of cases", str(error)) from error
    if not isinstance(table, list) or not all(isinstance(entry, dict) for entry in table):
        raise PlanError(f"`{path}` is not a file of cases", "it is not a list", _FORM)
    cases = []
    for number, entry in enumerate(table, start=1):
        name = str(entry.get("n", number))
        right = (entry.get("verdict"), *(entry.get("also_ok") or ()))
        strange = next((word for word in right if word not in (NO_RULE, *SEVERITY)), None)
        if strange is not None or not isinstance(entry.get("query"), dict):
            fact = f"case {name} has no `query`" if strange is None else f"case {name} has the verdict {strange!r}"
            raise PlanError(f"`{path}` is not a file of cases", fact, _FORM)
        try:
            cases.append(ScreenCase(name=name, query=read_query(entry["query"], rules), right=right))
        except PlanError as error:
            raise PlanError(f"case {name} of `{path}`: {error.what}", error.because, error.hint) from error
    return cases


_FORM = "each case has `n`, `query`, `verdict` and `also_ok`, as verdict words: " + ", ".join((NO_RULE, *SEVERITY))


@dataclass(frozen=True, kw_only=True)
class ScreenCaseResult:
    """A case that was run."""

    case: ScreenCase
    answer: ScreenResult

    @property
    def is_right(self) -> bool:
        """Whether the verdict is one of those that count as right."""
        return self.answer.verdict in self.case.right


def run_cases(cases: Sequence[ScreenCase], matcher: RuleMatcher) -> list[ScreenCaseResult]:
    """Return every case with its answer."""
    return [ScreenCaseResult(case=case, answer=matcher(case.query)) for case in cases]


def case_lines(results: Sequence[ScreenCaseResult]) -> Iterator[str]:
    """Yield mismatches, then how many there are."""
    for result in results:
        if not result.is_right:
            asked = ", ".join(f"{name} {value}" for name, value in facts(result.case.query).items())
            yield f"case {result.case.name}: {result.answer.verdict}, expected {' or '.join(result.case.right)} ({asked})"
            for matched in result.answer.rules:
                out = f", taken out by {matched.overridden_by}" if matched.overridden_by else ""
                yield f"  {matched.rule.effect}: {matched.rule.id}{out}"
    wrong = sum(not result.is_right for result in results)
    yield f"{len(results)} cases, {wrong} mismatches"
