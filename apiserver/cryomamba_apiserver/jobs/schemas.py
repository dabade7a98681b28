"""Bodies of the job endpoints and messages of the WebSocket."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, Field, field_validator

from cryomamba_apiserver.ports.job_store import JobStatus
from cryomamba_apiserver.wire import RequestBody, Timestamp
from cryomamba_crds.failures import Failure
from cryomamba_crds.model_card import SpacingPolicy
from cryomamba_crds.report import GpuStats, Progress, Statistics
from cryomamba_crds.task import Folds, InferenceParams, PreviewParams, VoxelSize
from cryomamba_crds.wishes import inference_wish

_Edge = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
_MOST_FOLDS = 10


class JobParams(RequestBody):
    """How the network is run over the volume."""

    folds: Annotated[
        Folds, Field(description='"all", or a list of folds; ["all"] is the fold trained on all data.')
    ] = "all"
    step_size: Annotated[
        float, Field(ge=0.1, le=1.0, description="Tile distance as a fraction of the patch, in whole percents.")
    ] = 0.5
    disable_tta: Annotated[bool, Field(description="Switch mirroring off: faster, a little less accurate.")] = False
    save_probabilities: bool = False
    object_table: bool = False
    spacing_policy: Annotated[
        SpacingPolicy | None,
        Field(description="How the voxel size meets the model's unitless spacing; null: what the model's card says."),
    ] = None
    voxel_size: Annotated[
        tuple[_Edge, _Edge, _Edge] | None,
        Field(description="[X, Y, Z] in nm; overrides what the file's header says."),
    ] = None
    invert: Annotated[bool, Field(description="Negate intensities, for a contrast opposite to the model's.")] = False

    # A resource of Kubernetes holds whole numbers and strings. What it could not hold exactly is refused everywhere, so
    # that a request means the same to every server.

    @field_validator("folds")
    @classmethod
    def _each_fold_once(cls, folds: Folds) -> Folds:
        if folds == "all":
            return folds
        once = list(dict.fromkeys(folds))
        if len(once) > _MOST_FOLDS:
            raise ValueError(f"name at most {_MOST_FOLDS} folds")
        return once

    @field_validator("step_size")
    @classmethod
    def _whole_percent(cls, step: float) -> float:
        percent = round(step * 100) / 100
        if not math.isclose(percent, step, rel_tol=1e-12):  # what arithmetic makes of 0.3 is 0.3
            raise ValueError("must be a whole percentage: at most two decimals")
        return percent

    @field_validator("voxel_size")
    @classmethod
    def _in_attometres(cls, size: VoxelSize | None) -> VoxelSize | None:
        try:
            inference_wish(InferenceParams(voxel_size_nm=size))
        except ValueError:
            raise ValueError("an edge is below 1000000 nm and has at most nine decimals") from None
        return size

    @classmethod
    def from_inference(cls, params: InferenceParams) -> Self:
        """Return what is asked for by the parameters of a runner's task."""
        return cls(
            folds=params.folds,
            step_size=params.step_size,
            disable_tta=not params.mirroring,
            save_probabilities=params.save_probabilities,
            object_table=params.object_table,
            spacing_policy=params.spacing_policy,
            voxel_size=params.voxel_size_nm,
            invert=params.invert,
        )

    def to_inference(self) -> InferenceParams:
        """Return the same in the words of the runner's task."""
        return InferenceParams(
            folds=self.folds,
            step_size=self.step_size,
            mirroring=not self.disable_tta,
            save_probabilities=self.save_probabilities,
            object_table=self.object_table,
            spacing_policy=self.spacing_policy,
            voxel_size_nm=self.voxel_size,
            invert=self.invert,
        )


class CreateJob(RequestBody):
    """Asks for a segmentation."""

    file_id: Annotated[str, Field(max_length=64)]
    model: Annotated[str, Field(max_length=63)]
    params: JobParams = JobParams()
    preview_config: PreviewParams = PreviewParams()


class JobCreated(BaseModel):
    """A job that is taken in."""

    job_id: str
    status: JobStatus
    file_id: str
    model: str
    created_at: Timestamp
    queue_position: Annotated[int, Field(description="From 1; 0 once it runs.")]
    estimated_duration_seconds: Annotated[int | None, Field(description="null until the model's speed is known.")]


class ArtifactLink(BaseModel):
    """A result and where to get it."""

    name: str
    size: int
    content_type: str
    url: Annotated[str, Field(description="Signed and time-limited.")]
    created_at: Timestamp


class JobDetails(BaseModel):
    """A job as it stands; fields that do not apply yet are left out."""

    job_id: str
    status: JobStatus
    file_id: Annotated[
        str | None, Field(description="Absent where the job was made on the cluster and names another object.")
    ] = None
    model: str
    params: dict[str, Any]
    created_at: Timestamp
    started_at: Timestamp | None = None
    completed_at: Timestamp | None = None
    updated_at: Timestamp
    progress: Progress | None = None
    artifacts: list[ArtifactLink]
    gpu_stats: GpuStats | None = None
    error: Failure | None = None


class JobCancelled(BaseModel):
    """The answer to a cancellation."""

    job_id: str
    status: JobStatus
    message: str


class JobSummary(BaseModel):
    """A job in a list."""

    job_id: str
    status: JobStatus
    created_at: Timestamp
    completed_at: Timestamp | None = None


class JobList(BaseModel):
    """A page of jobs, newest first."""

    jobs: list[JobSummary]
    total: int
    limit: int
    offset: int


class PreviewPicture(BaseModel):
    """A PNG of the middle Z slice, labels over the grey image."""

    scale: int
    shape: tuple[int, int, int]
    dtype: Literal["uint8"] = "uint8"
    slice_idx: int
    encoding: Literal["base64"] = "base64"
    data: str


class _Message(BaseModel):
    job_id: str
    timestamp: Timestamp


class ProgressMessage(_Message):
    """How far the job is."""

    type: Literal["progress"] = "progress"
    progress: Progress


class PreviewMessage(_Message):
    """What it looks like so far."""

    type: Literal["preview"] = "preview"
    preview: PreviewPicture


class CompletedMessage(_Message):
    """The job is done; the server closes the socket."""

    type: Literal["completed"] = "completed"
    artifacts: list[ArtifactLink]
    statistics: Statistics


class ErrorMessage(_Message):
    """The job has failed or was cancelled; the server closes the socket."""

    type: Literal["error"] = "error"
    error: Failure


class PongMessage(BaseModel):
    """The answer to a ping."""

    type: Literal["pong"] = "pong"
    timestamp: Timestamp
