"""What becomes of a SegmentationJob, with a real API server and a real Job controller."""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess
from support.waiting import until

Play = Callable[..., None]

LONG_AGO = "2026-03-01T12:00:00Z"


def running(since: str | None = None) -> dict[str, Any]:
    return {"running": {"startedAt": since or datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")}}


def ended(code: int, message: str = "") -> dict[str, Any]:
    times = {"startedAt": "2026-03-01T12:00:00Z", "finishedAt": "2026-03-01T12:00:01Z"}
    return {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed", "message": message, **times}}


def first_pod(jobs: Jobs, name: str) -> dict[str, Any]:
    until(lambda: jobs.pod(name) is not None)
    pod = jobs.pod(name)
    assert pod
    return pod


def test_a_job_runs_and_succeeds(
    operator: OperatorProcess, jobs: Jobs, play: Play, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo")
    pod = first_pod(jobs, "tomo")
    jobs.wait("tomo", "Scheduled", "False", "Pending")
    until(lambda: jobs.status("tomo").get("podUid") == pod["metadata"]["uid"])
    play(pod, "Running", running())
    jobs.wait("tomo", "Running", "True", "Running")
    play(pod, "Succeeded", ended(0))

    waited = control_plane_namespace("wait", "--for=condition=Finished", "segjob/tomo", "--timeout=30s")

    assert "condition met" in waited
    status = jobs.status("tomo")
    assert (status["jobName"], status["attempt"], status["observedGeneration"]) == ("tomo", 1, 1)
    assert jobs.condition("tomo", "Succeeded") == ("True", "Succeeded")
    assert status["completedAt"]
    until(lambda: ("Normal", "Succeeded") in jobs.events("tomo"))


def test_waiting_for_the_end_returns_on_failure_too(
    operator: OperatorProcess, jobs: Jobs, play: Play, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo")
    word = '{"code":"NOT_FOUND","message":"The model demo is not there.","hint":"Push it.","retryable":false}'
    play(first_pod(jobs, "tomo"), "Failed", ended(70, word))

    control_plane_namespace("wait", "--for=condition=Finished", "segjob/tomo", "--timeout=30s")

    assert jobs.condition("tomo", "Succeeded") == ("False", "NotFound")
    assert jobs.status("tomo")["failure"] == {
        "code": "NOT_FOUND",
        "message": "The model demo is not there.",
        "hint": "Push it.",
        "retryable": False,
    }
    assert jobs.status("tomo")["attempt"] == 1
    shown = control_plane_namespace("describe", "segjob", "tomo")
    assert "The model demo is not there. Push it." in shown


def test_an_attempt_that_failed_is_followed_by_another_until_they_are_used_up(
    operator: OperatorProcess, jobs: Jobs, play: Play
) -> None:
    operator.start()
    jobs.submit("tomo", maxAttempts=2)
    first = first_pod(jobs, "tomo")
    play(first, "Failed", ended(75))
    jobs.wait("tomo", "Running", "False", "Interrupted")
    until(lambda: jobs.status("tomo").get("attempt") == 2)
    second = first_pod(jobs, "tomo")
    assert jobs.status("tomo")["podUid"] == second["metadata"]["uid"] != first["metadata"]["uid"]
    play(second, "Failed", ended(1, "Traceback: KeyError\n"))

    jobs.wait("tomo", "Succeeded", "False", "RunnerFailed")

    assert "KeyError" in jobs.status("tomo")["failure"]["message"]


def test_cancelling_takes_the_job_and_its_pod_and_keeps_the_record(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo")
    first_pod(jobs, "tomo")
    control_plane_namespace(
        "patch", "segjob", "tomo", "--type=merge", "--patch", '{"spec":{"desiredState":"Cancelled"}}'
    )

    jobs.wait("tomo", "Finished", "True", "Cancelled")
    until(lambda: not control_plane_namespace.get("jobs,pods")["items"])

    assert jobs.status("tomo")["observedGeneration"] == 2


def test_a_strangers_job_of_the_same_name_is_left_alone(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    stranger = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "tomo"},
        "spec": {
            "suspend": True,
            "template": {
                "spec": {"restartPolicy": "Never", "containers": [{"name": "other", "image": "localhost/other:1"}]}
            },
        },
    }
    control_plane_namespace.apply(stranger)
    before = control_plane_namespace.get("job", "tomo")
    operator.start(max_active_jobs=1)
    jobs.submit("tomo")
    jobs.wait("tomo", "Scheduled", "False", "JobNameTaken")
    jobs.submit("next")
    jobs.wait("next", "Scheduled", "False", "Pending")

    assert jobs.condition("tomo", "Scheduled") == ("False", "JobNameTaken")
    assert control_plane_namespace.get("job", "tomo") == before
    control_plane_namespace("delete", "job", "tomo")
    jobs.wait("tomo", "Scheduled", "False", "Queued")
    control_plane_namespace("delete", "segjob", "next")
    jobs.wait("tomo", "Scheduled", "False", "Pending")


def test_a_record_that_is_made_anew_under_its_name_gets_a_job_of_its_own(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo")
    first_pod(jobs, "tomo")
    earlier = control_plane_namespace.get("job", "tomo")["metadata"]["uid"]
    control_plane_namespace("delete", "segjob", "tomo")
    jobs.submit("tomo")
    uid = control_plane_namespace.get("segjob", "tomo")["metadata"]["uid"]

    until(
        lambda: (
            [job["metadata"]["ownerReferences"][0]["uid"] for job in control_plane_namespace.get("jobs")["items"]]
            == [uid]
        )
    )

    assert control_plane_namespace.get("job", "tomo")["metadata"]["uid"] != earlier


def test_a_job_that_somebody_deletes_is_made_again_as_long_as_attempts_are_left(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", maxAttempts=2)
    for attempt in (1, 2):
        until(lambda attempt=attempt: jobs.status("tomo").get("attempt") == attempt)
        control_plane_namespace("delete", "job", "tomo")

    jobs.wait("tomo", "Succeeded", "False", "JobDeleted")

    assert control_plane_namespace.get("jobs")["items"] == []


def test_a_pod_that_somebody_deletes_is_followed_by_another(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo")
    pod = first_pod(jobs, "tomo")
    until(lambda: jobs.status("tomo").get("attempt") == 1)
    control_plane_namespace("delete", "pod", pod["metadata"]["name"], "--wait=false")

    until(lambda: jobs.status("tomo").get("attempt") == 2)


def test_a_finished_record_goes_with_everything_of_it_when_its_time_is_over(
    operator: OperatorProcess, jobs: Jobs, play: Play, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", ttlSecondsAfterFinished=1)
    play(first_pod(jobs, "tomo"), "Succeeded", ended(0))

    until(lambda: not control_plane_namespace.get("segmentationjobs,jobs,pods")["items"])


def test_a_running_time_that_is_over_ends_the_job(
    operator: OperatorProcess, jobs: Jobs, play: Play, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", activeDeadlineSeconds=60)
    play(first_pod(jobs, "tomo"), "Running", running(since=LONG_AGO))

    jobs.wait("tomo", "Succeeded", "False", "DeadlineExceeded")
    until(lambda: not control_plane_namespace.get("jobs,pods")["items"])


def test_a_kueue_that_suspends_the_job_is_waited_for(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", queueName="gpu-queue")
    first_pod(jobs, "tomo")
    control_plane_namespace("patch", "job", "tomo", "--type=merge", "--patch", '{"spec":{"suspend":true}}')

    jobs.wait("tomo", "Scheduled", "False", "Suspended")

    assert control_plane_namespace.get("job", "tomo")["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu-queue"


@pytest.mark.parametrize(
    ("setup", "spec", "settings", "reason"),
    [
        ([], {"priorityClassName": "no-such-class"}, {}, "NoPriorityClass"),
        ([], {}, {"service_account": "no-such-account"}, "NoServiceAccount"),
        (
            [("create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=1")],
            {"resources": {"gpus": 2}},
            {},
            "LargerThanQuota",
        ),
        (
            [("label", "namespace", "--all", "pod-security.kubernetes.io/enforce=restricted", "--overwrite")],
            {},
            {"pod_template_text": "spec: {schedulerName: nobody, hostNetwork: true}"},
            "PodSecurity",
        ),
    ],
    ids=["priority class", "service account", "quota", "pod security"],
)
def test_a_job_that_gets_no_pod_says_why_and_fails(
    operator: OperatorProcess,
    jobs: Jobs,
    control_plane_namespace: Kubectl,
    setup: list[tuple[str, ...]],
    spec: dict[str, Any],
    settings: dict[str, str],
    reason: str,
) -> None:
    for words in setup:
        own = [control_plane_namespace.namespace if word == "--all" else word for word in words]
        control_plane_namespace(*map(str, own))
    if text := settings.pop("pod_template_text", ""):
        operator.folder.joinpath("pod-template.yaml").write_text(text)
    operator.start(configuration_grace_seconds=5, **settings)
    jobs.submit("tomo", **spec)

    jobs.wait("tomo", "Scheduled", "False", reason)
    jobs.wait("tomo", "Succeeded", "False", reason)

    assert jobs.status("tomo")["failure"]["hint"]
    until(lambda: not control_plane_namespace.get("jobs")["items"])


def test_a_quota_that_is_used_up_is_waited_for(
    operator: OperatorProcess, jobs: Jobs, play: Play, control_plane_namespace: Kubectl
) -> None:
    control_plane_namespace("create", "quota", "gpus", "--hard=requests.nvidia.com/gpu=1")
    operator.start(configuration_grace_seconds=1, max_active_jobs=2)
    jobs.submit("first")
    first_pod(jobs, "first")
    jobs.submit("second")
    jobs.wait("second", "Scheduled", "False", "QuotaExceeded")
    play(first_pod(jobs, "first"), "Succeeded", ended(0))

    jobs.wait("second", "Scheduled", "False", "Pending", seconds=100)


def test_the_pods_that_the_operator_makes_meet_the_restricted_level(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    namespace = str(control_plane_namespace.namespace)
    control_plane_namespace("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    operator.start()

    jobs.submit("tomo")

    assert first_pod(jobs, "tomo")["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"


def test_the_operator_ends_well_when_it_is_told_to(operator: OperatorProcess, jobs: Jobs) -> None:
    operator.start()
    jobs.submit("tomo")
    first_pod(jobs, "tomo")

    assert operator.stop() == 0
