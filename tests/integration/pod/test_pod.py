"""The way of a job from its resource to its result, with the operator's own credentials and the pod's own token."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cryomamba_crds import keys
from cryomamba_crds.failures import FailureCode
from cryomamba_crds.report import Manifest
from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess
from support.pods import Container
from support.segmentation_jobs import BUSY
from support.waiting import until

Make = Callable[..., Container]
pytestmark = pytest.mark.timeout(900)


def uid_of(kubectl: Kubectl, name: str) -> str:
    return str(kubectl.get("segjob", name)["metadata"]["uid"])


def on_the_cpu(**spec: Any) -> dict[str, Any]:
    return {"model": "demo", "resources": {"gpus": 0, "memory": "2Gi", "cpu": "10m"}, **spec}


def test_a_job_leaves_its_result_in_the_bucket_and_says_so_in_its_status(
    operator: OperatorProcess, jobs: Jobs, container_of: Make, stocked: Any, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", **on_the_cpu())
    container = container_of("tomo")

    code = container.run()

    assert code == 0, container.log
    uid = uid_of(control_plane_namespace, "tomo")
    manifest = Manifest.model_validate_json(stocked.get(keys.job_manifest(uid)))
    assert manifest.attempt == 1
    assert {keys.attempt_prefix(uid, 1) + artifact.name for artifact in manifest.artifacts} <= set(
        stocked.keys(keys.job_prefix(uid))
    )
    status = jobs.status("tomo")
    assert (status["progress"]["percentage"], status["progress"]["message"]) == (100, "Done")
    assert [item["name"] for item in status["artifacts"]] == [item.name for item in manifest.artifacts]
    assert status["preview"]["sequence"] >= 1
    assert keys.live_preview(keys.attempt_prefix(uid, 1)) in stocked.keys(keys.job_prefix(uid))
    assert not (container.folder / "termination-log").exists()


def busy() -> dict[str, Any]:
    """Return the spec of a job that can be disturbed in its middle."""
    return on_the_cpu(input={"object": BUSY})


def working(container: Container) -> bool:
    return "Processing tile" in container.log


def play_end(kubectl: Kubectl, container: Container, code: int) -> None:
    """Say of a pod what its kubelet would: how its container has ended."""
    times = {"startedAt": "2026-03-01T12:00:00Z", "finishedAt": "2026-03-01T12:00:01Z"}
    state = {"terminated": {"exitCode": code, "reason": "Completed" if code == 0 else "Error", **times}}
    runner = {"name": "inference", "image": "i", "imageID": "", "ready": False, "restartCount": 0, "state": state}
    status = {"phase": "Failed" if code else "Succeeded", "containerStatuses": [runner]}
    kubectl(
        "patch",
        "pod",
        container.pod["metadata"]["name"],
        "--subresource=status",
        "--type=strategic",
        "--patch-file=/dev/stdin",
        manifest={"status": status},
    )


def next_pod(jobs: Jobs, container: Container) -> None:
    """Wait for the next attempt's pod."""

    def there() -> bool:
        pod = jobs.pod("tomo")
        return pod is not None and pod["metadata"]["uid"] != container.pod["metadata"]["uid"]

    until(there)


def test_a_late_writer_of_an_old_attempt_changes_nothing(
    operator: OperatorProcess, jobs: Jobs, container_of: Make, stocked: Any, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", **busy())
    late = container_of("tomo")
    late.start()
    assert late.process
    until(lambda: working(late))
    late.process.send_signal(signal.SIGSTOP)  # as a node that is cut off: it goes on later, and knows nothing
    play_end(control_plane_namespace, late, 75)
    next_pod(jobs, late)
    current = container_of("tomo")
    code = current.run()
    uid = uid_of(control_plane_namespace, "tomo")
    manifest = stocked.get(keys.job_manifest(uid))
    status = jobs.status("tomo")

    late.process.send_signal(signal.SIGCONT)

    assert late.process.wait(120) == 0, "the job has a result, and that it is not this attempt's is no failure"
    assert code == 0
    assert Manifest.model_validate_json(manifest).attempt == 2
    assert stocked.get(keys.job_manifest(uid)) == manifest
    assert "another pod runs this job" in late.log
    assert jobs.status("tomo") == status


def test_an_attempt_that_died_after_the_result_was_stored_is_not_done_again(
    operator: OperatorProcess, jobs: Jobs, container_of: Make, stocked: Any, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", **on_the_cpu())
    first = container_of("tomo")
    assert first.run() == 0
    uid = uid_of(control_plane_namespace, "tomo")
    manifest = stocked.get(keys.job_manifest(uid))
    play_end(control_plane_namespace, first, 137)
    next_pod(jobs, first)
    second = container_of("tomo")

    assert second.run() == 0

    assert stocked.get(keys.job_manifest(uid)) == manifest
    assert not [key for key in stocked.keys(keys.job_prefix(uid)) if key.startswith(keys.attempt_prefix(uid, 2))]
    status = jobs.status("tomo")
    assert (status["attempt"], status["progress"]["percentage"]) == (2, 100)
    assert [item["name"] for item in status["artifacts"]] == [
        "segmentation.mrc",
        "statistics.json",
        "preview.png",
        "receipt.json",
    ]


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"model": "no-such-model"}, "no model no-such-model"),
        ({"model": "demo", "modelDigest": "sha256:" + "0" * 64}, "with the digest"),
        ({"model": "demo", "input": {"fileId": "file_zzzzzzzzzzzz"}}, "files/file_zzzzzzzzzzzz/volume is not in"),
        ({"model": "demo", "input": {"object": "incoming/not-there.mrc"}}, "incoming/not-there.mrc is not in"),
    ],
)
def test_what_is_not_there_is_said_at_once_and_for_good(
    operator: OperatorProcess, jobs: Jobs, container_of: Make, spec: dict[str, Any], told: str
) -> None:
    operator.start()
    jobs.submit("tomo", **on_the_cpu(**spec))
    container = container_of("tomo")

    assert container.run() == 70

    assert container.last_word.code is FailureCode.NOT_FOUND
    assert told in container.last_word.message
    assert container.last_word.hint


def test_sigterm_ends_a_pod_with_a_code_that_is_tried_again(
    operator: OperatorProcess, jobs: Jobs, container_of: Make
) -> None:
    operator.start()
    jobs.submit("tomo", **busy())
    container = container_of("tomo")
    container.start()
    assert container.process
    until(lambda: working(container))

    container.process.terminate()

    assert container.process.wait(120) == 75
    assert container.last_word.retryable


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"CRYOMAMBA_STORE": ""}, "CRYOMAMBA_STORE"),
        ({"CRYOMAMBA_S3_CREDENTIALS": "/no/such"}, "/no/such/access_key"),
        ({"CRYOMAMBA_SERVICE_ACCOUNT": "/no/such"}, "/no/such/ca.crt"),
    ],
)
def test_what_the_pod_was_not_handed_is_named(
    operator: OperatorProcess, jobs: Jobs, container_of: Make, changes: dict[str, str], told: str
) -> None:
    operator.start()
    jobs.submit("tomo", **on_the_cpu())
    container = container_of("tomo", **changes)

    assert container.run() == 70

    assert told in container.last_word.message


def test_no_secret_is_in_the_log_the_resource_or_the_job(
    operator: OperatorProcess, jobs: Jobs, container_of: Make, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", **on_the_cpu(model="no-such-model"))
    container = container_of("tomo")
    container.run()

    hidden = [path.read_text().strip() for path in (container.folder / "s3").iterdir()]
    hidden += [(container.folder / "account" / "token").read_text().strip()]
    hidden += [Path(operator.settings[f"s3_{name}_key_file"]).read_text().strip() for name in ("access", "secret")]
    shown = [
        container.log,
        operator.log.read_text(),
        (container.folder / "termination-log").read_text(),
        control_plane_namespace("get", "segjob,jobs,pods,events", "--output=json"),
    ]
    assert len(hidden) == 6
    assert not [text for text in shown if any(secret in text for secret in hidden)]
