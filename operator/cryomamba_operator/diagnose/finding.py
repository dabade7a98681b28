"""The form of a diagnosis."""

from dataclasses import dataclass
from enum import StrEnum

from cryomamba_crds.failures import Failure, FailureCode

_MESSAGE = 1024
_HINT = 900


class Patience(StrEnum):
    """How long a state is put up with before the job fails with it."""

    NONE = "none"
    """Nothing gets better by waiting or by another attempt."""
    CONFIGURATION = "configuration"
    """Somebody may be repairing it, or a registry may answer again: minutes."""
    PLACEMENT = "placement"
    """A node may be on its way: longer."""
    ENDLESS = "endless"
    """It passes by itself (a busy GPU), or Kubernetes retries and counts (a failed attempt)."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One diagnosis; `reason` is a condition's reason, in CamelCase."""

    reason: str
    failure: Failure
    patience: Patience

    @property
    def text(self) -> str:
        """What a condition and an Event say."""
        return f"{self.failure.message.rstrip('. ')}. {self.failure.hint}"


def finding(
    reason: str,
    code: FailureCode,
    message: str,
    hint: str,
    patience: Patience,
    *,
    retryable: bool | None = None,
) -> Finding:
    """Return a finding whose texts fit a condition; the cluster's own words may be of any length."""
    failure = Failure(
        code=code,
        message=shortened(message, _MESSAGE),
        hint=shortened(hint, _HINT),
        retryable=code.retryable if retryable is None else retryable,
    )
    return Finding(reason, failure, patience)


def shortened(text: str, limit: int) -> str:
    """Return the text, cut in the middle where it is longer than `limit`: both ends of an error say something."""
    if len(text) <= limit:
        return text
    half = (limit - 3) // 2
    return f"{text[:half]}...{text[-half:]}"
