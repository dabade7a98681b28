"""What no runner's pod may write, and what it is told: other fields, other jobs, or when its time is over."""

import pytest

from support.segmentation_jobs import THEN, condition
from support.waiting import until

PROGRESS = {"sequence": 7, "currentStep": 3, "percentage": 42, "message": "Inferring tile 9/21", "updatedAt": THEN}
FAILURE = {"code": "GPU_ERROR", "message": "It broke.", "hint": "Try again.", "retryable": True}
REPORT = {"status": {"progress": PROGRESS}}
RUNNING = [condition("Running", "True", "Running"), condition("Succeeded", "Unknown", "Running")]
SUCCEEDED = [condition("Succeeded", "True", "Succeeded"), condition("Finished", "True", "Succeeded")]
FAILED = [condition("Succeeded", "False", "OutOfMemory"), condition("Finished", "True", "OutOfMemory")]

ANOTHER_POD = "another pod runs this job"
NO_POD_YET = "no pod has been recorded for this job yet; try again"

# What the operator has written before a pod tries to change it.
OPERATORS = {
    "observedGeneration": 1,
    "conditions": [each | {"message": ""} for each in RUNNING],
    "jobName": "tomogram",
    "attempt": 2,
    "disruptions": 1,
    "startedAt": THEN,
}
CHANGES = {
    "observedGeneration": 2,
    "conditions": SUCCEEDED,
    "jobName": "other",
    "podUid": "7f1b1d0e-9c3c-4b55-8a39-7c8f0c1d2e3f",
    "attempt": 3,
    "disruptions": 0,
    "startedAt": "2027-01-01T00:00:00Z",
    "completedAt": "2027-01-01T00:00:00Z",
    "failure": FAILURE,
}
REMOVALS = ["observedGeneration", "conditions", "jobName", "podUid", "disruptions", "startedAt"]

JSON_PATCHES = {
    "replace": ([{"op": "replace", "path": "/status/attempt", "value": 3}], "not attempt"),
    "remove": ([{"op": "remove", "path": "/status/podUid"}], "not podUid"),
    "add to a list": ([{"op": "add", "path": "/status/conditions/-", "value": SUCCEEDED[1]}], "not conditions"),
    "within a list": ([{"op": "replace", "path": "/status/conditions/1/status", "value": "True"}], "not conditions"),
    "copy": ([{"op": "copy", "from": "/status/attempt", "path": "/status/disruptions"}], "not disruptions"),
    "move": ([{"op": "move", "from": "/status/disruptions", "path": "/status/observedGeneration"}], "not disruptions"),
    "the whole status": ([{"op": "replace", "path": "/status", "value": {"attempt": 2, **REPORT["status"]}}], "podUid"),
}


@pytest.fixture
def running(place):
    """The pod that runs the job `tomogram`, about which the operator has said much."""
    pod = place.create_pod()
    place.create_job("tomogram", pod)
    place.record("tomogram", **OPERATORS)
    return pod


@pytest.mark.parametrize("name", CHANGES)
def test_a_field_of_the_operators_is_not_written(running, refuses, name):
    answer = running.patch("tomogram", {"status": {name: CHANGES[name]}})

    refuses(answer, 403, f"a runner reports progress, preview, gpu and artifacts, not {name}")


@pytest.mark.parametrize("name", REMOVALS)
def test_nor_is_it_removed(running, refuses, name):
    answer = running.patch("tomogram", {"status": {name: None}})

    refuses(answer, 403, f"a runner reports progress, preview, gpu and artifacts, not {name}")


def test_the_number_of_the_attempt_and_the_whole_status_are_not_removed(running, refuses):
    refuses(running.patch("tomogram", {"status": {"attempt": None}}), 422, "attempts are counted upwards")
    refuses(running.patch("tomogram", {"status": None}), 422, "status cannot be removed")


def test_one_field_too_many_spoils_the_report(place, running, refuses):
    answer = running.patch("tomogram", {"status": {"progress": PROGRESS, "attempt": 3, "failure": FAILURE}})

    refuses(answer, 403, "not ")
    assert all(name in answer.json()["message"] for name in ("attempt", "failure"))
    assert "progress" not in place.status("tomogram")


@pytest.mark.parametrize(("operations", "why"), JSON_PATCHES.values(), ids=JSON_PATCHES)
def test_a_json_patch_does_not_get_around_that(running, refuses, operations, why):
    refuses(running.patch("tomogram", operations, "json"), 403, why)


def test_nor_does_a_forced_apply_in_the_operators_name(place, running, refuses):
    applied = {"apiVersion": "cryomamba.io/v1alpha1", "kind": "SegmentationJob", "status": {"conditions": FAILED}}

    answer = running.patch("tomogram", applied, "apply", "?fieldManager=kubectl-patch&force=true")

    refuses(answer, 403, "not conditions")
    assert place.status("tomogram")["conditions"] == OPERATORS["conditions"]


def test_another_pods_job_is_not_its_own(place, refuses):
    mine, theirs = place.start_pod("tomogram-x7k2p"), place.start_pod("lamella-p2x7k")
    place.create_job("tomogram", mine)
    place.create_job("lamella", theirs)

    answer = mine.patch("lamella", REPORT)

    refuses(answer, 403, ANOTHER_POD)
    assert "progress" not in place.status("lamella")


@pytest.mark.parametrize(("patch", "query"), [({}, ""), (REPORT, "?dryRun=All")], ids=["nothing", "a dry run"])
def test_a_patch_that_changes_nothing_shows_nobody_elses_job(place, pod, refuses, patch, query):
    place.create_job("lamella", place.create_pod("lamella-p2x7k"))

    answer = pod.patch("lamella", patch, query=query)

    refuses(answer, 403, ANOTHER_POD)
    assert "spec" not in answer.json()


def test_a_pod_made_by_hand_is_not_the_jobs_however_it_is_called_and_labelled(place, pod, refuses):
    uid = place.kubectl.get("segjob", "tomogram")["metadata"]["uid"]
    owner = {"apiVersion": "cryomamba.io/v1alpha1", "kind": "SegmentationJob", "name": "tomogram", "uid": uid}
    lookalike = place.start_pod(
        "tomogram-abcde",
        labels={"cryomamba.io/job": "tomogram", "batch.kubernetes.io/job-name": "tomogram"},
        ownerReferences=[owner],
    )

    refuses(lookalike.patch("tomogram", REPORT), 403, ANOTHER_POD)


def test_a_job_whose_pod_is_not_known_yet_takes_no_report(place, refuses):
    early = place.create_pod()
    place.create_job("tomogram")

    refuses(early.patch("tomogram", REPORT), 403, NO_POD_YET)


def test_the_pod_of_a_previous_attempt_is_not_heard_while_it_still_runs(place, refuses):
    first, second = place.start_pod("tomogram-first"), place.start_pod("tomogram-second")
    place.create_job("tomogram", first)
    assert first.patch("tomogram", REPORT).status_code == 200

    place.record("tomogram", podUid=second.uid, attempt=2)

    refuses(first.patch("tomogram", REPORT), 403, ANOTHER_POD)
    assert second.patch("tomogram", REPORT).status_code == 200


def test_a_job_that_was_made_again_under_its_name_does_not_hear_the_old_pod(place, pod, refuses):
    place.kubectl("delete", "segjob", "tomogram")
    place.create_job("tomogram")

    refuses(pod.patch("tomogram", REPORT), 403, NO_POD_YET)
    place.record("tomogram", podUid=place.create_pod("tomogram-again").uid)
    refuses(pod.patch("tomogram", REPORT), 403, ANOTHER_POD)


def test_a_token_outlives_its_pod_by_nothing(place, refuses):
    gone = place.start_pod()
    place.create_job("tomogram", gone)
    assert gone.patch("tomogram", REPORT).status_code == 200

    place.kubectl("delete", "pod", gone.name)

    # The API server remembers for a few seconds that a token was good.
    until(lambda: gone.patch("tomogram", REPORT).status_code == 401, seconds=30)
    refuses(gone.patch("tomogram", REPORT), 401, "Unauthorized")


def test_a_token_that_is_bound_to_no_pod_is_of_no_use(place, pod, refuses):
    refuses(place.without_pod().patch("tomogram", REPORT), 403, "the token belongs to no pod")


@pytest.mark.parametrize("outcome", [SUCCEEDED, FAILED], ids=["succeeded", "failed"])
def test_a_finished_job_takes_no_more_reports(place, pod, refuses, outcome):
    place.record("tomogram", conditions=outcome)

    refuses(pod.patch("tomogram", REPORT), 403, "the job has finished; nothing more is reported about it")
    refuses(pod.patch("tomogram", {"status": {"progress": None}}), 403, "the job has finished")


def test_the_operator_is_not_held_by_what_holds_runners(place, pod):
    place.record("tomogram", **CHANGES)

    assert place.status("tomogram")["failure"] == FAILURE
