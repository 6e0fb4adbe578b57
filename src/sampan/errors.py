"""The exceptions a user can meet, and how they are printed.

    SampanError             what failed, because of which facts, and what to do next
    ├── JobError            a job file or a --set that cannot be used
    ├── DataError           pictures, captions or a cache that cannot be read
    │   ├── UnusableImageError  a file that gives no picture, and of which kind its trouble is
    │   └── StoreError      a folder in which a server cannot keep pictures and keys, and what is wrong with it
    ├── CheckpointError     a model folder or a run folder that cannot be used
    ├── DeviceError         a device, a dtype or an amount of memory that is not there
    ├── RequestError        a prompt, a size, a reference or an option that this model cannot serve
    │   └── FieldRefusedError   a field of a request that another server does not take
    ├── CatalogError        a name or a file of the catalogue (chips, sites, models, runs) that cannot be used
    ├── PlanError           something that cannot be planned, screened or compared
    ├── LaunchError         a launch that cannot be written or handed over
    ├── UsageError          a command line in which something is missing
    ├── ApiError            a request that the server answers with an error status
    └── DeadlineExceeded    an image that the server did not finish in its time

Below them are six that are caught by the code that asked, which makes one of the above of them or says what is left out:

    OSError
    └── LockHeldError       a lock that another process has
    ValueError
    ├── DamagedFileError    a safetensors file that is not what its header says
    └── BadDocumentError    a text of JSON, TOML or YAML that cannot be used
    Exception
    ├── BadRowError         the reason why a row of a picture set is left out
    ├── NotPredictable      a published run that cannot be predicted
    └── UnusableMeasurement  a file or a side of `sampan bench` that says nothing of a chip

The command line prints a SampanError without a traceback and exits with 1; wrong usage exits with 2. A library caller's
bad argument is a ValueError; our own bugs are assertions.
"""

from __future__ import annotations

import copyreg
import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, ClassVar


class SampanError(Exception):
    """An error that says what failed, why, and what to do next.

    Args:
        what: One line: the thing that failed, with the name the user gave it.
        because: Facts that led there, each with its origin (a file, a line, a measured number).
        hint: What to do next; a command or a nearest valid value where there is one.
    """

    def __init__(self, what: str, because: str | Iterable[str] = (), hint: str | None = None):
        self.what = what
        self.because = (because,) if isinstance(because, str) else tuple(because)
        self.hint = hint
        super().__init__(self.render())

    def __reduce__(self) -> tuple[Any, ...]:
        # a worker process sends all of its parts: Python's own way would make an exception again from its text alone
        remake: Any = copyreg.__newobj__  # pyright: ignore[reportAttributeAccessIssue]
        return remake, (type(self), *self.args), self.__dict__

    def render(self) -> str:
        """Return the text the command line prints on stderr."""
        lines = [f"error: {self.what}", *(f"  because {fact}" for fact in self.because)]
        if self.hint:
            lines += ["", f"hint: {self.hint}"]
        return "\n".join(lines)


class JobError(SampanError):
    """A job file or a --set that cannot be used."""


class DataError(SampanError):
    """Pictures, captions or a cache that cannot be read."""


class UnusableImageError(DataError):
    """A file that gives no picture.

    Args:
        kind: One of sampan.data.report.KINDS: empty, truncated, not-a-picture, too-large, undefined-colour, missing,
            unreadable.
    """

    def __init__(self, what: str, kind: str, reason: str, hint: str | None = None):
        self.kind = kind
        super().__init__(what, reason, hint)


class StoreError(DataError):
    """A folder in which a server cannot keep pictures and keys.

    Args:
        kind: One of FAULTS: full, locked, read-only, damaged, gone, failed.
    """

    FAULTS: ClassVar[dict[str, tuple[int, str, int | None]]] = {
        "full": (507, "its disk is full: deleting pictures makes room", None),
        "locked": (503, "another program holds its database", 5),
        "read-only": (503, "its disk cannot be written", None),
        "damaged": (503, "its database is damaged", None),
        "gone": (503, "its folder was removed while it ran", None),
        "failed": (503, "its disk or database failed", None),
    }
    """By kind: the HTTP status, what a client is told, and after how many seconds it may ask again."""

    def __init__(self, what: str, kind: str, because: str | Iterable[str] = (), hint: str | None = None):
        self.kind = kind
        super().__init__(what, because, hint)

    def answer(self) -> ApiError:
        """Return the error as a client is told it: the reason, and no path of this machine."""
        status, reason, retry_after_s = self.FAULTS[self.kind]
        code = f"storage_{self.kind.replace('-', '_')}"
        return ApiError(status, code, f"The server cannot use its store: {reason}.", retry_after_s=retry_after_s)


class CheckpointError(SampanError):
    """A model folder or a run folder that cannot be used."""


class DeviceError(SampanError):
    """A device, a dtype or an amount of memory that is not there."""


class RequestError(SampanError):
    """A prompt, a size, a reference or an option that this model cannot serve."""


class FieldRefusedError(RequestError):
    """A field of a request that another server does not take, because OpenAI's own API has none of that name."""


class CatalogError(SampanError):
    """A name or a file of the catalogue that cannot be used."""


class PlanError(SampanError):
    """Something that cannot be planned, screened or compared."""


class LaunchError(SampanError):
    """A launch that cannot be written or handed over."""


class LockHeldError(OSError):
    """A lock that another has.

    Args:
        holder: Number of the process that has it, or None where it does not say.
    """

    def __init__(self, path: Path, holder: int | None):
        self.holder = holder
        super().__init__(f"`{path}` is held by {self.who}")

    @property
    def who(self) -> str:
        """The holder in words."""
        return "another process" if self.holder is None else f"process {self.holder}"


class DamagedFileError(ValueError):
    """A safetensors file that is not what its header says."""


class BadDocumentError(ValueError):
    """A text of JSON, TOML or YAML that cannot be used.

    Args:
        problem: What is wrong with it, and where.
        line: Number of the line from 1, where a parser tells it.
    """

    def __init__(self, problem: str, line: int | None = None):
        self.line = line
        super().__init__(problem)


class BadRowError(Exception):
    """The reason why a row of a picture set is left out; a reader makes a fault of it.

    Args:
        kind: One of sampan.data.report.KINDS.
    """

    def __init__(self, kind: str, reason: str):
        self.kind = kind
        super().__init__(reason)


class UsageError(SampanError):
    """A command line in which something is missing; the command ends with 2."""


class ApiError(SampanError):
    """A request that the server answers with an error status, in the shape of OpenAI's API.

    Args:
        status: HTTP status code.
        code: A word that programs can compare.
        message: What a person reads.
        param: Name of the field that is wrong.
        retry_after_s: Seconds after which the client may ask again.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after_s: int | None = None
    ):
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s = retry_after_s
        super().__init__(message)

    @classmethod
    def of(cls, error: SampanError, param: str | None = None, code: str = "invalid_value") -> ApiError:
        """Return an error as the answer to a request: what, because and hint in one paragraph.

        What a device has no memory for is not the client's fault, and may be there in a while: 503, and without the hint.
        """
        if isinstance(error, DeviceError):
            return cls(503, "no_memory", ": ".join([error.what, *error.because[:1]]), retry_after_s=10)
        message = ": ".join([error.what, "; ".join(error.because)] if error.because else [error.what])
        hint = error.hint and error.hint.replace("--size ", "")  # an option of the command line, which the API lacks
        return cls(400, code, f"{message} ({hint})" if hint else message, param)

    def body(self) -> dict[str, Any]:
        """Return the error in OpenAI's shape."""
        kinds = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
        kind = kinds.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with the error."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


class DeadlineExceeded(SampanError):
    """An image that the server did not finish in its time."""


class NotPredictable(Exception):
    """A published run that cannot be predicted, and why; caught where runs are counted."""


class UnusableMeasurement(Exception):
    """A file or a side of `sampan bench` that says nothing of a chip, and why; caught where it is read."""


def did_you_mean(word: str, known: Iterable[str]) -> str | None:
    """Return "did you mean `x`?" for the nearest known word, or the whole list when none is near."""
    options = sorted(known)
    near = difflib.get_close_matches(word, options, n=2, cutoff=0.6)
    if near:
        return "did you mean " + " or ".join(f"`{name}`" for name in near) + "?"
    return "known: " + ", ".join(f"`{name}`" for name in options) if options else None
