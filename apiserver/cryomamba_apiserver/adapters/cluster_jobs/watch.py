"""Keeps the mirror as Kubernetes is: one list, then one watch, and a list again where the watch cannot go on."""

import asyncio
import contextlib
import logging
import random
from typing import TYPE_CHECKING, Any

from cryomamba_apiserver.adapters.cluster_jobs.client import CONNECTED, RIGHTS, KubernetesApi
from cryomamba_apiserver.adapters.cluster_jobs.mapping import Entry, entry_of
from cryomamba_apiserver.adapters.cluster_jobs.mirror import Mirror
from cryomamba_apiserver.adapters.cluster_jobs.refusals import (
    Asked,
    ExpiredError,
    NotAllowedError,
    UnreachableError,
    not_allowed,
)
from cryomamba_apiserver.ports.job_store import JobsUnavailableError
from cryomamba_crds.resource import GROUP, PLURAL

if TYPE_CHECKING:
    from collections.abc import Mapping

_log = logging.getLogger(__name__)

_WATCH_SECONDS = 30
"""How long one watch goes on. A connection that died silently is noticed after this time, and a little more."""
_GRACE_SECONDS = 5.0
_SHORTEST_WATCH = 1.0
_FIRST_PAUSE = 0.2
_LONGEST_PAUSE = 5.0


class JobWatch:
    """One watch, however many ask for jobs.

    Args:
        api: Kubernetes.
        mirror: Gets what is told.
        seconds: How long one watch goes on.
        grace: How much longer is waited for Kubernetes to end it.
    """

    def __init__(
        self, api: KubernetesApi, mirror: Mirror, seconds: int = _WATCH_SECONDS, grace: float = _GRACE_SECONDS
    ) -> None:
        self._api = api
        self._mirror = mirror
        self._seconds = seconds
        self._grace = grace
        self._version: int | None = None  # from which the watch goes on
        self._seen = 0  # the newest that was told
        self._look_again = 0.0
        self._pause = _FIRST_PAUSE
        self._listed = asyncio.Event()
        self._trouble: JobsUnavailableError | None = None
        self._missing: JobsUnavailableError | None = None
        self.priorities: Mapping[str | None, int] = {}
        """Values of the priority classes; None stands for jobs that name none."""
        self.lists = 0
        """How often everything was listed."""

    @property
    def trouble(self) -> JobsUnavailableError | None:
        """What keeps the mirror from being as Kubernetes is, or jobs from being created; None where all is well."""
        if self._trouble is None and not self._listed.is_set():
            return JobsUnavailableError("Jobs are being listed.", hint="Try again in a moment.")
        return self._trouble or self._missing

    def check_listed(self) -> None:
        """Return where the mirror has been filled once; raise JobsUnavailableError."""
        if not self._listed.is_set():
            raise self.trouble or JobsUnavailableError("Jobs are being listed.", hint="Try again in a moment.")

    async def run(self) -> None:
        """Follow for ever, whatever Kubernetes does meanwhile."""
        while True:
            try:
                clock = asyncio.get_running_loop().time
                if self._version is None or clock() >= self._look_again:
                    await self._look_around()
                    self._look_again = clock() + self._seconds
                if self._version is None:
                    await self._list()
                begun = clock()
                await self._follow()
                if clock() < begun + _SHORTEST_WATCH:  # something in between ends all watches at once
                    await self._rest()
            except UnreachableError as error:
                self._note(error)
                await self._rest()
            except JobsUnavailableError as error:
                self._note(error)
                self._version = None
                await self._rest()
            except ExpiredError as error:
                _log.info("the watch of jobs cannot go on, they are listed again: %s", error)
                self._version = None
                await self._rest()
            except (ConnectionError, TimeoutError) as error:
                _log.info("the watch of jobs broke off and goes on: %s", error or type(error).__name__)
                await self._rest()
            except ValueError:  # of an event that is no JSON, or longer than any may be: not to be asked for again
                _log.exception("the watch of jobs cannot be read, they are listed again")
                self._version = None
                await self._rest()

    async def _look_around(self) -> None:
        """Learn what changes rarely: whether the namespace is there, the server's rights, the priority classes."""
        with contextlib.suppress(NotAllowedError):  # then a creation tells
            await self._api.namespace_is_there()
        allowed = await asyncio.gather(*map(self._api.may, RIGHTS))
        missing = [verb for verb, may in zip(RIGHTS, allowed, strict=True) if not may]
        resource = f"{PLURAL}.{GROUP}"
        self._missing = not_allowed(Asked(", ".join(missing), resource, self._api.namespace)) if missing else None
        try:
            self.priorities = await self._api.priorities()
        except NotAllowedError as error:
            # Places in the queue are told as if no class were known; all else goes on.
            _log.warning("%s %s", error, error.hint)

    async def _list(self) -> None:
        entries: dict[str, Entry] = {}
        version = 0
        async for page in self._api.list_jobs():
            version = page.version
            for item in page.items:
                if entry := _read(item):
                    entries[entry.uid] = entry
        if version < self._seen:
            _log.warning("Kubernetes has gone back to an earlier time, from version %s to %s", self._seen, version)
            self._mirror.clear()
        for entry in entries.values():
            self._mirror.put(entry)
        self._mirror.retain(entries.keys(), version)
        self._version = self._seen = version
        self.lists += 1
        self._listed.set()
        self._well()

    async def _follow(self) -> None:
        if self._version is None:
            raise ValueError("nothing has been listed")
        async with (
            asyncio.timeout(self._seconds + self._grace),
            contextlib.aclosing(self._api.watch_jobs(self._version, self._seconds)) as events,
        ):
            async for event in events:
                self._take(event["type"], event["object"])

    def _take(self, kind: str, thing: dict[str, Any]) -> None:
        if kind == CONNECTED:
            self._well()
            return
        if kind == "ERROR":
            raise ExpiredError(str(thing.get("message", thing)))
        self._version = self._seen = int(thing["metadata"]["resourceVersion"])
        self._pause = _FIRST_PAUSE
        if kind == "DELETED":
            self._mirror.drop(thing["metadata"]["name"], thing["metadata"]["uid"])
        elif kind != "BOOKMARK" and (entry := _read(thing)):
            self._mirror.put(entry)

    def _note(self, error: JobsUnavailableError) -> None:
        if str(error) != str(self._trouble):
            _log.error("jobs cannot be followed: %s %s", error, error.hint)
        self._trouble = error

    def _well(self) -> None:
        if self._trouble is not None:
            _log.warning("jobs are followed again")
        self._trouble = None

    async def _rest(self) -> None:
        # Not all servers of a cluster at once.
        await asyncio.sleep(self._pause * random.uniform(0.5, 1.0))  # noqa: S311 - no secret
        self._pause = min(self._pause * 2, _LONGEST_PAUSE)


def _read(raw: dict[str, Any]) -> Entry | None:
    """Return a job as the mirror keeps it; None where it cannot be read, which the log tells."""
    try:
        return entry_of(raw)
    except (KeyError, TypeError, ValueError):
        _log.exception("the job %s cannot be read and is not shown", raw.get("metadata", {}).get("name"))
        return None
