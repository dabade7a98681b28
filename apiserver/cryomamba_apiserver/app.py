"""Puts the server together."""

import asyncio
import contextlib
import functools
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata

from fastapi import FastAPI

from cryomamba_apiserver.adapters.job_references import LocalJobReferences
from cryomamba_apiserver.adapters.local_jobs import LocalJobStore, LocalProfile
from cryomamba_apiserver.adapters.opening import object_store, runner_store
from cryomamba_apiserver.artifacts.router import router as artifacts
from cryomamba_apiserver.artifacts.service import Downloads
from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.context import Context
from cryomamba_apiserver.errors import install_error_handlers
from cryomamba_apiserver.gpus.reading import PatientReader, local_gpus
from cryomamba_apiserver.gpus.router import router as gpus
from cryomamba_apiserver.gpus.service import GpuInventory, read_gpus, usable_gpus
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
from cryomamba_apiserver.ports.object_store import ObjectStore
from cryomamba_apiserver.settings import Settings
from cryomamba_apiserver.sweep.run import Sweep, sweep_rules, sweeping
from cryomamba_apiserver.system.router import authenticated as server_info
from cryomamba_apiserver.system.router import router as system
from cryomamba_apiserver.tokens.opening import open_authority, server_secret
from cryomamba_apiserver.uploads.router import router as uploads
from cryomamba_apiserver.uploads.service import UploadService, upload_limits

_log = logging.getLogger(__name__)

# A driver that nobody keeps open takes seconds for each GPU.
_FIRST_LOOK_SECONDS = 60.0
_DRIVER_SECONDS = 10.0


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
    """Return the app of the local profile; its jobs run for as long as its lifespan."""

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with object_store(settings) as objects:
            there = await PatientReader(gpus_of_this_machine, _FIRST_LOOK_SECONDS)()
            profile = LocalProfile(
                data_dir=settings.data_dir,
                store=runner_store(settings),
                gpus=usable_gpus(there, os.environ.get("CUDA_VISIBLE_DEVICES")),
                max_queued_jobs=settings.max_queued_jobs,
                runner=runner,
            )
            job_store = LocalJobStore(profile, objects, now)
            context = app.state.context = await _context(settings, now, gpus_of_this_machine, objects, job_store)
            running = asyncio.create_task(job_store.run(), name="jobs")
            running.add_done_callback(functools.partial(_stop_server_if_failed, app))
            try:
                async with context.limits.running(), _sweeping(settings, objects, now):
                    yield
            finally:
                context.uploads.close()
                await context.authority.close()
                running.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await running

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


def _sweeping(
    settings: Settings, objects: ObjectStore, now: Callable[[], datetime]
) -> contextlib.AbstractAsyncContextManager[None]:
    references = LocalJobReferences(settings.data_dir / "jobs.sqlite")
    sweep = Sweep(objects, references, sweep_rules(settings), now, settings.data_dir)
    return sweeping(sweep, timedelta(seconds=settings.sweep_interval_seconds))


def _stop_server_if_failed(app: FastAPI, running: asyncio.Task[None]) -> None:
    """End a server whose jobs cannot run any more, rather than let it take jobs in that nobody starts."""
    if not running.cancelled() and (error := running.exception()):
        _log.critical("jobs cannot be run any more; the server stops", exc_info=error)
        app.state.failed = True  # the exit code says so
        signal.raise_signal(signal.SIGTERM)


async def _context(
    settings: Settings,
    now: Callable[[], datetime],
    gpus_of_this_machine: Callable[[], GpuInventory],
    objects: ObjectStore,
    job_store: LocalJobStore,
) -> Context:
    signer = LinkSigner.from_secret(server_secret(settings), timedelta(seconds=settings.download_ttl_seconds))
    catalogue = Catalogue(objects)
    await catalogue.add_bundled()
    upload_service = UploadService(objects, now, upload_limits(settings))
    return Context(
        settings=settings,
        now=now,
        started_at=now(),
        authority=open_authority(settings, now),
        limits=open_limits(settings, now),
        signer=signer,
        objects=objects,
        job_store=job_store,
        catalogue=catalogue,
        uploads=upload_service,
        jobs=JobService(job_store, upload_service, catalogue),
        downloads=Downloads(job_store, signer, now),
        live=LiveJobs(job_store, objects, signer, now),
        read_gpus=local_gpus(gpus_of_this_machine, _DRIVER_SECONDS),
        readiness=Readiness(
            {
                "object_store": objects.check,
                "job_store": lambda: job_store.list_jobs(None, None, limit=1, offset=0),
                "catalogue": catalogue.names,
            },
            settings.probe_seconds,
        ),
    )
