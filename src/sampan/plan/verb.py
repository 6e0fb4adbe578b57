"""What `sampan plan` does with its options: a plan of a job, predictions held against runs, or two chips compared."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from sampan.catalog import frameworks, load
from sampan.catalog.records import Chip, Site
from sampan.errors import PlanError, did_you_mean
from sampan.files import write_text
from sampan.job import Job
from sampan.plan import efficiency, inference, measured
from sampan.plan.arguments import PlanArguments
from sampan.plan.cost import DAY_S, Assumptions
from sampan.plan.efficiency import Efficiency
from sampan.plan.jobs import of_job
from sampan.plan.planner import Candidate, Infeasible, Planner
from sampan.plan.rank import NoteColumn, inference_rows, plan_rows, rank, worthwhile
from sampan.plan.report import Plan
from sampan.plan.search import MAX_COUNT
from sampan.plan.table import reasons, show

_TO_BE_HAD = ("released", "ramping")  # of a chip's `status`
_DEFAULT_MOST = 64  # chips, where nobody says how many


_COMPARED = ("framework_a", "framework_b", "model")
_PLANNED = (
    "chips", "count", "sites", "frameworks", "stages", "deadline", "budget", "owned", "sort", "measured", "hide_restricted",
    "all",
)  # fmt: skip


def check(options: PlanArguments) -> None:
    """Refuse options that do not go together.

    Raises:
        PlanError: Some do not.
    """
    given = [name for name in (*_PLANNED, *_COMPARED) if getattr(options, name) not in (None, (), False)]
    if options.validate and options.compare:
        raise PlanError("--validate and --compare are two questions", (), "ask one at a time")
    instead = "validate" if options.validate else "compare" if options.compare else None
    if instead and options.job:
        raise PlanError(f"--{instead} takes no job", (), "leave JOB out")
    allowed = _COMPARED if instead == "compare" else () if instead else _PLANNED
    wrong = next((name for name in given if name not in allowed), None)
    if wrong:
        needs = "--compare" if wrong in _COMPARED else "a job"
        word = wrong.replace("_", "-")
        raise PlanError(f"--{word} is for {needs}", (), f"leave --{word} out")
    if instead and options.overrides:
        raise PlanError("--set changes a job, and none is given", (), "leave --set out")


def plan(
    job: Job,
    options: PlanArguments,
    *,
    name: str = "job",
    fitted: Efficiency | None = None,
    column: NoteColumn | None = None,
) -> Plan:
    """Return the plan of a job.

    Args:
        column: What is said of each row from outside; a job that names an actor needs one (sampan.compliance).

    Raises:
        CatalogError: A chip or a site is not in the catalogue.
        PlanError: A framework or a stage is not known, or the job cannot be counted.
        ValueError: The job names an actor and there is no column.
    """
    if job.actor.hq is not None and column is None:
        raise ValueError("a job that names an actor is planned with the column of sampan.compliance")
    assumptions, derived = Assumptions(), []
    work = of_job(job, options.stages, name=name)
    owned = _owned(options)
    chips = _chips(job, options, derived)
    sites = _sites(job, options, derived)
    names = _frameworks(job, options)
    counts, is_chosen = _counts(job, options, derived)
    benches = measured.read(options.measured, fitted=fitted, compiled=job.place.compile) if options.measured else None
    results = list(
        Planner(work, assumptions, fitted, benches, only_trainable=not options.all).candidates(chips, counts, names)
    )
    candidates = [result for result in results if isinstance(result, Candidate)]
    rows = plan_rows(worthwhile(candidates) if is_chosen else candidates, sites, assumptions, owned)
    if column is not None:
        rows = [replace(row, note=column.note(row)) for row in rows]
    shown = [row for row in rows if not (row.is_restricted and options.hide_restricted)]
    sort = options.sort or "money"
    deadline_s = None if options.deadline is None else options.deadline * DAY_S
    ranking = rank(shown, sort, deadline_s=deadline_s, budget_usd=options.budget)
    recipe = inference.of_job(job)
    estimates = inference.InferenceEstimator(recipe, assumptions, fitted, benches).estimates(chips, names)
    made = [estimate for estimate in estimates if isinstance(estimate, inference.InferenceEstimate)]
    known = fitted or efficiency.load()
    return Plan(
        only_trainable=not options.all, job_hash=job.training_hash(),
        work=work, chips=tuple(chips), sites=tuple(sites), rows=tuple(ranking), curves=tuple(candidates),
        infeasible=tuple(result for result in results if isinstance(result, Infeasible)), assumptions=assumptions,
        derived=tuple(derived), sort=sort, deadline_days=options.deadline, budget_usd=options.budget,
        recipe=recipe, pictures=tuple(inference_rows(made, sites, assumptions, owned, sort)),
        not_made=tuple(estimate for estimate in estimates if isinstance(estimate, Infeasible)),
        measured=tuple(benches.lines()) if benches else (),
        notes_on_rows=() if column is None else tuple(column.lines(ranking)), num_hidden=len(rows) - len(shown),
        efficiency=f"Efficiencies are fitted to {known.num_runs:,} published runs ({known.made}).",
    )  # fmt: skip


def plan_and_show(
    job: Job, options: PlanArguments, console: Any, *, name: str = "job", column: NoteColumn | None = None
) -> None:
    """Plan a job, show the plan, and write what was asked for.

    Raises:
        SampanError: As of `plan`; or nothing that was asked for can be done.
    """
    result = plan(job, options, name=name, column=column)
    show(result, console)
    if options.json or options.html:
        from sampan.plan.page import page

        write(result.as_dict(), page(result) if options.html else "", options)
    if not result.rows:
        because = tuple(reasons(result.infeasible))
        hint = lever(job, options, column=column)
        raise PlanError(f"`{name}` can be done on nothing that was asked for", because, hint)


_LEVERS = (
    ('train.moments = "8bit"', {"moments": "8bit"}),
    ('train.weights = "bf16"', {"weights": "bf16"}),
    ('train.weights = "bf16" and train.moments = "8bit"', {"weights": "bf16", "moments": "8bit"}),
    ('train.method = "lora"', {"method": "lora"}),
)


def lever(
    job: Job, options: PlanArguments, fitted: Efficiency | None = None, column: NoteColumn | None = None
) -> str | None:
    """Return the setting that changes the job least among those with which it can be done, in words; None if none helps."""
    for said, values in _LEVERS:
        if all(getattr(job.train, name) == value for name, value in values.items()):
            continue
        train = replace(job.train, **values)
        if "method" in values:
            train = replace(train, stages=tuple(stage for stage in train.stages if stage in ("ar", "decoder")))
            if not train.stages:
                continue
        try:
            result = plan(replace(job, train=train), replace(options, stages=None), fitted=fitted, column=column)
        except PlanError:
            continue
        if result.rows:
            first = min(result.rows, key=lambda row: row.candidate.count).candidate
            return f"{said} fits on {first.count} x {first.label}"
    return None


def report_and_show(options: PlanArguments, put: Callable[[str], None]) -> None:
    """Make the report of --validate or --compare, show it, and write what was asked for."""
    if options.validate is not None:
        from sampan.plan import validation_page
        from sampan.plan.validate import validate

        report = validate(options.validate)
        page = partial(validation_page.page, report, f"sampan plan --validate {options.validate.name}")
    else:
        from sampan.plan.compare import compare
        from sampan.report.render import render_lines

        assert options.compare is not None, "check() sees to it"
        first, second = options.compare
        report = compare(
            first, second, framework_a=options.framework_a, framework_b=options.framework_b, model=options.model
        )
        page = partial(render_lines, f"sampan plan --compare {first} {second}", report.lines())
    for line in report.lines():
        put(line)
    write(report.as_dict(), page() if options.html else "", options)


def write(document: Mapping[str, Any], page: str, options: PlanArguments) -> list[Path]:
    """Write what was asked for, and return the files."""
    written = []
    for path, text in ((options.json, as_text(document) if options.json else ""), (options.html, page)):
        if path is not None:
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                write_text(path, text)
            except OSError as error:
                raise PlanError(f"`{path}` cannot be written", str(error)) from error
            written.append(path)
    return written


def as_text(document: Mapping[str, Any]) -> str:
    """Return a document as JSON: a line for each of its keys, and for each entry of a list.

    Indenting everything would make a plan's thousands of rows several times as long, and slow to write.
    """
    return "{\n" + ",\n".join(f"  {json.dumps(key)}: {_value(value)}" for key, value in document.items()) + "\n}\n"


def _value(value: Any) -> str:
    if isinstance(value, list) and value:
        return "[\n" + ",\n".join(f"    {json.dumps(one)}" for one in value) + "\n  ]"
    return json.dumps(value)


def _chips(job: Job, options: PlanArguments, derived: list[str]) -> list[Chip]:
    names = options.chips or job.plan.chips
    mine = [name for name, _, _ in options.owned]
    if not names:
        found = [chip for chip in load.chips().values() if chip.status in _TO_BE_HAD]
        others = ", ".join(chip.name for chip in load.chips().values() if chip.status not in _TO_BE_HAD)
        derived.append(f"Chips: the {len(found)} of the catalogue that can be had; not {others}.")
        return _each([*found, *map(load.chip, mine)])
    return _each([load.chip(name) for name in (*names, *mine)])


def _each(chips: Sequence[Chip]) -> list[Chip]:
    return list({chip.label: chip for chip in chips}.values())


def _sites(job: Job, options: PlanArguments, derived: list[str]) -> list[Site]:
    if job.actor.hq is not None and not options.sites and not _names_sites(job):
        raise PlanError(
            "no site is named, and the job names an actor", "which sites are looked at is for you to say",
            'sites = ["sg"] in [plan], or --sites sg',
        )  # fmt: skip
    names = options.sites or job.plan.sites
    if not names:
        raise PlanError("no site is named", (), "sampan plan JOB --sites sg")
    if options.sites is None:
        derived.append(f"Sites: {', '.join(names)} (plan.sites).")
    found = [load.site(name) for name in (*names, *(site for _, _, site in options.owned))]
    return list({site.name: site for site in found}.values())


def _names_sites(job: Job) -> bool:
    """Return whether the job itself names sites, in its text or on the command line."""
    written = tomllib.loads(job.text).get("plan", {}) if job.text else {}
    return "sites" in written or any(one.startswith("plan.sites") for one in job.overrides)


def _owned(options: PlanArguments) -> dict[tuple[str, str], int]:
    found: dict[tuple[str, str], int] = {}
    for chip, number, site in options.owned:
        key = load.chip(chip).label, load.site(site).name
        found[key] = found.get(key, 0) + number
    return found


def _frameworks(job: Job, options: PlanArguments) -> tuple[str, ...]:
    names = options.frameworks or job.plan.frameworks or (job.place.framework,)
    for name in names:
        if frameworks.family(name) is frameworks.UNKNOWN:
            words = [word for family in frameworks.families() for word in family.words]
            raise PlanError(f"`{name}` is not a framework that can be planned", (), did_you_mean(name.lower(), words))
    return tuple(dict.fromkeys(names))


def _counts(job: Job, options: PlanArguments, derived: list[str]) -> tuple[list[int], bool]:
    """Return which numbers of chips are tried, and whether only those that are worth it are shown."""
    if options.count is not None:
        return between(*options.count), False
    if job.plan.num_chips is not None:
        return [job.plan.num_chips], False
    derived.append(
        f"Numbers of chips: powers of two up to {_DEFAULT_MOST}; of a chip the smallest that fits, and those that are faster."
    )
    return [1 << power for power in range(_DEFAULT_MOST.bit_length())], True


def between(low: int, high: int) -> list[int]:
    """Return the numbers of chips that are tried between two: the first, powers of two, and three times these.

    What is tried up to a number is tried up to every greater one too, so that more chips never make the best plan worse.
    """
    assert 1 <= low <= high <= MAX_COUNT, "the option sees to it"
    powers = [1 << power for power in range(high.bit_length())]
    return sorted({low, *(n for n in (*powers, *(3 * power for power in powers)) if low <= n <= high)})
