"""What the server answers where it does not do what was asked: in OpenAI's shape, in words, without traces."""

from __future__ import annotations

from typing import Any

from sampan.errors import SampanError

# what OpenAI calls the kinds of errors, by status
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "invalid_request_error",
    405: "invalid_request_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    415: "invalid_request_error",
    429: "rate_limit_error",
    500: "server_error",
    503: "server_error",
}


class ApiError(Exception):
    """A request that is not done.

    Args:
        status: Of HTTP.
        code: A word that programs can ask for.
        message: What a person reads.
        param: The field that is wrong.
        retry_after_s: When to come again.
    """

    def __init__(
        self, status: int, code: str, message: str, param: str | None = None, retry_after_s: int | None = None
    ):
        self.status, self.code, self.message, self.param = status, code, message, param
        self.retry_after_s = retry_after_s
        super().__init__(message)

    def body(self) -> dict[str, Any]:
        """Return it in OpenAI's shape."""
        kind = _KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """The headers that go with it."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})


def refused(error: SampanError, param: str | None = None, status: int = 400, code: str = "invalid_value") -> ApiError:
    """Return an error that a person can meet as the answer to a request: what, because, hint, in one paragraph."""
    message = ": ".join([error.what, "; ".join(error.because)] if error.because else [error.what])
    hint = error.hint and error.hint.replace("--size ", "")  # as this API says it
    return ApiError(status, code, f"{message} ({hint})" if hint else message, param)
