"""What keeps jobs from a node, on a real scheduler, and a node that is lost."""

import json
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from support.kubernetes import Kubectl, tool
from support.operators import Jobs, OperatorProcess
from support.waiting import until

NODE = "node1"
TAINT = "cryomamba-test"


def test_a_busy_gpu_is_waited_for(operator: OperatorProcess, jobs: Jobs, namespace: Kubectl) -> None:
    operator.start(max_active_jobs=3, placement_grace_seconds=0)
    for name in ("first", "second"):
        jobs.submit(name)
        jobs.wait(name, "Running", "True", "Running")
    jobs.submit("third")
    jobs.wait("third", "Scheduled", "False", "GpuBusy")
    namespace("patch", "segjob", "first", "--type=merge", "--patch", '{"spec":{"desiredState":"Cancelled"}}')

    jobs.wait("third", "Running", "True", "Running")

    until(lambda: ("Normal", "GpuBusy") in jobs.events("third"))


def test_by_default_as_many_jobs_exist_as_there_are_gpus(
    operator: OperatorProcess, jobs: Jobs, namespace: Kubectl
) -> None:
    operator.start()
    for name in ("first", "second", "third"):
        jobs.submit(name)

    jobs.wait("third", "Scheduled", "False", "Queued")

    assert len(namespace.get("jobs")["items"]) == 2


def test_a_job_that_is_larger_than_any_node_fails(operator: OperatorProcess, jobs: Jobs, namespace: Kubectl) -> None:
    operator.start(placement_grace_seconds=2)
    jobs.submit("tomo", resources={"gpus": 9, "memory": "64Mi", "cpu": "10m"})

    jobs.wait("tomo", "Succeeded", "False", "TooBig")

    assert "nvidia.com/gpu" in jobs.status("tomo")["failure"]["message"]
    until(lambda: not namespace.get("jobs,pods")["items"])


def test_a_label_that_no_node_has_is_named(operator: OperatorProcess, jobs: Jobs) -> None:
    template = operator.folder / "pod-template.yaml"
    template.write_text("spec: {nodeSelector: {accelerator: h200}}\n")
    operator.start(placement_grace_seconds=2, pod_template=template)
    jobs.submit("tomo")

    jobs.wait("tomo", "Succeeded", "False", "NoNodeMatches")


@pytest.fixture
def tainted(namespace: Kubectl) -> Iterator[None]:
    namespace("taint", "node", NODE, f"{TAINT}=yes:NoSchedule")
    yield
    namespace("taint", "node", NODE, f"{TAINT}-")


@pytest.mark.usefixtures("tainted")
def test_a_taint_that_the_job_does_not_tolerate_is_named(operator: OperatorProcess, jobs: Jobs) -> None:
    operator.start(placement_grace_seconds=2)
    jobs.submit("tomo")

    jobs.wait("tomo", "Succeeded", "False", "UntoleratedTaint")

    assert TAINT in jobs.status("tomo")["failure"]["message"]


@pytest.fixture
def cordoned(namespace: Kubectl) -> Iterator[None]:
    namespace("cordon", NODE)
    yield
    namespace("uncordon", NODE)


@pytest.mark.usefixtures("cordoned")
def test_a_node_that_is_closed_for_maintenance_is_waited_for(
    operator: OperatorProcess, jobs: Jobs, namespace: Kubectl
) -> None:
    operator.start(placement_grace_seconds=0)
    jobs.submit("tomo")
    jobs.wait("tomo", "Scheduled", "False", "NodesUnavailable")
    namespace("uncordon", NODE)

    jobs.wait("tomo", "Running", "True", "Running")


@pytest.fixture
def second_node(namespace: Kubectl) -> Iterator[None]:
    """A node that is only an object with a renewed Lease: where all nodes are lost, Kubernetes gives up no pods."""
    name, over = f"other-{namespace.namespace}", threading.Event()
    namespace.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"unschedulable": True}})

    def renew() -> None:
        while not over.wait(2):
            now = datetime.now(UTC)
            lease = {
                "apiVersion": "coordination.k8s.io/v1",
                "kind": "Lease",
                "metadata": {"name": name, "namespace": "kube-node-lease"},
                "spec": {
                    "holderIdentity": name,
                    "leaseDurationSeconds": 40,
                    "renewTime": now.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
                },
            }
            Kubectl(namespace.binary, namespace.kubeconfig).apply(lease)
            ready = {
                "type": "Ready",
                "status": "True",
                "reason": "KubeletReady",
                "message": "",
                "lastHeartbeatTime": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
                "lastTransitionTime": "2026-03-01T12:00:00Z",
            }
            patch = json.dumps({"status": {"conditions": [ready]}})
            namespace("patch", "node", name, "--subresource=status", "--type=strategic", "--patch", patch)

    thread = threading.Thread(target=renew)
    thread.start()
    yield
    over.set()
    thread.join()
    namespace("delete", "node", name)


@pytest.fixture
def stopped_kubelet(second_node: None, namespace: Kubectl) -> Iterator[None]:
    yield
    tool("start-component", "kubelet")
    namespace("wait", "--for=condition=Ready", f"node/{NODE}", "--timeout=60s")


@pytest.mark.timeout(400)  # 55 s on a quiet machine
@pytest.mark.usefixtures("stopped_kubelet")
def test_a_lost_node_is_named_with_what_to_do(operator: OperatorProcess, jobs: Jobs, tmp_path: Path) -> None:
    operator.start()
    jobs.submit("tomo")
    jobs.wait("tomo", "Running", "True", "Running")
    tool("stop-component", "kubelet", "--kill")

    jobs.wait("tomo", "Running", "Unknown", "NodeLost", seconds=240)

    until(lambda: ("Warning", "NodeLost") in jobs.events("tomo"))
    assert jobs.status("tomo")["disruptions"] == 1
    assert jobs.condition("tomo", "Finished") == ("False", "InProgress")
    assert operator.log.is_relative_to(tmp_path)
