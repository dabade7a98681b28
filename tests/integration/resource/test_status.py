"""What the API server itself makes of the status of SegmentationJobs, by the schema and the rules of the CRD."""

import json

import pytest

from support.kubernetes import RefusedError
from support.segmentation_jobs import THEN, condition, segmentation_job

PROGRESS = {"sequence": 7, "currentStep": 3, "percentage": 42, "message": "Inferring tile 9/21", "updatedAt": THEN}
PREVIEW = {"sequence": 1, "scale": 4, "shape": [100, 100, 20], "sliceIdx": 10}
GPU = {"gpuId": 0, "memoryUsed": 1024, "memoryTotal": 81559, "utilization": 97}
ARTIFACT = {"name": "labels.mrc", "size": 1024, "contentType": "application/octet-stream", "createdAt": THEN}
FAILURE = {"code": "OUT_OF_MEMORY", "message": "It was too big.", "hint": "Ask for more memory.", "retryable": False}
UNDER_WAY = {
    "observedGeneration": 1,
    "conditions": [
        condition("Scheduled", "True", "Scheduled"),
        condition("Running", "True", "Running"),
        condition("Succeeded", "Unknown", "Running"),
        condition("Finished", "False", "InProgress"),
    ],
    "jobName": "tomogram",
    "podUid": "7f1b1d0e-9c3c-4b55-8a39-7c8f0c1d2e3f",
    "attempt": 2,
    "startedAt": THEN,
    "progress": PROGRESS,
}
FAILED = UNDER_WAY | {
    "conditions": [
        condition("Scheduled", "True", "Scheduled"),
        condition("Running", "False", "OutOfMemory"),
        condition("Succeeded", "False", "OutOfMemory"),
        condition("Finished", "True", "OutOfMemory"),
    ],
    "completedAt": THEN,
    "failure": FAILURE,
}
SUCCEEDED = UNDER_WAY | {
    "conditions": [
        condition("Scheduled", "True", "Scheduled"),
        condition("Running", "False", "Succeeded"),
        condition("Succeeded", "True", "Succeeded"),
        condition("Finished", "True", "Succeeded"),
    ],
    "completedAt": THEN,
}

BAD = {
    "too many conditions": ({"conditions": [condition(f"C{number}", "True", "R") for number in range(9)]}, "at most 8"),
    "a condition twice": ({"conditions": [condition("Running", "True", "R")] * 2}, "Duplicate value"),
    "a condition that is neither": ({"conditions": [condition("Running", "Maybe", "R")]}, "Unsupported value"),
    "a condition without a time": ({"conditions": [{"type": "A", "status": "True", "reason": "R"}]}, "Required value"),
    "a condition's long message": (
        {"conditions": [condition("Running", "True", "R") | {"message": "m" * 2049}]},
        "may not be more than 2048",
    ),
    "a long pod uid": ({"podUid": "u" * 37}, "may not be more than 36"),
    "attempt 0": ({"attempt": 0}, "greater than or equal to 1"),
    "a time that is none": ({"startedAt": "yesterday"}, "must be of type date-time"),
    "an unknown failure": ({"failure": FAILURE | {"code": "BAD_LUCK"}}, "Unsupported value"),
    "a failure without a hint": ({"failure": {"code": "GPU_ERROR", "message": "m", "retryable": True}}, "hint"),
    "101 percent": ({"progress": PROGRESS | {"percentage": 101}}, "less than or equal to 100"),
    "step 6 of 5": ({"progress": PROGRESS | {"currentStep": 6}}, "less than or equal to 5"),
    "a long progress message": ({"progress": PROGRESS | {"message": "m" * 257}}, "may not be more than 256"),
    "a flat preview": ({"preview": PREVIEW | {"shape": [100, 100]}}, "at least 3 items"),
    "a preview before the first": ({"preview": PREVIEW | {"sequence": 0}}, "greater than or equal to 1"),
    "a GPU that is too busy": ({"gpu": GPU | {"utilization": 101}}, "less than or equal to 100"),
    "an artifact with a path": ({"artifacts": [ARTIFACT | {"name": "../labels.mrc"}]}, "should match"),
    "an artifact of less than nothing": ({"artifacts": [ARTIFACT | {"size": -1}]}, "greater than or equal to 0"),
    "an artifact twice": ({"artifacts": [ARTIFACT, ARTIFACT]}, "Duplicate value"),
    "too many artifacts": ({"artifacts": [ARTIFACT | {"name": f"a{n}"} for n in range(33)]}, "at most 32"),
}

STAYS = "a finished job stays as it ended"
TOO_LATE = {
    "the outcome turns": ({"conditions": [*FAILED["conditions"][:2], *SUCCEEDED["conditions"][2:]]}, STAYS),
    "the outcome is open again": ({"conditions": UNDER_WAY["conditions"]}, STAYS),
    "another reason": (
        {"conditions": [condition("Succeeded", "False", "Evicted"), condition("Finished", "True", "OutOfMemory")]},
        STAYS,
    ),
    "it is not finished any more": (
        {"conditions": [condition("Succeeded", "False", "OutOfMemory"), condition("Finished", "False", "InProgress")]},
        STAYS,
    ),
    "only the outcome is left": ({"conditions": [condition("Succeeded", "False", "OutOfMemory")]}, STAYS),
    "the outcome is gone": ({"conditions": [condition("Finished", "True", "OutOfMemory")]}, STAYS),
    "no conditions": ({"conditions": []}, STAYS),
    "conditions removed": ({"conditions": None}, STAYS),
    "failure removed": ({"failure": None}, STAYS),
    "failure rewritten": ({"failure": FAILURE | {"code": "GPU_ERROR"}}, STAYS),
    "the end moved": ({"completedAt": "2027-01-01T00:00:00Z"}, STAYS),
    "the end removed": ({"completedAt": None}, STAYS),
    "status removed": (None, "status cannot be removed"),
}

LATE_BUT_FINE = {
    "the generation that has been seen": {
        "observedGeneration": 2,
        "conditions": [each | {"observedGeneration": 2} for each in FAILED["conditions"]],
    },
    "a condition that says nothing of the outcome": {
        "conditions": [condition("Running", "Unknown", "NodeLost"), *FAILED["conditions"][2:]],
    },
    "a message": {"conditions": [each | {"message": "In other words."} for each in FAILED["conditions"]]},
    "what the pod said": {"progress": None},
}


def report(kubectl, status):
    """Write a status as operator and pod do."""
    patch = json.dumps({"status": status})
    kubectl("patch", "segjob", "tomogram", "--subresource=status", "--type=merge", f"--patch={patch}")


def job_that_is(kubectl, status):
    kubectl.apply(segmentation_job())
    report(kubectl, status)


@pytest.mark.parametrize("status", [UNDER_WAY, FAILED, SUCCEEDED, {"preview": PREVIEW, "gpu": GPU}])
def test_what_operator_and_pod_write_is_taken(control_plane_namespace, status):
    job_that_is(control_plane_namespace, status)

    assert control_plane_namespace.get("segjob", "tomogram")["status"].items() >= _with_defaults(status).items()


def _with_defaults(status):
    progress = {"progress": {"totalSteps": 5, **status["progress"]}} if "progress" in status else {}
    return {**status, **progress, "conditions": [{"message": "", **each} for each in status.get("conditions", [])]}


@pytest.mark.parametrize(("status", "said"), BAD.values(), ids=BAD)
def test_a_status_out_of_bounds_is_refused(control_plane_namespace, status, said):
    control_plane_namespace.apply(segmentation_job())

    with pytest.raises(RefusedError, match=said):
        report(control_plane_namespace, status)


def test_a_status_in_a_manifest_is_dropped(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job() | {"status": SUCCEEDED})
    control_plane_namespace.apply(segmentation_job(ttlSecondsAfterFinished=1) | {"status": SUCCEEDED})

    assert "status" not in control_plane_namespace.get("segjob", "tomogram")


def test_a_status_does_not_change_the_spec(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())

    patch = json.dumps({"spec": {"desiredState": "Cancelled"}, "status": {"attempt": 1}})
    control_plane_namespace("patch", "segjob", "tomogram", "--subresource=status", "--type=merge", f"--patch={patch}")

    job = control_plane_namespace.get("segjob", "tomogram")
    assert (job["spec"]["desiredState"], job["status"]["attempt"]) == ("Run", 1)


@pytest.mark.parametrize("attempt", [1, None])
def test_attempts_are_not_counted_down(control_plane_namespace, attempt):
    job_that_is(control_plane_namespace, UNDER_WAY)

    with pytest.raises(RefusedError, match="attempts are counted upwards"):
        report(control_plane_namespace, {"attempt": attempt})


def test_a_status_is_not_wiped(control_plane_namespace):
    job_that_is(control_plane_namespace, UNDER_WAY)

    with pytest.raises(RefusedError, match="status cannot be removed"):
        report(control_plane_namespace, None)


@pytest.mark.parametrize(("status", "said"), TOO_LATE.values(), ids=TOO_LATE)
def test_what_has_finished_stays_as_it_ended(control_plane_namespace, status, said):
    job_that_is(control_plane_namespace, FAILED)

    with pytest.raises(RefusedError, match=said):
        report(control_plane_namespace, status)


def test_nor_is_it_replaced_by_an_empty_status(control_plane_namespace):
    job_that_is(control_plane_namespace, SUCCEEDED)
    job = control_plane_namespace.get("segjob", "tomogram")

    with pytest.raises(RefusedError, match=STAYS):
        control_plane_namespace(
            "replace", "--subresource=status", "--filename", "-", manifest=job | {"status": {"attempt": 2}}
        )


@pytest.mark.parametrize("status", LATE_BUT_FINE.values(), ids=LATE_BUT_FINE)
def test_the_rest_may_change_after_the_end(control_plane_namespace, status):
    job_that_is(control_plane_namespace, FAILED)

    report(control_plane_namespace, status)

    assert control_plane_namespace.get("segjob", "tomogram")["status"]["failure"] == FAILURE


def test_a_finished_job_may_be_given_another_time_to_live(control_plane_namespace):
    job_that_is(control_plane_namespace, SUCCEEDED)

    control_plane_namespace.apply(segmentation_job(ttlSecondsAfterFinished=3600))
    report(control_plane_namespace, {"observedGeneration": 2})

    status = control_plane_namespace.get("segjob", "tomogram")["status"]
    assert (status["observedGeneration"], status["completedAt"]) == (2, THEN)
