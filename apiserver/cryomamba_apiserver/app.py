"""Puts the server together."""

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from importlib import metadata

from fastapi import FastAPI

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.adapters.local_jobs import LocalJobStore, LocalProfile
from cryomamba_apiserver.artifacts.router import router as artifacts
from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.auth import TokenAuthority, load_or_create_secret
from cryomamba_apiserver.context import Context
from cryomamba_apiserver.errors import install_error_handlers
from cryomamba_apiserver.gpus.router import router as gpus
from cryomamba_apiserver.gpus.service import GpuInventory, read_gpus, usable_gpus
from cryomamba_apiserver.jobs.live import LiveJobs
from cryomamba_apiserver.jobs.router import router as jobs
from cryomamba_apiserver.jobs.service import JobService
from cryomamba_apiserver.jobs.socket import router as sockets
from cryomamba_apiserver.models.catalogue import Catalogue
from cryomamba_apiserver.settings import Settings
from cryomamba_apiserver.system.router import authenticated as server_info
from cryomamba_apiserver.system.router import router as system
from cryomamba_apiserver.uploads.router import router as uploads
from cryomamba_apiserver.uploads.service import UploadService

_log = logging.getLogger(__name__)


def utc_now() -> datetime:
    """Return the time."""
    return datetime.now(UTC)


def token_authority(settings: Settings, now: Callable[[], datetime]) -> TokenAuthority:
    """Return the authority whose secret the data directory keeps."""
    secret = load_or_create_secret(settings.data_dir)
    return TokenAuthority(secret, settings.token_issuer, settings.token_audience, now)


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
        objects = DirectoryObjectStore(settings.data_dir / "store")
        profile = LocalProfile(
            data_dir=settings.data_dir,
            store_root=objects.root,
            gpus=usable_gpus(gpus_of_this_machine(), os.environ.get("CUDA_VISIBLE_DEVICES")),
            max_queued_jobs=settings.max_queued_jobs,
            runner=runner,
        )
        job_store = LocalJobStore(profile, objects, now)
        app.state.context = await _context(settings, now, gpus_of_this_machine, objects, job_store)
        running = asyncio.create_task(job_store.run(), name="jobs")
        running.add_done_callback(_stop_server_if_failed)
        try:
            yield
        finally:
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running

    app = FastAPI(title="CryoMamba", version=metadata.version("cryomamba"), lifespan=lifespan)
    install_error_handlers(app)
    for router in (system, server_info, uploads, jobs, sockets, artifacts, gpus):
        app.include_router(router)
    return app


def _stop_server_if_failed(running: asyncio.Task[None]) -> None:
    """End a server whose jobs cannot run any more, rather than let it take jobs in that nobody starts."""
    if not running.cancelled() and (error := running.exception()):
        _log.critical("jobs cannot be run any more; the server stops", exc_info=error)
        signal.raise_signal(signal.SIGTERM)


async def _context(
    settings: Settings,
    now: Callable[[], datetime],
    gpus_of_this_machine: Callable[[], GpuInventory],
    objects: DirectoryObjectStore,
    job_store: LocalJobStore,
) -> Context:
    authority = token_authority(settings, now)
    signer = LinkSigner.from_secret(authority.secret, timedelta(seconds=settings.download_ttl_seconds))
    catalogue = Catalogue(objects)
    await catalogue.add_bundled()
    upload_service = UploadService(
        objects,
        now,
        max_upload_size=settings.max_upload_size,
        ttl=timedelta(seconds=settings.upload_ttl_seconds),
    )
    return Context(
        settings=settings,
        now=now,
        started_at=now(),
        authority=authority,
        signer=signer,
        objects=objects,
        job_store=job_store,
        catalogue=catalogue,
        uploads=upload_service,
        jobs=JobService(job_store, upload_service, catalogue, str(settings.data_dir / "models")),
        live=LiveJobs(job_store, objects, signer, now),
        read_gpus=gpus_of_this_machine,
    )
