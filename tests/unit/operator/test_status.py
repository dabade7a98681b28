from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from cryomamba_crds.failures import Failure, FailureCode
from cryomamba_crds.resource import SegmentationJob, SegmentationJobStatus
from cryomamba_operator.announce import announcements, event_manifest
from cryomamba_operator.status import Aspect, Situation, is_finished, since, situation_of, status_patch

Make = Callable[..., SegmentationJob]

RUNNING = Situation(
    scheduled=Aspect("True", "Scheduled", "Placed on node gpu-1."),
    running=Aspect("True", "Running", "Attempt 1 runs on node gpu-1.", "Normal"),
    succeeded=Aspect("Unknown", "Running"),
    finished=Aspect("False", "InProgress"),
    job_name="tomo-1",
    pod_uid="uid-1",
    attempt=1,
)


def written(record: SegmentationJob, situation: Situation, now: datetime) -> SegmentationJob:
    """Return the record as it is once the patch has been merged."""
    before = record.status.model_dump(mode="json", by_alias=True, exclude_none=True) if record.status else {}
    patch = status_patch(record, situation, now)
    merged = SegmentationJobStatus.model_validate({**before, **patch.get("status", {})})
    return record.model_copy(update={"status": merged})


def test_a_status_that_says_it_already_is_not_written(record: Make, now: datetime) -> None:
    once = written(record(), RUNNING, now)

    assert status_patch(once, RUNNING, now + timedelta(hours=1)) == {}
    assert situation_of(once) == RUNNING


def test_only_the_operators_own_keys_that_changed_are_written(record: Make, now: datetime) -> None:
    once = written(record(), RUNNING, now)

    patch = status_patch(once, replace(RUNNING, pod_uid="uid-2", attempt=2), now)

    assert patch == {"metadata": {"resourceVersion": "100"}, "status": {"podUid": "uid-2", "attempt": 2}}


def test_times_are_utc_to_the_second(record: Make, now: datetime) -> None:
    patch = status_patch(record(), replace(RUNNING, started_at=now + timedelta(microseconds=5)), now)

    assert patch["status"]["startedAt"] == "2026-03-01T12:00:00Z"
    assert {item["lastTransitionTime"] for item in patch["status"]["conditions"]} == {"2026-03-01T12:00:00Z"}


def test_a_condition_keeps_its_time_until_its_status_or_reason_changes(record: Make, now: datetime) -> None:
    later = now + timedelta(minutes=5)
    once = written(record(), RUNNING, now)

    twice = written(once, replace(RUNNING, running=Aspect("False", "ImagePull", "no such image")), later)

    assert since(twice, "Scheduled", "Scheduled", later) == now
    assert since(twice, "Running", "ImagePull", later + timedelta(hours=1)) == later
    assert since(twice, "Running", "OtherReason", later) == later


def test_a_message_alone_is_not_worth_a_write(record: Make, now: datetime) -> None:
    once = written(record(), RUNNING, now)

    assert status_patch(once, replace(RUNNING, scheduled=Aspect("True", "Scheduled", "0/41 nodes ...")), now) == {}


def test_the_observed_generation_follows_every_change_of_the_spec(record: Make, now: datetime) -> None:
    once = written(record(), RUNNING, now)
    changed = once.model_copy(update={"metadata": once.metadata.model_copy(update={"generation": 2})})

    patch = status_patch(changed, RUNNING, now + timedelta(hours=1))

    assert patch["status"]["observedGeneration"] == 2
    assert [item["observedGeneration"] for item in patch["status"]["conditions"]] == [2, 2, 2, 2]
    assert {item["lastTransitionTime"] for item in patch["status"]["conditions"]} == {"2026-03-01T12:00:00Z"}


def test_a_failure_is_written_without_its_free_form_details(record: Make, now: datetime) -> None:
    failure = Failure(
        code=FailureCode.NOT_FOUND, message="No model.", hint="Push it.", retryable=False, details={"key": "models/x"}
    )

    patch = status_patch(record(), replace(RUNNING, failure=failure), now)

    assert patch["status"]["failure"] == {
        "code": "NOT_FOUND",
        "message": "No model.",
        "hint": "Push it.",
        "retryable": False,
    }


def test_a_record_is_finished_once_it_is_known_whether_it_succeeded(record: Make, now: datetime) -> None:
    assert not is_finished(record())
    assert not is_finished(written(record(), RUNNING, now))
    assert is_finished(written(record(), replace(RUNNING, succeeded=Aspect("False", "OutOfMemory")), now))


def test_the_longest_texts_fit_the_resource(record: Make, now: datetime) -> None:
    failure = Failure(code=FailureCode.NOT_FOUND, message="m" * 1024, hint="h" * 900, retryable=False)
    texts = replace(RUNNING, succeeded=Aspect("False", "R" * 63, "m" * 1024 + " " + "h" * 900), failure=failure)

    assert is_finished(written(record(), texts, now))


def test_an_event_is_written_for_what_changed_and_is_worth_it() -> None:
    retrying = replace(RUNNING, running=Aspect("False", "Interrupted", "exit code 75", "Warning"))

    assert [aspect.reason for aspect in announcements(Situation(), RUNNING)] == ["Running"]
    assert announcements(RUNNING, RUNNING) == []
    assert [aspect.message for aspect in announcements(RUNNING, retrying)] == ["exit code 75"]


def test_the_end_of_a_job_is_told_once() -> None:
    ended = replace(
        RUNNING,
        running=Aspect("False", "OutOfMemory"),
        succeeded=Aspect("False", "OutOfMemory", "more than its 4Gi", "Warning"),
    )

    assert [aspect.message for aspect in announcements(RUNNING, ended)] == ["more than its 4Gi"]
    assert announcements(ended, ended) == []


def test_an_event_is_about_the_record(record: Make, now: datetime) -> None:
    event = event_manifest(record(), Aspect("False", "OutOfMemory", "x" * 5000, "Warning"), now, "abc")

    about: dict[str, Any] = event["involvedObject"]
    assert (about["kind"], about["name"], about["uid"]) == ("SegmentationJob", "tomo-1", "uid-of-tomo-1")
    assert (event["type"], event["reason"], event["metadata"]["name"]) == ("Warning", "OutOfMemory", "tomo-1.abc")
    assert len(event["message"]) <= 1024
