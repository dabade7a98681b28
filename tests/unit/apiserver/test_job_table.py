"""Jobs in SQLite."""

from datetime import UTC, datetime

import pytest

from cryomamba_apiserver.adapters.job_table import JobTable
from cryomamba_apiserver.ports.job_store import (
    DuplicateJobError,
    JobFinishedError,
    JobMissingError,
    JobStatus,
    QueueFullError,
)
from cryomamba_crds.report import Manifest, Statistics
from support.server_data import CARD, job_request

NOW = datetime(2025, 10, 17, 10, 30, tzinfo=UTC)


@pytest.fixture
def table(tmp_path):
    table = JobTable(tmp_path / "jobs.sqlite", lambda: NOW)
    yield table
    table.close()


def result(seconds: float) -> Manifest:
    nothing = Statistics(label_counts={}, physical_volume_nm3={}, surface_area_nm2={})
    return Manifest(attempt=1, artifacts=[], statistics=nothing, seconds_per_tile=seconds)


def test_a_job_outlives_the_connection(table, tmp_path):
    record = table.insert(job_request(), 10)
    again = JobTable(tmp_path / "jobs.sqlite", lambda: NOW)

    assert again.get(record.job_id) == record
    again.close()


def test_jobs_are_taken_in_the_order_in_which_they_came(table):
    first, second = table.insert(job_request("file_1"), 10), table.insert(job_request("file_2"), 10)

    assert table.next_queued() == first
    table.change(first.job_id, {"status": JobStatus.RUNNING})
    assert table.next_queued() == second


def test_a_jobs_place_in_line_is_counted_from_one_and_is_zero_once_it_runs(table):
    first, second = table.insert(job_request("file_1"), 10), table.insert(job_request("file_2"), 10)

    assert (table.position(first.job_id), table.position(second.job_id)) == (1, 2)
    table.change(first.job_id, {"status": JobStatus.RUNNING})
    assert (table.position(first.job_id), table.position(second.job_id)) == (0, 1)


@pytest.mark.parametrize("status", [JobStatus.QUEUED, JobStatus.RUNNING])
def test_the_same_job_is_not_taken_twice_while_it_lives(table, status):
    record = table.insert(job_request(), 10)
    table.change(record.job_id, {"status": status})

    with pytest.raises(DuplicateJobError) as refusal:
        table.insert(job_request(), 10)

    assert refusal.value.job_id == record.job_id


def test_another_owner_other_parameters_or_a_finished_job_are_no_duplicate(table):
    record = table.insert(job_request(), 10)
    table.insert(job_request(owner="bob"), 10)
    table.insert(job_request(step_size=0.7), 10)
    table.change(record.job_id, {"status": JobStatus.FAILED})

    table.insert(job_request(), 10)

    assert table.page(None, None, 10, 0).total == 4


def test_a_full_queue_takes_nothing(table):
    table.insert(job_request("file_1"), 1)

    with pytest.raises(QueueFullError):
        table.insert(job_request("file_2"), 1)


@pytest.mark.parametrize("status", [JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED])
def test_a_job_that_has_ended_stays_as_it_ended(table, status):
    record = table.change(table.insert(job_request(), 10).job_id, {"status": status})

    with pytest.raises(JobFinishedError) as refusal:
        table.change(record.job_id, {"status": JobStatus.RUNNING})

    assert refusal.value.status is status
    assert table.get(record.job_id).status is status


def test_pages_are_newest_first_and_filtered_by_owner_and_status(table):
    records = [table.insert(job_request(f"file_{number}"), 10) for number in range(5)]
    table.insert(job_request(owner="bob"), 10)
    table.change(records[0].job_id, {"status": JobStatus.COMPLETED})

    page = table.page("ada", None, 2, 1)
    completed = table.page("ada", JobStatus.COMPLETED, 50, 0)

    assert [record.job_id for record in page.records] == [records[3].job_id, records[2].job_id]
    assert page.total == 5
    assert [record.job_id for record in completed.records] == [records[0].job_id]
    assert table.page(None, None, 50, 0).total == 6


def test_the_speed_of_a_model_is_that_of_its_latest_completed_job(table):
    first, second = table.insert(job_request("file_1"), 10), table.insert(job_request("file_2"), 10)
    before = table.seconds_per_tile(CARD.digest)
    table.change(first.job_id, {"status": JobStatus.COMPLETED, "result": result(2.0)})
    table.change(second.job_id, {"status": JobStatus.COMPLETED, "result": result(3.0)})

    assert before is None
    assert table.seconds_per_tile(CARD.digest) == 3.0
    assert table.seconds_per_tile("sha256:" + "1" * 64) is None


def test_a_job_that_is_not_there_is_told(table):
    with pytest.raises(JobMissingError):
        table.get("job_aaaaaaaaaaaa")
