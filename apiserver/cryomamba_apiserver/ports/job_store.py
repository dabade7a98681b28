"""The port to jobs: who asked for what, how far it is, and how it ended."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from cryomamba_crds.failures import Failure
from cryomamba_crds.report import GpuStats, Manifest, Preview, Progress
from cryomamba_crds.task import InferenceParams, ModelReference, PreviewParams


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

    owner: str
    file_id: str
    model: ModelReference
    params: InferenceParams
    preview: PreviewParams
    wire_params: dict[str, Any]
    """The parameters as the client sent them, defaults filled in; shown back to it."""
    tiles: int
    """How many tiles the network will be run on."""


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


@dataclass(frozen=True)
class JobPage:
    """A part of a list of jobs, newest first."""

    records: list[JobRecord]
    total: int


class JobMissingError(LookupError):
    """There is no such job."""


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
    """Jobs by id."""

    async def create(self, request: JobRequest) -> JobRecord:
        """Take a job in; raise DuplicateJobError, QueueFullError."""

    async def get(self, job_id: str) -> JobRecord:
        """Return a job; raise JobMissingError."""

    async def list_jobs(self, owner: str | None, status: JobStatus | None, limit: int, offset: int) -> JobPage:
        """Return jobs of one owner, or of all where it is None, newest first."""

    async def cancel(self, job_id: str) -> JobRecord:
        """End a job that has not ended; raise JobMissingError, JobFinishedError."""

    async def queue_position(self, record: JobRecord) -> int:
        """Return how many-th a queued job is in line, from 1; 0 for one that is not queued."""

    async def seconds_per_tile(self, digest: str) -> float | None:
        """Return what a tile of this model took in its latest completed job; None until one has completed."""

    def watch(self, job_id: str) -> AsyncIterator[JobRecord]:
        """Yield a job's newest state at once and whenever it changes, until it has ended.

        A reader that is slow misses states in between, never the newest. Raises JobMissingError.
        """
