"""What the runner tells the outside: reports as lines of JSON, and how far it is in percent."""

import math
from collections.abc import Callable
from typing import Protocol, TextIO

from cryomamba_crds.failures import Failure
from cryomamba_crds.report import STEPS, Progress, Report

# Where each of the five steps begins in percent of the whole job; measured on the demo and on larger volumes,
# inference is nearly everything. The last number is the end.
_STEP_STARTS = (0, 1, 6, 92, 98, 100)
_INFER = 3


class Reporter(Protocol):
    """Takes reports; never raises because somebody did not listen."""

    def send(self, report: Report) -> None:
        """Tell one change."""

    def last_word(self, failure: Failure) -> None:
        """Tell why there will be no result."""


class LineReporter:
    """Writes one line of JSON a report."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def send(self, report: Report) -> None:
        """Write a report."""
        self._line(report.model_dump_json(exclude_none=True))

    def last_word(self, failure: Failure) -> None:
        """Write a failure: the last line, and no report."""
        self._line(failure.model_dump_json())

    def _line(self, text: str) -> None:
        self._stream.write(text + "\n")
        self._stream.flush()


class ProgressMeter:
    """Turns steps and tiles into a percentage that never falls, and a remaining time.

    Args:
        now: Seconds on a clock that does not jump.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._inference_began: float | None = None
        self._percentage = 0

    def step(self, number: int) -> Progress:
        """Return the progress at the beginning of a step (1 to 5)."""
        return self._progress(number, _STEP_STARTS[number - 1], f"{STEPS[number - 1]}…", None)

    def tile(self, done: int, total: int) -> Progress:
        """Return the progress after `done` of `total` tiles."""
        now = self._now()
        if self._inference_began is None:
            self._inference_began = now
        start, end = _STEP_STARTS[_INFER - 1], _STEP_STARTS[_INFER]
        # The first tile is when the clock starts, so that warming up does not count.
        pace = (now - self._inference_began) / (done - 1) if done > 1 else None
        remaining = None if pace is None else math.ceil(pace * (total - done) * 100 / end)
        return self._progress(
            _INFER, start + (end - start) * done // total, f"Processing tile {done}/{total}", remaining
        )

    def done(self) -> Progress:
        """Return the progress at the end."""
        return self._progress(len(STEPS), 100, "Done", 0)

    def _progress(self, step: int, percentage: int, message: str, eta_seconds: int | None) -> Progress:
        self._percentage = max(self._percentage, percentage)
        return Progress(current_step=step, percentage=self._percentage, message=message, eta_seconds=eta_seconds)
