"""What request handlers are given: one typed object, made when the app starts."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

from fastapi import Depends
from fastapi.requests import HTTPConnection

from cryomamba_apiserver.artifacts.service import Downloads
from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.gpus.census import GpuSource
from cryomamba_apiserver.jobs.live import LiveJobs
from cryomamba_apiserver.jobs.service import JobService
from cryomamba_apiserver.limits.rate_limits import RateLimits
from cryomamba_apiserver.models.catalogue import Catalogue
from cryomamba_apiserver.operations.readiness import Readiness
from cryomamba_apiserver.ports.job_store import JobStore
from cryomamba_apiserver.ports.object_store import ObjectStore
from cryomamba_apiserver.settings import Settings
from cryomamba_apiserver.tokens.authority import TokenAuthority
from cryomamba_apiserver.uploads.service import UploadService


@dataclass(frozen=True)
class Context:
    """Services and effects of one running server."""

    settings: Settings
    now: Callable[[], datetime]
    started_at: datetime
    authority: TokenAuthority
    limits: RateLimits
    signer: LinkSigner
    objects: ObjectStore
    job_store: JobStore
    catalogue: Catalogue
    uploads: UploadService
    jobs: JobService
    downloads: Downloads
    live: LiveJobs
    read_gpus: GpuSource
    readiness: Readiness


async def get_context(connection: HTTPConnection) -> Context:
    """FastAPI dependency: the app's context. Like all of them a coroutine: FastAPI runs functions in a thread."""
    context: Context = connection.app.state.context
    return context


AppContext = Annotated[Context, Depends(get_context)]


async def _uploads(context: AppContext) -> UploadService:
    return context.uploads


async def _jobs(context: AppContext) -> JobService:
    return context.jobs


Uploads = Annotated[UploadService, Depends(_uploads)]
Jobs = Annotated[JobService, Depends(_jobs)]
