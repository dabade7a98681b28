"""What a runner is handed: everything one attempt needs to know, and no secret."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryomamba_crds.model_card import ModelCard, SpacingPolicy

Folds = Literal["all"] | list[int | Literal["all"]]
"""``"all"``: every numbered fold, or fold_all where there is none; a list names folds (``["all"]`` is fold_all)."""

VoxelSize = tuple[float, float, float]
"""Edge lengths of a voxel along X, Y, Z in nm."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class InferenceParams(_Strict):
    """How the network is run over the volume."""

    folds: Folds = "all"
    step_size: Annotated[float, Field(ge=0.1, le=1.0)] = 0.5
    """Distance of neighbouring tiles as a fraction of the patch."""
    mirroring: bool = True
    """Test-time augmentation along the axes that the model was trained for."""
    save_probabilities: bool = False
    object_table: bool = False
    """A row for each connected component, as `objects.csv`."""
    spacing_policy: SpacingPolicy | None = None
    """None: what the model's card says."""
    voxel_size_nm: VoxelSize | None = None
    """Overrides what the file's header says."""
    invert: bool = False
    """Negate the intensities: for a volume whose contrast is the opposite of the model's."""


class PreviewParams(_Strict):
    """Pictures on the way."""

    enabled: bool = True
    interval_seconds: Annotated[float, Field(ge=0.5, le=3600)] = 5
    downsample_factor: Annotated[int, Field(ge=1, le=64)] = 4


class CheckpointParams(_Strict):
    """Planes that are left in the store for an attempt that follows an interruption."""

    interval_seconds: Annotated[float, Field(ge=0, le=86_400)] = 20
    """The least time between two writings, unless much has gathered."""
    share_of_time: Annotated[float, Field(gt=0, le=1)] = 0.02
    """Of a run's time, that writing may take."""


class DirectoryStore(_Strict):
    """An object store that is a directory: object keys are paths below `root`."""

    kind: Literal["directory"] = "directory"
    root: str


class S3Store(_Strict):
    """A bucket of an S3 store. The credentials are in the runner's environment, under the names below."""

    kind: Literal["s3"] = "s3"
    endpoint: str
    """URL without a path."""
    bucket: str
    region: str = "us-east-1"
    path_style: bool = True
    """Whether the bucket is the first part of the path, or of the host's name."""
    ca_file: str | None = None
    """Path of the certificates to trust in place of the system's."""


Store = Annotated[DirectoryStore | S3Store, Field(discriminator="kind")]

ACCESS_KEY_VARIABLE = "CRYOMAMBA_S3_ACCESS_KEY"
SECRET_KEY_VARIABLE = "CRYOMAMBA_S3_SECRET_KEY"  # noqa: S105 - its name
SESSION_TOKEN_VARIABLE = "CRYOMAMBA_S3_SESSION_TOKEN"  # noqa: S105 - its name


class ModelReference(_Strict):
    """A model of the catalogue, pinned."""

    name: str
    key: str
    """Of its zip in the store."""
    card: ModelCard
    """As it was when the job was created; its digest is what is run, whatever the catalogue holds by then."""
    cache: str
    """Folder in which unpacked models are kept, one subfolder a digest."""


class Task(_Strict):
    """One attempt at one job."""

    job_id: str
    job_uid: str
    attempt: Annotated[int, Field(ge=1)]
    input_key: str
    model: ModelReference
    params: InferenceParams = InferenceParams()
    preview: PreviewParams = PreviewParams()
    checkpoint: CheckpointParams = CheckpointParams()
    store: Store
    output_prefix: str
    """Key prefix that this attempt alone writes under; ends with a slash."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
