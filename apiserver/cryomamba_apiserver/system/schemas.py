"""Bodies of the system endpoints."""

from typing import Literal

from pydantic import BaseModel

from cryomamba_apiserver.gpus.schemas import NodeUnavailable
from cryomamba_apiserver.wire import Timestamp


class Health(BaseModel):
    """The server answers."""

    status: Literal["healthy"] = "healthy"
    timestamp: Timestamp
    uptime_seconds: int


class GpuInfo(BaseModel):
    """One GPU; memory in bytes, null where the card does not tell. On a cluster there is also where the GPU is."""

    id: int
    name: str
    memory_total: int | None
    memory_free: int | None
    compute_capability: str
    node: str | None = None
    index: int | None = None


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
    unavailable_nodes: list[NodeUnavailable] = []
