"""Whose reports the operator lets in by what it writes to podUid; what the policy refuses is shown in e2e/rights."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from support.kube_http import MERGE, client, segmentation_jobs
from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess, as_service_account
from support.waiting import until

Play = Callable[..., None]

PROGRESS = {
    "status": {
        "progress": {
            "sequence": 1,
            "currentStep": 3,
            "totalSteps": 5,
            "percentage": 40,
            "message": "Inferring, tile 4 of 9",
            "updatedAt": "2026-03-01T12:00:00Z",
        }
    }
}


@dataclass(frozen=True)
class Pod:
    """A pod, as far as its token goes."""

    http: httpx.Client
    jobs: str

    def report(self, name: str) -> httpx.Response:
        path, headers = f"{self.jobs}/{name}/status", {"Content-Type": MERGE}
        return self.http.patch(path, content=json.dumps(PROGRESS), headers=headers)


@pytest.fixture
def pod_of(control_plane_namespace: Kubectl, tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Pod]]:
    """Act as a pod: the token is the one that its kubelet would mount."""
    with ExitStack() as stack:

        def act(pod: dict[str, Any]) -> Pod:
            name, uid = pod["metadata"]["name"], pod["metadata"]["uid"]
            bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
            own = as_service_account(control_plane_namespace, "cryomamba-runner", tmp_path / uid, *bound)
            return Pod(stack.enter_context(client(own)), segmentation_jobs(own))

        yield act


@pytest.fixture
def running(operator: OperatorProcess, jobs: Jobs, play: Play) -> dict[str, Any]:
    """A job `tomo` whose pod runs; returns the pod."""
    operator.start(max_active_jobs=5)
    jobs.submit("tomo")
    until(lambda: jobs.status("tomo").get("podUid"))
    pod = jobs.pod("tomo")
    assert pod
    return pod


def test_a_pod_reports_its_own_progress_and_learns_its_attempt(
    running: dict[str, Any], pod_of: Callable[..., Pod], jobs: Jobs
) -> None:
    answer = pod_of(running).report("tomo")

    assert answer.status_code == 200
    assert answer.json()["status"]["attempt"] == 1
    assert jobs.status("tomo")["progress"]["percentage"] == 40


def hand_made(labels: dict[str, str], owner: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "tomo-abcde", "labels": labels, "ownerReferences": [owner] if owner else []},
        "spec": {
            "serviceAccountName": "cryomamba-runner",
            "schedulerName": "nobody",
            "restartPolicy": "Never",
            "containers": [{"name": "inference", "image": "localhost/stub:1"}],
        },
    }


def test_a_pod_made_by_hand_with_a_fitting_name_and_labels_may_not_report(
    operator: OperatorProcess, jobs: Jobs, pod_of: Callable[..., Pod], control_plane_namespace: Kubectl
) -> None:
    labels = {"cryomamba.io/job": "tomo", "app.kubernetes.io/managed-by": "cryomamba", "job-name": "tomo"}
    control_plane_namespace.apply(hand_made(labels))
    operator.start()
    jobs.submit("tomo")
    until(lambda: jobs.status("tomo").get("podUid"))
    pod = control_plane_namespace.get("pod", "tomo-abcde")

    answer = pod_of(pod).report("tomo")

    assert answer.status_code == 403
    assert jobs.status("tomo")["podUid"] != pod["metadata"]["uid"]


def test_the_pod_of_a_previous_attempt_may_not_report(
    running: dict[str, Any], pod_of: Callable[..., Pod], jobs: Jobs, play: Play
) -> None:
    earlier = pod_of(running)
    ended = {
        "exitCode": 75,
        "reason": "Error",
        "startedAt": "2026-03-01T12:00:00Z",
        "finishedAt": "2026-03-01T12:00:01Z",
    }
    play(running, "Failed", {"terminated": ended})
    until(lambda: jobs.status("tomo").get("attempt") == 2)

    answer = earlier.report("tomo")

    assert answer.status_code == 403
    assert "progress" not in jobs.status("tomo")


def test_the_pod_of_an_earlier_resource_of_the_same_name_may_not_report(
    running: dict[str, Any], pod_of: Callable[..., Pod], jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    earlier = pod_of(running)
    control_plane_namespace(
        "patch",
        "pod",
        running["metadata"]["name"],
        "--type=merge",
        "--patch",
        '{"metadata":{"finalizers":["test.example/keep","batch.kubernetes.io/job-tracking"]}}',
    )
    control_plane_namespace("delete", "segjob", "tomo", "--cascade=orphan")
    jobs.submit("tomo")

    answer = earlier.report("tomo")

    control_plane_namespace(
        "patch", "pod", running["metadata"]["name"], "--type=merge", "--patch", '{"metadata":{"finalizers":null}}'
    )
    assert answer.status_code == 403
    assert "progress" not in jobs.status("tomo")
