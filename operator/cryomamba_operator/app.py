"""Puts the operator together and runs it: watches, workers, resync, Events and metrics in one event loop."""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping
from datetime import UTC, datetime
from typing import Any

import kopf
from prometheus_client import start_http_server

from cryomamba_operator.admission import Admission
from cryomamba_operator.cluster import KubernetesCluster
from cryomamba_operator.credentials import OwnCredentials, SharedCredentials
from cryomamba_operator.handlers import closed_watches, watch_registry, watch_settings
from cryomamba_operator.intake import Intake
from cryomamba_operator.metrics import Metrics
from cryomamba_operator.mirror import Mirror
from cryomamba_operator.ports import Cluster, RefusedError
from cryomamba_operator.queue import UnavailableError, WorkQueue
from cryomamba_operator.reconcile import Reconciler
from cryomamba_operator.recorder import Recorder
from cryomamba_operator.resync import resync
from cryomamba_operator.settings import Settings
from cryomamba_operator.sts import TokenService

logger = logging.getLogger(__name__)

_PAUSE = 1.0


class UnhealthyError(Exception):
    """The operator should be restarted."""


class Operator:
    """The parts and what runs them.

    Args:
        settings: Of the installation.
        cluster: The API server.
        pod_template: Parts of a pod template that are merged over the operator's own.
        service: Gives jobs temporary credentials, where the settings want it.
        clock: Returns the time, with a time zone.
        monotonic: Returns seconds that only grow.
    """

    def __init__(
        self,
        settings: Settings,
        cluster: Cluster,
        pod_template: Mapping[str, Any],
        service: TokenService | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._cluster = cluster
        self._admission = Admission(limit=settings.max_active_jobs or 1)
        self._queue = WorkQueue(monotonic=monotonic)
        self._mirror = Mirror()
        self._recorder = Recorder(cluster)
        self.intake = Intake(self._mirror, self._admission, self._queue)
        self.metrics = Metrics()
        self.metrics.watch(self._mirror, self._queue, self._admission)
        self.reconciler = Reconciler(
            cluster=cluster,
            mirror=self._mirror,
            intake=self.intake,
            admission=self._admission,
            queue=self._queue,
            recorder=self._recorder,
            metrics=self.metrics,
            credentials=OwnCredentials(service, cluster, settings, clock) if service else SharedCredentials(),
            settings=settings,
            pod_template=pod_template,
            clock=clock,
        )

    async def start(self) -> None:
        """Take in everything there is, so that the first job is chosen among all of them.

        Raises:
            GoneError: The CustomResourceDefinition is not installed.
        """
        while True:
            try:
                await self._resync()
            except UnavailableError as error:
                logger.warning("the API server cannot be reached and is tried again: %s", error)
                await asyncio.sleep(_PAUSE)
            else:
                return

    def loops(self) -> list[Coroutine[None, None, None]]:
        """Return what runs for ever: workers, resync, Events."""
        workers = [self._queue.work(self.reconciler.reconcile) for _ in range(self._settings.workers)]
        return [*workers, self._recorder.work(), self._resync_for_ever()]

    def check_health(self) -> None:
        """Raise `UnhealthyError` where a key has waited for longer than anything should take."""
        seconds = self._queue.oldest_seconds
        if seconds > self._settings.liveness_seconds:
            raise UnhealthyError(f"a SegmentationJob has waited for {seconds:.0f} s to be looked at")

    async def _resync(self) -> None:
        await resync(self._cluster, self._mirror, self.intake, self._admission, self._settings)

    async def _resync_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self._settings.resync_seconds)
            try:
                await self._resync()
            except (UnavailableError, RefusedError) as error:
                logger.warning("the periodic list of everything failed: %s", error)
                self.metrics.resyncs.labels("error").inc()
            else:
                self.metrics.resyncs.labels("success").inc()


async def run(
    settings: Settings, cluster: KubernetesCluster, pod_template: Mapping[str, Any], service: TokenService | None
) -> None:
    """Run the operator until a signal or kopf ends it.

    Raises:
        GoneError: The CustomResourceDefinition is not installed, or no longer.
    """
    operator = Operator(settings, cluster, pod_template, service)
    await operator.start()
    if settings.metrics_port:
        start_http_server(settings.metrics_port, registry=operator.metrics.registry)
    async with closed_watches():
        # These come first: when kopf stops, it ends every task that began after it.
        tasks = [asyncio.create_task(loop) for loop in operator.loops()]
        watches = kopf.operator(
            registry=watch_registry(operator.intake, cluster.credentials, operator.check_health),
            settings=watch_settings(settings),
            namespaces=settings.namespaces,
            clusterwide=not settings.namespaces,
            liveness_endpoint=f"http://0.0.0.0:{settings.health_port}/healthz" if settings.health_port else None,
        )
        tasks.append(asyncio.create_task(watches))
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended = [task for task in tasks if task.done()]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()
