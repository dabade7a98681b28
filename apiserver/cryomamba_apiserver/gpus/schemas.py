"""Bodies of the GPU endpoint."""

from pydantic import BaseModel

from cryomamba_apiserver.wire import Timestamp


class GpuStatus(BaseModel):
    """One GPU now: memory in MiB, utilization in percent, temperature in °C, power in W."""

    id: int
    name: str
    memory_used: int
    memory_total: int
    memory_free: int
    utilization: int
    temperature: int
    power_usage: int
    power_limit: int


class GpuStatusList(BaseModel):
    """All GPUs; none is an empty list, not an error."""

    gpus: list[GpuStatus]
    timestamp: Timestamp
