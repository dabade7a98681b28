"""Jobs in SQLite: one row a job, written in one transaction a change, safe against kill -9.

Blocking; `LocalJobStore` calls it from a thread of its own.
"""

import contextlib
import hashlib
import json
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from cryomamba_apiserver.ports.job_store import (
    DuplicateJobError,
    JobFinishedError,
    JobMissingError,
    JobPage,
    JobRecord,
    JobRequest,
    JobStatus,
    QueueFullError,
)
from cryomamba_apiserver.ports.object_store import StorageFullError
from cryomamba_crds.ids import new_job_id

_SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    job_id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    status TEXT NOT NULL,
    fingerprint TEXT NOT NULL,
    digest TEXT NOT NULL,
    record TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS jobs_by_status ON jobs (status, number);
CREATE INDEX IF NOT EXISTS jobs_by_owner ON jobs (owner, number);
CREATE INDEX IF NOT EXISTS jobs_by_model ON jobs (digest, status, number);
CREATE UNIQUE INDEX IF NOT EXISTS live_jobs ON jobs (owner, fingerprint) WHERE status IN ('queued', 'running');
PRAGMA user_version = 1;
"""


class JobTable:
    """The rows; `now` is the clock."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._now = now
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        # A job whose creation was answered must outlive a power cut too.
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.executescript(_SCHEMA)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def insert(self, request: JobRequest, max_queued: int) -> JobRecord:
        """Take a job in at the end of the queue; raise DuplicateJobError, QueueFullError, StorageFullError."""
        now = self._now()
        record = JobRecord(job_id=new_job_id(), uid=str(uuid4()), request=request, created_at=now, updated_at=now)
        fingerprint = _fingerprint(request)
        with self._writing():
            live = self._database.execute(
                "SELECT job_id FROM jobs WHERE owner = ? AND fingerprint = ? AND status IN ('queued', 'running')",
                (request.owner, fingerprint),
            ).fetchone()
            if live:
                raise DuplicateJobError(live[0])
            if self._count("WHERE status = 'queued'", ()) >= max_queued:
                raise QueueFullError
            self._database.execute(
                "INSERT INTO jobs (job_id, owner, status, fingerprint, digest, record) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    record.job_id,
                    request.owner,
                    record.status,
                    fingerprint,
                    request.model.card.digest,
                    record.model_dump_json(),
                ),
            )
        return record

    def get(self, job_id: str) -> JobRecord:
        """Return a job; raise JobMissingError."""
        row = self._database.execute("SELECT record FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        if row is None:
            raise JobMissingError(job_id)
        return JobRecord.model_validate_json(row[0])

    def page(self, owner: str | None, status: JobStatus | None, limit: int, offset: int) -> JobPage:
        """Return jobs newest first."""
        where = "WHERE (? IS NULL OR owner = ?) AND (? IS NULL OR status = ?)"
        values = (owner, owner, status, status)
        rows = self._database.execute(
            f"SELECT record FROM jobs {where} ORDER BY number DESC LIMIT ? OFFSET ?",  # noqa: S608 - `where` is above
            (*values, limit, offset),
        )
        return JobPage([JobRecord.model_validate_json(record) for (record,) in rows], self._count(where, values))

    def position(self, job_id: str) -> int:
        """Return how many-th a queued job is, from 1; 0 for one that is not queued."""
        return self._count(
            "WHERE status = 'queued' AND number <= (SELECT number FROM jobs WHERE job_id = ? AND status = 'queued')",
            (job_id,),
        )

    def seconds_per_tile(self, digest: str) -> float | None:
        """Return what the latest completed job of a model measured."""
        row = self._database.execute(
            "SELECT record FROM jobs WHERE digest = ? AND status = 'completed' ORDER BY number DESC LIMIT 1", (digest,)
        ).fetchone()
        result = JobRecord.model_validate_json(row[0]).result if row else None
        return result.seconds_per_tile if result else None

    def change(self, job_id: str, changes: Mapping[str, object]) -> JobRecord:
        """Change fields of a job as it stands now and return it; one that has ended stays as it ended.

        Raises:
            JobMissingError: there is no such job.
            JobFinishedError: the job has ended already.
            StorageFullError: it could not be written.
        """
        with self._writing():
            record = self.get(job_id)
            if record.status.finished:
                raise JobFinishedError(record.status)
            record = record.model_copy(update={**changes, "updated_at": self._now()})
            self._database.execute(
                "UPDATE jobs SET status = ?, record = ? WHERE job_id = ?",
                (record.status, record.model_dump_json(), job_id),
            )
        return record

    def next_queued(self) -> JobRecord | None:
        """Return the job whose turn it is."""
        row = self._database.execute(
            "SELECT record FROM jobs WHERE status = 'queued' ORDER BY number LIMIT 1"
        ).fetchone()
        return JobRecord.model_validate_json(row[0]) if row else None

    def running(self) -> list[JobRecord]:
        """Return the jobs that are marked as running, oldest first."""
        rows = self._database.execute("SELECT record FROM jobs WHERE status = 'running' ORDER BY number")
        return [JobRecord.model_validate_json(record) for (record,) in rows]

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """One transaction, taken back on any error; raise StorageFullError where the disk is full."""
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode == sqlite3.SQLITE_FULL:
                raise StorageFullError("the disk of the data directory is full") from error
            raise

    def _count(self, where: str, values: tuple[object, ...]) -> int:
        query = f"SELECT count(*) FROM jobs {where}"  # noqa: S608 - `where` is written in this module
        (count,) = self._database.execute(query, values).fetchone()
        return int(count)


def _fingerprint(request: JobRequest) -> str:
    """Return what is equal for two requests whose results would be equal."""
    same = {
        "file": request.file_id,
        "model": request.model.card.digest,
        "params": request.params.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
