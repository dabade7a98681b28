"""From a request to a SegmentationJob, and what its creation is answered with."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cryomamba_apiserver.adapters.cluster_jobs import creation
from cryomamba_apiserver.adapters.cluster_jobs.creation import Estimates, JobDefaults
from cryomamba_apiserver.adapters.cluster_jobs.line import place_in_line
from cryomamba_apiserver.adapters.cluster_jobs.mapping import Entry, entry_of
from cryomamba_apiserver.ports.job_store import JobStatus, RetryKey
from cryomamba_crds.ids import Key
from cryomamba_crds.order import Candidate
from cryomamba_crds.resource import Resources, SegmentationJob
from support.server_data import CARD, job_request

NOW = datetime(2026, 1, 2, 3, 4, 5, 250_000, tzinfo=UTC)
ESTIMATES = Estimates(queue_position=3, duration_seconds=70)
KEY = RetryKey("a-key", "digest of the request")


def made(name: str = "job-aaaaaaaaaaaa", defaults: JobDefaults | None = None, **request) -> dict[str, Any]:
    asked = job_request(**request)
    return creation.manifest(name, asked, defaults or JobDefaults(), ESTIMATES, NOW)


def kept(manifest: dict[str, Any], version: int = 1, **metadata: Any) -> dict[str, Any]:
    """A manifest as Kubernetes gives it back."""
    given = {
        "uid": f"uid of {manifest['metadata']['name']}",
        "resourceVersion": str(version),
        "creationTimestamp": "2026-01-02T03:04:05Z",
        "generation": 1,
    }
    return {**manifest, "metadata": {**manifest["metadata"], **given, **metadata}}


def entry(name: str, version: int, **metadata: Any) -> Entry:
    return entry_of(kept(made(name), version, **metadata))


def test_a_manifest_is_what_the_definition_takes():
    defaults = JobDefaults(Resources(gpus=2, memory="8Gi", cpu="4"), 2, 3600, 7200, "urgent", "lab")

    job = SegmentationJob.model_validate(made(defaults=defaults, step_size=0.3, folds=[0, 1]))

    assert job.spec.inference.tile_step_percent == 30
    assert job.spec.inference.folds == ["0", "1"]
    assert job.spec.model_digest == CARD.digest
    assert job.spec.resources.gpus == 2
    assert (job.spec.max_attempts, job.spec.ttl_seconds_after_finished) == (2, 3600)
    assert (job.spec.active_deadline_seconds, job.spec.priority_class_name, job.spec.queue_name) == (
        7200,
        "urgent",
        "lab",
    )


def test_no_float_and_nothing_empty_gets_into_a_manifest():
    def leaves(thing: object) -> list[object]:
        if isinstance(thing, dict):
            return [leaf for value in thing.values() for leaf in leaves(value)]
        return [leaf for value in thing for leaf in leaves(value)] if isinstance(thing, list) else [thing]

    assert not any(leaf is None or isinstance(leaf, float) for leaf in leaves(made(voxel_size_nm=(1.5, 1.0, 1.0))))


def test_an_owner_that_no_label_can_hold_is_kept_whole():
    subject = "auth0|ada@example.org"

    assert entry_of(kept(made(owner=subject))).owner == subject


def test_a_receipt_is_the_first_answer_whatever_became_of_the_job():
    raw = kept(made()) | {"status": {"attempt": 2}}

    receipt = creation.receipt_of(raw, replayed=True)

    assert (receipt.job_id, receipt.queue_position, receipt.estimated_duration_seconds) == ("job_aaaaaaaaaaaa", 3, 70)
    assert receipt.created_at == NOW
    assert receipt.replayed


def test_two_owners_or_two_keys_or_two_rounds_make_two_names():
    digests = [creation.retry_digest(owner, RetryKey(key, "")) for owner in ("ada", "bob") for key in ("a", "b")]

    names = {creation.retry_name(digest, round_) for digest in digests for round_ in (0, 1)}

    assert len(names) == 8
    assert all(creation.retry_name(digests[0], 0) == creation.retry_name(digests[0], 0) for _ in range(3))


def test_a_job_remembers_the_key_and_the_request_that_it_was_made_under():
    raw = kept(creation.under_key(made(), "digest-of-key", 2, KEY))

    assert (entry_of(raw).retry_key, entry_of(raw).retry_round) == ("digest-of-key", 2)
    assert creation.asked_the_same(raw, KEY)
    assert not creation.asked_the_same(raw, RetryKey("a-key", "another"))
    assert not creation.asked_the_same(kept(made()), KEY)


def test_a_key_is_good_for_a_day():
    job = entry("job-aaaaaaaaaaaa", 1)

    assert creation.key_is_good(job, NOW + timedelta(hours=23, minutes=59))
    assert not creation.key_is_good(job, NOW + timedelta(hours=24))


@pytest.mark.parametrize(
    "change", [{"owner": "bob"}, {"file_id": "file_bbbbbbbbbbbb"}, {"step_size": 0.7}, {"mirroring": False}]
)
def test_only_the_same_request_of_the_same_owner_is_a_duplicate(change):
    assert creation.fingerprint(job_request()) == creation.fingerprint(job_request())
    assert creation.fingerprint(job_request(**change)) != creation.fingerprint(job_request())


def test_of_two_jobs_created_at_once_both_servers_call_the_same_one_older():
    first, second = entry("job-zzzzzzzzzzzz", 10), entry("job-aaaaaaaaaaaa", 11)

    assert creation.is_older(first, second)
    assert not creation.is_older(second, first)


def test_a_job_that_has_been_changed_since_is_still_the_older_one():
    mine = entry("job-aaaaaaaaaaaa", 11)
    changed = entry_of(kept(made("job-bbbbbbbbbbbb"), 15, creationTimestamp="2026-01-02T03:04:01Z") | {"status": {}})

    assert creation.is_older(changed, mine)


def candidate(name: str, owner: str = "ada", priority: int = 0) -> Candidate:
    return Candidate(Key("here", name), owner, priority, NOW)


def waiting(name: str, owner: str = "ada", **fields: Any) -> Entry:
    earlier = NOW - timedelta(minutes=1)
    return replace(entry_of(kept(made(name, owner=owner))), created=earlier, **fields)


def test_a_job_comes_after_those_that_wait_longer():
    assert place_in_line(candidate("new"), [], {}) == 1
    assert place_in_line(candidate("new"), [waiting("a"), waiting("b")], {}) == 3


def test_who_has_fewer_places_comes_first():
    jobs = [
        waiting("a", placed=True, status=JobStatus.RUNNING),
        waiting("b"),
        waiting("c"),
    ]

    assert place_in_line(candidate("new", owner="bob"), jobs, {}) == 1
    assert place_in_line(candidate("new", owner="ada"), jobs, {}) == 3


def test_a_higher_priority_comes_first_and_those_about_to_run_before_all():
    jobs = [waiting("a", placed=True), waiting("b", priority_class="low")]

    assert place_in_line(candidate("new", priority=5), jobs, {"low": 1}) == 2
    assert place_in_line(candidate("new", priority=0), jobs, {"low": 1}) == 3


def test_what_has_ended_or_is_being_removed_waits_for_nothing():
    jobs = [waiting("a", status=JobStatus.CANCELLED), waiting("b", deleting=True), waiting("c", placed=True)]

    assert place_in_line(candidate("new"), jobs, {}) == 2
