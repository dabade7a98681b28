"""Writes what a runner reports into the status of its job, in the background, and never in the way of the work."""

import logging
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from cryomamba_crds.failures import Failure, FailureCode, FailureError
from cryomamba_crds.report import Progress, Report
from cryomamba_inference.pod.api_server import Answer, StatusWriter
from cryomamba_inference.pod.last_word import write_last_word
from cryomamba_inference.pod.status import Pace, StatusChanges

_log = logging.getLogger(__name__)

_INTRODUCTION_SECONDS = 600.0
"""For how long an operator that is away, or an API server, is waited for before there is anything to lose."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.2, 2.0
_LAST_SECONDS = 30.0
_LONGEST_RETRY_AFTER = 60.0
_UNPROCESSABLE = 422
_OVER = "the job has finished"
"""What the admission policy says of a job that is over; nothing changes it any more."""


class StatusReporter:
    """Implements `report.Reporter`.

    Args:
        writer: Takes the patches.
        termination_log: Takes the last word.
        clock: Seconds on a clock that does not jump.
        now: The time in UTC.
        sleep: Waits.
    """

    def __init__(
        self,
        writer: StatusWriter,
        termination_log: Path,
        *,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._writer = writer
        self._termination_log = termination_log
        self._clock = clock
        self._sleep = sleep
        self._changes = StatusChanges(now)
        self._pace = Pace(clock())
        self._not_before = 0.0
        self._complaint = ""
        self._told: tuple[int, int] = (0, 0)
        self._woken = threading.Condition()
        self._ending = False
        self._thread = threading.Thread(target=self._write_for_ever, name="status", daemon=True)

    def introduce(self) -> int:
        """Say that the pod is there until that is accepted, which it is once the operator has seen the pod.

        Returns:
            The number of the attempt that this pod is.

        Raises:
            FailureError: It is not accepted for minutes, or the job is over.
        """
        deadline = self._clock() + _INTRODUCTION_SECONDS
        pause = _FIRST_PAUSE
        while True:
            self.send(Report(progress=Progress(current_step=1, percentage=0, message="Starting…")))
            answer = self._write()
            if answer.attempt is not None:
                self._pace = Pace(self._clock())  # the attempt begins now; what was refused before counts for nothing
                self._pace.wrote(self._clock(), accepted=True)
                return answer.attempt
            if _OVER in answer.message:
                raise _not_needed(answer.message)
            if self._clock() >= deadline:
                raise _not_let(answer)
            self._sleep(max(pause, min(answer.retry_after, _LONGEST_RETRY_AFTER)))
            pause = min(2 * pause, _LONGEST_PAUSE)

    def start(self) -> None:
        """Write from now on by itself."""
        self._thread.start()

    def send(self, report: Report) -> None:
        """Take in a report; it is written when it is time."""
        if report.progress:
            self._log(report.progress)
        with self._woken:
            self._changes.add(report)
            self._woken.notify()

    def last_word(self, failure: Failure) -> None:
        """Leave the reason why there will be no result."""
        write_last_word(failure, self._termination_log)

    def finish(self) -> None:
        """Write what has not been written yet, at once; give up on it after half a minute: the result is stored."""
        deadline = self._clock() + _LAST_SECONDS
        with self._woken:
            self._ending = True
            self._woken.notify()
        if self._thread.is_alive():
            self._thread.join(_LAST_SECONDS)
        while True:
            answer = self._write()
            if answer.accepted or self._clock() >= deadline or _OVER in answer.message:
                return
            self._sleep(max(1.0, min(answer.retry_after, _LONGEST_PAUSE)))

    def tick(self) -> float | None:
        """Write what has changed, if it is time; return in how many seconds to look again, None: after a report."""
        wait = max(self._pace.next(), self._not_before) - self._clock()
        if wait > 0:
            return wait
        self._write()
        return None

    def _write_for_ever(self) -> None:
        while True:
            wait = self.tick()
            with self._woken:
                if self._ending:
                    return
                if wait is not None or not self._changes.pending:
                    self._woken.wait(wait)

    def _write(self) -> Answer:
        """Write what has changed."""
        with self._woken:
            patch = self._changes.take()
        if not patch:
            return Answer(accepted=True)
        answer = self._writer.patch(patch)
        self._pace.wrote(self._clock(), accepted=answer.accepted)
        if answer.accepted:
            self._complain("")
            return answer
        self._complain(f"{answer.status or ''} {answer.message}".strip())
        self._not_before = self._clock() + min(answer.retry_after, _LONGEST_RETRY_AFTER)
        if answer.status != _UNPROCESSABLE:  # what is malformed does not get better
            with self._woken:
                self._changes.give_back(patch)
        return answer

    def _complain(self, why: str) -> None:
        """Log a refusal once, however often it comes."""
        if why and why != self._complaint:
            _log.warning("a report is refused, and the work goes on: %s", why)
        if not why and self._complaint:
            _log.info("reports are accepted again")
        self._complaint = why

    def _log(self, progress: Progress) -> None:
        told = progress.current_step, progress.percentage // 10
        if told != self._told:
            self._told = told
            _log.info("%3d %%  %s", progress.percentage, progress.message)


def _not_needed(words: str) -> FailureError:
    return FailureError(
        FailureCode.CONFLICT,
        f"This attempt is not needed: {words}.",
        hint="Nothing is to be done.",
        retryable=True,  # it says nothing against the job
    )


def _not_let(answer: Answer) -> FailureError:
    return FailureError(
        FailureCode.SERVICE_UNAVAILABLE,
        f"The pod was not let report to its job for {_INTRODUCTION_SECONDS:.0f} s: "
        f"{answer.status or 'no HTTP status'}: {answer.message or 'the operator has not counted the attempt'}.",
        hint="Whoever runs the cluster can see whether the operator runs, and whether the pods' service account has "
        "the right to patch segmentationjobs/status.",
    )
