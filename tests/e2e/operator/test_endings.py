"""How jobs end, with real pods on a real node."""

import json
from pathlib import Path

import pytest

from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess
from support.waiting import until

EMPTY = "localhost/cryomamba-test-nothing:1"
CERTIFICATES = str(Path(__file__))
"""Any file: what matters is that the Secret has none."""


def test_a_job_reports_and_succeeds(operator: OperatorProcess, jobs: Jobs, namespace: Kubectl) -> None:
    operator.start()
    jobs.submit("tomo", model="succeed")

    namespace("wait", "--for=condition=Finished", "segjob/tomo", "--timeout=60s")

    assert jobs.condition("tomo", "Succeeded") == ("True", "Succeeded")
    status = jobs.status("tomo")
    assert status["progress"]["percentage"] == 40
    assert status["startedAt"] <= status["completedAt"]
    name, model, state, progress, *_ = namespace("get", "segjob", "tomo", "--no-headers").split()
    assert (name, model, state, progress) == ("tomo", "succeed", "Succeeded", "40")
    until(lambda: ("Normal", "Succeeded") in jobs.events("tomo"))


def test_the_runners_last_word_ends_the_job_without_another_attempt(
    operator: OperatorProcess, jobs: Jobs, namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", model="fail")

    jobs.wait("tomo", "Succeeded", "False", "NotFound")

    assert jobs.status("tomo")["failure"]["hint"] == "Upload it."
    assert jobs.status("tomo")["attempt"] == 1
    assert namespace("logs", "job/tomo") == "", "the pod is kept for whoever looks for its log"


def test_an_exit_without_a_word_shows_the_end_of_the_log(operator: OperatorProcess, jobs: Jobs) -> None:
    operator.start()
    jobs.submit("tomo", model="exit-1", maxAttempts=1)

    jobs.wait("tomo", "Succeeded", "False", "RunnerFailed")

    assert "KeyError: plans" in jobs.status("tomo")["failure"]["message"]


@pytest.mark.parametrize("model", ["eat-memory", "eat-memory-in-a-child"])
def test_memory_that_is_not_enough_ends_the_job_at_once(
    operator: OperatorProcess, jobs: Jobs, namespace: Kubectl, model: str
) -> None:
    operator.start()
    jobs.submit("tomo", model=model, resources={"memory": "32Mi", "cpu": "10m"})

    jobs.wait("tomo", "Succeeded", "False", "OutOfMemory")

    failure = jobs.status("tomo")["failure"]
    assert failure["code"] == "OUT_OF_MEMORY"
    assert "32Mi" in failure["message"]
    until(lambda: not namespace.get("jobs")["items"])


def test_scratch_space_that_is_not_enough_ends_the_job(operator: OperatorProcess, jobs: Jobs) -> None:
    operator.start()
    jobs.submit("tomo", model="fill-scratch")

    jobs.wait("tomo", "Succeeded", "False", "ScratchFull", seconds=100)

    assert jobs.status("tomo")["failure"]["code"] == "INSUFFICIENT_STORAGE"


def test_the_runner_cannot_write_to_its_image(operator: OperatorProcess, jobs: Jobs) -> None:
    operator.start()
    jobs.submit("tomo", model="write-to-root", maxAttempts=1)

    jobs.wait("tomo", "Succeeded", "False", "RunnerFailed")

    assert "Read-only file system" in jobs.status("tomo")["failure"]["message"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"image": "localhost/no-such-image:1"}, "ImagePull"),
        ({"image": "localhost/no-such-image:1", "image_pull_policy": "Never"}, "ImagePull"),
        ({"image": "Not A Name"}, "ImageName"),
        ({"shared_secret": "no-such-secret"}, "SecretMissing"),
        ({"s3_ca_file": CERTIFICATES}, "SecretMissing"),
        ({"image": EMPTY}, "RunnerNotFound"),
    ],
    ids=["image pull", "image never pulled", "image name", "secret", "certificates", "entry point"],
)
def test_what_an_administrator_has_to_repair_fails_after_its_grace(
    operator: OperatorProcess, jobs: Jobs, namespace: Kubectl, settings: dict[str, str], reason: str
) -> None:
    operator.start(configuration_grace_seconds=2, **settings)
    jobs.submit("tomo")

    jobs.wait("tomo", "Succeeded", "False", reason)

    assert "Whoever runs the cluster can" in jobs.status("tomo")["failure"]["hint"]
    until(lambda: not namespace.get("jobs,pods")["items"])


def test_a_volume_that_cannot_be_mounted_is_named(operator: OperatorProcess, jobs: Jobs) -> None:
    volume = {"name": "palette", "configMap": {"name": "no-such-map"}}
    runner = {"name": "inference", "volumeMounts": [{"name": "palette", "mountPath": "/palette"}]}
    template = operator.folder / "pod-template.yaml"
    template.write_text(json.dumps({"spec": {"volumes": [volume], "containers": [runner]}}))
    operator.start(configuration_grace_seconds=2, pod_template=template)
    jobs.submit("tomo")

    jobs.wait("tomo", "Succeeded", "False", "VolumeNotMounted")

    assert "no-such-map" in jobs.status("tomo")["failure"]["message"]


def test_cancelling_stops_the_pod(operator: OperatorProcess, jobs: Jobs, namespace: Kubectl) -> None:
    operator.start()
    jobs.submit("tomo")
    jobs.wait("tomo", "Running", "True", "Running")
    namespace("patch", "segjob", "tomo", "--type=merge", "--patch", '{"spec":{"desiredState":"Cancelled"}}')

    jobs.wait("tomo", "Finished", "True", "Cancelled")
    until(lambda: not namespace.get("jobs,pods")["items"])


def test_a_pod_that_is_drained_is_a_disruption_and_no_attempt_is_lost(
    operator: OperatorProcess, jobs: Jobs, namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", maxAttempts=1)
    jobs.wait("tomo", "Running", "True", "Running")
    pod = jobs.pod("tomo")
    assert pod
    name = pod["metadata"]["name"]
    eviction = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name}}
    namespace(
        "create",
        "--raw",
        f"/api/v1/namespaces/{namespace.namespace}/pods/{name}/eviction",
        "--filename",
        "-",
        manifest=eviction,
    )

    until(lambda: jobs.status("tomo").get("disruptions") == 1)
    until(lambda: jobs.status("tomo").get("attempt") == 2)
    jobs.wait("tomo", "Running", "True", "Running")

    until(lambda: ("Warning", "Disrupted") in jobs.events("tomo"))


def test_a_pod_that_somebody_deletes_costs_an_attempt(
    operator: OperatorProcess, jobs: Jobs, namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", maxAttempts=1)
    jobs.wait("tomo", "Running", "True", "Running")
    namespace("delete", "pod", "--selector=cryomamba.io/job=tomo", "--wait=false")

    jobs.wait("tomo", "Finished", "True", "Failed")

    assert jobs.condition("tomo", "Succeeded")[1] in {"PodDeleted", "JobFailed"}
    assert jobs.status("tomo")["failure"]["hint"]
