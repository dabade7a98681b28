"""Bodies of the system endpoints."""

from typing import Literal

from pydantic import BaseModel

from cryomamba_apiserver.wire import Timestamp


class Health(BaseModel):
    """The server answers."""

    status: Literal["healthy"] = "healthy"
    timestamp: Timestamp
    uptime_seconds: int


class GpuInfo(BaseModel):
    """One GPU; memory in bytes."""

    id: int
    name: str
    memory_total: int
    memory_free: int
    compute_capability: str


class ServerInfo(BaseModel):
    """What the server can do; sizes in bytes."""

    version: str
    nnunet_version: str | None
    cuda_available: bool
    cuda_version: str | None
    gpu_count: int
    gpu_info: list[GpuInfo]
    max_upload_size: int
    supported_formats: list[str]
    available_models: list[str]
