"""How long a store that does not answer is waited for, the same for whatever is asked of it."""

import logging
import time
from collections.abc import Callable
from typing import Any, Self

import urllib3

_log = logging.getLogger(__name__)

_BACKOFF_FACTOR = 0.25
_LONGEST_PAUSE = 10.0
_JITTER = 0.25
_AWAY = (429, 500, 502, 503, 504)


class Patience:
    """Knows since when a store has not answered; shared by all that is asked of it, so that an outage is one outage.

    Args:
        seconds: After which an outage is given up on.
        clock: Seconds on a clock that does not jump.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds = seconds
        self._clock = clock
        self._since: float | None = None

    @property
    def over(self) -> bool:
        """Whether the store has been away for too long."""
        return self._since is not None and self._clock() - self._since >= self._seconds

    def failed(self) -> None:
        """Take in that the store did not answer."""
        if self._since is None:
            self._since = self._clock()
            _log.warning("the object store does not answer and is tried again for %.0f s", self._seconds)

    def answered(self) -> None:
        """Take in that it did."""
        if self._since is not None:
            _log.info("the object store answers again after %.0f s", self._clock() - self._since)
            self._since = None


class PatientRetry(urllib3.Retry):
    """Repeats a request for as long as there is patience.

    Every kind of request may be repeated: parts and objects are replaced by the same bytes, and a second end of an
    upload whose first was answered into the void is refused, which `S3Storage` can tell.
    """

    def __init__(self, patience: Patience, **options: Any) -> None:  # noqa: ANN401 - urllib3's, some of them handed on
        own: dict[str, Any] = {
            "total": None,
            "allowed_methods": None,
            "status_forcelist": _AWAY,
            "raise_on_status": False,
            "backoff_factor": _BACKOFF_FACTOR,
            "backoff_max": _LONGEST_PAUSE,
            "backoff_jitter": _JITTER,
            "retry_after_max": int(_LONGEST_PAUSE),
        }
        super().__init__(**{**own, **options})
        self._patience = patience

    def new(self, **options: Any) -> Self:  # noqa: ANN401 - urllib3's
        """Return the next try; urllib3 asks for one each time that a request has failed."""
        self._patience.failed()
        return super().new(patience=self._patience, **options)

    def is_exhausted(self) -> bool:
        """Return whether there is none."""
        return self._patience.over
