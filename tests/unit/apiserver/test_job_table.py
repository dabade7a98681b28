"""Jobs in SQLite."""

import itertools
import json
import sqlite3
from datetime import UTC, datetime, timedelta

import pytest

from cryomamba_apiserver.adapters.job_table import JobTable
from cryomamba_apiserver.ports.job_store import (
    DuplicateJobError,
    JobFinishedError,
    JobMissingError,
    JobRecord,
    JobRequest,
    JobStatus,
    ListedJob,
    QueueFullError,
    RetryKey,
    RetryKeyConflictError,
)
from cryomamba_crds.report import Manifest, Statistics
from support.server_data import job_record, job_request

NOW = datetime(2025, 10, 17, 10, 30, tzinfo=UTC)


@pytest.fixture
def table(tmp_path):
    table = JobTable(tmp_path / "jobs.sqlite", lambda: NOW)
    yield table
    table.close()


@pytest.fixture
def insert(table):
    """Takes a job in and returns its record."""

    def take(*args, **kwargs) -> JobRecord:
        record = table.insert(job_request(*args, **kwargs), 10).record
        assert record is not None
        return record

    return take


def result(seconds: float) -> Manifest:
    nothing = Statistics(label_counts={}, physical_volume_nm3={}, surface_area_nm2={})
    return Manifest(attempt=1, artifacts=[], statistics=nothing, seconds_per_tile=seconds)


def test_a_job_outlives_the_connection(table, insert, tmp_path):
    record = insert()
    again = JobTable(tmp_path / "jobs.sqlite", lambda: NOW)

    assert again.get(record.job_id) == record
    again.close()


def test_jobs_are_taken_in_the_order_in_which_they_came(table, insert):
    first, second = insert("file_1"), insert("file_2")

    assert table.next_queued() == first
    table.change(first.job_id, {"status": JobStatus.RUNNING})
    assert table.next_queued() == second


def test_a_jobs_place_in_line_is_counted_from_one_among_those_that_wait(table):
    first = table.insert(job_request("file_1"), 10).receipt
    second = table.insert(job_request("file_2"), 10).receipt
    table.change(first.job_id, {"status": JobStatus.RUNNING})
    third = table.insert(job_request("file_3"), 10).receipt

    assert [receipt.queue_position for receipt in (first, second, third)] == [1, 2, 2]


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_the_same_job_is_not_taken_twice_while_it_lives(table, insert, status):
    record = insert()
    table.change(record.job_id, {"status": status})

    with pytest.raises(DuplicateJobError) as refusal:
        insert()

    assert refusal.value.job_id == record.job_id


def test_another_owner_other_parameters_or_a_finished_job_are_no_duplicate(table, insert):
    record = insert()
    insert(owner="bob")
    insert(step_size=0.7)
    table.change(record.job_id, {"status": JobStatus.FAILED})

    insert()

    assert table.page(None, None, 10, 0).total == 4


def test_a_full_queue_takes_nothing(table):
    table.insert(job_request("file_1"), 1)

    with pytest.raises(QueueFullError):
        table.insert(job_request("file_2"), 1)


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_job_that_has_ended_stays_as_it_ended(table, insert, status):
    record = table.change(insert().job_id, {"status": status})

    with pytest.raises(JobFinishedError) as refusal:
        table.change(record.job_id, {"status": JobStatus.RUNNING})

    assert refusal.value.status is status
    assert table.get(record.job_id).status is status


def test_pages_are_newest_first_and_filtered_by_owner_and_status(table, insert):
    records = [insert(f"file_{number}") for number in range(5)]
    insert(owner="bob")
    table.change(records[0].job_id, {"status": JobStatus.COMPLETED})

    page = table.page("ada", None, 2, 1)
    completed = table.page("ada", JobStatus.COMPLETED, 50, 0)

    assert [job.job_id for job in page.jobs] == [records[3].job_id, records[2].job_id]
    assert page.total == 5
    assert [job.job_id for job in completed.jobs] == [records[0].job_id]
    assert table.page(None, None, 50, 0).total == 6


def test_a_list_shows_when_a_job_was_made_and_when_it_ended(table, insert):
    ended = datetime(2025, 10, 17, 11, 10, tzinfo=UTC)
    record = insert()
    table.change(record.job_id, {"status": JobStatus.COMPLETED, "completed_at": ended})

    (job,) = table.page("ada", None, 10, 0).jobs

    assert job == ListedJob(record.job_id, JobStatus.COMPLETED, NOW, ended)


def test_a_page_that_begins_after_a_job_is_the_same_whatever_is_added(table, insert):
    records = [insert(f"file_{number}") for number in range(5)]
    before = table.page("ada", None, 2, 0, records[3].job_id)
    insert("file_5")

    page = table.page("ada", None, 2, 0, records[3].job_id)

    assert [job.job_id for job in page.jobs] == [records[2].job_id, records[1].job_id]
    assert page.jobs == before.jobs
    assert (page.total, page.more) == (6, True)
    assert not table.page("ada", None, 2, 0, records[2].job_id).more


def test_a_page_cannot_begin_after_somebody_elses_job(table, insert):
    record = insert(owner="bob")

    with pytest.raises(JobMissingError):
        table.page("ada", None, 10, 0, record.job_id)

    assert table.page(None, None, 10, 0, record.job_id).jobs == []


def test_a_job_is_estimated_by_its_tiles_and_the_latest_completed_job_of_its_model(table, insert):
    first, second = insert("file_1"), insert("file_2")
    before = table.estimate(job_request())
    table.change(first.job_id, {"status": JobStatus.COMPLETED, "result": result(2.0)})
    table.change(second.job_id, {"status": JobStatus.COMPLETED, "result": result(3.01)})

    assert before is None
    assert table.insert(job_request("file_3"), 10).receipt.estimated_duration_seconds == 82  # 27 x 3.01, rounded up
    assert table.estimate(with_digest("sha256:" + "1" * 64)) is None


def with_digest(digest: str) -> JobRequest:
    request = job_request()
    return request.model_copy(update={"model_digest": digest})


KEY = RetryKey("a-key", "digest of the request")


def test_a_retry_gets_the_first_receipt_whatever_became_of_the_job(table):
    first = table.insert(job_request(), 10, KEY)
    table.change(first.receipt.job_id, {"status": JobStatus.FAILED})

    again = table.insert(job_request(), 10, KEY)

    replayed = first.receipt.model_copy(update={"replayed": True})
    assert again.receipt == replayed == table.receipt("ada", KEY)
    assert again.record is None
    assert table.page(None, None, 10, 0).total == 1


def test_a_retry_outlives_the_connection(table, tmp_path):
    first = table.insert(job_request(), 10, KEY)
    again = JobTable(tmp_path / "jobs.sqlite", lambda: NOW)

    assert again.insert(job_request(), 10, KEY).receipt == first.receipt.model_copy(update={"replayed": True})
    again.close()


def test_a_key_means_something_for_its_owner_only(table):
    first = table.insert(job_request(), 10, KEY)

    assert table.receipt("bob", KEY) is None
    assert table.insert(job_request(owner="bob"), 10, KEY).receipt.job_id != first.receipt.job_id


def test_a_key_for_another_request_is_a_conflict_and_creates_nothing(table):
    table.insert(job_request(), 10, KEY)

    with pytest.raises(RetryKeyConflictError):
        table.insert(job_request("file_2"), 10, RetryKey("a-key", "another digest"))

    assert table.page(None, None, 10, 0).total == 1


def test_a_refused_creation_leaves_its_key_unused(table, insert):
    insert()
    with pytest.raises(DuplicateJobError):
        table.insert(job_request(), 10, KEY)

    assert table.insert(job_request("file_2"), 10, KEY).record is not None


def test_a_key_is_as_good_as_new_after_a_day(tmp_path):
    now = NOW
    table = JobTable(tmp_path / "jobs.sqlite", lambda: now)
    first = table.insert(job_request(), 10, KEY).receipt
    table.change(first.job_id, {"status": JobStatus.FAILED})

    now = NOW + timedelta(hours=24) - timedelta(seconds=1)
    kept = table.insert(job_request(), 10, KEY).receipt
    now = NOW + timedelta(hours=24)
    fresh = table.insert(job_request(), 10, KEY).receipt
    table.close()

    assert kept == first.model_copy(update={"replayed": True})
    assert fresh.job_id != first.job_id


def as_version_2_wrote(record: JobRecord) -> str:
    """A record as JSON, with the model's card and the client's own words in its request."""
    written = json.loads(record.model_dump_json())
    card = {"digest": written["request"].pop("model_digest")}
    written["request"] |= {"model": {"name": "demo", "key": "k", "card": card, "cache": "c"}, "wire_params": {}}
    return json.dumps(written)


def test_jobs_of_earlier_versions_are_what_they_were(tmp_path):
    record = job_record("job_aaaaaaaaaaaa")
    JobTable(tmp_path / "jobs.sqlite", lambda: NOW).close()
    old = sqlite3.connect(tmp_path / "jobs.sqlite")
    row = (record.job_id, "ada", "queued", "f", "d", as_version_2_wrote(record))
    old.execute("INSERT INTO jobs (job_id, owner, status, fingerprint, digest, record) VALUES (?, ?, ?, ?, ?, ?)", row)
    old.execute("PRAGMA user_version = 2")
    old.commit()
    old.close()

    table = JobTable(tmp_path / "jobs.sqlite", lambda: NOW)
    known = table.get(record.job_id)
    table.close()

    assert known == record


def test_jobs_of_the_first_version_are_listed_as_before(tmp_path):
    record = job_record("job_aaaaaaaaaaaa", status=JobStatus.COMPLETED, completed_at=NOW)
    old = sqlite3.connect(tmp_path / "jobs.sqlite")
    old.executescript(
        "CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, job_id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL,"
        " status TEXT NOT NULL, fingerprint TEXT NOT NULL, digest TEXT NOT NULL, record TEXT NOT NULL);"
        "PRAGMA user_version = 1;"
    )
    row = (record.job_id, "ada", "completed", "f", "d", as_version_2_wrote(record))
    old.execute("INSERT INTO jobs (job_id, owner, status, fingerprint, digest, record) VALUES (?, ?, ?, ?, ?, ?)", row)
    old.commit()
    old.close()

    for _ in range(2):  # the second finds it done
        table = JobTable(tmp_path / "jobs.sqlite", lambda: NOW)
        (job,) = table.page("ada", JobStatus.COMPLETED, 10, 0).jobs
        table.close()

    assert job == ListedJob(record.job_id, JobStatus.COMPLETED, record.created_at, NOW)


def test_a_table_of_a_newer_server_is_left_alone(tmp_path):
    newer = sqlite3.connect(tmp_path / "jobs.sqlite")
    newer.execute("PRAGMA user_version = 99")
    newer.close()

    with pytest.raises(RuntimeError, match="newer server"):
        JobTable(tmp_path / "jobs.sqlite", lambda: NOW)


def test_a_list_uses_an_index_and_sorts_nothing(table, insert):
    insert()
    plans: list[str] = []
    table._database.set_trace_callback(plans.append)
    for owner, status in itertools.product((None, "ada"), (None, JobStatus.QUEUED)):
        table.page(owner, status, 100, 0)
    table._database.set_trace_callback(None)

    steps = [row[3] for query in plans for row in table._database.execute(f"EXPLAIN QUERY PLAN {query}")]

    assert len(plans) == 8  # pages and totals
    assert not [step for step in steps if "TEMP B-TREE" in step]
    # Everybody's jobs of any status are all that there is: counted by an index, listed in their order up to `limit`.
    scans = [step for step in steps if step.startswith("SCAN")]
    assert len(scans) == 2
    assert "COVERING INDEX" in scans[0]


def test_a_job_that_is_not_there_is_told(table):
    with pytest.raises(JobMissingError):
        table.get("job_aaaaaaaaaaaa")
