"""HTTP for GPUs."""

from typing import Any

from fastapi import APIRouter

from cryomamba_apiserver.auth import Reader
from cryomamba_apiserver.context import AppContext
from cryomamba_apiserver.gpus.census import PlacedGpu
from cryomamba_apiserver.gpus.schemas import GpuStatus, GpuStatusList, place, unavailable_nodes
from cryomamba_apiserver.gpus.service import mib
from cryomamba_apiserver.routes import AuthenticatedRoute

router = APIRouter(prefix="/v1/gpu", tags=["gpus"], route_class=AuthenticatedRoute)


# Unset fields are left out: what only a cluster has, and a list of nodes that would be empty.
@router.get("/status", response_model_exclude_unset=True)
async def gpu_status(_: Reader, context: AppContext) -> GpuStatusList:
    """Get current GPU status and utilization.

    Memory is in MiB here, in bytes in `/v1/server/info`. What does not answer is named, and not waited for.
    """
    census = await context.read_gpus()
    told: dict[str, Any] = {"gpus": [_status(placed) for placed in census.gpus], "timestamp": context.now()}
    if silent := unavailable_nodes(census):
        told["unavailable_nodes"] = silent
    return GpuStatusList(**told)


def _status(placed: PlacedGpu) -> GpuStatus:
    gpu = placed.gpu
    return GpuStatus(
        id=placed.id,
        name=gpu.name,
        memory_used=mib(gpu.memory_used),
        memory_total=mib(gpu.memory_total),
        memory_free=mib(gpu.memory_free),
        utilization=gpu.utilization,
        temperature=gpu.temperature,
        power_usage=gpu.power_usage,
        power_limit=gpu.power_limit,
        **place(placed),
    )
