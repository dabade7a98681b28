"""From a SegmentationJob to a job of the API."""

from datetime import UTC, datetime
from typing import Any

import pytest

from cryomamba_apiserver.adapters.cluster_jobs.mapping import ended_at, entry_of, file_of, record_of, status_of
from cryomamba_apiserver.jobs.schemas import JobParams
from cryomamba_apiserver.ports.job_store import JobStatus
from cryomamba_crds.failures import FailureCode
from cryomamba_crds.report import Manifest, Statistics

CREATED, BEGUN, LATER = "2026-01-02T03:04:05Z", "2026-01-02T03:10:00Z", "2026-01-02T03:20:00Z"
RESULT = Manifest(
    attempt=1,
    artifacts=[],
    statistics=Statistics(label_counts={}, physical_volume_nm3={}, surface_area_nm2={}),
)
PREVIEW = {"sequence": 4, "scale": 2, "shape": [8, 8, 8], "sliceIdx": 4}


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def progress(updated_at: str = LATER, percentage: int = 40) -> dict[str, Any]:
    return {
        "sequence": 1,
        "currentStep": 3,
        "percentage": percentage,
        "message": "Processing tile 1/2",
        "updatedAt": updated_at,
    }


def conditions(since: str = BEGUN, **states: str) -> list[dict[str, Any]]:
    return [
        {"type": name, "status": status, "reason": "R", "lastTransitionTime": since} for name, status in states.items()
    ]


RUNNING = conditions(Running="True", Succeeded="Unknown")


def resource(name: str = "job-aaaaaaaaaaaa", *, spec: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "cryomamba.io/v1alpha1",
        "kind": "SegmentationJob",
        "metadata": {
            "name": name,
            "uid": "0000-uid",
            "resourceVersion": "7",
            "creationTimestamp": CREATED,
            "labels": {"cryomamba.io/owner": "ada"},
            "managedFields": [{"manager": "kubectl"}],
        },
        "spec": {"input": {"fileId": "file_aaaaaaaaaaaa"}, "model": "demo", **(spec or {})},
        "status": status,
    }


@pytest.mark.parametrize(
    ("wish", "states", "status"),
    [
        ("Run", {}, JobStatus.QUEUED),
        ("Run", {"Scheduled": "True", "Running": "False", "Succeeded": "Unknown"}, JobStatus.QUEUED),
        ("Run", {"Running": "True", "Succeeded": "Unknown"}, JobStatus.RUNNING),
        ("Run", {"Running": "Unknown", "Succeeded": "Unknown"}, JobStatus.QUEUED),
        ("Run", {"Running": "False", "Succeeded": "True"}, JobStatus.COMPLETED),
        ("Run", {"Running": "False", "Succeeded": "False"}, JobStatus.FAILED),
        ("Cancelled", {}, JobStatus.CANCELLED),
        ("Cancelled", {"Running": "True", "Succeeded": "Unknown"}, JobStatus.CANCELLED),
        ("Cancelled", {"Running": "False", "Succeeded": "False"}, JobStatus.CANCELLED),
        ("Cancelled", {"Running": "False", "Succeeded": "True"}, JobStatus.COMPLETED),
    ],
)
def test_wish_and_conditions_together_are_one_of_five_states(wish, states, status):
    assert status_of(resource(spec={"desiredState": wish}, conditions=conditions(**states))) is status


def test_a_resource_without_a_status_is_a_queued_job():
    raw = resource()
    del raw["status"]

    record = record_of(raw)

    assert record.status is JobStatus.QUEUED
    assert (record.progress, record.started_at, record.failure) == (None, None, None)
    assert record.updated_at == record.created_at == at(CREATED)


def test_a_resource_of_kubectl_is_shown_in_the_words_of_the_api():
    wish = {"folds": ["0", "all"], "tileStepPercent": 30, "mirroring": False, "voxelSizeNm": ["1.5", "1", "1"]}
    wish["objectTable"] = True

    record = record_of(resource("tomogram-7", spec={"inference": wish}))

    params = JobParams.from_inference(record.request.params)
    assert record.job_id == "tomogram-7"
    assert params == JobParams(
        folds=[0, "all"], step_size=0.3, disable_tta=True, object_table=True, voxel_size=(1.5, 1, 1)
    )


def test_what_a_newer_version_writes_is_passed_over():
    raw = resource(spec={"inference": {"tileStepPercent": 20, "ensemble": True}, "colour": "red"}, mood="good")

    assert record_of(raw).request.params.step_size == 0.2


def test_a_resource_without_an_owner_is_nobodys():
    raw = resource()
    raw["metadata"]["labels"] = {}

    assert entry_of(raw).owner is None
    assert record_of(raw).request.owner is None


def test_progress_and_preview_of_the_current_attempt_are_shown():
    record = record_of(resource(conditions=RUNNING, attempt=2, progress=progress(), preview=PREVIEW))

    assert record.progress is not None
    assert record.progress.percentage == 40
    assert record.preview is not None
    assert record.preview.key == "jobs/0000-uid/2/preview-live.png"
    assert record.updated_at == at(LATER)


def test_what_the_attempt_before_told_is_not_shown_for_the_current_one():
    record = record_of(resource(conditions=RUNNING, attempt=2, progress=progress(CREATED), preview=PREVIEW))

    assert record.status is JobStatus.RUNNING
    assert (record.progress, record.preview) == (None, None)


def test_a_report_from_a_clock_that_is_a_little_behind_is_shown():
    told = record_of(resource(conditions=RUNNING, attempt=1, progress=progress("2026-01-02T03:09:58Z")))

    assert told.progress is not None


def test_a_job_between_two_attempts_shows_no_progress():
    between = conditions(Running="False", Succeeded="Unknown")

    assert record_of(resource(conditions=between, attempt=1, progress=progress())).progress is None


def test_a_completed_job_is_at_100_percent_though_the_last_report_was_lost():
    done = conditions(LATER, Running="False", Succeeded="True")

    record = record_of(resource(conditions=done, attempt=1, progress=progress(percentage=97)), RESULT)

    assert record.progress is not None
    assert record.progress.percentage == 100
    assert record.failure is None


def test_a_completed_job_whose_result_is_gone_says_so():
    done = conditions(LATER, Running="False", Succeeded="True")

    record = record_of(resource(conditions=done, attempt=1))

    assert record.failure is not None
    assert record.failure.code is FailureCode.NOT_FOUND


def test_a_failed_job_has_the_operators_failure():
    told = {"code": "OUT_OF_MEMORY", "message": "It was too big.", "hint": "Ask for more.", "retryable": False}

    record = record_of(resource(conditions=conditions(LATER, Succeeded="False"), failure=told, completedAt=LATER))

    assert record.failure is not None
    assert record.failure.code is FailureCode.OUT_OF_MEMORY
    assert record.completed_at == at(LATER)


def test_a_cancelled_job_has_not_ended_until_the_operator_says_so():
    cancelled = {"desiredState": "Cancelled"}

    assert ended_at(resource(spec=cancelled, conditions=RUNNING)) is None
    assert ended_at(resource(spec=cancelled, conditions=conditions(LATER, Succeeded="False"))) == at(LATER)


@pytest.mark.parametrize(
    ("source", "file_id"),
    [
        ({"fileId": "file_aaaaaaaaaaaa"}, "file_aaaaaaaaaaaa"),
        ({"object": "files/file_aaaaaaaaaaaa/volume"}, "file_aaaaaaaaaaaa"),
        ({"object": "raw/tomogram.mrc"}, None),
    ],
)
def test_an_uploaded_file_is_needed_however_it_is_named(source, file_id):
    assert file_of(resource(spec={"input": source})) == file_id


def test_a_job_with_a_kubernetes_job_has_a_place_until_it_ends():
    waiting, placed = entry_of(resource()), entry_of(resource(jobName="j", conditions=RUNNING))
    over = entry_of(resource(jobName="j", conditions=conditions(Succeeded="False")))

    assert (waiting.placed, placed.placed, over.placed) == (False, True, False)
    assert waiting.waits
    assert not placed.waits


def test_the_mirror_keeps_no_managed_fields():
    assert "managedFields" not in entry_of(resource()).raw["metadata"]


def test_within_a_second_the_api_servers_clock_tells_which_job_is_older():
    raw = resource()
    raw["metadata"]["annotations"] = {"cryomamba.io/submitted-at": "2026-01-02T03:04:05.250000+00:00"}

    assert entry_of(raw).created == datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
