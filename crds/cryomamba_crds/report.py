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


class BoundingBox(_Message):
    """The smallest box of whole voxels around something: the first and the last voxel, [X, Y, Z], both inside."""

    first: tuple[int, int, int]
    last: tuple[int, int, int]


class Measurements(Statistics):
    """All that is measured, keyed by the label's number. A label that does not occur has no box and no centroid."""

    component_counts: dict[str, int] = Field(default_factory=dict)
    """Pieces of the label: voxels that touch by a face, an edge or a corner are of one. (Empty in older documents.)"""
    bounding_boxes: dict[str, BoundingBox] = Field(default_factory=dict)
    centroids_voxels: dict[str, tuple[float, float, float]] = Field(default_factory=dict)
    """Mean index of the voxels, [X, Y, Z]; the middle of the volume's first voxel is at (0, 0, 0)."""
    centroids_nm: dict[str, tuple[float, float, float]] = Field(default_factory=dict)
    """The same times the voxel size; empty where that is unknown."""


class LabelLegend(_Message):
    """How a label is called and shown."""

    name: str
    colour: str


class StatisticsDocument(Measurements):
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
