"""What the jobs of a cluster need of the store, asked of Kubernetes each time: the sweep must know of every one."""

import asyncio
import contextlib
from collections.abc import Iterable

from cryomamba_apiserver.adapters.cluster_jobs.client import KubernetesApi, Raw
from cryomamba_apiserver.adapters.cluster_jobs.mapping import ended_at, file_of, status_of
from cryomamba_apiserver.adapters.cluster_jobs.refusals import ExpiredError, NotAllowedError
from cryomamba_apiserver.adapters.cluster_jobs.results import Results
from cryomamba_apiserver.ports.job_references import JobReference, model_keys
from cryomamba_apiserver.ports.job_store import JobStatus
from cryomamba_apiserver.ports.object_store import ObjectStore
from cryomamba_crds import ids, keys

_TRIES = 3


class ClusterJobReferences:
    """Fulfils `JobReferences` from the resources of one namespace, which alone uses the store.

    Args:
        api: Kubernetes.
        objects: The store.
    """

    def __init__(self, api: KubernetesApi, objects: ObjectStore) -> None:
        self._api = api
        self._results = Results(objects)

    async def all(self) -> list[JobReference]:
        """Return those of every job.

        Raises:
            JobsUnavailableError: Kubernetes does not list them all.
            StoreUnavailableError: it is not known which attempt has won.
        """
        # A namespace that is not there has no jobs either, and the results of all would seem to be left over.
        with contextlib.suppress(NotAllowedError):
            await self._api.namespace_is_there()
        return [await self._reference(raw) for raw in await self._list()]

    async def forget(self, job_ids: Iterable[str]) -> None:
        """Delete the resources of jobs that have ended."""
        for job_id in job_ids:
            raw = await self._api.read_job(ids.resource_name(job_id))
            if raw is not None and ended_at(raw) is not None:
                await self._api.delete_job(raw["metadata"]["name"], raw["metadata"]["uid"])

    async def _list(self) -> list[Raw]:
        # A list of many pages may take longer than Kubernetes remembers its beginning.
        for _ in range(_TRIES - 1):
            with contextlib.suppress(ExpiredError):
                return await self._list_once()
            await asyncio.sleep(0)
        return await self._list_once()

    async def _list_once(self) -> list[Raw]:
        return [item async for page in self._api.list_jobs() for item in page.items]

    async def _reference(self, raw: Raw) -> JobReference:
        uid, spec, status = raw["metadata"]["uid"], raw["spec"], raw.get("status") or {}
        attempt = int(status.get("attempt") or 0)
        named = {keys.live_preview(keys.attempt_prefix(uid, attempt))} if attempt else set()
        if status_of(raw) is JobStatus.COMPLETED:
            named |= {keys.job_manifest(uid), await self._winner(uid, attempt)}
        return JobReference(
            job_id=ids.job_id(raw["metadata"]["name"]),
            uid=uid,
            file_id=file_of(raw),
            model_keys=model_keys(spec["model"], spec.get("modelDigest")),
            ended_at=ended_at(raw),
            keys=frozenset(named),
        )

    async def _winner(self, uid: str, attempt: int) -> str:
        """Return the prefix of the attempt whose results count: after several, it need not be the last."""
        if attempt == 1:
            return keys.attempt_prefix(uid, 1)
        result = await self._results.of(uid)
        return keys.job_prefix(uid) if result is None else keys.attempt_prefix(uid, result.attempt)
