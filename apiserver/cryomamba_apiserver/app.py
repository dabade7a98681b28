"""Puts the server together."""

import asyncio
import contextlib
import functools
import logging
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata

from fastapi import FastAPI

from cryomamba_apiserver.adapters.local_jobs import LocalProfile
from cryomamba_apiserver.artifacts.router import router as artifacts
from cryomamba_apiserver.artifacts.service import Downloads
from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.context import Context
from cryomamba_apiserver.errors import install_error_handlers
from cryomamba_apiserver.gpus.router import router as gpus
from cryomamba_apiserver.gpus.service import GpuInventory, read_gpus
from cryomamba_apiserver.jobs.live import LiveJobs
from cryomamba_apiserver.jobs.router import polled
from cryomamba_apiserver.jobs.router import router as jobs
from cryomamba_apiserver.jobs.service import JobService
from cryomamba_apiserver.jobs.socket import router as sockets
from cryomamba_apiserver.limits.admission import Admission, RateLimitHeaders
from cryomamba_apiserver.limits.opening import open_limits
from cryomamba_apiserver.models.catalogue import Catalogue
from cryomamba_apiserver.openapi import describe, operation_id
from cryomamba_apiserver.operations.headers import allow_origins, security_headers
from cryomamba_apiserver.operations.metrics import Metrics
from cryomamba_apiserver.operations.observation import Observation
from cryomamba_apiserver.operations.probes import router as probes
from cryomamba_apiserver.operations.readiness import Readiness
from cryomamba_apiserver.ports.object_store import StorageFullError, StoreUnavailableError
from cryomamba_apiserver.profiles import Profile, cluster_profile, local_profile
from cryomamba_apiserver.settings import Settings
from cryomamba_apiserver.sweep.run import Sweep, sweep_rules, sweeping
from cryomamba_apiserver.system.router import authenticated as server_info
from cryomamba_apiserver.system.router import router as system
from cryomamba_apiserver.tokens.opening import open_authority, server_secret
from cryomamba_apiserver.uploads.router import router as uploads
from cryomamba_apiserver.uploads.service import UploadService, upload_limits

_log = logging.getLogger(__name__)

_STORE_PAUSE_SECONDS = 5


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def create_app(
    settings: Settings,
    *,
    now: Callable[[], datetime] = utc_now,
    gpus_of_this_machine: Callable[[], GpuInventory] = read_gpus,
    runner: Sequence[str] = LocalProfile.runner,
) -> FastAPI:
    """Return the app; what it does beside answering requests, it does for as long as its lifespan.

    Args:
        settings: Of the installation; whether a cluster runs the jobs, too.
        now: The clock.
        gpus_of_this_machine: Asks for the GPUs of a workstation.
        runner: The command that does a job on a workstation.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with _profile(settings, now, gpus_of_this_machine, runner) as profile:
            context = app.state.context = await _context(settings, now, profile)
            if not profile.waits_for_store:
                await context.catalogue.add_bundled()
            running = [asyncio.create_task(profile.work(), name="jobs")]
            running[0].add_done_callback(functools.partial(_stop_server_if_failed, app))
            if profile.waits_for_store:
                running.append(asyncio.create_task(_add_bundled(context.catalogue), name="bundled model"))
            try:
                async with context.limits.running(), _sweeping(settings, profile, now):
                    yield
            finally:
                context.uploads.close()
                await context.authority.close()
                for task in running:
                    task.cancel()
                await asyncio.gather(*running, return_exceptions=True)

    app = FastAPI(
        title="CryoMamba",
        version=metadata.version("cryomamba"),
        lifespan=lifespan,
        # FastAPI's pages load scripts from elsewhere; /openapi.json can be shown by any viewer.
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,  # a redirect would repeat the client's Host header
        generate_unique_id_function=operation_id,
    )
    app.openapi = describe(app)  # type: ignore[method-assign] # FastAPI's own way of completing the document
    app.state.failed = False
    app.state.metrics = Metrics()
    install_error_handlers(app)
    # From the inside to the outside.
    app.add_middleware(Admission)
    allow_origins(app, settings.cors_origins)
    app.add_middleware(
        Observation,
        metrics=app.state.metrics,
        headers=security_headers(settings.hsts_seconds),
        max_query_parameters=settings.max_query_parameters,
    )
    app.add_middleware(RateLimitHeaders)
    # In the order in which they are asked: what is called most often comes first.
    for router in (polled, jobs, uploads, sockets, artifacts, gpus, probes, system, server_info):
        app.include_router(router)
    return app


def _profile(
    settings: Settings,
    now: Callable[[], datetime],
    gpus_of_this_machine: Callable[[], GpuInventory],
    runner: Sequence[str],
) -> contextlib.AbstractAsyncContextManager[Profile]:
    if settings.kubernetes_namespace is not None:
        return cluster_profile(settings, now)
    return local_profile(settings, now, gpus_of_this_machine, runner)


def _sweeping(
    settings: Settings, profile: Profile, now: Callable[[], datetime]
) -> contextlib.AbstractAsyncContextManager[None]:
    sweep = Sweep(profile.objects, profile.references, sweep_rules(settings), now, profile.data_dir)
    return sweeping(sweep, timedelta(seconds=settings.sweep_interval_seconds))


async def _add_bundled(catalogue: Catalogue) -> None:
    """Add the model that ships with the server as soon as the store lets it."""
    while True:
        try:
            return await catalogue.add_bundled()
        except (StoreUnavailableError, StorageFullError) as error:
            _log.warning("the bundled model cannot be added to the catalogue yet: %s", error)
            await asyncio.sleep(_STORE_PAUSE_SECONDS)


def _stop_server_if_failed(app: FastAPI, running: asyncio.Task[None]) -> None:
    """End a server whose jobs cannot run any more, rather than let it take jobs in that nobody starts."""
    if not running.cancelled() and (error := running.exception()):
        _log.critical("jobs cannot be run any more; the server stops", exc_info=error)
        app.state.failed = True  # the exit code says so
        signal.raise_signal(signal.SIGTERM)


async def _context(settings: Settings, now: Callable[[], datetime], profile: Profile) -> Context:
    signer = LinkSigner.from_secret(server_secret(settings), timedelta(seconds=settings.download_ttl_seconds))
    objects, jobs = profile.objects, profile.jobs
    catalogue = Catalogue(objects)
    upload_service = UploadService(objects, now, upload_limits(settings))
    return Context(
        settings=settings,
        now=now,
        started_at=now(),
        authority=open_authority(settings, now),
        limits=open_limits(settings, now),
        signer=signer,
        objects=objects,
        job_store=jobs,
        catalogue=catalogue,
        uploads=upload_service,
        jobs=JobService(jobs, upload_service, catalogue),
        downloads=Downloads(jobs, signer, now),
        live=LiveJobs(jobs, objects, signer, now),
        read_gpus=profile.gpus,
        readiness=Readiness(
            {"object_store": objects.check, **profile.checks, "catalogue": catalogue.names},
            settings.probe_seconds,
            profile.telling,
        ),
    )
