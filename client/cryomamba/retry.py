"""Whether and when a call that failed is sent again."""

from dataclasses import dataclass

from cryomamba.errors import ApiError, CryoMambaError


@dataclass(frozen=True)
class RetryPolicy:
    """Exponential backoff with jitter; what the server asks for with Retry-After goes before it.

    Attributes:
        attempts: How often a call is sent at most.
        first_pause: Seconds before the second attempt; doubled for each further one.
        longest_pause: Most seconds between two attempts. A server that asks for more is not waited for.
    """

    attempts: int = 5
    first_pause: float = 0.5
    longest_pause: float = 30.0

    def pause(self, error: CryoMambaError, failures: int, jitter: float) -> float | None:
        """Seconds to wait before the next attempt, or None where there is to be none.

        Args:
            error: What came of the last attempt.
            failures: Attempts that have failed so far, at least 1.
            jitter: A random number of [0, 1).
        """
        if not error.retryable or failures >= self.attempts:
            return None
        if isinstance(error, ApiError) and error.retry_after is not None:
            return error.retry_after if error.retry_after <= self.longest_pause else None
        return self.backoff(failures, jitter)

    def backoff(self, failures: int, jitter: float) -> float:
        """Seconds of the n-th pause (n from 1): between half of and the whole of a doubling length."""
        length = min(self.longest_pause, self.first_pause * 2.0 ** min(failures - 1, 30))
        return length * (0.5 + jitter / 2)
