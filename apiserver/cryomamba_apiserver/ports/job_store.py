"""The port to jobs: who asked for what, how far it is, and how it ended."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

from pydantic import BaseModel, ConfigDict

from cryomamba_crds.failures import Failure
from cryomamba_crds.report import GpuStats, Manifest, Preview, Progress
from cryomamba_crds.task import InferenceParams, PreviewParams


class JobStatus(StrEnum):
    """The five states of the API reference."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def finished(self) -> bool:
        """Whether nothing will change any more."""
        return self in {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED}


class JobRequest(BaseModel):
    """What somebody asked for, checked."""

    model_config = ConfigDict(frozen=True)

    owner: str | None
    """None: nobody's, seen by `admin` alone; only what was not made through the API is so."""
    file_id: str | None
    """None: the volume is another object of the store; only what was not made through the API names one."""
    model: str
    """Name in the catalogue."""
    model_digest: str | None
    """Of the zip that the name stood for; None: whichever it stands for when the job begins."""
    params: InferenceParams
    preview: PreviewParams
    tiles: int | None = None
    """How many tiles the network will be run on; None where nobody has counted."""


class JobRecord(BaseModel):
    """All that is known of a job."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    uid: str
    request: JobRequest
    status: JobStatus = JobStatus.QUEUED
    attempt: int = 0
    crashes: int = 0
    """How often the server was killed while the job ran."""
    created_at: datetime
    updated_at: datetime
    started_at: datetime | None = None
    completed_at: datetime | None = None
    progress: Progress | None = None
    preview: Preview | None = None
    gpu: GpuStats | None = None
    result: Manifest | None = None
    failure: Failure | None = None


class JobReceipt(BaseModel):
    """What the creation of a job was answered with; the same again for a retry, whatever became of the job."""

    model_config = ConfigDict(frozen=True)

    job_id: str
    file_id: str
    model: str
    created_at: datetime
    queue_position: int
    """From 1, as it was then."""
    estimated_duration_seconds: int | None
    """None where the model's speed was not known then."""
    replayed: bool = False
    """Whether an earlier request of the same key was answered with it before; never kept."""


@dataclass(frozen=True)
class RetryKey:
    """A client's name for one creation, so that sending it again does not create a second job."""

    key: str
    """As the client chose it; means something for its owner only."""
    request_digest: str
    """Of all that was asked for: another request under the same key is a mistake."""


RETRY_KEY_LIFETIME = timedelta(hours=24)
"""How long a retry is answered with the first answer; afterwards its key is as good as new."""


@dataclass(frozen=True)
class ListedJob:
    """A job as it stands in a list."""

    job_id: str
    status: JobStatus
    created_at: datetime
    completed_at: datetime | None


@dataclass(frozen=True)
class JobPage:
    """A part of a list of jobs, newest first."""

    jobs: list[ListedJob]
    total: int
    """Of the whole list."""
    more: bool
    """Whether older jobs follow."""


class JobsUnavailableError(Exception):
    """Jobs cannot be asked about or changed now; text and hint hold no secret."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.hint = hint


class JobsRefusedError(JobsUnavailableError):
    """What keeps jobs does not take this change, and would not take it later either."""


class JobMissingError(LookupError):
    """There is no such job."""


class RetryKeyConflictError(Exception):
    """The key names a creation already that asked for something else."""


class DuplicateJobError(Exception):
    """The same owner's same request is queued or running already."""

    def __init__(self, job_id: str) -> None:
        super().__init__(job_id)
        self.job_id = job_id


class QueueFullError(Exception):
    """As many jobs are waiting as may."""


class JobFinishedError(Exception):
    """The job has ended and cannot be cancelled any more."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__(status)
        self.status = status


class JobStore(Protocol):
    """Jobs by id. Every method raises JobsUnavailableError where what keeps them cannot be reached."""

    async def receipt(self, owner: str, retry: RetryKey) -> JobReceipt | None:
        """Return the answer to an earlier creation of this key, None where there was none.

        Raises RetryKeyConflictError.
        """

    async def create(self, request: JobRequest, retry: RetryKey | None = None) -> JobReceipt:
        """Take a job in, or return the receipt of the one that this key has created already.

        Job and receipt are kept together or not at all.
        Raises RetryKeyConflictError, DuplicateJobError, QueueFullError.
        """

    async def get(self, job_id: str) -> JobRecord:
        """Return a job; raise JobMissingError."""

    async def list_jobs(
        self, owner: str | None, status: JobStatus | None, limit: int, offset: int, before: str | None = None
    ) -> JobPage:
        """Return jobs of one owner, or of all where it is None, in the reverse order of their creation.

        `before` is a job's id: only older ones are listed, whatever was created meanwhile. Raises JobMissingError where
        the owner has no such job.
        """

    async def cancel(self, job_id: str) -> JobRecord:
        """End a job that has not ended; raise JobMissingError, JobFinishedError."""

    def watch(self, job_id: str) -> AsyncIterator[JobRecord]:
        """Yield a job's newest state at once and whenever it changes, until it has ended.

        A reader that is slow misses states in between, never the newest. Raises JobMissingError.
        """
