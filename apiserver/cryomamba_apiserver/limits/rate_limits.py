"""The limits: requests a minute, jobs an hour, uploads and sockets at once."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from math import ceil
from typing import TypeVar

from limits.aio.storage import Storage
from limits.errors import StorageError

from cryomamba_apiserver.limits.quota import Quota, too_many_at_once, too_many_in_window
from cryomamba_apiserver.limits.slots import Lease, Slots

_log = logging.getLogger(__name__)

_MINUTE, _HOUR = 60, 3600
_RETRY_SECONDS = 5.0
LEASE_SECONDS = 30.0
"""How long what is in flight still counts after its server was killed."""

_Result = TypeVar("_Result")


@dataclass(frozen=True)
class Allowances:
    """How much each subject of a token, or each address without one, may ask for."""

    requests_per_minute: int
    jobs_per_hour: int
    uploads_in_flight: int
    sockets: int


@dataclass(frozen=True)
class Counters:
    """What counts: windows, slots in flight, and how its connections are closed."""

    windows: Storage
    slots: Slots
    close: Callable[[], Awaitable[None]] | None = None


@dataclass
class JobCount:
    """A job that is being counted."""

    made: bool = True
    """Whether there is one more for it; where not, nothing is counted."""


class RateLimits:
    """Counts what everybody asks for, and refuses what is too much.

    Where the servers share their counts and the shared store does not answer, each goes on with its own: the limits
    protect the server from too much work, not the data from strangers, so that losing them must not stop the service,
    and a limit multiplied by the number of servers is still a limit. It is logged, and `trouble` says it.
    """

    def __init__(
        self,
        allowances: Allowances,
        own: Counters,
        shared: Counters | None = None,
        *,
        clock: Callable[[], float],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what is allowed and what counts; `clock` in seconds of the Unix epoch."""
        self._allowances = allowances
        self._own = own
        self._shared = shared
        self._clock = clock
        self._monotonic = monotonic
        self._away_until: float | None = None
        self._held: set[Lease] = set()
        self._releases: set[asyncio.Task[None]] = set()

    @property
    def trouble(self) -> str | None:
        """What keeps the limits from being the ones that were asked for, None where nothing does."""
        return None if self._away_until is None else "the store of the rate limits does not answer"

    async def request(self, who: str) -> Quota:
        """Count a request; raise RateLimitedError where it is one too many."""
        limit = self._allowances.requests_per_minute
        count, ends = await self._count(f"requests:{who}", _MINUTE)
        if count > limit:
            raise too_many_in_window(limit, _MINUTE, ends, self._clock(), "requests a minute")
        return Quota(limit, limit - count, ceil(ends))

    async def quota(self, who: str) -> Quota:
        """Return what is left of somebody's requests, without counting one."""
        limit, key = self._allowances.requests_per_minute, f"requests:{who}"

        async def look(counters: Counters) -> tuple[int, float]:
            return await counters.windows.get(key), await counters.windows.get_expiry(key)

        count, ends = await self._ask(look)
        return Quota(limit, max(0, limit - count), ceil(ends if count else self._clock() + _MINUTE))

    @contextlib.asynccontextmanager
    async def job(self, who: str) -> AsyncIterator[JobCount]:
        """Count the job that is created meanwhile, unless that fails or it turns out to have been there before.

        Raises RateLimitedError on entering.
        """
        limit = self._allowances.jobs_per_hour
        count, ends = await self._count(f"jobs:{who}", _HOUR)
        if count > limit:
            raise too_many_in_window(limit, _HOUR, ends, self._clock(), "jobs an hour")
        job = JobCount()
        try:
            yield job
        except BaseException:
            job.made = False
            raise
        finally:
            if not job.made:
                # Where the window ended in between, the next one has one more: better than counting what never was.
                await self._count(f"jobs:{who}", _HOUR, -1)

    def upload(self, who: str) -> AbstractAsyncContextManager[None]:
        """Hold one of the uploads in flight; raises RateLimitedError on entering where all are taken."""
        return self._hold(f"uploads:{who}", self._allowances.uploads_in_flight, "uploads")

    def socket(self, who: str) -> AbstractAsyncContextManager[None]:
        """Hold one of the sockets; raises RateLimitedError on entering where all are taken."""
        return self._hold(f"sockets:{who}", self._allowances.sockets, "WebSocket connections")

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep what is in flight from lapsing for as long as the server runs."""
        renewing = asyncio.create_task(self._renew(), name="leases of the rate limits")
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, *self._releases, return_exceptions=True)
            if self._shared and self._shared.close:
                await self._shared.close()

    async def _count(self, key: str, seconds: int, amount: int = 1) -> tuple[int, float]:
        """Return a window's count with this, and when it ends in seconds of the Unix epoch."""

        async def add(counters: Counters) -> tuple[int, float]:
            return await counters.windows.incr(key, seconds, amount), await counters.windows.get_expiry(key)

        return await self._ask(add)

    @contextlib.asynccontextmanager
    async def _hold(self, key: str, limit: int, what: str) -> AsyncIterator[None]:
        async def take(counters: Counters) -> tuple[Counters, Lease | None]:
            return counters, await counters.slots.take(key, limit)

        counters, lease = await self._ask(take)
        if lease is None:
            raise too_many_at_once(limit, what)
        if counters is self._shared:
            self._held.add(lease)
        try:
            yield
        finally:
            self._held.discard(lease)
            # Who is being cancelled may not be able to wait: the slot is given back all the same.
            release = asyncio.create_task(self._release(counters, lease))
            self._releases.add(release)
            release.add_done_callback(self._releases.discard)
            await asyncio.shield(release)

    async def _release(self, counters: Counters, lease: Lease) -> None:
        if counters is self._shared and self._is_away():
            return  # it lapses
        try:
            await counters.slots.release(lease)
        except StorageError as error:
            self._lost(error)

    async def _renew(self) -> None:
        while self._shared:
            await asyncio.sleep(LEASE_SECONDS / 3)
            held = frozenset(self._held)
            if held:
                await self.renew(held)

    async def renew(self, held: frozenset[Lease]) -> None:
        """Renew leases of the shared store, as `running` does from time to time."""

        async def extend(counters: Counters) -> None:
            await counters.slots.renew(held)

        await self._ask(extend)

    async def _ask(self, question: Callable[[Counters], Awaitable[_Result]]) -> _Result:
        """Return the answer of the shared counters, or of this server's own where there are none or they are away."""
        if self._shared and not self._is_away():
            if self._away_until is not None:
                self._away_until = self._monotonic() + _RETRY_SECONDS  # one asks whether it is back, the others go on
            try:
                answer = await question(self._shared)
            except StorageError as error:
                self._lost(error)
            else:
                if self._away_until is not None:
                    self._away_until = None
                    _log.warning("the rate limits' store answers again")
                return answer
        return await question(self._own)

    def _is_away(self) -> bool:
        return self._away_until is not None and self._monotonic() < self._away_until

    def _lost(self, error: StorageError) -> None:
        if self._away_until is None:
            # The error of the client names host and port; it never has the password of the URL.
            _log.error("the rate limits' store does not answer, each server counts alone: %s", error.storage_error)
        self._away_until = self._monotonic() + _RETRY_SECONDS
