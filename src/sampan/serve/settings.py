"""What the server is told once, when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from sampan.serve.scheduler import AdmissionLimits
from sampan.serve.store import Retention
from sampan.serve.uploads import UploadLimits

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Enhancement:
    """A language model that writes prompts out.

    Args:
        url: Of an OpenAI-compatible API, as far as `/v1`.
        key: Sent as its API key, if there is one.
    """

    url: str
    model: str
    key: str | None = None
    timeout_s: float = 60.0


@dataclass(frozen=True)
class Settings:
    """The server's settings.

    Args:
        data: Folder of jobs, pictures and keys.
        hosts: Names under which it may be asked, beside the loopback ones; "*" is any.
        open_to_all: Nobody needs a key, even where others than this machine can come.
        default_steps: Where a request names none.
        max_area_px: Of a picture that is painted; None: four times the model's own.
        max_references: Of one edit, uploads and earlier pictures together.
        max_body_bytes: Of a request with files.
        max_json_bytes: Of a request without.
        fetch_urls: References may be named by address.
        label: Every picture says visibly that it is generated.
        proofread: Rows of tokens for one picture where a request names none.
        plan_report, bench_report: HTML files shown under /reports/.
        drain_s: How long pictures under way are waited for when the server is told to end.
        header_s: Time for the head of a request, and after which the rate of a body is looked at.
        send_s: A client that takes nothing for so long is let go.
    """

    host: str
    port: int
    data: Path
    model: str
    hosts: tuple[str, ...] = ()
    open_to_all: bool = False
    limits: AdmissionLimits = field(default_factory=AdmissionLimits)
    retention: Retention = field(default_factory=Retention)
    taken: UploadLimits = field(default_factory=UploadLimits)
    default_steps: int = 50
    max_n: int = 8
    max_area_px: int | None = None
    max_references: int = 4
    max_body_bytes: int = 33_554_432
    max_json_bytes: int = 262_144
    max_rows: int = 8
    fetch_urls: bool = False
    label: bool = False
    proofread: int = 1
    enhancement: Enhancement | None = None
    plan_report: Path | None = None
    bench_report: Path | None = None
    drain_s: float = 60.0
    header_s: float = 0.7
    send_s: float = 30.0

    @property
    def is_loopback(self) -> bool:
        """Whether nobody else than this machine can come."""
        return self.host in LOOPBACK
