"""Facts from objects as Kubernetes 1.34 writes them, and the mirror that keeps them."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import yaml

from cryomamba_crds.ids import Key
from cryomamba_operator.diagnose.ended import attempt_failed
from cryomamba_operator.mirror import Mirror
from cryomamba_operator.observe import (
    current_pod,
    event_facts,
    is_left_over,
    is_ours,
    job_facts,
    look_again,
    pod_facts,
    unexplained,
)
from cryomamba_operator.quantities import parse_quantity

Make = Callable[..., dict[str, Any]]

RECORDED = Path(__file__).parent / "recorded"
CREATED = datetime(2026, 3, 1, 11, 50, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("conditions", "succeeded", "failed", "ended"),
    [
        ((), False, False, False),
        (("SuccessCriteriaMet",), True, False, False),
        (("SuccessCriteriaMet", "Complete"), True, False, True),
        (("FailureTarget=PodFailurePolicy",), False, True, False),
        (("FailureTarget=BackoffLimitExceeded", "Failed=BackoffLimitExceeded"), False, True, True),
    ],
)
def test_a_jobs_conditions_are_read(
    raw_job: Make, conditions: tuple[str, ...], succeeded: bool, failed: bool, ended: bool
) -> None:
    job = job_facts(raw_job("tomo-1", *conditions))

    assert (job.succeeded, job.failure is not None, job.ended) == (succeeded, failed, ended)


def test_a_condition_that_is_not_true_says_nothing(raw_job: Make) -> None:
    raw = raw_job("tomo-1", "Failed=BackoffLimitExceeded")
    raw["status"]["conditions"][0]["status"] = "False"

    assert job_facts(raw).failure is None


def test_ours_is_only_what_this_very_record_owns(raw_job: Make) -> None:
    ours, earlier = job_facts(raw_job()), job_facts(raw_job(owner_uid="another"))
    stranger = job_facts(raw_job(metadata={"ownerReferences": []}))
    cron = raw_job(owner_uid="uid-of-a-cron-job")
    cron["metadata"]["ownerReferences"][0] |= {"kind": "CronJob", "apiVersion": "batch/v1"}
    other_group = raw_job(owner_uid="another")
    other_group["metadata"]["ownerReferences"][0]["apiVersion"] = "cryomamba.io.example/v1"

    assert [is_ours(job, "uid-of-tomo-1") for job in (ours, earlier, stranger, job_facts(cron))] == [
        True,
        False,
        False,
        False,
    ]
    assert [is_left_over(job, "uid-of-tomo-1") for job in (ours, earlier, stranger, job_facts(cron))] == [
        False,
        True,
        False,
        False,
    ]
    assert not is_left_over(job_facts(other_group), "uid-of-tomo-1")


def test_an_owner_that_does_not_control_is_none(raw_job: Make) -> None:
    raw = raw_job()
    raw["metadata"]["ownerReferences"][0]["controller"] = False

    assert job_facts(raw).owner is None


def test_the_current_pod_is_the_newest_that_runs_of_this_very_job(raw_job: Make, raw_pod: Make) -> None:
    job = job_facts(raw_job())
    failed, running = pod_facts(raw_pod(number=2, phase="Failed")), pod_facts(raw_pod(number=1, phase="Running"))
    foreign = raw_pod(number=3, phase="Running")
    foreign["metadata"]["ownerReferences"][0]["uid"] = "uid-of-another-job"
    by_a_replica_set = raw_pod(number=4, phase="Running")
    by_a_replica_set["metadata"]["ownerReferences"][0]["kind"] = "ReplicaSet"
    pods = [failed, running, pod_facts(foreign), pod_facts(by_a_replica_set)]

    assert current_pod(job, pods) == running
    assert current_pod(job, [failed]) == failed
    assert current_pod(job, [pod_facts(foreign)]) is None


def test_the_runners_container_is_told_from_others(raw_pod: Make) -> None:
    raw = raw_pod(phase="Running", node="gpu-1")
    raw["status"]["containerStatuses"] = [
        {"name": "log-shipper", "state": {"terminated": {"exitCode": 3}}},
        {"name": "inference", "state": {"running": {"startedAt": "2026-03-01T12:00:00Z"}}},
    ]

    pod = pod_facts(raw)

    assert pod.started == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_an_init_container_that_failed_is_the_end_of_the_pod(raw_pod: Make) -> None:
    raw = raw_pod(phase="Failed", state={"waiting": {"reason": "PodInitializing"}})
    raw["status"]["initContainerStatuses"] = [
        {"name": "first", "state": {"terminated": {"exitCode": 0}}},
        {"name": "second", "state": {"terminated": {"exitCode": 4, "reason": "Error", "message": "no licence"}}},
    ]

    ended = pod_facts(raw).ended

    assert ended is not None
    assert (ended.exit_code, ended.message) == (4, "no licence")


def test_a_container_that_could_not_start_has_not_started(raw_pod: Make) -> None:
    never = {"exitCode": 128, "reason": "StartError", "startedAt": "1970-01-01T00:00:00Z"}

    assert pod_facts(raw_pod(phase="Failed", state={"terminated": never})).started is None


def test_events_are_read_in_both_their_forms() -> None:
    old = event_facts(
        {"metadata": {}, "reason": "FailedCreate", "message": "m", "lastTimestamp": "2026-03-01T12:00:00Z"}
    )
    new = event_facts(
        {"metadata": {}, "reason": "FailedCreate", "note": "m", "eventTime": "2026-03-01T12:00:00.123456Z"}
    )

    assert (old.message, new.message) == ("m", "m")
    assert old.last_seen is not None
    assert new.last_seen is not None


def test_events_are_asked_for_only_where_nothing_else_explains(raw_job: Make, raw_pod: Make) -> None:
    job, soon, later = job_facts(raw_job()), CREATED + timedelta(seconds=2), CREATED + timedelta(seconds=3)
    placed = {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-03-01T11:50:01Z"}
    creating = {"waiting": {"reason": "ContainerCreating"}}
    silent = pod_facts(raw_pod(node="gpu-1", conditions=[placed], state=creating))
    pulling = pod_facts(raw_pod(node="gpu-1", conditions=[placed], state={"waiting": {"reason": "ErrImagePull"}}))

    assert (unexplained(job, None, soon), unexplained(job, None, later)) == (None, job.uid)
    assert (unexplained(job, silent, soon), unexplained(job, silent, later)) == (None, silent.uid)
    assert unexplained(job, pulling, later) is None
    assert unexplained(job, pod_facts(raw_pod()), later) is None
    assert unexplained(job_facts(raw_job(suspend=True)), None, later) is None
    assert look_again(job, None) == timedelta(seconds=3)
    assert look_again(job, pulling) is None


@pytest.mark.parametrize(
    ("text", "number"),
    [("2", "2"), ("500m", "0.5"), ("16Gi", "17179869184"), ("1.5G", "1500000000"), ("3k", "3000"), ("1Ki", "1024")],
)
def test_quantities_are_read(text: str, number: str) -> None:
    assert parse_quantity(text) == Decimal(number)


@pytest.mark.parametrize("text", ["", "Gi", "1 Gi", "-1", "1e3x", "16GiB"])
def test_what_is_no_quantity_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        parse_quantity(text)


@pytest.mark.parametrize("path", sorted(RECORDED.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recorded_pod_is_diagnosed(path: Path) -> None:
    recorded = yaml.safe_load(path.read_text())

    found = attempt_failed(pod_facts(recorded["pod"]), memory="1Gi")

    assert {"reason": found.reason, "code": found.failure.code, "patience": found.patience} == recorded["diagnosis"]


def test_older_news_changes_nothing(raw_record: Make, raw_job: Make, raw_pod: Make) -> None:
    mirror = Mirror()
    for put, raw in ((mirror.put_record, raw_record()), (mirror.put_job, raw_job()), (mirror.put_pod, raw_pod())):
        older = {**raw, "metadata": {**raw["metadata"], "resourceVersion": "9"}}
        assert put(raw)
        assert not put(raw)
        assert not put(older)


def test_what_the_pod_reports_is_no_news(raw_record: Make) -> None:
    mirror = Mirror()
    mirror.put_record(raw_record())
    reported = raw_record(status={"progress": {"percentage": 40}})
    reported["metadata"] |= {"resourceVersion": "101", "managedFields": [{}]}

    assert not mirror.put_record(reported)
    known = mirror.record(Key("lab", "tomo-1"))
    assert known is not None
    assert known["metadata"]["resourceVersion"] == "101"


def test_late_news_of_an_object_that_is_gone_does_not_hit_its_successor(raw_record: Make, raw_job: Make) -> None:
    mirror = Mirror()
    mirror.put_record(raw_record())
    mirror.put_job(raw_job())
    for drop, raw in ((mirror.drop_record, raw_record()), (mirror.drop_job, raw_job())):
        assert not drop({**raw, "metadata": {**raw["metadata"], "uid": "of an earlier one"}})
        assert drop(raw)
        assert not drop(raw)


def test_what_a_list_does_not_have_is_forgotten_unless_it_is_newer(
    raw_record: Make, raw_job: Make, raw_pod: Make
) -> None:
    mirror = Mirror()
    mirror.put_record(raw_record("gone"))
    mirror.put_record(raw_record("kept"))
    mirror.put_job(raw_job("gone"))
    mirror.put_pod(raw_pod("gone"))

    mirror.retain_records({"uid-of-kept"}, version=99)
    mirror.retain_jobs(set(), version=199)
    mirror.retain_pods(set(), version=300)
    assert len(mirror) == 2
    assert mirror.job(Key("lab", "gone")) is not None
    assert mirror.pods(Key("lab", "gone"))

    mirror.retain_records({"uid-of-kept"}, version=100)
    mirror.retain_jobs(set(), version=200)
    mirror.retain_pods(set(), version=301)
    assert mirror.known() == [Key("lab", "kept")]
    assert mirror.pods(Key("lab", "gone")) == []
