"""The server's settings: what it is told once, when it starts."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class AdmissionLimits:
    """How much is taken on.

    Args:
        queue: Images that wait or are at work, in all.
        per_key: The same, of one key.
        per_minute: Images that one key may ask for within a minute; None is no limit.
        timeout_s: An image's time from its request on.
    """

    queue: int = 64
    per_key: int | None = 16
    per_minute: int | None = None
    timeout_s: float = 600.0


@dataclass(frozen=True)
class Retention:
    """How long images are kept; None is no limit."""

    days: float | None = None
    pictures: int | None = None
    num_bytes: int | None = None


@dataclass(frozen=True)
class UploadLimits:
    """How much of an upload is decoded.

    Args:
        max_pixels: Width times height.
        max_side: The longer side.
        seconds: For looking through its bytes before that.
    """

    max_pixels: int = 16_777_216
    max_side: int = 16_384
    seconds: float = 1.0


@dataclass(frozen=True)
class Enhancement:
    """A language model that writes prompts out.

    Args:
        url: Address of an OpenAI-compatible API, as far as `/v1`.
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
        data: Folder of images, database and keys.
        model: Name of the model, as pictures are noted under.
        served_names: Names by which it is asked for; none: `model` alone.
        hosts: Names under which it may be asked, beside the loopback ones; "*" is any.
        open_to_all: Nobody needs a key, even where others than this machine can come.
        default_steps: Decoder steps where a request names none; None: what the model states.
        max_area_px: Largest area of an image that is painted; None: four times the model's own.
        max_references: References of one edit, uploads and earlier images together.
        max_body_bytes: Largest body of a request with files.
        max_json_bytes: Largest body of a request without.
        max_rows: Rows of tokens that are written together.
        fetch_urls: References may be named by address.
        label: Every image says visibly that it is generated.
        proofread: Rows of tokens for one image where a request names none.
        plan_report, bench_report: HTML files shown under /reports/.
        drain_s: How long images under way are waited for when the server is told to end.
        header_s: Time for the head of a request, and after which the rate of a body is looked at.
        send_s: A client that takes nothing for so long is let go.
    """

    host: str
    port: int
    data: Path
    model: str
    served_names: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    open_to_all: bool = False
    limits: AdmissionLimits = field(default_factory=AdmissionLimits)
    retention: Retention = field(default_factory=Retention)
    uploads: UploadLimits = field(default_factory=UploadLimits)
    default_steps: int | None = None
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
    def names(self) -> tuple[str, ...]:
        """Names by which the model is asked for."""
        return self.served_names or (self.model,)

    @property
    def is_loopback(self) -> bool:
        """Whether nobody else than this machine can come."""
        return self.host in LOOPBACK
