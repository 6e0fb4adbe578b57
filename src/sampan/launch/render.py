"""Scripts and manifests from the templates beside this module, and the commands in them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from sampan.launch.layout import LaunchLayout

_MAX_NAME = 52  # a Kubernetes name has 63 characters, and Jobs put an index behind it
_PATHS = re.compile(r"[\w@%+=:,./-]+", re.ASCII)


def render(template: str, **values: Any) -> str:
    """Return the text of a template, "slurm.sh.j2"; a name that is missing is an error."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("sampan", "launch/templates"), autoescape=False, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters.update(sh=shlex.quote, yaml=_yaml, comment=_comment)
    return environment


def _yaml(text: Any) -> str:
    """Return a scalar of YAML; JSON's are."""
    return json.dumps(text, ensure_ascii=False)


def _comment(lines: Iterable[str]) -> str:
    return "\n".join(f"# {line}".rstrip() for text in lines for line in text.splitlines() or [""])


def launch_name(job: Path) -> str:
    """Return what a job is called where names are of small letters, digits and hyphens."""
    words = re.sub(r"[^a-z0-9]+", "-", job.stem.lower()).strip("-")[:_MAX_NAME].strip("-")
    return words if words[:1].isalpha() else f"job-{words}".strip("-")


def train_words(job: Path, settings: Iterable[str]) -> list[str]:
    """Return the words of `sampan train` with settings, as Python's -m takes them; it goes on where there is a save."""
    return ["-m", "sampan", "train", job.as_posix(), "--resume", *(word for one in settings for word in ("--set", one))]


def command(
    layout: LaunchLayout, words: list[str], *, head: str, node: str, port: int, name: str, logs: str, indent: str = ""
) -> str:
    """Return the command of one machine that starts its ranks, in lines that a shell joins.

    Args:
        words: Of `train_words`.
        head, node: Shell text of the first machine's address, and of this machine's number from 0.
        logs: Folder of the ranks' own logs, where the launcher writes some.
    """
    if layout.framework == "mindspore" and layout.num_ranks > 1:
        start = [
            "msrun",
            f"--worker_num={layout.num_ranks}",
            f"--local_worker_num={layout.ranks_per_node}",
            f'--master_addr="{head}"',
            f"--master_port={port}",
            f'--node_rank="{node}"',
            f"--log_dir={_quoted(logs)}",
            "--join=True",
            "python",
        ]
    elif layout.num_ranks > 1:
        start = ["torchrun", f"--nnodes={layout.num_nodes}", f"--nproc-per-node={layout.ranks_per_node}"]
        if layout.num_nodes > 1:
            start += [f"--rdzv-id={name}", "--rdzv-backend=c10d", f'--rdzv-endpoint="{head}:{port}"']
        else:
            start += ["--standalone"]
    else:
        start = ["python"]
    verb = " ".join(map(_quoted, words[:5]))
    pieces = [*start[:-1], f"python {verb}"] if start[-1] == "python" else [*start, verb]
    pieces += [f"--set {_quoted(value)}" for flag, value in zip(words[5::2], words[6::2], strict=True)]
    return f" \\\n{indent}  ".join(pieces)


def _quoted(word: str) -> str:
    return word if _PATHS.fullmatch(word) else shlex.quote(word)
