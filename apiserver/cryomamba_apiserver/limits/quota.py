"""What is left of a limit, as headers and as a refusal say it."""

import math
from dataclasses import dataclass

from cryomamba_apiserver.errors import RateLimitedError

_HINT = "Please wait before making more requests"
_ANOTHER_MOMENT = 1  # seconds; nobody knows when something that is in flight will end


@dataclass(frozen=True, slots=True)
class Quota:
    """What is left of a window of requests.

    Attributes:
        limit: Requests that a window allows.
        remaining: Requests that are left of it, 0 or more.
        resets_at: When the next window begins, in whole seconds of the Unix epoch, rounded up.
    """

    limit: int
    remaining: int
    resets_at: int

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Return the three headers of the reference, as ASGI wants them."""
        return [
            (b"x-ratelimit-limit", b"%d" % self.limit),
            (b"x-ratelimit-remaining", b"%d" % self.remaining),
            (b"x-ratelimit-reset", b"%d" % self.resets_at),
        ]


def too_many_in_window(limit: int, window_seconds: int, resets_at: float, now: float, what: str) -> RateLimitedError:
    """Return the refusal of what goes beyond a window; `resets_at` and `now` in seconds of the Unix epoch."""
    wait = min(window_seconds, max(1, math.ceil(resets_at - now)))
    return _refusal(f"Rate limit exceeded: {limit} {what}.", limit, window_seconds, wait)


def too_many_at_once(limit: int, what: str) -> RateLimitedError:
    """Return the refusal of what goes beyond a number in flight; its window is 0 seconds: this very moment."""
    return _refusal(f"Rate limit exceeded: {limit} {what} at once.", limit, 0, _ANOTHER_MOMENT)


def _refusal(message: str, limit: int, window_seconds: int, wait: int) -> RateLimitedError:
    return RateLimitedError(
        message,
        hint=_HINT,
        details={"limit": limit, "window_seconds": window_seconds, "retry_after_seconds": wait},
        headers={"Retry-After": str(wait)},
    )
