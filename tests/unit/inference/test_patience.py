"""How long a store that does not answer is waited for."""

import pytest
from urllib3.exceptions import MaxRetryError, NewConnectionError

from cryomamba_inference.storage.patience import Patience, PatientRetry


class Clock:
    """A time that a test sets."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


def failed_once_more(retry: PatientRetry) -> PatientRetry:
    return retry.increment("PUT", "/b/k", error=NewConnectionError(None, "refused"))  # type: ignore[arg-type]


def test_an_outage_is_over_when_the_store_answers_and_not_when_it_is_asked_again(clock: Clock) -> None:
    patience = Patience(300, clock)
    patience.failed()
    clock.seconds += 299
    patience.failed()
    assert not patience.over
    clock.seconds += 1
    assert patience.over

    patience.answered()

    assert not patience.over


def test_a_request_is_repeated_for_as_long_as_there_is_patience_however_often_that_is(clock: Clock) -> None:
    retry = PatientRetry(Patience(300, clock))
    for _ in range(100):
        clock.seconds += 2.9
        retry = failed_once_more(retry)
        assert retry.get_backoff_time() <= 10
    clock.seconds += 20

    with pytest.raises(MaxRetryError):
        failed_once_more(retry)


def test_all_that_is_asked_in_one_outage_waits_for_its_end_once(clock: Clock) -> None:
    patience = Patience(300, clock)
    failed_once_more(PatientRetry(patience))
    clock.seconds += 301

    with pytest.raises(MaxRetryError):
        failed_once_more(PatientRetry(patience))


def test_a_long_time_without_a_request_is_no_outage(clock: Clock) -> None:
    patience = Patience(300, clock)
    failed_once_more(PatientRetry(patience))
    patience.answered()
    clock.seconds += 3600

    failed_once_more(PatientRetry(patience))

    assert not patience.over


@pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE"])
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_every_kind_of_request_is_repeated_where_the_store_is_busy(clock: Clock, method: str, status: int) -> None:
    assert PatientRetry(Patience(300, clock)).is_retry(method, status)
