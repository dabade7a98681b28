"""What the jobs in SQLite need of the store; by a connection of its own, beside a running server or without one."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Iterable, Iterator
from pathlib import Path

from cryomamba_apiserver.ports.job_references import JobReference, model_keys
from cryomamba_apiserver.ports.job_store import JobRecord, JobStatus
from cryomamba_crds import keys

_ENDED = tuple(status.value for status in JobStatus if status.finished)


class LocalJobReferences:
    """Fulfils `JobReferences` from a table of jobs that must be there: without one, all results would seem leftovers.

    Args:
        table: The SQLite file.
    """

    def __init__(self, table: Path) -> None:
        self._table = table

    async def all(self) -> list[JobReference]:
        """Return those of every job; raise sqlite3.OperationalError where there is no table."""
        return await asyncio.to_thread(self._all)

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Remove the records of jobs that have ended."""
        await asyncio.to_thread(self._forget, list(job_ids))

    def _all(self) -> list[JobReference]:
        with self._connected() as database:
            rows = database.execute("SELECT record FROM jobs")
            return [_reference(JobRecord.model_validate_json(record)) for (record,) in rows]

    def _forget(self, job_ids: list[str]) -> None:
        with self._connected() as database, database:
            database.executemany(
                f"DELETE FROM jobs WHERE job_id = ? AND status IN ({', '.join('?' * len(_ENDED))})",  # noqa: S608 - ?s
                [(job_id, *_ENDED) for job_id in job_ids],
            )

    @contextlib.contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(sqlite3.connect(f"{self._table.absolute().as_uri()}?mode=rw", uri=True)) as database:
            yield database


def _reference(record: JobRecord) -> JobReference:
    named = {keys.job_manifest(record.uid)} if record.result else set()
    if record.result:
        named |= {artifact.key for artifact in record.result.artifacts}
    if record.preview:
        named.add(record.preview.key)
    return JobReference(
        job_id=record.job_id,
        uid=record.uid,
        file_id=record.request.file_id,
        model_keys=model_keys(record.request.model, record.request.model_digest),
        ended_at=(record.completed_at or record.updated_at) if record.status.finished else None,
        keys=frozenset(named),
    )
