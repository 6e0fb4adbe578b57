"""The options of `sampan serve`, and the settings that they make."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from sampan.options import (
    VerbArguments,
    device_option,
    download,
    dtype_option,
    flag,
    loras,
    model_path,
    no_verify,
    number,
    option,
    repeated,
    served_name,
    several,
    threads_option,
    whole,
)

if TYPE_CHECKING:  # reading it would load what only the server needs
    from sampan.serve.settings import Settings

_MIB = 2**20


@dataclass(frozen=True, kw_only=True)
class ServeArguments(VerbArguments):
    """The options of `sampan serve`."""

    examples: ClassVar = (
        "sampan serve --model runs/job",
        "sampan serve --model runs/job --add-key alice",
        "sampan serve --model FOLDER --host 0.0.0.0 --allow-host pictures.example --per-key 4",
    )
    model: str = option("model folder, run, name on the Hub, or a model that is installed", "MODEL", model_path, "nano")
    served_names: tuple[str, ...] = several(
        "names by which clients may ask for it, the first also in answers; default: its own",
        "NAME",
        served_name,
        name="--served-model-name",
    )
    download: bool = download()
    device: str = device_option()
    dtype: str = dtype_option()
    framework: str | None = option("torch or mindspore; default: the first that is installed", "F")
    threads: int | None = threads_option()
    loras: tuple[tuple[Path, float], ...] = loras()
    no_verify: bool = no_verify()
    host: str = option(
        "default: 127.0.0.1, this machine alone", "ADDRESS", default="127.0.0.1", group="where it listens, and for whom"
    )
    port: int = option("0: one that is free", "N", whole(0, 65535), 8000)
    hosts: tuple[str, ...] = repeated("name under which it may be asked; *: any", "NAME", str, name="--allow-host")
    open: bool = flag("nobody needs a key, though others than this machine can come")
    data: Path = option("", "DIR", Path, Path("serve-data"), group="keys and pictures")
    add_key: str | None = option("make an API key, print it this once, and end", "NAME", is_exclusive=True)
    remove_key: str | None = option("forget a key, and end", "NAME", is_exclusive=True)
    list_keys: bool = flag("print the keys' names, and end", is_exclusive=True)
    keep_days: float | None = option("remove pictures that are older; default: never", "D", number(0))
    keep_pictures: int = option("at most", "N", whole(1), 10_000)
    keep_mib: int | None = option("at most so many MiB; default: any", "N", whole(1))
    queue: int = option("pictures under way", "N", whole(1), 64, group="how much it takes on")
    batch: int = option("rows of tokens written together", "N", whole(1, 256), 8)
    per_key: int = option("pictures under way of one key", "N", whole(1), 16)
    per_minute: int | None = option("pictures a minute of one key; default: any", "N", whole(1))
    timeout: float = option("for a picture", "S", number(1), 600.0)
    drain: float = option("for what is under way at the end", "S", number(1), 60.0)
    max_upload_mib: int = option("of a request", "N", whole(1), 32)
    max_references: int = option("of an edit", "N", whole(1, 16), 4)
    allow_urls: bool = flag("fetch references by address; never from private ones")
    steps: int | None = option(
        "where a request names none; default: what the model states, else 50", "N", whole(1, 200), group="how it paints"
    )
    label: bool = flag("write into every picture that it is generated")
    enhance: tuple[str, str] | None = option(
        "let this model of an OpenAI-compatible API write prompts out; its key: SAMPAN_ENHANCE_KEY", ("URL", "MODEL")
    )
    proofread: int = option(
        "write N rows of tokens, paint the one whose quoted words OCR reads best", "N", whole(1, 16), 1
    )
    plan_report: Path | None = option(
        "HTML of `sampan plan`", "FILE", Path, group="what the page shows beside pictures"
    )
    bench_report: Path | None = option("HTML of `sampan bench`", "FILE", Path)

    def settings(self) -> Settings:
        """Return the server's settings."""
        from sampan.serve.settings import AdmissionLimits, Enhancement, Retention, Settings

        enhancement = None
        if self.enhance:
            url, model = self.enhance
            enhancement = Enhancement(url, model, os.environ.get("SAMPAN_ENHANCE_KEY") or None)
        keep_bytes = None if self.keep_mib is None else self.keep_mib * _MIB
        return Settings(
            host=self.host,
            port=self.port,
            data=self.data,
            model=self.served_names[0] if self.served_names else Path(self.model).name or "model",
            served_names=self.served_names,
            hosts=self.hosts,
            open_to_all=self.open,
            limits=AdmissionLimits(self.queue, self.per_key, self.per_minute, self.timeout),
            retention=Retention(self.keep_days, self.keep_pictures, keep_bytes),
            default_steps=self.steps,
            max_references=self.max_references,
            max_body_bytes=self.max_upload_mib * _MIB,
            max_rows=max(self.batch, self.proofread),
            fetch_urls=self.allow_urls,
            label=self.label,
            proofread=self.proofread,
            enhancement=enhancement,
            plan_report=self.plan_report,
            bench_report=self.bench_report,
            drain_s=self.drain,
        )
