"""HTTP for health and capabilities."""

from importlib import metadata
from typing import Any

from fastapi import APIRouter

from cryomamba_apiserver.auth import Reader
from cryomamba_apiserver.context import AppContext
from cryomamba_apiserver.gpus.census import PlacedGpu
from cryomamba_apiserver.gpus.schemas import place, unavailable_nodes
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


# Unset fields are left out, as in `/v1/gpu/status`.
@authenticated.get("/server/info", response_model_exclude_unset=True)
async def server_info(_: Reader, context: AppContext) -> ServerInfo:
    """Get server information and capabilities.

    Sizes are in bytes.
    """
    census = await context.read_gpus()
    told: dict[str, Any] = {
        "version": metadata.version("cryomamba"),
        "nnunet_version": _version("nnunetv2"),
        "cuda_available": bool(census.gpus),
        "cuda_version": census.cuda_version,
        "gpu_count": len(census.gpus),
        "gpu_info": [_info(placed) for placed in census.gpus],
        "max_upload_size": context.settings.max_upload_size,
        "supported_formats": ["mrc", "nifti"],
        "available_models": await context.catalogue.names(),
    }
    if silent := unavailable_nodes(census):
        told["unavailable_nodes"] = silent
    return ServerInfo(**told)


def _info(placed: PlacedGpu) -> GpuInfo:
    gpu = placed.gpu
    return GpuInfo(
        id=placed.id,
        name=gpu.name,
        memory_total=gpu.memory_total,
        memory_free=gpu.memory_free,
        compute_capability=gpu.compute_capability,
        **place(placed),
    )


def _version(distribution: str) -> str | None:
    """Return an installed version without importing the package: nnU-Net's import loads torch."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
