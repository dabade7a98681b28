"""What the SDK raises: a message that names the thing and a hint that says what to do next."""

from typing import Any


class CryoMambaError(Exception):
    """Base of everything that the SDK raises on purpose.

    Attributes:
        message: What went wrong, for a person.
        hint: What to do about it; empty where there is nothing to say.
        retryable: Whether the same call may succeed later.
    """

    def __init__(self, message: str, *, hint: str = "", retryable: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.retryable = retryable


class ConnectionFailedError(CryoMambaError):
    """The server could not be reached, or stopped talking in the middle of an answer."""


class UnexpectedAnswerError(CryoMambaError):
    """Something answered that does not speak the CryoMamba API."""


class ApiError(CryoMambaError):
    """The server answered with an error.

    Attributes:
        code: One of the codes of the API reference, such as ``NOT_FOUND``.
        details: What the server adds, such as the ``job_id`` of a job that exists already.
        status: HTTP status; 0 for an error that came over the WebSocket.
        retry_after: Seconds after which the server wants to be asked again, where it says so.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        hint: str = "",
        retryable: bool = False,
        details: dict[str, Any] | None = None,
        status: int = 0,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message, hint=hint, retryable=retryable)
        self.code = code
        self.details = details or {}
        self.status = status
        self.retry_after = retry_after
