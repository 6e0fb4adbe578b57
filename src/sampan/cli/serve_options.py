"""The options of `sampan serve`, and the settings that they make."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sampan.cli import values
from sampan.job import DEVICES, DTYPES

if TYPE_CHECKING:  # reading it would load what only the server needs
    from sampan.serve.settings import Settings

_MIB = 2**20


def add(verb: Any) -> None:
    """Add them to the verb's parser."""
    verb.add_argument(
        "--model",
        metavar="MODEL",
        default="nano",
        help="model folder, run, or a model that is installed; default: nano",
    )
    verb.add_argument(
        "--device", metavar="D", type=values.device, default="auto", help=f"{', '.join(DEVICES)}; default: auto"
    )
    verb.add_argument("--dtype", metavar="T", choices=DTYPES, default="auto", help="%(choices)s; default: auto")
    verb.add_argument("--framework", metavar="F", help="torch or mindspore; default: the first that is installed")
    where = verb.add_argument_group("where it listens, and for whom")
    where.add_argument("--host", metavar="ADDRESS", default="127.0.0.1", help="default: 127.0.0.1, this machine alone")
    where.add_argument(
        "--port", metavar="N", type=values.whole(0, 65535), default=8000, help="0: one that is free; default: 8000"
    )
    where.add_argument(
        "--allow-host",
        dest="hosts",
        metavar="NAME",
        action="append",
        default=[],
        help="name under which it may be asked; *: any; may be repeated",
    )
    where.add_argument(
        "--open", action="store_true", help="nobody needs a key, though others than this machine can come"
    )
    kept = verb.add_argument_group("keys and pictures")
    kept.add_argument("--data", metavar="DIR", type=Path, default=Path("serve-data"), help="default: serve-data")
    which = kept.add_mutually_exclusive_group()
    which.add_argument("--add-key", metavar="NAME", help="make an API key, print it this once, and end")
    which.add_argument("--remove-key", metavar="NAME", help="forget a key, and end")
    which.add_argument("--list-keys", action="store_true", help="print the keys' names, and end")
    kept.add_argument(
        "--keep-days", metavar="D", type=values.number(0), help="remove pictures that are older; default: never"
    )
    kept.add_argument(
        "--keep-pictures", metavar="N", type=values.whole(1), default=10_000, help="at most; default: 10000"
    )
    kept.add_argument("--keep-mib", metavar="N", type=values.whole(1), help="at most so many MiB; default: any")
    limits = verb.add_argument_group("how much it takes on")
    limits.add_argument(
        "--queue", metavar="N", type=values.whole(1), default=64, help="pictures under way; default: 64"
    )
    limits.add_argument(
        "--batch", metavar="N", type=values.whole(1, 256), default=8, help="rows of tokens written together; default: 8"
    )
    limits.add_argument(
        "--per-key", metavar="N", type=values.whole(1), default=16, help="pictures under way of one key; default: 16"
    )
    limits.add_argument(
        "--per-minute", metavar="N", type=values.whole(1), help="pictures a minute of one key; default: any"
    )
    limits.add_argument(
        "--timeout", metavar="S", type=values.number(1), default=600.0, help="for a picture; default: 600"
    )
    limits.add_argument(
        "--drain",
        metavar="S",
        type=values.number(1),
        default=60.0,
        help="for what is under way at the end; default: 60",
    )
    limits.add_argument(
        "--max-upload-mib", metavar="N", type=values.whole(1), default=32, help="of a request; default: 32"
    )
    limits.add_argument(
        "--max-references", metavar="N", type=values.whole(1, 16), default=4, help="of an edit; default: 4"
    )
    limits.add_argument(
        "--allow-urls", action="store_true", help="fetch references by address; never from private ones"
    )
    painted = verb.add_argument_group("how it paints")
    painted.add_argument(
        "--steps", metavar="N", type=values.whole(1, 200), default=50, help="where a request names none; default: 50"
    )
    painted.add_argument("--label", action="store_true", help="write into every picture that it is generated")
    painted.add_argument(
        "--enhance",
        metavar=("URL", "MODEL"),
        nargs=2,
        help="let this model of an OpenAI-compatible API write prompts out; its key: SAMPAN_ENHANCE_KEY",
    )
    painted.add_argument(
        "--proofread",
        metavar="N",
        type=values.whole(1, 16),
        default=1,
        help="write N rows of tokens, paint the one whose quoted words OCR reads best; default: 1",
    )
    page = verb.add_argument_group("what the page shows beside pictures")
    page.add_argument("--plan-report", metavar="FILE", type=Path, help="HTML of `sampan plan`")
    page.add_argument("--bench-report", metavar="FILE", type=Path, help="HTML of `sampan bench`")


def settings(arguments: argparse.Namespace) -> Settings:
    """Return the server's settings."""
    from sampan.serve.settings import AdmissionLimits, Enhancement, Retention, Settings

    enhancement = None
    if arguments.enhance:
        url, model = arguments.enhance
        enhancement = Enhancement(url, model, os.environ.get("SAMPAN_ENHANCE_KEY") or None)
    keep_bytes = None if arguments.keep_mib is None else arguments.keep_mib * _MIB
    return Settings(
        host=arguments.host,
        port=arguments.port,
        data=arguments.data,
        model=Path(arguments.model).name or "model",
        hosts=tuple(arguments.hosts),
        open_to_all=arguments.open,
        limits=AdmissionLimits(arguments.queue, arguments.per_key, arguments.per_minute, arguments.timeout),
        retention=Retention(arguments.keep_days, arguments.keep_pictures, keep_bytes),
        default_steps=arguments.steps,
        max_references=arguments.max_references,
        max_body_bytes=arguments.max_upload_mib * _MIB,
        max_rows=max(arguments.batch, arguments.proofread),
        fetch_urls=arguments.allow_urls,
        label=arguments.label,
        proofread=arguments.proofread,
        enhancement=enhancement,
        plan_report=arguments.plan_report,
        bench_report=arguments.bench_report,
        drain_s=arguments.drain,
    )
