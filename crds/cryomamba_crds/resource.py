"""The resource `SegmentationJob` (cryomamba.io/v1alpha1): what a user asks for and what the cluster answers."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from cryomamba_crds.failures import FailureCode
from cryomamba_crds.ids import JOB_ID_PATTERN
from cryomamba_crds.model_card import MODEL_NAME_PATTERN, SpacingPolicy

GROUP = "cryomamba.io"
VERSION = "v1alpha1"
KIND = "SegmentationJob"
PLURAL = "segmentationjobs"

_IMMUTABLE: dict[str, Any] = {
    "rule": "self == oldSelf",
    "message": "the field cannot be changed; create a new SegmentationJob",
}


def _immutable(**schema: Any) -> dict[str, Any]:  # noqa: ANN401 - JSON schema holds anything
    """Mark a field of the spec as unchangeable, by a CEL rule that the API server itself holds."""
    return {"x-kubernetes-validations": [_IMMUTABLE], **schema}


def _between(least: str, most: str, message: str) -> dict[str, Any]:
    """Bound a quantity, by a CEL rule."""
    rule = f"quantity(self).compareTo(quantity('{least}')) >= 0 && quantity(self).compareTo(quantity('{most}')) <= 0"
    return {"x-kubernetes-validations": [{"rule": rule, "message": message}]}


class _KubeModel(BaseModel):
    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="forbid")


class InputSource(_KubeModel):
    """The volume: exactly one of an uploaded file and an object in the configured bucket."""

    model_config = ConfigDict(
        json_schema_extra={
            "x-kubernetes-validations": [
                {
                    "rule": "has(self.fileId) != has(self.object)",
                    "message": "give exactly one of fileId and object",
                },
                _IMMUTABLE,
            ],
        },
    )

    file_id: Annotated[
        str | None,
        Field(pattern=r"^file_[a-z0-9]{12}$", max_length=17, description="Id of a file uploaded through the API."),
    ] = None
    object: Annotated[
        str | None,
        Field(
            pattern=r"^[A-Za-z0-9][A-Za-z0-9/._-]*$",
            min_length=1,
            max_length=512,
            description="Key of a volume in the configured bucket.",
        ),
    ] = None


class Inference(_KubeModel):
    """How the network is run over the volume."""

    # Whole numbers and strings only: floats do not survive round trips.
    model_config = ConfigDict(json_schema_extra=_immutable())

    folds: Annotated[
        list[Annotated[str, Field(pattern=r"^(all|0|[1-9][0-9]?)$", max_length=3)]] | None,
        Field(
            min_length=1,
            max_length=10,
            json_schema_extra={"x-kubernetes-list-type": "set"},
            description='Folds ("all" is fold_all); absent: all numbered ones, or fold_all where there are none.',
        ),
    ] = None
    tile_step_percent: Annotated[
        int,
        Field(ge=10, le=100, description="Distance of neighbouring tiles in percent of the patch."),
    ] = 50
    mirroring: Annotated[bool, Field(description="Test-time augmentation along the axes the model mirrors.")] = True
    save_probabilities: Annotated[bool, Field(description="Keep the probabilities as an artifact.")] = False
    object_table: Annotated[bool, Field(description="Keep a table of all connected components as an artifact.")] = False
    spacing_policy: Annotated[
        SpacingPolicy | None,
        Field(description="How the voxel size meets the plan's unitless spacing; absent: what the model's card says."),
    ] = None
    voxel_size_nm: Annotated[
        list[
            Annotated[
                str,
                Field(
                    pattern=r"^[0-9]{1,6}(\.[0-9]{1,9})?$",
                    max_length=16,
                    json_schema_extra={
                        "x-kubernetes-validations": [
                            {"rule": "double(self) > 0.0", "message": "a voxel is longer than 0 nm"},
                        ],
                    },
                ),
            ]
        ]
        | None,
        Field(
            min_length=3,
            max_length=3,
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
            description="Voxel size along X, Y, Z in nm, as decimal strings; overrides the file's header.",
        ),
    ] = None
    invert: Annotated[
        bool,
        Field(description="Negate intensities: for volumes whose contrast is the opposite of the model's."),
    ] = False


class Preview(_KubeModel):
    """Pictures of the middle slice on the way."""

    model_config = ConfigDict(json_schema_extra=_immutable())

    enabled: Annotated[bool, Field(description="Whether there are any.")] = True
    interval_seconds: Annotated[int, Field(ge=1, le=3600, description="Time between two of them, at least.")] = 5
    downsample_factor: Annotated[
        int,
        Field(ge=1, le=64, description="How many voxels become one pixel, along each axis."),
    ] = 4


class Resources(_KubeModel):
    """What the pod asks the scheduler for."""

    model_config = ConfigDict(json_schema_extra=_immutable())

    gpus: Annotated[int, Field(ge=0, le=16, description="nvidia.com/gpu; 0 runs on the CPU.")] = 1
    # A limit of 0 would be no limit, and a forgotten unit means bytes.
    memory: Annotated[
        str,
        Field(
            pattern=r"^[0-9]+(\.[0-9]+)?(k|Ki|M|Mi|G|Gi|T|Ti)?$",
            max_length=16,
            json_schema_extra=_between("1Mi", "16Ti", "memory is between 1Mi and 16Ti; write its unit, as in 16Gi"),
            description="Of the pod, as Kubernetes writes it (16Gi): asked for, and the limit as well.",
        ),
    ] = "16Gi"
    cpu: Annotated[
        str,
        Field(
            pattern=r"^[0-9]+(m|\.[0-9]{1,3})?$",
            max_length=16,
            json_schema_extra=_between("1m", "1024", "cpu is between 1m and 1024 cores"),
            description="Cores asked for, as Kubernetes writes them (2, 500m).",
        ),
    ] = "2"


class DesiredState(StrEnum):
    """The one wish that may change: to stop."""

    RUN = "Run"
    CANCELLED = "Cancelled"


class SegmentationJobSpec(_KubeModel):
    """What is asked for. Only desiredState and ttlSecondsAfterFinished may be changed later."""

    input: InputSource
    model: Annotated[
        str,
        Field(
            pattern=MODEL_NAME_PATTERN,
            max_length=63,
            json_schema_extra=_immutable(),
            description="Name of a model in the catalogue.",
        ),
    ]
    model_digest: Annotated[
        str | None,
        Field(
            pattern=r"^sha256:[0-9a-f]{64}$",
            max_length=71,
            json_schema_extra=_immutable(),
            description="Of the model's zip; absent: whichever the name stands for when an attempt begins.",
        ),
    ] = None
    inference: Inference = Inference()
    preview: Preview = Preview()
    resources: Resources = Resources()
    max_attempts: Annotated[
        int,
        Field(
            ge=1,
            le=10,
            json_schema_extra=_immutable(),
            description="How many pods may fail before the job does; pods that the cluster took away do not count.",
        ),
    ] = 3
    active_deadline_seconds: Annotated[
        int,
        Field(ge=60, le=604800, json_schema_extra=_immutable(), description="Running time an attempt may take."),
    ] = 86400
    ttl_seconds_after_finished: Annotated[
        int | None,
        Field(ge=0, le=31536000, description="How long the record is kept after the end; absent: for ever."),
    ] = None
    priority_class_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=253,
            pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$",
            json_schema_extra=_immutable(),
            description="Kubernetes' PriorityClass of the pod; also decides which job is taken first.",
        ),
    ] = None
    queue_name: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=63,
            pattern=r"^[a-z0-9]([a-z0-9-]*[a-z0-9])?$",
            json_schema_extra=_immutable(),
            description="Kueue's local queue, where Kueue shares out the GPUs.",
        ),
    ] = None
    desired_state: Annotated[
        DesiredState,
        Field(
            description="The one wish that may change: Cancelled stops the job for good.",
            json_schema_extra={
                "x-kubernetes-validations": [
                    {
                        "rule": "oldSelf == self || self == 'Cancelled'",
                        "message": "a cancelled job stays cancelled; create a new SegmentationJob",
                    },
                ],
            },
        ),
    ] = DesiredState.RUN


class Condition(_KubeModel):
    """One aspect of a job's state (Scheduled, Running, Succeeded, Finished), as Kubernetes writes conditions."""

    type: Annotated[str, Field(max_length=64, description="Scheduled, Running, Succeeded or Finished.")]
    status: Annotated[Literal["True", "False", "Unknown"], Field(description="Succeeded is Unknown until the end.")]
    reason: Annotated[str, Field(max_length=128, description="One word for programs.")]
    message: Annotated[str, Field(max_length=2048, description="A sentence for people.")] = ""
    last_transition_time: Annotated[datetime, Field(description="Since when status and reason are these.")]
    observed_generation: Annotated[
        int | None,
        Field(ge=0, description="The metadata.generation that the condition is about."),
    ] = None


class StatusFailure(_KubeModel):
    """Why the job failed."""

    # What `cryomamba_crds.failures.Failure` says, without its free-form details.
    code: Annotated[FailureCode, Field(description="One of the codes of the REST API.")]
    message: Annotated[str, Field(max_length=2048, description="What went wrong.")]
    hint: Annotated[str, Field(max_length=1024, description="What to do about it.")]
    retryable: Annotated[bool, Field(description="Whether the same job may succeed another time.")]


class StatusProgress(_KubeModel):
    """How far the pod is; percentages are of the whole job."""

    sequence: Annotated[int, Field(ge=0, description="Grows with every report of an attempt.")]
    current_step: Annotated[int, Field(ge=1, le=5, description="From 1.")]
    total_steps: Annotated[int, Field(ge=1, le=5, description="Fetch, preprocess, infer, assemble, upload.")] = 5
    percentage: Annotated[int, Field(ge=0, le=100, description="Of the whole job.")]
    message: Annotated[str, Field(max_length=256, description="What it is doing.")]
    eta_seconds: Annotated[int | None, Field(ge=0, description="Time left; absent until it can be told.")] = None
    updated_at: Annotated[datetime, Field(description="When the pod said so.")]


class StatusPreview(_KubeModel):
    """The newest preview: an object and its sequence number, never the picture itself."""

    sequence: Annotated[int, Field(ge=1, description="Counts the previews of an attempt.")]
    scale: Annotated[int, Field(ge=1, le=64, description="How many voxels became one pixel, along each axis.")]
    shape: Annotated[
        list[int],
        Field(
            min_length=3,
            max_length=3,
            json_schema_extra={"x-kubernetes-list-type": "atomic"},
            description="Of the downsampled volume: X, Y, Z.",
        ),
    ]
    slice_idx: Annotated[int, Field(ge=0, description="Z of the slice in the downsampled volume.")]


class StatusGpu(_KubeModel):
    """The GPU in use."""

    gpu_id: Annotated[int, Field(ge=0, description="Its number within the pod.")]
    memory_used: Annotated[int, Field(ge=0, description="MiB.")]
    memory_total: Annotated[int, Field(ge=0, description="MiB.")]
    utilization: Annotated[int, Field(ge=0, le=100, description="Percent.")]


class StatusArtifact(_KubeModel):
    """A result that can be downloaded."""

    # No key: that is derived from uid, attempt and name, never taken from the pod.
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]*$", max_length=64, description="Such as labels.mrc.")]
    size: Annotated[int, Field(ge=0, description="Bytes.")]
    content_type: Annotated[str, Field(max_length=128, description="Its media type.")]
    created_at: Annotated[datetime, Field(description="When it was stored.")]


class SegmentationJobStatus(_KubeModel):
    """What has become of it."""

    # The pod owns progress, preview, gpu and artifacts, the operator all others; a list has one writer.
    observed_generation: Annotated[
        int | None,
        Field(ge=0, description="The metadata.generation that this status is about."),
    ] = None
    conditions: Annotated[
        list[Condition],
        Field(
            max_length=8,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
            description="Scheduled, Running, Succeeded, and Finished, which is True after success and failure alike.",
        ),
    ] = []
    job_name: Annotated[str | None, Field(max_length=63, description="The Kubernetes Job that runs it.")] = None
    pod_uid: Annotated[
        str | None,
        Field(max_length=36, description="The pod of the current attempt: the only one whose reports are accepted."),
    ] = None
    attempt: Annotated[int | None, Field(ge=1, description="Number of the current attempt, from 1.")] = None
    disruptions: Annotated[
        int | None,
        Field(ge=0, description="How often the cluster took a pod away (a drained node, an eviction)."),
    ] = None
    started_at: Annotated[datetime | None, Field(description="When the first attempt began to run.")] = None
    completed_at: Annotated[datetime | None, Field(description="When it came to its end.")] = None
    failure: StatusFailure | None = None
    progress: StatusProgress | None = None
    preview: StatusPreview | None = None
    gpu: StatusGpu | None = None
    artifacts: Annotated[
        list[StatusArtifact] | None,
        Field(
            max_length=32,
            json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]},
            description="The results, once they are stored.",
        ),
    ] = None


class ObjectMeta(BaseModel):
    """The part of Kubernetes' metadata that we read."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore")

    name: Annotated[str, Field(pattern=JOB_ID_PATTERN)]
    namespace: str | None = None
    uid: str | None = None
    generation: int | None = None
    resource_version: str | None = None
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class SegmentationJob(_KubeModel):
    """One segmentation of one volume by one model."""

    api_version: Literal["cryomamba.io/v1alpha1"] = "cryomamba.io/v1alpha1"
    kind: Literal["SegmentationJob"] = "SegmentationJob"
    metadata: ObjectMeta
    spec: SegmentationJobSpec
    status: SegmentationJobStatus | None = None
