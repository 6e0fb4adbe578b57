"""Writes the pages of docs/ that follow from the program: the command line, the job file, how well plans predict.

A test compares them.

python scripts/write_docs.py
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from sampan.cli.verbs import parser
from sampan.errors import JobError
from sampan.job import STAGES, Job, Setting, StageSection, parse, sections, settings, toml
from sampan.plan import efficiency
from sampan.screen.report import standing
from sampan.screen.rules import SEVERITY, load_rules

DOCS = Path(__file__).resolve().parent.parent / "docs"
WIDTH = 100
NOTE = "<!-- written by scripts/write_docs.py; change the program, then run it -->"

CLI = f"""{NOTE}
# Command line

Results go to stdout and nothing else does: a file name a line, a report, or JSON with `--json`. Progress and errors go
to stderr. An error says what failed, why, and what to do next.

| status | meaning |
|---|---|
| 0 | done |
| 1 | it cannot be done; the message says why |
| 2 | the command line is wrong |
| 130 | interrupted |
"""

JOB = f"""{NOTE}
# Job file

A job file says what `sampan train` trains, on which pictures, and where. It is [TOML](https://toml.io);
`sampan init` writes one with every setting. The shortest one:

```toml
{{shortest}}
```

`--set section.field=value` puts a value over the file's for one run, and may be repeated: `--set stage.ar.lr=1e-4`. The
value is read as TOML, and as text where it is none, so that `--set model.preset=nano` needs no quotes.

Relative paths (`out`, `data.path`, `model.start`) start at the directory the command is called in, not at the job file.

The file is checked before anything is read or written. An error names file, line and setting:

```
{{error}}
```
"""

_VALIDATION = """
# How well plans predict

{runs} published runs, fitted {made} by `scripts/fit_plan.py`. Groups of runs are left out in turn, everything is fitted again
without them, and they are predicted; intervals come from runs of other groups. Errors are shares of what was measured, in
the run's own metric. "Whole shape" is rows that say layers, width, length and chips, without a vendor's unnamed reference
GPU. The one-line rule beside it is full-recompute FLOPs at 45 % of the peak.
"""

SHORTEST = 'out = "runs/job"\n\n[data]\npath = "pictures"'
WRONG = SHORTEST + "\n\n[stage.ar]\nnum_step = 400"


def command_line() -> str:
    """Return docs/cli.md: the help of every verb."""
    # argparse asks the terminal how wide it is
    with mock.patch.dict(os.environ, COLUMNS=str(WIDTH), NO_COLOR="1"):
        pages = [f"## {verb.prog}\n\n```\n{verb.format_help().rstrip()}\n```\n" for verb in _verbs(parser())]
    return "\n".join([CLI, *pages])


def job_file() -> str:
    """Return docs/job-file.md: every setting with what it takes, its default and its meaning."""
    pages = [JOB.format(shortest=SHORTEST, error=_error(WRONG))]
    common = settings(StageSection)
    for name, section in sections(Job):
        own = [
            setting
            for key, setting in settings(section).items()
            if not (issubclass(section, StageSection) and key in common)
        ]
        if name == f"stage.{STAGES[0]}":
            pages.append(_common(common))
        title = f"## `[{name}]`" if name else "## Top of the file"
        about = f"{(section.__doc__ or '').strip()}\n\n" if name else ""
        rows = [(f"`{s.name}`", _takes(s), _default(s), s.help) for s in own]
        pages.append(f"{title}\n\n{about}{_table(('setting', 'takes', 'default', 'meaning'), rows)}")
    return "\n".join(pages)


def _verbs(verb: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield verb
    for action in verb._actions:  # argparse has no other way to its sub-parsers
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _verbs(inner)


def _error(text: str) -> str:
    try:
        parse(text, name="job.toml")
    except JobError as error:
        return error.render()
    raise AssertionError("the example of an error is none")


def _common(common: dict[str, Setting]) -> str:
    stages = {
        name.removeprefix("stage."): settings(section) for name, section in sections(Job) if name.startswith("stage.")
    }
    rows = [
        (f"`{name}`", _takes(s), *(_default(stages[stage][name]) for stage in STAGES), s.help)
        for name, s in common.items()
    ]
    head = ("setting", "takes", *(f"`{stage}`" for stage in STAGES), "meaning")
    about = f"{(StageSection.__doc__ or '').strip()} Below each stage's name stands its default."
    return f"## `[stage.NAME]`: what every stage has\n\n{about}\n\n{_table(head, rows)}"


def _takes(setting: Setting) -> str:
    limits = setting.limits()
    return setting.kinds() + (f": {limits}" if limits else "")


def _default(setting: Setting) -> str:
    if setting.required:
        return "must be given"
    return "none" if setting.default in (None, {}) else f"`{toml.value(setting.default)}`"


def _table(head: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"


def validation() -> str:
    """Return how well runs were predicted that were left out of the fit, as the file of efficiencies has it."""
    known = json.loads(efficiency.FILE.read_text(encoding="utf-8"))
    rows, ratios = [], []
    for name, found in known["cross_validation"].items():
        if "rule_of_thumb_median" in found:
            group, which = name.split(": ")
            said = [found["count"], *(f"{found[key]:.1%}" for key in ("median_abs_rel_err", "mean_abs_rel_err"))]
            said += [f"{found['p90_abs_rel_err']:.1%}", f"{found['bias']:+.1%}", f"{found['coverage_80']:.0%}"]
            rows.append([group, which, *said, f"{found['rule_of_thumb_median']:.1%}"])
        elif "count" in found:
            which = name.removeprefix("models of a source left out: ")
            ratios.append(
                [which, found["count"], f"{found['median_abs_rel_err']:.1%}", f"{found['p90_abs_rel_err']:.1%}"]
            )
    head = [
        "left out",
        "judged on",
        "runs",
        "median",
        "mean",
        "p90",
        "bias",
        "80 % intervals hold",
        "one-line rule, median",
    ]
    rates = [[f"`{name}`", rate["value"], rate["sd_of_log"]] for name, rate in known["rates"].items()]
    spreads = [[name, f"{math.exp(one['half']):.2f}", one["runs"]] for name, one in known["spreads"].items()]
    parts = [
        NOTE,
        _VALIDATION.format(runs=f"{known['runs']:,}", made=known["made"]),
        _table(head, rows),
        "Ratios of an Ascend run to the other runs of its published pair, models left out:\n",
        _table(["pairs", "ratios", "median error", "p90"], ratios),
        "## The fitted numbers\n\nRates, the same for all chips; with the standard deviation of the logarithm:\n",
        _table(["rate", "value", "sd"], rates),
        "80 % of left-out runs of a class lay within this factor, for so many runs (0: borrowed from wider classes):\n",
        _table(["class", "factor", "runs"], spreads),
        "Effects of chips, software, precision, method and kind of model are in `src/sampan/catalog/efficiency.json`.",
    ]
    return "\n".join(parts) + "\n"


_RULES = """
# Rules

`sampan screen` and, for a job with an [`[actor]`](job-file.md), `sampan plan` say which dated rules of export and
procurement bear on a question. This is screening of published rules with their sources, not legal advice; it says
what a rule's text says, on which day it was last read, and how sure that is. Nobody looked for changes after
{horizon}.

```
sampan screen --date 2026-02-15 --actor-hq SG --chip h200 --site SG --relation buy
sampan screen --timeline --actor-hq CN --chip h20 --site CN --relation buy --html h20.html
sampan screen --matrix --date 2026-02-15 --actor-hq MY --relation buy --sites MY,SG,TH --html matrix.html
sampan screen --cases policy.yaml          # your own policy as tests; status 1 where a verdict is another
sampan screen --check-rules
```

A verdict is the most severe effect of the binding rules that matched and that no other took out: {words}; `no_rule`
where none of them did, which is no promise. What binds nobody (announcements, bills, drafts) is listed apart. A fact
that was not given counts as not met, or as what is usual (chips ship from the US, nobody is listed, certificates are
met, the use is training); what could make the verdict more severe is listed under `unknowns`, with the worst case
beside the verdict. A verdict's confidence is the least of the rules that decided it.

## Adding a rule

One file, `src/sampan/screen/rules/<id>.toml`: title, jurisdiction, days from which and to which it holds (both
within), status, whether it binds and whom, its effect, a summary in your own words, the source with link and date,
confidence, the day you checked it, and

```toml
[[when]]                        # alternatives; within one every condition must hold
relation = ["buy", "export_out"]
chip_origin = ["US"]            # subject to US rules
site = ["@D5_or_MO"]            # a group of groups.toml
chip = {{ tpp_gte = 4800 }}

[matches]                       # a question that it matches …
date = 2026-02-15
relation = "buy"
chip = "h100_sxm"
site = "CN"

[differs]                       # … and one that it does not
date = 2026-02-15
relation = "rent"
chip = "h100_sxm"
site = "CN"
```

`overrides` names rules that it takes out where both match. `verify = true` says that the text must be read again
before anybody relies on it. Then `sampan screen --check-rules`, `make check` and `python scripts/write_docs.py`.

## All of them
"""


def rules_page() -> str:
    """Return every rule with its source and the day it was last checked."""
    known = load_rules()
    rows = []
    for rule in sorted(known.rules, key=lambda one: (one.jurisdiction, one.begins, one.id)):
        until = f" to {rule.effective_to}" if rule.effective_to else ""
        source = f"[{rule.source_title}]({rule.source_url})" if rule.source_url else rule.source_title
        rows.append([
            rule.jurisdiction, f"{rule.begins}{until}", f"{rule.title}<br>`{rule.id}`",
            rule.effect + ("" if rule.binding else " (does not bind)"), standing(rule), f"{source}, {rule.source_date}",
            rule.checked,
        ])  # fmt: skip
    head = ["of", "from", "rule", "effect", "standing", "source", "checked"]
    words = ", ".join(f"`{word}`" for word in SEVERITY)
    return f"{NOTE}\n{_RULES.format(horizon=known.horizon, words=words)}\n{_table(head, rows)}"


PAGES = {
    DOCS / "cli.md": command_line,
    DOCS / "job-file.md": job_file,
    DOCS / "plan-validation.md": validation,
    DOCS / "rules.md": rules_page,
}


def main() -> int:
    """Write all pages and return 0."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8", newline="\n")
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
