"""When a failed call is sent again."""

import pytest

from cryomamba.errors import ApiError, CryoMambaError
from cryomamba.retry import RetryPolicy

POLICY = RetryPolicy(attempts=6, first_pause=1, longest_pause=5)


def busy(retry_after: float | None = None) -> ApiError:
    return ApiError("SERVICE_UNAVAILABLE", "busy", retryable=True, retry_after=retry_after)


def test_pauses_double_up_to_the_longest() -> None:
    assert [POLICY.pause(busy(), failures, 1.0) for failures in range(1, 7)] == [1, 2, 4, 5, 5, None]


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    assert POLICY.pause(busy(), 3, 0.0) == 2


def test_the_server_knows_better_how_long_to_wait() -> None:
    assert POLICY.pause(busy(retry_after=3), 1, 0.5) == 3


def test_an_hour_is_not_waited_for() -> None:
    assert POLICY.pause(busy(retry_after=3600), 1, 0.5) is None


@pytest.mark.parametrize("error", [CryoMambaError("no"), ApiError("NOT_FOUND", "no")])
def test_what_is_not_retryable_is_final(error: CryoMambaError) -> None:
    assert POLICY.pause(error, 1, 0.5) is None
