"""What the API takes and answers, typed. Answers tolerate fields that a newer server adds."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryomamba_crds.model_card import SpacingPolicy
from cryomamba_crds.report import StatisticsDocument
from cryomamba_crds.task import Folds, VoxelSize

JobStatus = Literal["queued", "running", "completed", "failed", "cancelled"]


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class JobParams(_Request):
    """How the network is run over the volume; the defaults are the API's own."""

    folds: Folds = "all"
    step_size: Annotated[float, Field(ge=0.1, le=1.0)] = 0.5
    """Distance of neighbouring tiles as a fraction of the patch."""
    disable_tta: bool = False
    """True: no mirroring."""
    save_probabilities: bool = False
    object_table: bool = False
    """A row for each connected component, as `objects.csv`."""
    spacing_policy: SpacingPolicy | None = None
    """None: what the model says."""
    voxel_size: VoxelSize | None = None
    """[X, Y, Z] in nm; overrides the file's header."""
    invert: bool = False
    """Negate the intensities, for a volume whose contrast is the opposite of the model's."""


class PreviewConfig(_Request):
    """Pictures on the way."""

    enabled: bool = True
    interval_seconds: Annotated[float, Field(gt=0)] = 5
    downsample_factor: Annotated[int, Field(ge=1)] = 4


class _Answer(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class UnavailableNode(_Answer):
    """A node of a cluster whose GPUs are not told, or not all; no name stands for the server's own machine."""

    node: str | None = None
    reason: str


class GpuInfo(_Answer):
    """A GPU of the server; memory in bytes, None where the card does not tell.

    On a cluster `node` and `index` say where it is, and `id` is a running number.
    """

    id: int
    name: str
    memory_total: int | None
    memory_free: int | None
    compute_capability: str | None = None
    node: str | None = None
    index: int | None = None


class ServerInfo(_Answer):
    """What the server is and can do; `max_upload_size` in bytes."""

    version: str
    nnunet_version: str | None = None
    cuda_available: bool = False
    cuda_version: str | None = None
    gpu_count: int = 0
    gpu_info: list[GpuInfo] = []
    max_upload_size: int | None = None
    supported_formats: list[str] = []
    available_models: list[str] = []
    unavailable_nodes: list[UnavailableNode] = []


class Gpu(_Answer):
    """A GPU at work: memory in MiB, utilization in percent, temperature in °C, power in W.

    None is what the card does not tell. On a cluster `node` and `index` say where it is.
    """

    id: int
    name: str
    memory_used: float | None
    memory_total: float | None
    memory_free: float | None
    utilization: float | None = None
    temperature: float | None = None
    power_usage: float | None = None
    power_limit: float | None = None
    node: str | None = None
    index: int | None = None


class GpuStatus(_Answer):
    """All GPUs of the server; an empty list where there is none."""

    gpus: list[Gpu]
    timestamp: datetime
    unavailable_nodes: list[UnavailableNode] = []


class UploadSession(_Answer):
    """An upload under way."""

    upload_id: str
    chunk_urls: list[str]
    expires_at: datetime


class UploadedPart(_Answer):
    """A part that the server holds."""

    part_number: int
    etag: str


class HeldPart(_Answer):
    """A part as the server holds it; `size` in bytes."""

    part_number: int
    size: int
    etag: str


class UploadState(_Answer):
    """How far an upload is; sizes in bytes."""

    upload_id: str
    total_size: int
    chunk_size: int
    status: Literal["active", "completed", "expired"]
    parts: list[HeldPart]
    file_id: str | None = None


class VolumeMetadata(_Answer):
    """What the server found in a volume."""

    filename: str | None = None
    """Name that it was uploaded under."""
    shape: tuple[int, int, int]
    """[X, Y, Z] in voxels."""
    channels: int = 1
    """How many volumes of this shape are in the file: the channels of one."""
    voxel_size: tuple[float, float, float] | None = None
    """[X, Y, Z] in nm; None where the file does not know it."""
    dtype: str
    min_intensity: float | None = None
    max_intensity: float | None = None
    mean_intensity: float | None = None
    std_intensity: float | None = None


class UploadedFile(_Answer):
    """A volume that the server has checked and keeps."""

    file_id: str
    filename: str
    size: int
    content_type: str | None = None
    checksum: str
    metadata: VolumeMetadata
    created_at: datetime


class JobProgress(_Answer):
    """How far a job is."""

    current_step: int
    total_steps: int
    percentage: float
    message: str = ""
    eta_seconds: float | None = None


class Artifact(_Answer):
    """One result of a job; `url` is signed, valid for a while, and relative to the server."""

    name: str
    size: int
    url: str
    content_type: str | None = None
    created_at: datetime | None = None


class ErrorDetail(_Answer):
    """The inside of the error envelope; `code` is free text, so that a new one breaks nothing."""

    code: str
    message: str
    hint: str = ""
    retryable: bool = False
    details: dict[str, Any] = {}


class GpuStats(_Answer):
    """The GPU that runs a job: memory in MiB, utilization in percent."""

    gpu_id: int
    memory_used: float
    memory_total: float
    utilization: float


class JobRecord(_Answer):
    """A job as the server knows it; lists of jobs leave most fields out."""

    job_id: str
    status: JobStatus
    created_at: datetime
    file_id: str | None = None
    model: str | None = None
    params: dict[str, Any] = {}
    started_at: datetime | None = None
    completed_at: datetime | None = None
    updated_at: datetime | None = None
    queue_position: int | None = None
    estimated_duration_seconds: float | None = None
    progress: JobProgress | None = None
    artifacts: list[Artifact] = []
    error: ErrorDetail | None = None
    gpu_stats: GpuStats | None = None


class JobPage(_Answer):
    """One page of the list of jobs."""

    jobs: list[JobRecord]
    total: int
    limit: int
    offset: int


class Cancellation(_Answer):
    """The answer to cancelling a job."""

    job_id: str
    status: JobStatus
    message: str = ""


class Statistics(_Answer):
    """Measurements keyed by the label's number; the physical maps are empty where the voxel size is unknown."""

    label_counts: dict[str, int]
    physical_volume_nm3: dict[str, float] = {}
    surface_area_nm2: dict[str, float] = {}


class StatisticsFile(StatisticsDocument):
    """The artifact `statistics.json`, read with the same tolerance as every other answer."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Preview(_Answer):
    """A PNG of the middle Z slice: `shape` is the downsampled volume [X, Y, Z], `data` base64."""

    scale: int
    shape: tuple[int, int, int]
    slice_idx: int
    dtype: str = "uint8"
    encoding: str = "base64"
    data: str


class _Message(_Answer):
    job_id: str
    timestamp: datetime


class ProgressMessage(_Message):
    """The job has moved on."""

    type: Literal["progress"] = "progress"
    progress: JobProgress


class PreviewMessage(_Message):
    """There is a new picture."""

    type: Literal["preview"] = "preview"
    preview: Preview


class CompletedMessage(_Message):
    """The job is done; the last message. `statistics` is None where the news did not come over the WebSocket."""

    type: Literal["completed"] = "completed"
    artifacts: list[Artifact]
    statistics: Statistics | None = None


class ErrorMessage(_Message):
    """The job failed or was cancelled (code ``CONFLICT``); the last message."""

    type: Literal["error"] = "error"
    error: ErrorDetail


Message = Annotated[
    ProgressMessage | PreviewMessage | CompletedMessage | ErrorMessage,
    Field(discriminator="type"),
]
