"""`python -m cryomamba_inference TASK.json`: do one task; reports, and at last a failure, are lines on stdout.

`python -m cryomamba_inference pod`: do the job that the operator has handed this pod; see `cryomamba_inference.pod`.
"""

import argparse
import contextlib
import logging
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from pydantic import ValidationError

from cryomamba_crds.failures import ExitCode, FailureCode, FailureError
from cryomamba_crds.task import Task
from cryomamba_inference.ending import conclude, stop_on_sigterm
from cryomamba_inference.report import LineReporter, Reporter

_STOP_GRACE_SECONDS = 4.0
POD = "pod"


def main() -> int:
    """Return how the process is to end; see `ExitCode`."""
    parser = argparse.ArgumentParser(prog="python -m cryomamba_inference", description=__doc__)
    parser.add_argument("task", help=f"file with a task as JSON; - reads it from stdin; `{POD}`: the pod's own job")
    parser.add_argument(
        "--stop-on-stdin-eof",
        action="store_true",
        help="stop when stdin ends, for a parent whose death is not to be outlived",
    )
    arguments = parser.parse_args()
    stop_on_sigterm()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("urllib3").setLevel(logging.ERROR)  # each try of a store that is away would be a line
    if arguments.task == POD:
        from cryomamba_inference.pod.work import run_pod  # noqa: PLC0415 - a workstation's runner has no use for it

        run_pod(os.environ)
    with _own_stdout() as lines:
        reporter = LineReporter(lines)

        def work() -> None:
            if arguments.stop_on_stdin_eof:
                threading.Thread(target=_stop_on_stdin_eof, daemon=True, name="stdin").start()
            _run(_read_task(arguments.task), reporter)

        return conclude(work, reporter.last_word)


def _run(task: Task, reporter: Reporter) -> None:
    # Imported here: torch takes seconds to import, and a bad task is told before.
    from cryomamba_inference.run import Runner  # noqa: PLC0415
    from cryomamba_inference.storage import open_storage  # noqa: PLC0415
    from cryomamba_inference.tuning import read_tuning  # noqa: PLC0415

    storage, tuning = open_storage(task.store, os.environ), read_tuning(os.environ)
    with tempfile.TemporaryDirectory(prefix="cryomamba-") as scratch:
        Runner(storage, reporter, Path(scratch), tuning=tuning).run(task)


def _read_task(path: str) -> Task:
    text = sys.stdin.read() if path == "-" else Path(path).read_text()
    try:
        return Task.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"The task is not valid: {'.'.join(str(part) for part in first['loc'])}: {first['msg']}.",
            hint="Server and runner must be of one version.",
        ) from None


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


if __name__ == "__main__":
    sys.exit(main())
