"""Records, Jobs and Pods as the API server gives them, with what a test does not care about filled in."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.settings import Settings

Raw = dict[str, Any]
Make = Callable[..., Raw]

NAMESPACE = "lab"


@pytest.fixture
def now() -> datetime:
    return datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)


@pytest.fixture
def settings() -> Settings:
    return Settings(image="registry.example/cryomamba-inference:1.0.0")


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

    def make(name: str = "tomo-1", *conditions: str, owner_uid: str | None = None, message: str = "", **more: Any) -> Raw:
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
                    {"type": item.partition("=")[0], "status": "True", "reason": item.partition("=")[2], "message": message}
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
