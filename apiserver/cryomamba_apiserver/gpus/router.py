"""HTTP for GPUs."""

import asyncio

from fastapi import APIRouter

from cryomamba_apiserver.auth import Reader
from cryomamba_apiserver.context import AppContext
from cryomamba_apiserver.gpus.schemas import GpuStatus, GpuStatusList
from cryomamba_apiserver.gpus.service import mib
from cryomamba_apiserver.routes import AuthenticatedRoute

router = APIRouter(prefix="/v1/gpu", tags=["gpus"], route_class=AuthenticatedRoute)


@router.get("/status")
async def gpu_status(_: Reader, context: AppContext) -> GpuStatusList:
    """Get current GPU status and utilization.

    Memory is in MiB here, in bytes in `/v1/server/info`.
    """
    inventory = await asyncio.to_thread(context.read_gpus)
    gpus = [
        GpuStatus(
            id=gpu.index,
            name=gpu.name,
            memory_used=mib(gpu.memory_used),
            memory_total=mib(gpu.memory_total),
            memory_free=mib(gpu.memory_free),
            utilization=gpu.utilization,
            temperature=gpu.temperature,
            power_usage=gpu.power_usage,
            power_limit=gpu.power_limit,
        )
        for gpu in inventory.gpus
    ]
    return GpuStatusList(gpus=gpus, timestamp=context.now())
