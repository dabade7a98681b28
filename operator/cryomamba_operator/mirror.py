"""What the watches have told: the newest known state of every record, Job and Pod of ours, in little memory."""

from collections.abc import Collection
from typing import Any, Protocol, TypeVar

from cryomamba_crds.ids import Key
from cryomamba_crds.order import SUBMITTED_ANNOTATION
from cryomamba_crds.owners import OWNER_LABEL
from cryomamba_operator.observe import JobFacts, PodFacts, Raw, job_facts, key_of, key_of_pod, pod_facts

_METADATA = ("name", "namespace", "uid", "generation", "resourceVersion", "creationTimestamp", "deletionTimestamp")
_STATUS = (
    "observedGeneration",
    "conditions",
    "jobName",
    "podUid",
    "attempt",
    "disruptions",
    "startedAt",
    "completedAt",
    "failure",
)


class _Versioned(Protocol):
    @property
    def resource_version(self) -> int: ...


_Facts = TypeVar("_Facts", bound=_Versioned)


class Mirror:
    """The newest known state; what is older than what is known already changes nothing.

    Resource versions are compared as numbers, which Kubernetes guarantees since 1.35 (KEP-5504) and etcd did before.
    Each `put_…` and `drop_…` returns whether anything changed that is decided by: the progress that a pod writes into a
    record's status, for example, is not kept here at all.
    """

    def __init__(self) -> None:
        self._records: dict[Key, Raw] = {}
        self._jobs: dict[Key, JobFacts] = {}
        self._pods: dict[Key, dict[str, PodFacts]] = {}

    def __len__(self) -> int:
        """Return how many records are known."""
        return len(self._records)

    def known(self) -> list[Key]:
        """Return the keys of all records, and of Jobs that outlived theirs."""
        return list(self._records.keys() | self._jobs.keys())

    def records(self) -> list[Raw]:
        """Return all records; a copy of the list, so that another thread may count them."""
        return list(self._records.values())

    def record(self, key: Key) -> Raw | None:
        """Return a record, without what the operator does not look at."""
        return self._records.get(key)

    def job(self, key: Key) -> JobFacts | None:
        """Return the Job of a record."""
        return self._jobs.get(key)

    def pods(self, key: Key) -> list[PodFacts]:
        """Return the pods of a record's Job."""
        return list(self._pods.get(key, {}).values())

    def put_record(self, raw: Raw) -> bool:
        """Take in a record as the API server gives it."""
        key, record = key_of(raw), _trimmed(raw)
        known = self._records.get(key)
        if known is not None and _version(known) >= _version(record):
            return False
        self._records[key] = record
        return known is None or not _same(known, record)

    def put_job(self, raw: Raw) -> bool:
        """Take in a Job."""
        facts = job_facts(raw)
        return _put(self._jobs, facts.key, facts)

    def put_pod(self, raw: Raw) -> bool:
        """Take in a Pod."""
        facts = pod_facts(raw)
        return _put(self._pods.setdefault(facts.key, {}), facts.uid, facts)

    def drop_record(self, raw: Raw) -> bool:
        """Forget a record that is gone, unless another of its name is there already."""
        key = key_of(raw)
        known = self._records.get(key)
        if known is None or known["metadata"]["uid"] != raw["metadata"]["uid"]:
            return False
        del self._records[key]
        return True

    def drop_job(self, raw: Raw) -> bool:
        """Forget a Job that is gone, unless another of its name is there already."""
        key = key_of(raw)
        known = self._jobs.get(key)
        if known is None or known.uid != raw["metadata"]["uid"]:
            return False
        del self._jobs[key]
        return True

    def drop_pod(self, raw: Raw) -> bool:
        """Forget a Pod that is gone."""
        key = key_of_pod(raw)
        pods = self._pods.get(key, {})
        gone = pods.pop(raw["metadata"]["uid"], None) is not None
        if not pods:
            self._pods.pop(key, None)
        return gone

    def retain_records(self, uids: Collection[str], version: int) -> None:
        """Forget the records that a list made at a resource version does not have, unless they are newer than it."""
        for key, raw in list(self._records.items()):
            if raw["metadata"]["uid"] not in uids and _version(raw) <= version:
                del self._records[key]

    def retain_jobs(self, uids: Collection[str], version: int) -> None:
        """Forget the Jobs that a list does not have."""
        for key, job in list(self._jobs.items()):
            if job.uid not in uids and job.resource_version <= version:
                del self._jobs[key]

    def retain_pods(self, uids: Collection[str], version: int) -> None:
        """Forget the pods that a list does not have."""
        for key, pods in list(self._pods.items()):
            for uid in [uid for uid, pod in pods.items() if uid not in uids and pod.resource_version <= version]:
                del pods[uid]
            if not pods:
                del self._pods[key]


def _put(known: dict[Any, _Facts], key: object, facts: _Facts) -> bool:
    before = known.get(key)
    if before is not None and before.resource_version >= facts.resource_version:
        return False
    known[key] = facts
    return True


def _trimmed(raw: Raw) -> Raw:
    metadata = {name: raw["metadata"][name] for name in _METADATA if name in raw["metadata"]}
    owner = raw["metadata"].get("labels", {}).get(OWNER_LABEL)
    submitted = raw["metadata"].get("annotations", {}).get(SUBMITTED_ANNOTATION)
    status = raw.get("status", {})
    return {
        "apiVersion": raw["apiVersion"],
        "kind": raw["kind"],
        "metadata": {
            **metadata,
            "labels": {OWNER_LABEL: owner} if owner else {},
            "annotations": {SUBMITTED_ANNOTATION: submitted} if submitted else {},
        },
        "spec": raw["spec"],
        "status": {name: status[name] for name in _STATUS if name in status},
    }


def _version(record: Raw) -> int:
    return int(record["metadata"]["resourceVersion"])


def _same(one: Raw, other: Raw) -> bool:
    """Return whether two states of a record differ in nothing but their resource version."""
    return {**one, "metadata": None} == {**other, "metadata": None} and (
        {**one["metadata"], "resourceVersion": ""} == {**other["metadata"], "resourceVersion": ""}
    )
