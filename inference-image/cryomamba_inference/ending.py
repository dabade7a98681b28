"""How a runner ends: whatever its work raises becomes a last word that can be read, and an exit code."""

import errno
import logging
import signal
from collections.abc import Callable
from typing import NoReturn

from cryomamba_crds.failures import ExitCode, Failure, FailureCode, FailureError

_log = logging.getLogger(__name__)


class StoppedError(BaseException):
    """SIGTERM came. Not an Exception, so that no library takes it for an error of its own."""


def stop_on_sigterm() -> None:
    """Let SIGTERM raise `StoppedError` in the main thread."""
    signal.signal(signal.SIGTERM, _on_sigterm)


def finish_in_spite_of_sigterm() -> None:
    """Let SIGTERM do nothing any more: the result is stored, and what is left to do is bounded."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def conclude(work: Callable[[], None], tell: Callable[[Failure], None]) -> ExitCode:
    """Do the work and return how the process is to end; a failure is told first."""
    try:
        work()
    except FailureError as error:
        failure = error.failure
    except StoppedError:
        failure = _STOPPED
    except MemoryError:
        failure = _NO_MEMORY
    except OSError as error:
        _log.exception("input or output failed")
        failure = _NO_SPACE if error.errno in _FULL else _unexpected(error)
    except Exception as error:  # noqa: BLE001 - whatever happens, the last word is a failure that can be read
        _log.exception("unexpected error")
        failure = _unexpected(error)
    else:
        return ExitCode.SUCCEEDED
    tell(failure)
    return ExitCode.RETRYABLE if failure.retryable else ExitCode.FAILED


def _on_sigterm(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
    raise StoppedError


_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_SPACE = Failure(
    code=FailureCode.INSUFFICIENT_STORAGE,
    message="The disk that holds the job's files is full.",
    hint="Free some space in the server's data directory, or, on a cluster, have whoever runs it raise the scratch "
    "size of runners; then start the job again.",
    retryable=False,
)
_STOPPED = Failure(
    code=FailureCode.SERVICE_UNAVAILABLE,
    message="The job was stopped before it was done.",
    hint="Start it again.",
    retryable=True,
)
_NO_MEMORY = Failure(
    code=FailureCode.OUT_OF_MEMORY,
    message="The machine has too little memory for this volume.",
    hint="Close other programs, crop or bin the volume, or use a machine with more memory.",
    retryable=False,
)


def _unexpected(error: Exception) -> Failure:
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message=f"The runner met an error that it did not expect: {type(error).__name__}: {error}"[:2048],
        hint="Try again; if it happens again, please report it with the runner's log.",
        retryable=True,
    )
