"""Asks the driver without waiting for it for ever: a call into one that hangs never returns."""

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from cryomamba_apiserver.gpus.census import GpuCensus, GpuSource, of_this_machine
from cryomamba_apiserver.gpus.service import GpuInventory

_log = logging.getLogger(__name__)


class PatientReader:
    """Reads in a thread, one at a time, and tells of a problem where that takes too long.

    A driver that hangs so costs one thread, no more, and what asks later joins the same reading: it is told the GPUs as
    soon as the driver is back.

    Args:
        read: Asks the driver, for as long as it takes.
        seconds: How long an answer is waited for.
    """

    def __init__(self, read: Callable[[], GpuInventory], seconds: float) -> None:
        self._read = read
        self._seconds = seconds
        self._reading: Future[GpuInventory] | None = None

    async def __call__(self) -> GpuInventory:
        """Return the GPUs, or that the driver does not answer."""
        if self._reading is None or self._reading.done():
            self._reading = self._begin()
        try:
            async with asyncio.timeout(self._seconds):
                # A reading that runs cannot be cancelled: giving up here leaves it to whoever asks next.
                return await asyncio.wrap_future(self._reading)
        except TimeoutError:
            _log.warning("the NVIDIA driver has not answered within %g s", self._seconds)
            problem = f"the NVIDIA driver has not answered within {self._seconds:g} s"
            return GpuInventory(None, (), (problem,))

    def _begin(self) -> "Future[GpuInventory]":
        reading: Future[GpuInventory] = Future()
        reading.set_running_or_notify_cancel()

        def run() -> None:
            try:
                reading.set_result(self._read())
            except BaseException as error:  # noqa: BLE001 - raised where the result is awaited
                reading.set_exception(error)

        # A daemon: those of a pool would be waited for when the process ends.
        threading.Thread(target=run, name="gpus", daemon=True).start()
        return reading


def local_gpus(read: Callable[[], GpuInventory], seconds: float) -> GpuSource:
    """Return the source of a server that runs jobs on its own machine."""
    reader = PatientReader(read, seconds)

    async def census() -> GpuCensus:
        return of_this_machine(await reader())

    return census
