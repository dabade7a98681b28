"""Bodies of the upload endpoints, and the records that the store keeps."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryomamba_apiserver.wire import RequestBody, Timestamp
from cryomamba_crds.failures import Failure

MIN_CHUNK_SIZE = 5 * 1024**2
MAX_CHUNK_SIZE = 64 * 1024**2
MAX_PARTS = 10_000

Metadata = dict[Annotated[str, Field(max_length=128)], str | int | float | bool | None]


class InitUpload(RequestBody):
    """Announces a file."""

    filename: Annotated[str, Field(min_length=1, max_length=255, description="Kept for display only.")]
    total_size: Annotated[int, Field(gt=0, description="Bytes of the whole file.")]
    chunk_size: Annotated[int, Field(gt=0, description="Bytes of every part but the last.")]
    content_type: Annotated[str, Field(max_length=128)] = "application/octet-stream"
    metadata: Annotated[
        Metadata,
        Field(default_factory=dict, max_length=64, description="Anything worth keeping beside the file."),
    ]


class UploadCreated(BaseModel):
    """Where the parts go."""

    upload_id: str
    chunk_urls: list[str]
    expires_at: Timestamp


class PartReceived(BaseModel):
    """A part that is held."""

    upload_id: str
    part_number: int
    received_bytes: int
    etag: str


class PartReference(RequestBody):
    """A part that the client believes to be held."""

    part_number: Annotated[int, Field(ge=0, lt=MAX_PARTS)]
    etag: Annotated[str, Field(max_length=128)]


class CompleteUpload(RequestBody):
    """All parts, in any order."""

    parts: Annotated[list[PartReference], Field(min_length=1, max_length=MAX_PARTS)]


class VolumeMetadata(BaseModel):
    """What a volume is, read from its header and its voxels; intensities are those of the finite voxels."""

    # JSON has no other numbers, and what cannot be read back must not be written.
    model_config = ConfigDict(allow_inf_nan=False)

    shape: tuple[int, int, int]
    """[X, Y, Z] in voxels."""
    voxel_size: tuple[float, float, float] | None
    """[X, Y, Z] in nm; null where the file does not say."""
    dtype: str
    min_intensity: float
    max_intensity: float
    mean_intensity: float
    std_intensity: float
    warnings: list[str]
    """What is odd about the file but acceptable."""


class FileCreated(BaseModel):
    """A volume that jobs can use."""

    file_id: str
    filename: str
    size: int
    content_type: str
    checksum: str
    metadata: VolumeMetadata
    created_at: Timestamp


class UploadSession(BaseModel):
    """The record of an upload under way."""

    model_config = ConfigDict(frozen=True)

    upload_id: str
    owner: str
    multipart_id: str
    file_id: str
    filename: str
    total_size: int
    chunk_size: int
    content_type: str
    metadata: Metadata
    status: Literal["active", "completed", "rejected"]
    rejection: Failure | None = None
    """Why the file was refused; the same answer is given again."""
    created_at: datetime
    expires_at: datetime

    @property
    def part_count(self) -> int:
        """How many parts the file comes in."""
        return -(-self.total_size // self.chunk_size)

    def part_size(self, number: int) -> int:
        """Return the bytes that part `number` (0-based) must have."""
        return min(self.chunk_size, self.total_size - number * self.chunk_size)


class FileRecord(BaseModel):
    """The record of a file."""

    model_config = ConfigDict(frozen=True)

    owner: str
    file: FileCreated
    user_metadata: Metadata
