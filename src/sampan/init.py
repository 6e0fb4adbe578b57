"""Writing a first job file: every setting with its default, and what it means above it."""

from __future__ import annotations

import os
import textwrap
from pathlib import Path

from sampan import files, frameworks
from sampan.errors import JobError
from sampan.job import Job, Setting, sections, settings, toml
from sampan.models import presets

_WIDTH = 118
_COLUMN = 28
_HEAD = """\
A job file: `sampan train {name}` trains what it says. Every setting stands here with its default, so that only what is
to differ needs a change; a deleted line means the default, and a line that begins with # is not read. For one run,
`--set section.field=value` changes a setting without the file."""


def write(path: Path, preset: str, force: bool) -> Path:
    """Write a commented job file that can be read as it stands, and return its path.

    It names the framework that is used here by default; where none is installed, that of the settings' own default.

    Args:
        preset: Name of the model's sizes.
        force: Replace a file that is there.

    Raises:
        JobError: The file is there and may not be replaced, cannot be written, or the preset is unknown.
    """
    presets.get(preset)
    if path.is_dir():
        raise JobError(f"`{path}` is a folder", (), f"sampan init {path / 'job.toml'}")
    if os.path.lexists(path) and not force:
        raise JobError(f"`{path}` is there already", (), "give another name, or --force to replace it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(path, text(path, preset))
    except OSError as error:
        raise JobError(f"the job file `{path}` cannot be written", str(error)) from error
    return path


def text(path: Path, preset: str) -> str:
    """Return what `write` puts into a job file of that name."""
    chosen = {("", "out"): f"runs/{path.stem}", ("model", "preset"): preset}
    framework = frameworks.default()
    if framework in frameworks.FRAMEWORKS:
        chosen["place", "framework"] = framework
    explained: set[str] = set()
    lines = _comment(_HEAD.format(name=path.name))
    for name, section in sections(Job):
        lines.append("")
        if name:
            lines += [f"[{name}]", *_comment(section.__doc__ or "")]
        for setting in settings(section).values():
            # what every stage has is explained at the first one
            meaning = "" if name.startswith("stage.") and setting.name in explained else _meaning(setting)
            explained.add(setting.name)
            lines += _line(setting, chosen.get((name, setting.name)), meaning)
    return "\n".join(lines) + "\n"


def _meaning(setting: Setting) -> str:
    limits = setting.limits()
    return f"{setting.help.rstrip('.')} ({limits})." if limits else setting.help


def _line(setting: Setting, chosen: str | None, meaning: str) -> list[str]:
    """Return a setting's line, its meaning behind it; a setting without a value is shown as a comment."""
    absent = setting.default is None or setting.default == {}
    value = chosen or (setting.example if setting.required or absent else setting.default)
    line = f"{'# ' if absent else ''}{setting.name} = {toml.value(value)}"
    if len(line) < _COLUMN and meaning:
        first, *rest = _comment(meaning, _COLUMN)
        return [line + first[len(line) :], *rest]
    return [*_comment(meaning), line]


def _comment(words: str, column: int = 0) -> list[str]:
    indent = " " * column + "# "
    return textwrap.wrap(
        " ".join(words.split()), _WIDTH, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
