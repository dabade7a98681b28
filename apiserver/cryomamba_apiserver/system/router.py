"""HTTP for health and capabilities."""

import asyncio
from importlib import metadata

from fastapi import APIRouter

from cryomamba_apiserver.auth import Reader
from cryomamba_apiserver.context import AppContext
from cryomamba_apiserver.routes import AuthenticatedRoute
from cryomamba_apiserver.system.schemas import GpuInfo, Health, ServerInfo

router = APIRouter(prefix="/v1", tags=["system"])
authenticated = APIRouter(prefix="/v1", tags=["system"], route_class=AuthenticatedRoute)


@router.get("/healthz")
async def healthz(context: AppContext) -> Health:
    """Check server health status.

    Needs no token; asks nothing of what the server depends on, for which there is `/readyz`.
    """
    now = context.now()
    return Health(timestamp=now, uptime_seconds=int((now - context.started_at).total_seconds()))


@authenticated.get("/server/info")
async def server_info(_: Reader, context: AppContext) -> ServerInfo:
    """Get server information and capabilities.

    Sizes are in bytes.
    """
    inventory = await asyncio.to_thread(context.read_gpus)
    return ServerInfo(
        version=metadata.version("cryomamba"),
        nnunet_version=_version("nnunetv2"),
        cuda_available=bool(inventory.gpus),
        cuda_version=inventory.cuda_version,
        gpu_count=len(inventory.gpus),
        gpu_info=[
            GpuInfo(
                id=gpu.index,
                name=gpu.name,
                memory_total=gpu.memory_total,
                memory_free=gpu.memory_free,
                compute_capability=gpu.compute_capability,
            )
            for gpu in inventory.gpus
        ],
        max_upload_size=context.settings.max_upload_size,
        supported_formats=["mrc", "nifti"],
        available_models=await context.catalogue.names(),
    )


def _version(distribution: str) -> str | None:
    """Return an installed version without importing the package: nnU-Net's import loads torch."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
