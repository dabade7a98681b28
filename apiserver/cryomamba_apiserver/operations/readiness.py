"""Asks everything that the server needs whether it is there."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

_log = logging.getLogger(__name__)

_KEPT_SECONDS = 1.0

Check = Callable[[], Awaitable[object]]


class Readiness:
    """What is not ready, and why.

    Probes carry no token, so an answer is kept for a second: a flood of them must not become one of questions.

    Args:
        checks: What to ask, by a name that may be shown to anybody; whatever is raised means "not ready".
        deadline: How long each may take, in seconds.
        telling: Errors whose own words anybody may read.
        clock: Seconds from some time on.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        deadline: float,
        telling: tuple[type[Exception], ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._checks = checks
        self._deadline = deadline
        self._telling = telling
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._problems: dict[str, str] = {}

    async def problems(self) -> dict[str, str]:
        """Return what is not ready and why, in words that hold no secret."""
        async with self._asking:
            if self._clock() - self._asked_at >= _KEPT_SECONDS:
                answers = await asyncio.gather(*(self._ask(name, check) for name, check in self._checks.items()))
                self._problems = {name: problem for name, problem in zip(self._checks, answers, strict=True) if problem}
                self._asked_at = self._clock()
            return self._problems

    async def _ask(self, name: str, check: Check) -> str | None:
        try:
            async with asyncio.timeout(self._deadline):
                await check()
        except TimeoutError:
            _log.warning("not ready: %s did not answer within %g s", name, self._deadline)
            return f"did not answer within {self._deadline:g} s"
        except Exception as error:  # noqa: BLE001 - a check may fail in any way, and none is worth a failed probe
            if isinstance(error, self._telling):
                _log.warning("not ready: %s: %s", name, error)
                return str(error)
            _log.warning("not ready: %s", name, exc_info=error)
            return "does not work; the server's log says why"
        return None
