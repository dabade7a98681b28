"""What a runner says while it works: one JSON object a line, each a change; a failure is the last word."""

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

TOTAL_STEPS = 5
STEPS = ("Fetching input", "Preprocessing", "Inferring", "Assembling", "Uploading artifacts")


class _Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Progress(_Message):
    """How far a job is; `percentage` never falls within an attempt."""

    current_step: Annotated[int, Field(ge=1, le=TOTAL_STEPS)]
    total_steps: int = TOTAL_STEPS
    percentage: Annotated[int, Field(ge=0, le=100)]
    message: str
    eta_seconds: int | None = None


class Preview(_Message):
    """A picture of the middle Z slice, stored as a PNG object; `sequence` counts from 1 within an attempt."""

    sequence: Annotated[int, Field(ge=1)]
    key: str
    scale: int
    shape: tuple[int, int, int]
    """Downsampled volume, [X, Y, Z] in voxels."""
    slice_idx: int
    """Z index in the downsampled volume."""


class GpuStats(_Message):
    """The GPU that runs the job: memory in MiB, utilization in percent."""

    gpu_id: int
    memory_used: int
    memory_total: int
    utilization: int


class Artifact(_Message):
    """One result, stored below the attempt's prefix."""

    name: str
    key: str
    size: int
    content_type: str
    created_at: datetime


class Statistics(_Message):
    """Measurements keyed by the label's number; the physical maps are empty where the voxel size is unknown."""

    label_counts: dict[str, int]
    physical_volume_nm3: dict[str, float]
    surface_area_nm2: dict[str, float]


class LabelLegend(_Message):
    """How a label is called and shown."""

    name: str
    colour: str


class StatisticsDocument(Statistics):
    """The artifact `statistics.json`: the measurements and what is needed to read them."""

    labels: dict[str, LabelLegend]
    voxel_size_nm: tuple[float, float, float] | None
    """Along X, Y, Z; None where neither the header nor the user knows it."""
    voxel_size_source: Literal["header", "override", "unknown"]
    contrast_inverted: bool = False
    warnings: list[str] = Field(default_factory=list)


class Manifest(_Message):
    """The result of a job: written once, by the attempt that wins."""

    attempt: int
    artifacts: list[Artifact]
    statistics: Statistics
    seconds_per_tile: float | None = None
    device: str = "cpu"


class Report(_Message):
    """One line of a runner's output; exactly one field is set."""

    progress: Progress | None = None
    preview: Preview | None = None
    gpu: GpuStats | None = None
    result: Manifest | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if sum(value is not None for _, value in self) != 1:
            raise ValueError("a report carries exactly one of progress, preview, gpu, result")
        return self
