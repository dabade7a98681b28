"""Jobs in SQLite: one row a job, written in one transaction a change, safe against kill -9.

Blocking; `LocalJobStore` calls it from a thread of its own.
"""

import contextlib
import hashlib
import json
import math
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from cryomamba_apiserver.adapters.job_schema import prepare
from cryomamba_apiserver.ports.job_store import (
    RETRY_KEY_LIFETIME,
    DuplicateJobError,
    JobFinishedError,
    JobMissingError,
    JobPage,
    JobReceipt,
    JobRecord,
    JobRequest,
    JobStatus,
    ListedJob,
    QueueFullError,
    RetryKey,
    RetryKeyConflictError,
)
from cryomamba_apiserver.ports.object_store import StorageFullError
from cryomamba_crds.ids import new_job_id


@dataclass(frozen=True)
class Taken:
    """What came of a creation."""

    receipt: JobReceipt
    record: JobRecord | None
    """None where the receipt is that of an earlier creation."""


class JobTable:
    """The rows; `now` is the clock."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._now = now
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        # A job whose creation was answered must outlive a power cut too.
        self._database.execute("PRAGMA synchronous = FULL")
        prepare(self._database)

    def close(self) -> None:
        """Let go of the file."""
        self._database.close()

    def receipt(self, owner: str, retry: RetryKey) -> JobReceipt | None:
        """Return what an earlier creation of this key was answered with; raise RetryKeyConflictError."""
        row = self._database.execute(
            "SELECT request_digest, receipt FROM receipts WHERE owner = ? AND key = ? AND expires > ?",
            (owner, retry.key, self._now().timestamp()),
        ).fetchone()
        if row is None:
            return None
        if row[0] != retry.request_digest:
            raise RetryKeyConflictError(retry.key)
        return JobReceipt.model_validate_json(row[1]).model_copy(update={"replayed": True})

    def insert(self, request: JobRequest, max_queued: int, retry: RetryKey | None = None) -> Taken:
        """Take a job in at the end of the queue, unless this key has done so already.

        Raises RetryKeyConflictError, DuplicateJobError, QueueFullError, StorageFullError.
        """
        owner, fingerprint = request.owner, _fingerprint(request)
        if owner is None:
            raise ValueError("a job of this machine has an owner")
        with self._writing():
            if retry and (earlier := self.receipt(owner, retry)):
                return Taken(earlier, None)
            live = self._database.execute(
                "SELECT job_id FROM jobs WHERE owner = ? AND fingerprint = ? AND status IN ('queued', 'running')",
                (owner, fingerprint),
            ).fetchone()
            if live:
                raise DuplicateJobError(live[0])
            waiting = self._count("WHERE status = 'queued'", ())
            if waiting >= max_queued:
                raise QueueFullError
            now = self._now()
            record = JobRecord(job_id=new_job_id(), uid=str(uuid4()), request=request, created_at=now, updated_at=now)
            self._add(record, fingerprint)
            receipt = JobReceipt(
                job_id=record.job_id,
                file_id=request.file_id,
                model=request.model,
                created_at=now,
                queue_position=waiting + 1,
                estimated_duration_seconds=self.estimate(request),
            )
            if retry:
                self._keep(receipt, owner, retry)
        return Taken(receipt, record)

    def get(self, job_id: str) -> JobRecord:
        """Return a job; raise JobMissingError."""
        row = self._database.execute("SELECT record FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        if row is None:
            raise JobMissingError(job_id)
        return JobRecord.model_validate_json(row[0])

    def page(
        self, owner: str | None, status: JobStatus | None, limit: int, offset: int, before: str | None = None
    ) -> JobPage:
        """Return jobs newest first; raise JobMissingError where the owner has no job `before`."""
        asked = {"owner": owner, "status": status}
        given: dict[str, object] = {column: value for column, value in asked.items() if value is not None}
        filters = [f"{column} = :{column}" for column in given]
        total = self._count(_where(filters), given)
        if before is not None:
            number = self._number(before, owner)
            filters, given = [*filters, "number < :number"], {**given, "number": number}
        query = (
            f"SELECT job_id, status, created_at, completed_at FROM jobs {_where(filters)} "  # noqa: S608 - names are ours
            "ORDER BY number DESC LIMIT :limit OFFSET :offset"
        )
        rows = self._database.execute(query, {**given, "limit": limit + 1, "offset": offset}).fetchall()
        return JobPage(jobs=[_listed(*row) for row in rows[:limit]], total=total, more=len(rows) > limit)

    def estimate(self, request: JobRequest) -> int | None:
        """Return how many seconds a job is going to run by what its model's latest completed job measured."""
        row = self._database.execute(
            "SELECT json_extract(record, '$.result.seconds_per_tile') FROM jobs"
            " WHERE digest = ? AND status = 'completed' ORDER BY number DESC LIMIT 1",
            (request.model_digest,),
        ).fetchone()
        return None if row is None or row[0] is None else math.ceil(row[0] * (request.tiles or 0))

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
                "UPDATE jobs SET status = ?, completed_at = ?, record = ? WHERE job_id = ?",
                (record.status, _moment(record.completed_at), record.model_dump_json(), job_id),
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

    def _add(self, record: JobRecord, fingerprint: str) -> None:
        self._database.execute(
            "INSERT INTO jobs (job_id, owner, status, fingerprint, digest, created_at, record)"
            " VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                record.job_id,
                record.request.owner,
                record.status,
                fingerprint,
                record.request.model_digest,
                _moment(record.created_at),
                record.model_dump_json(),
            ),
        )

    def _keep(self, receipt: JobReceipt, owner: str, retry: RetryKey) -> None:
        now = self._now()
        self._database.execute("DELETE FROM receipts WHERE expires <= ?", (now.timestamp(),))
        self._database.execute(
            "INSERT INTO receipts (owner, key, request_digest, receipt, expires) VALUES (?, ?, ?, ?, ?)",
            (
                owner,
                retry.key,
                retry.request_digest,
                receipt.model_dump_json(),
                (now + RETRY_KEY_LIFETIME).timestamp(),
            ),
        )

    def _number(self, job_id: str, owner: str | None) -> int:
        row = self._database.execute("SELECT number, owner FROM jobs WHERE job_id = ?", (job_id,)).fetchone()
        if row is None or owner not in (None, row[1]):
            raise JobMissingError(job_id)
        return int(row[0])

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

    def _count(self, where: str, values: Sequence[object] | Mapping[str, object]) -> int:
        query = f"SELECT count(*) FROM jobs {where}"  # noqa: S608 - `where` is written in this module
        (count,) = self._database.execute(query, values).fetchone()
        return int(count)


def _where(filters: Sequence[str]) -> str:
    return f"WHERE {' AND '.join(filters)}" if filters else ""


def _moment(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()


def _listed(job_id: str, status: str, created_at: str, completed_at: str | None) -> ListedJob:
    return ListedJob(
        job_id=job_id,
        status=JobStatus(status),
        created_at=datetime.fromisoformat(created_at),
        completed_at=None if completed_at is None else datetime.fromisoformat(completed_at),
    )


def _fingerprint(request: JobRequest) -> str:
    """Return what is equal for two requests whose results would be equal."""
    same = {
        "file": request.file_id,
        "model": request.model_digest,
        "params": request.params.model_dump(mode="json"),
    }
    return hashlib.sha256(json.dumps(same, sort_keys=True).encode()).hexdigest()
