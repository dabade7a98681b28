"""Jobs on one workstation: kept in SQLite, run one process each, as many at once as there are GPUs."""

import asyncio
import contextlib
import logging
import shutil
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cryomamba_apiserver.adapters.job_table import JobTable
from cryomamba_apiserver.adapters.runner_process import RunnerProcess
from cryomamba_apiserver.ports.job_store import (
    JobFinishedError,
    JobPage,
    JobRecord,
    JobRequest,
    JobStatus,
)
from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore
from cryomamba_crds import keys
from cryomamba_crds.failures import Failure, FailureCode
from cryomamba_crds.report import Manifest, Report
from cryomamba_crds.task import DirectoryStore, Task

_log = logging.getLogger(__name__)
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class LocalProfile:
    """Where jobs run and how many."""

    data_dir: Path
    store_root: Path
    gpus: tuple[int, ...]
    """Indices of the GPUs; empty: one job at a time on the CPU."""
    max_queued_jobs: int
    runner: Sequence[str] = (sys.executable, "-m", "cryomamba_inference")
    """The command that does a task; the task's path is added to it."""
    max_attempts: int = 3


@dataclass
class _Watched:
    """The newest state of a job that somebody watches, and the bell that rings when it changes."""

    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    record: JobRecord | None = None
    watchers: int = 0

    async def newer_than(self, seen: JobRecord) -> JobRecord:
        """Wait for a state that differs from the one seen last."""
        async with self.changed:
            while self.record is None or self.record == seen:
                await self.changed.wait()
            return self.record


class LocalJobStore:
    """Fulfils `JobStore` and runs the jobs: `run()` is to be kept as a task for as long as the server lives."""

    def __init__(self, profile: LocalProfile, objects: ObjectStore, now: Callable[[], datetime]) -> None:
        self._profile = profile
        self._objects = objects
        self._now = now
        self._table = JobTable(profile.data_dir / "jobs.sqlite", now)
        # One thread: SQLite sees one caller, and the event loop never waits for the disk.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")
        self._watched: dict[str, _Watched] = {}
        self._running: dict[str, asyncio.Task[None]] = {}
        self._free_slots: list[int | None] = list(profile.gpus) or [None]
        self._wake = asyncio.Event()
        # On the file system of the store, so that a result is moved into it and not copied.
        self._scratch = profile.data_dir / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)  # what a killed server's runners left
        self._scratch.mkdir()

    async def create(self, request: JobRequest) -> JobRecord:  # noqa: D102 - the port says it
        record = await self._call(self._table.insert, request, self._profile.max_queued_jobs)
        self._wake.set()
        return record

    async def get(self, job_id: str) -> JobRecord:  # noqa: D102 - the port says it
        return await self._call(self._table.get, job_id)

    async def list_jobs(  # noqa: D102 - the port says it
        self, owner: str | None, status: JobStatus | None, limit: int, offset: int
    ) -> JobPage:
        return await self._call(self._table.page, owner, status, limit, offset)

    async def cancel(self, job_id: str) -> JobRecord:  # noqa: D102 - the port says it
        record = await self._change(job_id, status=JobStatus.CANCELLED, completed_at=self._now())
        if running := self._running.get(job_id):
            running.cancel()
            await asyncio.wait([running])
        return record

    async def queue_position(self, record: JobRecord) -> int:  # noqa: D102 - the port says it
        return await self._call(self._table.position, record.job_id)

    async def seconds_per_tile(self, digest: str) -> float | None:  # noqa: D102 - the port says it
        return await self._call(self._table.seconds_per_tile, digest)

    async def watch(self, job_id: str) -> AsyncIterator[JobRecord]:  # noqa: D102 - the port says it
        watched = self._watched.setdefault(job_id, _Watched())
        watched.watchers += 1
        try:
            record = watched.record or await self.get(job_id)
            yield record
            while not record.status.finished:
                record = await watched.newer_than(record)
                yield record
        finally:
            watched.watchers -= 1
            if not watched.watchers:
                self._watched.pop(job_id, None)

    async def run(self) -> None:
        """Take up what a previous server left, then start jobs in their order whenever a slot is free."""
        try:
            for record in await self._call(self._table.running):
                await self._take_up(record)
            while True:
                self._wake.clear()
                while self._free_slots:
                    queued = await self._call(self._table.next_queued)
                    if queued is None:
                        break
                    await self._start(queued)
                await self._wake.wait()
        finally:
            for running in self._running.values():
                running.cancel()
            if self._running:
                await asyncio.wait(self._running.values())
            await self._call(self._table.close)
            self._thread.shutdown()

    async def _take_up(self, record: JobRecord) -> None:
        """Decide about a job that was running when the server died: it may have finished, else it runs again."""
        try:
            manifest = Manifest.model_validate_json(await self._objects.read(keys.job_manifest(record.uid)))
        except ObjectMissingError:
            if record.attempt >= self._profile.max_attempts:
                await self._finish(record.job_id, _gave_up(record.attempt))
            else:
                await self._change(record.job_id, status=JobStatus.QUEUED, progress=None, preview=None)
        else:
            await self._change(record.job_id, result=manifest)
            await self._finish(record.job_id, None)

    async def _start(self, record: JobRecord) -> None:
        slot = self._free_slots.pop(0)
        with contextlib.suppress(JobFinishedError):  # cancelled while it was being taken from the queue
            record = await self._change(
                record.job_id,
                status=JobStatus.RUNNING,
                attempt=record.attempt + 1,
                started_at=record.started_at or self._now(),
            )
            self._running[record.job_id] = asyncio.create_task(self._run_attempt(record, slot), name=record.job_id)
            return
        self._free_slots.append(slot)

    async def _run_attempt(self, record: JobRecord, slot: int | None) -> None:
        try:
            folder = self._profile.data_dir / "logs" / record.job_id / str(record.attempt)
            runner = await RunnerProcess.start(
                self._profile.runner, self._task(record), folder=folder, scratch=self._scratch, gpu=slot
            )
            try:
                async for report in runner.reports():
                    record = await self._change(record.job_id, **_changes(report))
                failure = await runner.failure()
            finally:
                await asyncio.shield(runner.stop())
            await self._finish(record.job_id, failure or _without_result(record))
        except JobFinishedError:
            _log.info("job %s was cancelled", record.job_id)
        except Exception as error:  # noqa: BLE001 - one job's trouble must not end the others; the job says it
            _log.exception("job %s could not be run", record.job_id)
            with contextlib.suppress(JobFinishedError):  # cancelled meanwhile
                await self._finish(record.job_id, _not_run(error))
        finally:
            self._free_slots.append(slot)
            del self._running[record.job_id]
            self._wake.set()

    async def _finish(self, job_id: str, failure: Failure | None) -> None:
        if failure:
            await self._change(job_id, status=JobStatus.FAILED, completed_at=self._now(), failure=failure)
        else:
            await self._change(job_id, status=JobStatus.COMPLETED, completed_at=self._now())

    async def _change(self, job_id: str, **changes: Any) -> JobRecord:  # noqa: ANN401 - fields of JobRecord
        """Write a changed job and tell its watchers."""
        record = await self._call(self._table.change, job_id, changes)
        if watched := self._watched.get(job_id):
            async with watched.changed:
                watched.record = record
                watched.changed.notify_all()
        return record

    def _task(self, record: JobRecord) -> Task:
        request = record.request
        return Task(
            job_id=record.job_id,
            job_uid=record.uid,
            attempt=record.attempt,
            input_key=keys.file_volume(request.file_id),
            model=request.model,
            params=request.params,
            preview=request.preview,
            store=DirectoryStore(root=str(self._profile.store_root)),
            output_prefix=keys.attempt_prefix(record.uid, record.attempt),
            device="cuda" if self._profile.gpus else "cpu",
        )

    async def _call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))


def _changes(report: Report) -> dict[str, Any]:
    return {name: value for name, value in report if value is not None}


def _without_result(record: JobRecord) -> Failure | None:
    if record.result:
        return None
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message="The process that ran the job ended well but gave no result.",
        hint="Start the job again; please report it if this happens twice.",
        retryable=True,
    )


def _gave_up(attempts: int) -> Failure:
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message=f"The server stopped in the middle of this job {attempts} times.",
        hint="See whether the machine runs out of memory while the job runs; then start the job again.",
        retryable=True,
    )


def _not_run(error: Exception) -> Failure:
    return Failure(
        code=FailureCode.INTERNAL_ERROR,
        message=f"The job could not be run: {type(error).__name__}.",
        hint="The server's log has the details; start the job again once the cause is mended.",
        retryable=True,
    )
