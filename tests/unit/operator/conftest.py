"""Records, Jobs and Pods as the API server gives them, with what a test does not care about filled in."""

import asyncio
import copy
import selectors
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from cryomamba_crds.ids import Key
from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.app import Operator
from cryomamba_operator.observe import EventFacts
from cryomamba_operator.ports import ConflictError, GoneError, Page
from cryomamba_operator.settings import Settings

if TYPE_CHECKING:
    from cryomamba_operator.intake import Intake
    from cryomamba_operator.sts import TokenService

Raw = dict[str, Any]
Make = Callable[..., Raw]

NAMESPACE = "lab"


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def settings() -> Settings:
    return Settings(
        image="registry.example/cryomamba-inference:1.0.0",
        s3_endpoint="http://minio.store:9000",
        s3_bucket="cryomamba",
        s3_credentials="shared",
        shared_secret="bucket",
    )


@pytest.fixture
def raw_record() -> Make:
    """Make a SegmentationJob."""

    def make(name: str = "tomo-1", *, status: Raw | None = None, labels: Raw | None = None, **spec: Any) -> Raw:
        return {
            "apiVersion": "cryomamba.io/v1alpha1",
            "kind": "SegmentationJob",
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"uid-of-{name}",
                "generation": 1,
                "resourceVersion": "100",
                "creationTimestamp": "2026-03-01T11:50:00Z",
                "labels": labels or {},
            },
            "spec": {"input": {"fileId": "file_abc123def456"}, "model": "membranes", **spec},
            "status": status or {},
        }

    return make


@pytest.fixture
def record(raw_record: Make) -> Callable[..., SegmentationJob]:
    """Make a SegmentationJob, read."""

    def make(*args: Any, **kwargs: Any) -> SegmentationJob:
        return SegmentationJob.model_validate(raw_record(*args, **kwargs))

    return make


@pytest.fixture
def raw_job() -> Make:
    """Make the Job of a record, with the conditions that are true of it."""

    def make(
        name: str = "tomo-1", *conditions: str, owner_uid: str | None = None, message: str = "", **more: Any
    ) -> Raw:
        return {
            "metadata": {
                "name": name,
                "namespace": NAMESPACE,
                "uid": f"uid-of-job-{name}",
                "resourceVersion": "200",
                "creationTimestamp": "2026-03-01T11:50:01Z",
                "labels": {"cryomamba.io/job": name, "app.kubernetes.io/managed-by": "cryomamba"},
                "ownerReferences": [
                    {
                        "apiVersion": "cryomamba.io/v1alpha1",
                        "kind": "SegmentationJob",
                        "name": name,
                        "uid": owner_uid or f"uid-of-{name}",
                        "controller": True,
                    },
                ],
                **more.pop("metadata", {}),
            },
            "spec": {"suspend": more.pop("suspend", False)},
            "status": {
                "conditions": [
                    {
                        "type": item.partition("=")[0],
                        "status": "True",
                        "reason": item.partition("=")[2],
                        "message": message,
                    }
                    for item in conditions
                ],
                **more,
            },
        }

    return make


@pytest.fixture
def raw_pod() -> Make:
    """Make a pod of a Job; `state` is that of the runner's container."""

    def make(
        name: str = "tomo-1",
        *,
        number: int = 1,
        phase: str = "Pending",
        state: Raw | None = None,
        conditions: list[Raw] | None = None,
        node: str | None = None,
        metadata: Raw | None = None,
        **status: Any,
    ) -> Raw:
        return {
            "metadata": {
                "name": f"{name}-{number}",
                "namespace": NAMESPACE,
                "uid": f"uid-of-pod-{name}-{number}",
                "resourceVersion": str(300 + number),
                "creationTimestamp": f"2026-03-01T11:5{number}:00Z",
                "labels": {"cryomamba.io/job": name, "app.kubernetes.io/managed-by": "cryomamba"},
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": name,
                        "uid": f"uid-of-job-{name}",
                        "controller": True,
                    },
                ],
                **(metadata or {}),
            },
            "spec": {"nodeName": node} if node else {},
            "status": {
                "phase": phase,
                "conditions": conditions or [],
                "containerStatuses": [{"name": "inference", "state": state}] if state else [],
                **status,
            },
        }

    return make


class FakeCluster:
    """An API server in memory: names, uids, resource versions, merge patches, final states, and watches."""

    def __init__(self, record_template: Make, now: Callable[[], datetime]) -> None:
        self.records: dict[Key, Raw] = {}
        self.jobs: dict[Key, Raw] = {}
        self.pods: dict[str, Raw] = {}
        self.warnings: dict[str, list[EventFacts]] = {}
        self.events: list[Raw] = []
        self.secrets: dict[str, Raw] = {}
        self.calls: list[str] = []
        self.gpus = 2
        self.node_taints: list[str] = []
        self.priority_classes: dict[str | None, int] = {}
        self.failures: dict[str, list[Exception]] = {}
        self.intake: Intake | None = None
        self.deaf = False
        self._template = record_template
        self._now = now
        self._version = 1000
        self._uids: set[str] = set()

    # What a test does to the cluster.

    def submit(self, name: str, *, owner: str = "", minute: int = 0, submitted: str = "", **spec: Any) -> Key:
        raw = self._template(name, labels={"cryomamba.io/owner": owner} if owner else {}, **spec)
        while raw["metadata"]["uid"] in self._uids:
            raw["metadata"]["uid"] += "-again"
        self._uids.add(raw["metadata"]["uid"])
        raw["metadata"]["creationTimestamp"] = f"2026-03-01T11:{minute:02d}:00Z"
        if submitted:
            raw["metadata"]["annotations"] = {"cryomamba.io/submitted-at": submitted}
        key = Key(NAMESPACE, name)
        self.records[key] = self._stamped(raw)
        self._tell("record", "ADDED", self.records[key])
        return key

    def change(self, key: Key, **spec: Any) -> None:
        raw = copy.deepcopy(self.records[key])
        raw["spec"].update(spec)
        raw["metadata"]["generation"] += 1
        self.records[key] = self._stamped(raw)
        self._tell("record", "MODIFIED", raw)

    def put_job(self, raw: Raw) -> None:
        self.jobs[Key(NAMESPACE, raw["metadata"]["name"])] = self._stamped(raw)
        if "cryomamba.io/job" in raw["metadata"].get("labels", {}):
            self._tell("job", "MODIFIED", raw)

    def end_job(self, key: Key, condition: str, reason: str = "", message: str = "") -> None:
        raw = copy.deepcopy(self.jobs[key])
        raw["status"]["conditions"] = [{"type": condition, "status": "True", "reason": reason, "message": message}]
        self.put_job(raw)

    def put_pod(self, raw: Raw) -> None:
        job = self.jobs[Key(NAMESPACE, raw["metadata"]["labels"]["cryomamba.io/job"])]
        raw["metadata"]["ownerReferences"][0]["uid"] = job["metadata"]["uid"]
        self.pods[raw["metadata"]["uid"]] = self._stamped(raw)
        self._tell("pod", "MODIFIED", raw)

    def drop_pod(self, uid: str) -> None:
        self._tell("pod", "DELETED", self.pods.pop(uid))

    def fail(self, call: str, *errors: Exception) -> None:
        self.failures.setdefault(call, []).extend(errors)

    def count(self, call: str) -> int:
        return sum(made.startswith(call) for made in self.calls)

    # What the operator asks of it.

    async def list_records(self) -> AsyncIterator[Page]:
        self._called("list_records")
        yield Page(copy.deepcopy(list(self.records.values())), self._version)

    async def list_jobs(self) -> AsyncIterator[Page]:
        ours = [job for job in self.jobs.values() if "cryomamba.io/job" in job["metadata"].get("labels", {})]
        yield Page(copy.deepcopy(ours), self._version)

    async def list_pods(self) -> AsyncIterator[Page]:
        yield Page(copy.deepcopy(list(self.pods.values())), self._version)

    async def read_record(self, key: Key) -> Raw | None:
        self._called(f"read_record {key.name}")
        return copy.deepcopy(self.records.get(key))

    async def read_job(self, key: Key) -> Raw | None:
        self._called(f"read_job {key.name}")
        return copy.deepcopy(self.jobs.get(key))

    async def warnings_about(self, namespace: str, uid: str) -> list[EventFacts]:
        self._called(f"warnings_about {namespace} {uid}")
        return self.warnings.get(uid, [])

    async def create_job(self, manifest: Mapping[str, Any]) -> Raw:
        self._called(f"create_job {manifest['metadata']['name']}")
        key = Key(manifest["metadata"]["namespace"], manifest["metadata"]["name"])
        if key in self.jobs:
            raise ConflictError(str(key))
        raw = copy.deepcopy(dict(manifest))
        raw["metadata"] |= {"uid": f"job-{self._version}", "creationTimestamp": self._now().isoformat()}
        raw["status"] = {}
        self.jobs[key] = self._stamped(raw)
        self._tell("job", "ADDED", raw)
        return copy.deepcopy(raw)

    async def delete_job(self, key: Key, uid: str) -> None:
        self._called(f"delete_job {key.name}")
        if key not in self.jobs or self.jobs[key]["metadata"]["uid"] != uid:
            raise GoneError(str(key))
        self._tell("job", "DELETED", self.jobs.pop(key))

    async def delete_record(self, key: Key, uid: str) -> None:
        self._called(f"delete_record {key.name}")
        if key not in self.records or self.records[key]["metadata"]["uid"] != uid:
            raise GoneError(str(key))
        self._tell("record", "DELETED", self.records.pop(key))

    async def patch_status(self, key: Key, patch: Mapping[str, Any]) -> Raw:
        self._called(f"patch_status {key.name}")
        if key not in self.records:
            raise GoneError(str(key))
        raw = copy.deepcopy(self.records[key])
        if patch["metadata"]["resourceVersion"] != raw["metadata"]["resourceVersion"]:
            raise ConflictError("the object has been modified")
        raw["status"] |= patch["status"]
        self.records[key] = self._stamped(raw)
        self._tell("record", "MODIFIED", raw)
        return copy.deepcopy(raw)

    async def apply_secret(self, manifest: Mapping[str, Any]) -> None:
        self._called(f"apply_secret {manifest['metadata']['name']}")
        self.secrets[manifest["metadata"]["name"]] = dict(manifest)

    async def create_event(self, manifest: Mapping[str, Any]) -> None:
        self._called("create_event")
        self.events.append(dict(manifest))

    async def count_gpus(self) -> int:
        return self.gpus

    async def taints(self) -> list[str]:
        return self.node_taints

    async def priorities(self) -> dict[str | None, int]:
        return self.priority_classes

    def _called(self, call: str) -> None:
        self.calls.append(call)
        if errors := self.failures.get(call.partition(" ")[0]):
            raise errors.pop(0)

    def _stamped(self, raw: Raw) -> Raw:
        self._version += 1
        raw["metadata"]["resourceVersion"] = str(self._version)
        return raw

    def _tell(self, kind: str, event: str, raw: Raw) -> None:
        if self.intake is not None and not self.deaf:
            getattr(self.intake, f"saw_{kind}")(event, copy.deepcopy(raw))


class JumpingLoop(asyncio.SelectorEventLoop):
    """An event loop in which nobody waits: when there is nothing to do, its clock jumps to the next timer."""

    def __init__(self) -> None:
        selector = selectors.DefaultSelector()
        self._ahead = 0.0
        select = selector.select

        def jump(timeout: float | None = None) -> Any:
            events = select(0)
            if not events and timeout is None:
                raise AssertionError("everybody waits for something that never comes")
            if not events and timeout:
                self._ahead += timeout
            return events

        selector.select = jump  # type: ignore[method-assign] - that is the point
        super().__init__(selector)

    def time(self) -> float:
        return self._ahead


class World:
    """A cluster and an operator on it, in a time that only the test moves."""

    def __init__(self, loop: JumpingLoop, settings: Settings, raw_record: Make) -> None:
        self._loop = loop
        self.cluster = FakeCluster(raw_record, self.now)
        self.settings = settings
        self.service: TokenService | None = None
        self.operator: Operator
        self._tasks: list[asyncio.Task[None]] = []

    def now(self) -> datetime:
        return datetime(2026, 3, 1, 12, tzinfo=UTC) + timedelta(seconds=self._loop.time())

    async def start(self, **settings: Any) -> None:
        """Start an operator; one that runs already is killed first."""
        await self.stop()
        self.settings = self.settings.model_copy(update=settings)
        self.operator = Operator(self.settings, self.cluster, {}, self.service, self.now, self._loop.time)
        self.cluster.intake = self.operator.intake
        await self.operator.start()
        self._tasks = [asyncio.create_task(loop) for loop in self.operator.loops()]

    async def stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def after(self, seconds: float = 0.01) -> None:
        """Let the operator work for a while."""
        await asyncio.sleep(seconds)

    def condition(self, key: Key, name: str) -> tuple[str, str]:
        conditions = self.cluster.records[key]["status"].get("conditions", [])
        return next(((item["status"], item["reason"]) for item in conditions if item["type"] == name), ("", ""))

    def status(self, key: Key) -> Raw:
        status: Raw = self.cluster.records[key]["status"]
        return status


@pytest.fixture
def play(settings: Settings, raw_record: Make) -> Callable[[Callable[[World], Awaitable[None]]], None]:
    """Run a story in a world of its own."""

    def run(story: Callable[[World], Awaitable[None]]) -> None:
        loop = JumpingLoop()

        async def told() -> None:
            world = World(loop, settings, raw_record)
            try:
                await story(world)
            finally:
                await world.stop()

        try:
            loop.run_until_complete(told())
        finally:
            loop.close()

    return run
