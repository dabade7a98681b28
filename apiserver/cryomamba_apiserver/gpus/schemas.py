"""Bodies of the GPU endpoint."""

from pydantic import BaseModel

from cryomamba_apiserver.wire import Timestamp


class GpuStatus(BaseModel):
    """One GPU now: memory in MiB, utilization in percent, temperature in °C, power in W.

    The last four are null on a card that does not tell.
    """

    id: int
    name: str
    memory_used: int
    memory_total: int
    memory_free: int
    utilization: int | None
    temperature: int | None
    power_usage: int | None
    power_limit: int | None


class GpuStatusList(BaseModel):
    """All GPUs; none is an empty list, not an error."""

    gpus: list[GpuStatus]
    timestamp: Timestamp
