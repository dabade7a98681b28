"""Bodies of the upload endpoints, and the records that the store keeps."""

from datetime import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from cryomamba_apiserver.wire import RequestBody, Timestamp
from cryomamba_crds.failures import Failure

MIN_CHUNK_SIZE = 5 * 1024**2
MAX_CHUNK_SIZE = 64 * 1024**2
MAX_PARTS = 10_000

Metadata = dict[
    Annotated[str, Field(max_length=128)],
    Annotated[str, Field(max_length=4096)]
    | Annotated[int, Field(ge=-(2**63), lt=2**63)]
    | Annotated[float, Field(allow_inf_nan=False)]
    | bool
    | None,
]

NO_CONTROLS = r"^[^\x00-\x1f\x7f-\x9f\u2028\u2029]+$"
"""A name is shown in logs, headers and terminals, all of which obey control characters."""
_NAME = r"[A-Za-z0-9!#$&^_.+-]{1,64}"
MEDIA_TYPE = rf"^{_NAME}/{_NAME}(;[ -~]*)?$"
"""RFC 6838, section 4.2."""


class InitUpload(RequestBody):
    """Announces a file."""

    filename: Annotated[
        str, Field(min_length=1, max_length=255, pattern=NO_CONTROLS, description="Kept for display only.")
    ]
    total_size: Annotated[int, Field(gt=0, description="Bytes of the whole file.")]
    chunk_size: Annotated[int, Field(gt=0, description="Bytes of every part but the last.")]
    content_type: Annotated[str, Field(max_length=128, pattern=MEDIA_TYPE)] = "application/octet-stream"
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


class HeldPart(BaseModel):
    """A part that the server holds."""

    part_number: int
    size: int
    """In bytes."""
    etag: str


class UploadDetails(BaseModel):
    """An upload and how far it has come, so that a client can go on with it."""

    upload_id: str
    filename: str
    total_size: Annotated[int, Field(description="Bytes of the whole file.")]
    chunk_size: Annotated[int, Field(description="Bytes of every part but the last.")]
    content_type: str
    status: Annotated[
        Literal["active", "completed", "expired"],
        Field(description="`completed` says that nothing more is to be sent; a file that was refused has an `error`."),
    ]
    created_at: Timestamp
    expires_at: Timestamp
    stage: Annotated[
        Literal["receiving", "assembling", "checking", "done"],
        Field(description="Past `receiving`, `complete` has been asked for; where that broke off, ask for it again."),
    ]
    parts: Annotated[list[HeldPart], Field(description="Parts held, by number; empty once nothing is needed of them.")]
    file_id: Annotated[str | None, Field(description="Of the file; null until there is one.")]
    error: Annotated[Failure | None, Field(description="Why the file was refused.")]


class VolumeFacts(BaseModel):
    """What was read from a volume's header and its voxels; intensities are those of the finite voxels."""

    # JSON has no other numbers, and what cannot be read back must not be written.
    model_config = ConfigDict(allow_inf_nan=False)

    shape: tuple[int, int, int]
    """[X, Y, Z] in voxels."""
    channels: int = 1
    """Volumes of this shape in the file, the channels of one; intensities are those of all."""
    voxel_size: tuple[float, float, float] | None
    """[X, Y, Z] in nm; null where the file does not say."""
    dtype: str
    min_intensity: float
    max_intensity: float
    mean_intensity: float
    std_intensity: float
    warnings: list[str]
    """What is odd about the file but acceptable."""


class VolumeMetadata(VolumeFacts):
    """What a volume is: the name that it was uploaded under, and what its header and its voxels say."""

    filename: str


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
    status: Literal["active", "completed", "rejected", "aborted", "expired"]
    stage: Literal["receiving", "assembling", "checking", "done"] = "receiving"
    """How far it has come; written before each step, so that whoever goes on after a crash knows where."""
    rejection: Failure | None = None
    """Why the file was refused; the same answer is given again."""
    mark: str | None = None
    """Key of the mark that is there while the upload is open."""
    created_at: datetime
    expires_at: datetime

    @property
    def part_count(self) -> int:
        """How many parts the file comes in."""
        return -(-self.total_size // self.chunk_size)

    def part_size(self, number: int) -> int:
        """Return the bytes that part `number` (0-based) must have."""
        return min(self.chunk_size, self.total_size - number * self.chunk_size)


class HeldParts(BaseModel):
    """The record of the parts that an upload was completed with."""

    parts: list[HeldPart]


class FileRecord(BaseModel):
    """The record of a file."""

    model_config = ConfigDict(frozen=True)

    owner: str
    file: FileCreated
    user_metadata: Metadata
