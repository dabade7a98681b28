"""Writes Kubernetes Events in the background: they are for people, and nothing waits for them."""

import asyncio
import logging
from collections.abc import Mapping
from typing import Any

from cryomamba_operator.ports import Cluster, ConflictError, GoneError, RefusedError
from cryomamba_operator.queue import UnavailableError

logger = logging.getLogger(__name__)

_CAPACITY = 1000
_PAUSE = 2.0


class Recorder:
    """A bounded queue of Events; where the API server takes them too slowly, the newest are dropped and logged.

    Args:
        cluster: Takes the Events.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._events: asyncio.Queue[Mapping[str, Any]] = asyncio.Queue(_CAPACITY)
        self._dropping = False

    def record(self, event: Mapping[str, Any]) -> None:
        """Have an Event written soon."""
        try:
            self._events.put_nowait(event)
        except asyncio.QueueFull:
            if not self._dropping:  # one line for all that are lost until there is room again
                logger.warning("the API server takes Events too slowly; some are not written")
            self._dropping = True

    async def work(self) -> None:
        """Write Events for ever."""
        while True:
            await self._write(await self._events.get())
            self._dropping = self._dropping and not self._events.empty()

    async def _write(self, event: Mapping[str, Any]) -> None:
        while True:
            try:
                await self._cluster.create_event(event)
            except UnavailableError:
                await asyncio.sleep(_PAUSE)
            except (RefusedError, ConflictError, GoneError) as error:  # gone: its namespace is being deleted
                logger.warning("%s: the Event is refused: %s", event["metadata"]["name"], error)
                return
            else:
                return
