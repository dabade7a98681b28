"""Failure codes of the API reference, their HTTP status, and the one form in which a failure is told."""

from enum import IntEnum, StrEnum
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field


class FailureCode(StrEnum):
    """Every code that the API reference lists."""

    VALIDATION_ERROR = "VALIDATION_ERROR"
    AUTHENTICATION_REQUIRED = "AUTHENTICATION_REQUIRED"
    FORBIDDEN = "FORBIDDEN"
    NOT_FOUND = "NOT_FOUND"
    CONFLICT = "CONFLICT"
    PAYLOAD_TOO_LARGE = "PAYLOAD_TOO_LARGE"
    RATE_LIMIT_EXCEEDED = "RATE_LIMIT_EXCEEDED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    SERVICE_UNAVAILABLE = "SERVICE_UNAVAILABLE"
    INSUFFICIENT_STORAGE = "INSUFFICIENT_STORAGE"
    GPU_ERROR = "GPU_ERROR"
    INFERENCE_ERROR = "INFERENCE_ERROR"
    OUT_OF_MEMORY = "OUT_OF_MEMORY"

    @property
    def http_status(self) -> int:
        """HTTP status that the reference gives this code; an answer may be more specific (405, 410, 415, 422)."""
        return _TABLE[self][0]

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later. Where the reference says "Maybe", the default is no."""
        return _TABLE[self][1]


_TABLE: dict[FailureCode, tuple[int, bool]] = {
    FailureCode.VALIDATION_ERROR: (400, False),
    FailureCode.AUTHENTICATION_REQUIRED: (401, False),
    FailureCode.FORBIDDEN: (403, False),
    FailureCode.NOT_FOUND: (404, False),
    FailureCode.CONFLICT: (409, False),
    FailureCode.PAYLOAD_TOO_LARGE: (413, False),
    FailureCode.RATE_LIMIT_EXCEEDED: (429, True),
    FailureCode.INTERNAL_ERROR: (500, True),
    FailureCode.SERVICE_UNAVAILABLE: (503, True),
    FailureCode.INSUFFICIENT_STORAGE: (507, False),
    FailureCode.GPU_ERROR: (500, True),
    FailureCode.INFERENCE_ERROR: (500, False),
    FailureCode.OUT_OF_MEMORY: (500, False),
}


class Failure(BaseModel):
    """Why something did not work and what to do about it: error envelope, runner's last word and ``status.failure``."""

    model_config = ConfigDict(frozen=True)

    code: FailureCode
    message: Annotated[str, Field(max_length=2048)]
    hint: Annotated[str, Field(max_length=1024)]
    retryable: bool
    details: dict[str, Any] = Field(default_factory=dict)


class FailureError(Exception):
    """Raised where the knowledge about a failure is; carries it unchanged to whoever reports it."""

    def __init__(
        self,
        code: FailureCode,
        message: str,
        *,
        hint: str,
        retryable: bool | None = None,
        details: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.failure = Failure(
            code=code,
            message=message[:2048],
            hint=hint[:1024],
            retryable=code.retryable if retryable is None else retryable,
            details=details or {},
        )


class ExitCode(IntEnum):
    """How the runner ends. The numbers are those of sysexits.h that fit, so that 1 and 128+n stay "no word given"."""

    SUCCEEDED = 0
    FAILED = 70
    """Trying again is of no use; the operator's podFailurePolicy fails the Job on it."""
    RETRYABLE = 75
    """Trying again may help; also the answer to SIGTERM."""
