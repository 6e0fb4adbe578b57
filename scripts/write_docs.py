"""Writes the pages of docs/ that follow from the program: the command line and the job file. A test compares them.

python scripts/write_docs.py
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

from sampan.cli.options import parser
from sampan.errors import JobError
from sampan.job import STAGES, Job, Setting, Stage, parse, sections, settings, toml

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
    common = settings(Stage)
    for name, section in sections(Job):
        own = [
            setting for key, setting in settings(section).items() if not (issubclass(section, Stage) and key in common)
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
    about = f"{(Stage.__doc__ or '').strip()} Below each stage's name stands its default."
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
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


PAGES = {DOCS / "cli.md": command_line, DOCS / "job-file.md": job_file}


def main() -> int:
    """Write all pages and return 0."""
    for path, page in PAGES.items():
        path.write_text(page(), encoding="utf-8", newline="\n")
        print(path)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
