"""`python -m cryomamba_inference TASK.json`: do one task; reports, and at last a failure, are lines on stdout."""

import argparse
import contextlib
import errno
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn, TextIO

from pydantic import ValidationError

from cryomamba_crds.failures import ExitCode, Failure, FailureCode, FailureError
from cryomamba_crds.task import Task
from cryomamba_inference.report import LineReporter, Reporter

_log = logging.getLogger("cryomamba_inference")
_STOP_GRACE_SECONDS = 4.0


class StoppedError(BaseException):
    """SIGTERM came. Not an Exception, so that no library takes it for an error of its own."""


def main() -> int:
    """Return how the process is to end; see `ExitCode`."""
    parser = argparse.ArgumentParser(prog="python -m cryomamba_inference", description=__doc__)
    parser.add_argument("task", type=Path, help="a task as JSON; - reads it from stdin")
    parser.add_argument(
        "--stop-on-stdin-eof",
        action="store_true",
        help="stop when stdin ends, for a parent whose death is not to be outlived",
    )
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, _on_sigterm)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    with _own_stdout() as lines:
        reporter = LineReporter(lines)
        try:
            if arguments.stop_on_stdin_eof:
                threading.Thread(target=_stop_on_stdin_eof, daemon=True, name="stdin").start()
            _run(_read_task(arguments.task), reporter)
        except FailureError as error:
            return _fail(reporter, error.failure)
        except StoppedError:
            return _fail(reporter, _STOPPED)
        except MemoryError:
            return _fail(reporter, _NO_MEMORY)
        except OSError as error:
            _log.exception("input or output failed")
            return _fail(reporter, _NO_SPACE if error.errno in _FULL else _unexpected(error))
        except Exception as error:  # noqa: BLE001 - whatever happens, the last word is a failure that can be read
            _log.exception("unexpected error")
            return _fail(reporter, _unexpected(error))
    return ExitCode.SUCCEEDED


def _run(task: Task, reporter: Reporter) -> None:
    # Imported here: torch takes seconds to import, and a bad task is told before.
    from cryomamba_inference.run import Runner  # noqa: PLC0415
    from cryomamba_inference.storage import open_storage  # noqa: PLC0415

    with tempfile.TemporaryDirectory(prefix="cryomamba-") as scratch:
        Runner(open_storage(task.store, os.environ), reporter, Path(scratch)).run(task)


def _read_task(path: Path) -> Task:
    text = sys.stdin.read() if str(path) == "-" else path.read_text()
    try:
        return Task.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"The task is not valid: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}.",
            hint="Server and runner must be of one version.",
        ) from None


def _fail(reporter: Reporter, failure: Failure) -> ExitCode:
    reporter.last_word(failure)
    return ExitCode.RETRYABLE if failure.retryable else ExitCode.FAILED


@contextlib.contextmanager
def _own_stdout() -> Iterator[TextIO]:
    """Keep stdout for reports: what libraries print goes to stderr, that of their C code too."""
    own = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    with os.fdopen(own, "w") as lines:
        yield lines


def _stop_on_stdin_eof() -> None:
    # Unbuffered: Python aborts at its end when a thread holds the lock of a buffered stdin.
    while os.read(sys.stdin.fileno(), 4096):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    # The signal is handled between two steps of Python code; a long step in a library must not outlive the parent.
    time.sleep(_STOP_GRACE_SECONDS)
    os._exit(ExitCode.RETRYABLE)


def _on_sigterm(*_: object) -> NoReturn:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second one must not interrupt the cleaning up
    raise StoppedError


_FULL = {errno.ENOSPC, errno.EDQUOT}
_NO_SPACE = Failure(
    code=FailureCode.INSUFFICIENT_STORAGE,
    message="The disk that holds the job's files is full.",
    hint="Free some space in the server's data directory, then start the job again.",
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


if __name__ == "__main__":
    sys.exit(main())
