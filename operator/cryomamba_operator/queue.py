"""A work queue of keys: each at most once, retried with growing pauses, asked to come back at a time."""

import asyncio
import logging
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable

from cryomamba_crds.ids import Key

logger = logging.getLogger(__name__)

FIRST_BACKOFF = 0.25
LONGEST_BACKOFF = 60.0


class UnavailableError(Exception):
    """The API server cannot be reached: no fault of the key, and no other key would fare better."""


class WorkQueue:
    """Level-triggered: a key says that something about it may have changed, not what.

    A key that is added while it waits is there once; one that is added while it is worked on is worked on again
    afterwards, and never by two workers at once.

    Args:
        monotonic: Returns seconds that only grow.
        pause: Seconds between tries to reach an API server that does not answer; one worker's, all of them try.
        jitter: Returns a factor for each pause, so that keys that failed together do not come back together.
    """

    def __init__(
        self,
        *,
        monotonic: Callable[[], float] = time.monotonic,
        pause: float = 1.0,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25),  # noqa: S311 - no secret
    ) -> None:
        self._monotonic = monotonic
        self._pause = pause
        self._jitter = jitter
        self._ready: deque[Key] = deque()
        self._since: dict[Key, float] = {}
        self._working: dict[Key, float] = {}
        self._failures: dict[Key, int] = {}
        self._timers: dict[Key, asyncio.TimerHandle] = {}
        self._filled = asyncio.Event()
        self._reachable = True

    def __len__(self) -> int:
        """Return how many keys wait for a worker."""
        return len(self._ready)

    @property
    def oldest_seconds(self) -> float:
        """How long the oldest key has waited or been worked on; 0 where there is none."""
        times = [*self._since.values(), *self._working.values()]
        return self._monotonic() - min(times) if times else 0.0

    def add(self, key: Key) -> None:
        """Let a key be worked on as soon as a worker is free."""
        if key in self._since:
            return
        self._since[key] = self._monotonic()
        if key not in self._working:
            self._ready.append(key)
            self._filled.set()

    def add_later(self, key: Key, seconds: float) -> None:
        """Let a key be worked on after a while; only the last such wish of a key counts."""
        self.cancel_timer(key)
        self._timers[key] = asyncio.get_running_loop().call_later(max(seconds, 0.0), self._due, key)

    def cancel_timer(self, key: Key) -> None:
        """Take back a wish to be worked on later."""
        if timer := self._timers.pop(key, None):
            timer.cancel()

    async def work(self, reconcile: Callable[[Key], Awaitable[None]]) -> None:
        """Work on keys for ever; run as many of these as there are to be workers.

        An exception that `reconcile` raises is logged, and its key comes back after a pause that doubles each time.
        """
        while True:
            key = await self._take()
            try:
                await reconcile(key)
            except UnavailableError as error:
                if self._reachable:  # one line an outage, not one a worker and second
                    logger.warning("the API server cannot be reached and is tried again: %s", error)
                    self._reachable = False
                self._done(key)
                self.add(key)
                await asyncio.sleep(self._pause * self._jitter())
            except Exception:
                self._failures[key] = self._failures.get(key, 0) + 1
                seconds = min(FIRST_BACKOFF * 2 ** (self._failures[key] - 1), LONGEST_BACKOFF) * self._jitter()
                logger.exception("%s: reconciling failed and is tried again in %.1f s", key, seconds)
                self._done(key)
                self.add_later(key, seconds)
            else:
                self._reachable = True
                self._failures.pop(key, None)
                self._done(key)

    async def _take(self) -> Key:
        while not self._ready:
            self._filled.clear()
            await self._filled.wait()
        key = self._ready.popleft()
        del self._since[key]
        self._working[key] = self._monotonic()
        return key

    def _done(self, key: Key) -> None:
        del self._working[key]
        if key in self._since:  # it was added while it was worked on
            self._ready.append(key)
            self._filled.set()

    def _due(self, key: Key) -> None:
        del self._timers[key]
        self.add(key)
