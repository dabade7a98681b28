"""Jobs on one workstation: kept in SQLite, run one process each, as many at once as there are GPUs."""

import asyncio
import contextlib
import logging
import shutil
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from cryomamba_apiserver.adapters.endings import gave_up, not_run, without_result
from cryomamba_apiserver.adapters.job_table import JobTable
from cryomamba_apiserver.adapters.opening import RunnerStore
from cryomamba_apiserver.adapters.recent_jobs import RecentJobs
from cryomamba_apiserver.adapters.runner_process import RunnerProcess
from cryomamba_apiserver.adapters.watchers import Watchers
from cryomamba_apiserver.models.pinned import pinned_card
from cryomamba_apiserver.ports.job_store import (
    JobFinishedError,
    JobPage,
    JobReceipt,
    JobRecord,
    JobRequest,
    JobStatus,
    RetryKey,
)
from cryomamba_apiserver.ports.object_store import (
    ObjectMissingError,
    ObjectStore,
    StorageFullError,
    StoreUnavailableError,
)
from cryomamba_crds import keys
from cryomamba_crds.failures import Failure, FailureError
from cryomamba_crds.report import Manifest
from cryomamba_crds.task import ModelReference, Task

_log = logging.getLogger(__name__)
_WRITE_SECONDS = 0.5
"""Progress comes with every tile; watchers are told at once, the disk this often."""
_FULL_DISK_SECONDS = 5
_NOTHING_YET: dict[str, Any] = {"progress": None, "preview": None, "gpu": None}
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class LocalProfile:
    """Where jobs run and how many."""

    data_dir: Path
    store: RunnerStore
    gpus: tuple[int, ...]
    """Indices of the GPUs; empty: one job at a time on the CPU."""
    max_queued_jobs: int
    runner: Sequence[str] = (sys.executable, "-m", "cryomamba_inference")
    """The command that does a task; the task's path is added to it."""
    max_crashes: int = 3
    """How often the server may be killed while a job runs before the job is given up."""


class LocalJobStore:
    """Fulfils `JobStore` and runs the jobs: `run()` is to be kept as a task for as long as the server lives."""

    def __init__(self, profile: LocalProfile, objects: ObjectStore, now: Callable[[], datetime]) -> None:
        self._profile = profile
        self._objects = objects
        self._now = now
        self._table = JobTable(profile.data_dir / "jobs.sqlite", now)
        # One thread: SQLite sees one caller, and the event loop never waits for the disk.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="jobs")
        self._recent = RecentJobs()
        self._watchers = Watchers()
        self._running: dict[str, asyncio.Task[None]] = {}
        # What runners have said and the disk does not have yet: whoever asks is told what watchers were told.
        self._unwritten: dict[str, dict[str, Any]] = {}
        self._free_slots: list[int | None] = list(profile.gpus) or [None]
        self._wake = asyncio.Event()
        # On the file system of the store, so that a result is moved into it and not copied.
        self._scratch = profile.data_dir / "scratch"
        shutil.rmtree(self._scratch, ignore_errors=True)  # what a killed server's runners left
        self._scratch.mkdir()

    async def receipt(self, owner: str, retry: RetryKey) -> JobReceipt | None:  # noqa: D102 - the port says it
        return await self._call(self._table.receipt, owner, retry)

    async def create(self, request: JobRequest, retry: RetryKey | None = None) -> JobReceipt:  # noqa: D102 - see port
        return await _to_its_end(self._take_in(request, retry))

    async def get(self, job_id: str) -> JobRecord:  # noqa: D102 - the port says it
        record = self._recent.get(job_id)
        if record is None:
            begun = self._recent.begin()
            record = self._recent.read(await self._call(self._table.get, job_id), begun)
        said = self._unwritten.get(job_id)
        return record if said is None or record.status.finished else record.model_copy(update=said)

    async def list_jobs(  # noqa: D102 - the port says it
        self, owner: str | None, status: JobStatus | None, limit: int, offset: int, before: str | None = None
    ) -> JobPage:
        return await self._call(self._table.page, owner, status, limit, offset, before)

    async def cancel(self, job_id: str) -> JobRecord:  # noqa: D102 - the port says it
        record = await self._change(job_id, status=JobStatus.CANCELLED, completed_at=self._now())
        if running := self._running.get(job_id):
            running.cancel()
            await asyncio.wait([running])
        return record

    def watch(self, job_id: str) -> AsyncIterator[JobRecord]:  # noqa: D102 - the port says it
        return self._watchers.watch(job_id, self.get)

    async def run(self) -> None:
        """Take up what a previous server left, then start jobs in their order whenever a slot is free."""
        try:
            for record in await self._call(self._table.running):
                await self._until_written(partial(self._take_up, record, record.crashes + 1))
            while True:
                self._wake.clear()
                await self._until_written(self._start_what_fits)
                await self._wake.wait()
        finally:
            await self._put_back()
            await self._call(self._table.close)
            self._thread.shutdown()

    async def _take_up(self, record: JobRecord, crashes: int) -> None:
        """Decide about a job whose process ended with the server: it may have finished, else it runs again."""
        if manifest := await self._committed(record):
            await self._change(record.job_id, status=JobStatus.COMPLETED, completed_at=self._now(), result=manifest)
        elif crashes >= self._profile.max_crashes:
            failure = gave_up(crashes)
            await self._change(record.job_id, status=JobStatus.FAILED, completed_at=self._now(), failure=failure)
        else:
            await self._change(record.job_id, status=JobStatus.QUEUED, crashes=crashes, **_NOTHING_YET)

    async def _put_back(self) -> None:
        """Stop what runs, and let it run again when the server is back; an orderly stop is no crash."""
        for running in self._running.values():
            running.cancel()
        if self._running:
            await asyncio.wait(self._running.values())
        for record in await self._call(self._table.running):
            with contextlib.suppress(StoreUnavailableError):  # then the next start decides
                await self._take_up(record, record.crashes)

    async def _start_what_fits(self) -> None:
        while self._free_slots:
            queued = await self._call(self._table.next_queued)
            if queued is None:
                return
            with contextlib.suppress(JobFinishedError):  # cancelled while it was being taken from the queue
                await self._start(queued)

    async def _start(self, record: JobRecord) -> None:
        record = await self._change(
            record.job_id,
            status=JobStatus.RUNNING,
            attempt=record.attempt + 1,
            started_at=record.started_at or self._now(),
        )
        slot = self._free_slots.pop(0)
        running = asyncio.create_task(self._run_attempt(record, slot), name=record.job_id)
        self._running[record.job_id] = running

        def leave(_: asyncio.Task[None]) -> None:
            self._free_slots.append(slot)
            del self._running[record.job_id]
            self._unwritten.pop(record.job_id, None)
            self._wake.set()

        # Not in a `finally` of the task, which never runs where the task is cancelled before its first step.
        running.add_done_callback(leave)

    async def _run_attempt(self, record: JobRecord, slot: int | None) -> None:
        try:
            last, failure = await self._attempt(record, slot)
        except JobFinishedError:
            return
        except FailureError as error:
            last, failure = {}, error.failure
        except Exception as error:  # noqa: BLE001 - one job's trouble must not end the others; the job says it
            _log.exception("job %s could not be run", record.job_id)
            last, failure = {}, not_run(error)
        with contextlib.suppress(JobFinishedError):  # cancelled meanwhile
            await self._until_written(partial(self._end, record, last, failure))

    async def _attempt(self, record: JobRecord, slot: int | None) -> tuple[dict[str, Any], Failure | None]:
        """Run a job's process to its end; return what it said last that is not written yet, and its failure."""
        folder = self._profile.data_dir / "logs" / record.job_id / str(record.attempt)
        runner = await RunnerProcess.start(
            self._profile.runner,
            await self._task(record),
            folder=folder,
            scratch=self._scratch,
            gpu=slot,
            secrets=self._profile.store.environment,
        )
        unwritten: dict[str, Any] = {}
        next_write = 0.0
        clock = asyncio.get_running_loop().time
        try:
            async for report in runner.reports():
                unwritten |= {name: value for name, value in report if value is not None}
                if clock() < next_write:
                    said = self._unwritten[record.job_id] = {**unwritten, "updated_at": self._now()}
                    await self._watchers.show(record.model_copy(update=said))
                    continue
                next_write = clock() + _WRITE_SECONDS
                try:
                    record = await self._change(record.job_id, **unwritten)
                    unwritten = {}
                except StorageFullError:
                    _log.exception("progress of job %s cannot be written", record.job_id)
            return unwritten, await runner.failure()
        finally:
            await asyncio.shield(runner.stop())

    async def _end(self, record: JobRecord, last: dict[str, Any], failure: Failure | None) -> None:
        """Write how a job has ended. What counts is the manifest: another attempt may have committed one."""
        result = last.pop("result", None) or await self._committed(record)
        if result:
            changes = {"status": JobStatus.COMPLETED, "result": result}
        else:
            changes = {"status": JobStatus.FAILED, "failure": failure or without_result()}
        await self._change(record.job_id, **last, **changes, completed_at=self._now())

    async def _committed(self, record: JobRecord) -> Manifest | None:
        try:
            return Manifest.model_validate_json(await self._objects.read(keys.job_manifest(record.uid)))
        except ObjectMissingError:
            return None

    async def _change(self, job_id: str, **changes: Any) -> JobRecord:  # noqa: ANN401 - fields of JobRecord
        """Write a changed job and tell its watchers; raise JobFinishedError, StorageFullError."""
        return await _to_its_end(self._write(job_id, changes))

    async def _take_in(self, request: JobRequest, retry: RetryKey | None) -> JobReceipt:
        taken = await self._call(self._table.insert, request, self._profile.max_queued_jobs, retry)
        if taken.record:
            self._recent.written(taken.record)
            self._wake.set()
        return taken.receipt

    async def _write(self, job_id: str, changes: dict[str, Any]) -> JobRecord:
        record = await self._call(self._table.change, job_id, changes)
        self._recent.written(record)
        self._unwritten.pop(job_id, None)
        await self._watchers.show(record)
        return record

    async def _until_written(self, write: Callable[[], Awaitable[None]]) -> None:
        """Do something that must be written, again and again while the disk is full or the store is away."""
        while True:
            try:
                return await write()
            except (StorageFullError, StoreUnavailableError):
                _log.exception("the state of jobs cannot be written; trying again in %s s", _FULL_DISK_SECONDS)
                await asyncio.sleep(_FULL_DISK_SECONDS)

    async def _task(self, record: JobRecord) -> Task:
        request = record.request
        if request.file_id is None or request.model_digest is None:
            raise ValueError("a job of this machine names a file and a model's digest")
        return Task(
            job_id=record.job_id,
            job_uid=record.uid,
            attempt=record.attempt,
            input_key=keys.file_volume(request.file_id),
            model=ModelReference(
                name=request.model,
                key=keys.model_archive(request.model, request.model_digest),
                card=await pinned_card(self._objects, request.model, request.model_digest),
                cache=str(self._profile.data_dir / "models"),
            ),
            params=request.params,
            preview=request.preview,
            store=self._profile.store.store,
            output_prefix=keys.attempt_prefix(record.uid, record.attempt),
            device="cuda" if self._profile.gpus else "cpu",
        )

    async def _call(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))


async def _to_its_end(write: Coroutine[Any, Any, _T]) -> _T:
    """Let a write and what follows from it happen though whoever asked for it is cancelled: the disk has it anyway."""
    return await asyncio.shield(asyncio.ensure_future(write))
