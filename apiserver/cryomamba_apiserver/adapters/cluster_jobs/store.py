"""Jobs as SegmentationJobs: read from the mirror, written to Kubernetes."""

import asyncio
import contextlib
import math
import re
from collections.abc import AsyncIterator, Callable
from datetime import datetime

from cryomamba_apiserver.adapters.cluster_jobs import creation
from cryomamba_apiserver.adapters.cluster_jobs.client import KubernetesApi, Raw
from cryomamba_apiserver.adapters.cluster_jobs.creation import Estimates, JobDefaults
from cryomamba_apiserver.adapters.cluster_jobs.line import place_in_line
from cryomamba_apiserver.adapters.cluster_jobs.mapping import Entry, entry_of, record_of, status_of
from cryomamba_apiserver.adapters.cluster_jobs.mirror import Mirror
from cryomamba_apiserver.adapters.cluster_jobs.names import FINGERPRINT_LABEL
from cryomamba_apiserver.adapters.cluster_jobs.refusals import AlreadyThereError, ChangedError, NotThereError
from cryomamba_apiserver.adapters.cluster_jobs.results import Results
from cryomamba_apiserver.adapters.cluster_jobs.watch import JobWatch
from cryomamba_apiserver.ports.job_store import (
    DuplicateJobError,
    JobFinishedError,
    JobMissingError,
    JobPage,
    JobReceipt,
    JobRecord,
    JobRequest,
    JobStatus,
    JobsUnavailableError,
    ListedJob,
    QueueFullError,
    RetryKey,
    RetryKeyConflictError,
)
from cryomamba_apiserver.ports.object_store import ObjectStore
from cryomamba_crds import ids
from cryomamba_crds.failures import Failure, FailureCode
from cryomamba_crds.ids import Key
from cryomamba_crds.order import Candidate
from cryomamba_crds.owners import owner_label
from cryomamba_crds.resource import DesiredState

_RESOURCE_NAME = re.compile(r"^[a-z0-9]([a-z0-9-]{0,55}[a-z0-9])?\Z")
_CANCEL_SECONDS = 2.0
"""How long the operator's word on a cancellation is waited for."""
_TRIES = 20
"""How often a change is tried that others' changes get in the way of: a pod reports every few seconds."""


class ClusterJobStore:
    """Fulfils `JobStore`: `run()` is to be kept as a task for as long as the server lives.

    Args:
        api: Kubernetes.
        objects: The store.
        defaults: What is asked for with every job.
        max_queued_jobs: How many may wait.
        now: The clock.
    """

    def __init__(
        self,
        api: KubernetesApi,
        objects: ObjectStore,
        defaults: JobDefaults,
        max_queued_jobs: int,
        now: Callable[[], datetime],
    ) -> None:
        self._api = api
        self._defaults = defaults
        self._max_queued_jobs = max_queued_jobs
        self._now = now
        self._mirror = Mirror()
        self._results = Results(objects)
        self.following = JobWatch(api, self._mirror)

    async def run(self) -> None:
        """Follow what happens to jobs for ever."""
        await self.following.run()

    async def check(self) -> None:
        """Return where jobs are known and can be created; raise JobsUnavailableError."""
        if (trouble := self.following.trouble) is not None:
            raise trouble

    async def receipt(self, owner: str, retry: RetryKey) -> JobReceipt | None:  # noqa: D102 - the port says it
        self.following.check_listed()
        digest = creation.retry_digest(owner, retry)
        raw = await self._api.read_job(creation.retry_name(digest, self._round(digest)))
        return self._replay(raw, retry) if raw else None

    async def create(self, request: JobRequest, retry: RetryKey | None = None) -> JobReceipt:  # noqa: D102 - see port
        self.following.check_listed()
        digest = creation.retry_digest(request.owner or "", retry) if retry else None
        await self._refuse_duplicate(creation.fingerprint(request), digest)
        if self._mirror.queued() >= self._max_queued_jobs:
            raise QueueFullError
        seconds = await self._estimate(request)
        raw = await (self._create_under(request, retry, seconds) if retry else self._create_once(request, seconds))
        if isinstance(raw, JobReceipt):
            return raw
        entry = entry_of(raw)
        self._mirror.put(entry)
        await self._give_way(entry)
        return creation.receipt_of(raw)

    async def get(self, job_id: str) -> JobRecord:  # noqa: D102 - the port says it
        return await self._record(await self._entry(job_id))

    async def list_jobs(  # noqa: D102 - the port says it
        self, owner: str | None, status: JobStatus | None, limit: int, offset: int, before: str | None = None
    ) -> JobPage:
        self.following.check_listed()
        last = self._own(before, owner) if before is not None else None
        total, passed, found = 0, 0, []
        for entry in self._mirror.newest_first():
            if (owner is not None and entry.owner != owner) or (status is not None and entry.status is not status):
                continue
            total += 1
            if last is not None and (entry.created, entry.name) >= (last.created, last.name):
                continue
            passed += 1
            if offset < passed <= offset + limit + 1:
                found.append(entry)
        return JobPage(jobs=[_listed(entry) for entry in found[:limit]], total=total, more=len(found) > limit)

    async def cancel(self, job_id: str) -> JobRecord:  # noqa: D102 - the port says it
        entry = await self._entry(job_id)
        raw = entry.raw
        for _ in range(_TRIES):
            if (status := status_of(raw)).finished:
                raise JobFinishedError(status)
            # Nothing may end in between: a job that has failed must not become one that was cancelled.
            metadata = {"resourceVersion": raw["metadata"]["resourceVersion"], "uid": raw["metadata"]["uid"]}
            patch = {"metadata": metadata, "spec": {"desiredState": DesiredState.CANCELLED.value}}
            try:
                cancelled = entry_of(await self._api.patch_job(entry.name, patch))
            except ChangedError:
                raw = await self._read(job_id, entry)
            except NotThereError:
                raise JobMissingError(job_id) from None
            else:
                self._mirror.put(cancelled)
                return await self._record(await self._ended(cancelled))
        raise JobsUnavailableError(
            "The job changes too fast to be cancelled.", hint="Send the request again in a few seconds."
        )

    async def watch(self, job_id: str) -> AsyncIterator[JobRecord]:  # noqa: D102 - the port says it
        entry, shown = await self._entry(job_id), None
        with self._mirror.watching(entry.name) as bell:
            while True:
                bell.clear()
                if (newest := self._mirror.get(entry.name)) is None or newest.uid != entry.uid:
                    yield _removed(record_of(entry.raw))
                    return
                record = await self._record(newest)
                entry = newest
                if record != shown:
                    yield record
                    shown = record
                if record.status.finished:
                    return
                await bell.wait()

    async def _entry(self, job_id: str) -> Entry:
        """Return a job's newest known state; one that another server has just created is asked for."""
        self.following.check_listed()
        name = ids.resource_name(job_id)
        if not _RESOURCE_NAME.match(name) or ids.job_id(name) != job_id:
            raise JobMissingError(job_id)
        if known := self._mirror.get(name):
            return known
        raw = await self._api.read_job(name)
        if raw is None:
            raise JobMissingError(job_id)
        entry = entry_of(raw)
        self._mirror.put(entry)
        return entry

    async def _read(self, job_id: str, entry: Entry) -> Raw:
        raw = await self._api.read_job(entry.name)
        if raw is None or raw["metadata"]["uid"] != entry.uid:
            raise JobMissingError(job_id)
        self._mirror.put(entry_of(raw))
        return raw

    async def _record(self, entry: Entry) -> JobRecord:
        result = await self._results.of(entry.uid) if entry.status is JobStatus.COMPLETED else None
        return record_of(entry.raw, result)

    async def _ended(self, entry: Entry) -> Entry:
        """Wait a little for the operator to end a job that was cancelled; return its newest state."""
        with self._mirror.watching(entry.name) as bell, contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_CANCEL_SECONDS):
                while (known := self._mirror.get(entry.name)) and known.uid == entry.uid and not known.completed_at:
                    bell.clear()
                    await bell.wait()
        newest = self._mirror.get(entry.name)
        return newest if newest and newest.uid == entry.uid else entry

    def _own(self, job_id: str, owner: str | None) -> Entry:
        entry = self._mirror.get(ids.resource_name(job_id))
        if entry is None or owner not in (None, entry.owner):
            raise JobMissingError(job_id)
        return entry

    async def _create_once(self, request: JobRequest, seconds: int | None) -> Raw:
        while True:
            name = ids.resource_name(ids.new_job_id())
            with contextlib.suppress(AlreadyThereError):  # by a chance of one to 10¹⁸
                return await self._api.create_job(self._manifest(name, request, seconds))

    async def _create_under(self, request: JobRequest, retry: RetryKey, seconds: int | None) -> Raw | JobReceipt:
        """Create the job of a key, or return the receipt of the one that is there.

        All servers give it the same name, so that Kubernetes itself lets only one of them create it.
        """
        digest = creation.retry_digest(request.owner or "", retry)
        round_ = self._round(digest)
        while True:
            name = creation.retry_name(digest, round_)
            resource = creation.under_key(self._manifest(name, request, seconds), digest, round_, retry)
            try:
                return await self._api.create_job(resource)
            except AlreadyThereError:
                raw = await self._api.read_job(name)
            if raw is not None:  # else it is gone meanwhile
                if receipt := self._replay(raw, retry):
                    return receipt
                round_ += 1

    def _replay(self, raw: Raw, retry: RetryKey) -> JobReceipt | None:
        """Return the answer to an earlier request of a key, None where that is too long ago."""
        entry = entry_of(raw)
        self._mirror.put(entry)
        if not creation.key_is_good(entry, self._now()):
            return None
        if not creation.asked_the_same(raw, retry):
            raise RetryKeyConflictError(retry.key)
        return creation.receipt_of(raw, replayed=True)

    def _round(self, digest: str) -> int:
        """Return which use of a key is the newest that may still be good."""
        known = self._mirror.with_retry_key(digest)
        if not known:
            return 0
        newest = max(known, key=lambda entry: entry.retry_round)
        return newest.retry_round + (not creation.key_is_good(newest, self._now()))

    def _manifest(self, name: str, request: JobRequest, seconds: int | None) -> Raw:
        now = self._now()
        newcomer = Candidate(
            key=Key(self._api.namespace, name),
            owner=owner_label(request.owner) if request.owner is not None else "",
            priority=self.following.priorities.get(self._defaults.priority_class, 0),
            created=now,
        )
        estimates = Estimates(
            queue_position=place_in_line(newcomer, self._mirror.oldest_first(), self.following.priorities),
            duration_seconds=seconds,
        )
        return creation.manifest(name, request, self._defaults, estimates, now)

    async def _refuse_duplicate(self, fingerprint: str, retry_digest: str | None) -> None:
        # One of the same key may be what another server has just made of the same request.
        known = [job for job in self._mirror.with_fingerprint(fingerprint) if _is_live(job, retry_digest)]
        if known:
            # The one that is known may be about to give way to another, which was there before it.
            found = await self._same(fingerprint, max(job.version for job in known))
            if live := [job for job in found if _is_live(job, retry_digest)]:
                raise DuplicateJobError(ids.job_id(_oldest(live).name))

    async def _give_way(self, mine: Entry) -> None:
        """Remove a job of mine where another server has created the same one before; raise DuplicateJobError."""
        same = await self._same(mine.fingerprint or "", mine.version)
        others = [job for job in same if job.uid != mine.uid and _is_live(job)]
        older = [other for other in others if creation.is_older(other, mine)]
        if older:
            await self._api.delete_job(mine.name, mine.uid)
            self._mirror.drop(mine.name, mine.uid)
            raise DuplicateJobError(ids.job_id(_oldest(older).name))

    async def _same(self, fingerprint: str, version: int) -> list[Entry]:
        """Return all jobs of a fingerprint that there were when some job had this version, or are since."""
        return [entry_of(item) for item in await self._api.find_jobs(FINGERPRINT_LABEL, fingerprint, version)]

    async def _estimate(self, request: JobRequest) -> int | None:
        """Return how many seconds a job is going to run by what its model's latest completed job measured."""
        if request.tiles is None:
            return None
        for entry in self._mirror.newest_first():
            if entry.status is JobStatus.COMPLETED and entry.digest == request.model_digest:
                result = await self._results.of(entry.uid)
                pace = result.seconds_per_tile if result else None
                return None if pace is None else math.ceil(pace * request.tiles)
        return None


def _is_live(job: Entry, but_of_key: str | None = None) -> bool:
    of_key = but_of_key is not None and job.retry_key == but_of_key
    return not job.status.finished and not job.deleting and not of_key


def _oldest(jobs: list[Entry]) -> Entry:
    return min(jobs, key=lambda job: (job.created, job.name))


def _listed(entry: Entry) -> ListedJob:
    return ListedJob(
        job_id=ids.job_id(entry.name), status=entry.status, created_at=entry.created, completed_at=entry.completed_at
    )


def _removed(record: JobRecord) -> JobRecord:
    """Return the last that there is to say of a job whose resource was deleted while somebody watched."""
    failure = Failure(
        code=FailureCode.NOT_FOUND,
        message="The job was removed.",
        hint="Start it again if that was not meant.",
        retryable=False,
    )
    return record.model_copy(update={"status": JobStatus.CANCELLED, "failure": failure})
