"""Jobs: created, looked at, listed, cancelled."""

import httpx
import pytest

from support.api_target import error, moment, ok, whole
from support.waiting import until

STATUSES = {"queued", "running", "completed", "failed", "cancelled"}


@pytest.fixture(scope="module")
def created(completed):
    return completed.created


@pytest.fixture(scope="module")
def details(ada, completed):
    return ada.job(completed.job_id)


# POST /v1/jobs


def test_create_is_answered_201_with_the_fields_of_the_reference(created):
    assert set(created) == {
        "job_id",
        "status",
        "file_id",
        "model",
        "created_at",
        "queue_position",
        "estimated_duration_seconds",
    }


def test_create_job_id_is_a_text(created):
    assert isinstance(created["job_id"], str)
    assert created["job_id"].startswith("job_")


def test_create_status_is_queued(created):
    assert created["status"] == "queued"


def test_create_file_id_and_model_are_those_of_the_request(created, small_file, target):
    assert created["file_id"] == small_file["file_id"]
    assert created["model"] == target.model


def test_create_created_at_is_utc(created):
    moment(created["created_at"])


def test_create_queue_position_counts_from_1(created, cancelled):
    assert whole(created["queue_position"])
    assert created["queue_position"] >= 0  # 0 where the job has been started meanwhile
    assert cancelled["created"]["queue_position"] >= 0


def test_create_queue_position_is_the_place_in_line(scripted):
    someone = scripted.ada
    go = scripted.control / "go-position"
    scripted.jobs_do(f"progress=10 wait={go} result")
    files = [scripted.new_file() for index in range(3)]

    first = ok(someone.submit(files[0]), 201)
    until(lambda: someone.job(first["job_id"])["status"] == "running")
    behind = [ok(someone.submit(file_id), 201)["queue_position"] for file_id in files[1:]]
    go.touch()

    assert behind == [1, 2]


def test_create_estimated_duration_is_in_seconds_once_the_models_speed_is_known(scripted):
    someone = scripted.ada
    file_id = scripted.new_file()
    someone.watch(ok(someone.submit(file_id), 201)["job_id"])  # the runner says that a tile took it 2 s

    estimate = ok(someone.submit(file_id, params={"step_size": 1.0}), 201)["estimated_duration_seconds"]

    assert whole(estimate)
    assert estimate >= 2
    assert estimate % 2 == 0


def test_create_estimated_duration_is_null_or_whole_seconds(created):
    assert created["estimated_duration_seconds"] is None or whole(created["estimated_duration_seconds"])


def test_create_needs_no_params_and_no_preview_config(ada, running, large_file, target):
    answer = httpx.post(  # the curl example
        f"{target.url}/v1/jobs",
        headers={"Authorization": f"Bearer {target.ada}", "Content-Type": "application/json"},
        json={"file_id": large_file["file_id"], "model": target.model},
    )

    created = ok(answer, 201)
    params = ada.job(created["job_id"])["params"]
    ok(ada.delete(f"/v1/jobs/{created['job_id']}"))
    assert params["folds"] == "all"
    assert params["step_size"] == 0.5
    assert params["disable_tta"] is False
    assert params["save_probabilities"] is False


def test_create_takes_the_params_of_the_reference(details, completed):
    assert completed.request["params"].items() <= details["params"].items()


def test_create_takes_the_preview_config_of_the_reference(completed):
    # `downsample_factor` of the request is the `scale` of the pictures.
    assert {message["preview"]["scale"] for message in completed.of_type("preview")} == {2}


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("params", {"step_size": 0.05}),
        ("params", {"step_size": 1.5}),
        ("params", {"step_size": "half"}),
        ("params", {"folds": "some"}),
        ("params", {"folds": [99]}),
        ("params", {"disable_tta": 3}),
        ("params", {"sharpness": 1}),
        ("preview_config", {"downsample_factor": 0}),
        ("preview_config", {"interval_seconds": -1}),
        ("preview_config", {"enabled": "maybe"}),
        ("model", "3d_nothing"),
        ("model", None),
    ],
)
def test_create_with_an_invalid_parameter_is_400_and_names_it(ada, small_file, field, value):
    body = {"file_id": small_file["file_id"], "model": ada.target.model, field: value}

    failure = error(ada.post("/v1/jobs", json=body), 400, "VALIDATION_ERROR")

    names = {field, *(value if isinstance(value, dict) else ())}
    assert names & set(failure["details"]["field"].split("."))


def test_create_with_an_unknown_model_lists_what_there_is(ada, small_file):
    answer = ada.post("/v1/jobs", json={"file_id": small_file["file_id"], "model": "3d_nothing"})

    failure = error(answer, 400, "VALIDATION_ERROR")

    assert ada.target.model in str(failure)


def test_create_for_an_unknown_file_is_404(ada):
    error(ada.submit("file_xyz789abc123"), 404, "NOT_FOUND")


def test_create_of_a_job_that_is_there_already_is_409_and_names_it(ada, running, large_file):
    failure = error(ada.submit(large_file["file_id"], params={"step_size": 0.1}), 409, "CONFLICT")

    assert failure["details"]["job_id"] == running
    assert failure["retryable"] is False


def test_create_at_capacity_is_503_and_says_when_to_come_again(at_capacity):
    error(at_capacity, 503, "SERVICE_UNAVAILABLE")

    assert int(at_capacity.headers["retry-after"]) > 0


# What GET /v1/jobs/{job_id} tells of one job.


def test_details_are_answered_200_with_the_fields_that_every_job_has(details):
    assert {"job_id", "status", "file_id", "model", "params", "created_at", "updated_at", "artifacts"} <= set(details)


def test_the_curl_example_of_details_works(target, completed):
    answer = httpx.get(f"{target.url}/v1/jobs/{completed.job_id}", headers={"Authorization": f"Bearer {target.ada}"})

    assert answer.status_code == 200


def test_details_have_no_field_that_the_reference_does_not_name(ada, ended, cancelled, running):
    named = {
        "job_id",
        "status",
        "file_id",
        "model",
        "params",
        "created_at",
        "started_at",
        "completed_at",
        "updated_at",
        "progress",
        "artifacts",
        "gpu_stats",
        "error",
    }

    for job_id in (ended[0].job_id, ended[1].job_id, running, cancelled["created"]["job_id"]):
        assert set(ada.job(job_id)) <= named


def test_details_of_a_running_job_have_its_start_and_its_progress(ada, running):
    details = ada.job(running)

    assert details["status"] == "running"
    assert moment(details["created_at"]) <= moment(details["started_at"]) <= moment(details["updated_at"])
    assert "completed_at" not in details
    assert details["progress"]["current_step"] == 3
    assert details["artifacts"] == []


def test_details_progress_current_step_and_total_steps_are_numbers_of_steps(details):
    assert whole(details["progress"]["current_step"])
    assert details["progress"]["total_steps"] == 5
    assert 1 <= details["progress"]["current_step"] <= 5


def test_details_progress_percentage_is_from_0_to_100(details):
    assert whole(details["progress"]["percentage"])
    assert details["progress"]["percentage"] == 100


def test_details_progress_message_tells_a_person_the_tile(ada, running):
    message = ada.job(running)["progress"]["message"]

    words = message.rpartition(" ")
    tile, _, tiles = words[2].partition("/")
    assert words[0] == "Processing tile"
    assert 1 <= int(tile) <= int(tiles)


def test_details_progress_eta_seconds_is_whole_seconds(ada, running):
    until(lambda: "eta_seconds" in ada.job(running)["progress"])

    eta = ada.job(running)["progress"]["eta_seconds"]

    assert whole(eta)
    assert eta >= 0


def test_details_gpu_stats_give_memory_in_mib_and_utilization_in_percent(scripted):
    someone = scripted.ada
    scripted.jobs_do("gpu result")
    job_id = ok(someone.submit(scripted.new_file()), 201)["job_id"]
    someone.watch(job_id)

    stats = someone.job(job_id)["gpu_stats"]

    assert stats == {"gpu_id": 0, "memory_used": 1, "memory_total": 2, "utilization": 3}


def test_status_queued_is_that_of_a_job_that_waits(scripted):
    someone = scripted.ada
    go = scripted.control / "go-queued"
    scripted.jobs_do(f"wait={go} result")
    file_id = scripted.new_file()
    ok(someone.submit(file_id), 201)

    second = ok(someone.submit(file_id, params={"step_size": 0.4}), 201)["job_id"]
    status = someone.job(second)["status"]
    go.touch()

    assert status == "queued"


def test_status_running_is_that_of_a_job_that_is_worked_on(ada, running):
    assert ada.job(running)["status"] == "running"


def test_status_completed_is_that_of_a_job_that_has_artifacts(details):
    assert details["status"] == "completed"
    assert details["artifacts"]
    assert moment(details["started_at"]) <= moment(details["completed_at"])


def test_status_failed_is_that_of_a_job_that_has_an_error(ada, failed):
    details = ada.job(failed.job_id)

    assert details["status"] == "failed"
    assert set(details["error"]) == {"code", "message", "hint", "retryable", "details"}
    assert details["artifacts"] == []


def test_status_cancelled_is_that_of_a_job_that_was_cancelled(ada, cancelled):
    assert ada.job(cancelled["created"]["job_id"])["status"] == "cancelled"


def test_details_of_an_unknown_job_are_404(ada):
    error(ada.get("/v1/jobs/job_mno345pqr678"), 404, "NOT_FOUND")


# How a job is ended: DELETE /v1/jobs/{job_id}.


def test_cancel_is_answered_200_with_id_status_and_message(cancelled):
    assert cancelled["cancelled"] == {
        "job_id": cancelled["created"]["job_id"],
        "status": "cancelled",
        "message": "Job cancelled successfully",
    }


def test_cancel_ends_a_running_job(ada, running, large_file):
    """The curl example, on a job that runs: the other one that does goes on."""
    created = ok(ada.submit(large_file["file_id"], params={"step_size": 0.15}), 201)
    answer = httpx.delete(
        f"{ada.target.url}/v1/jobs/{created['job_id']}", headers={"Authorization": f"Bearer {ada.target.ada}"}
    )

    assert ok(answer)["status"] == "cancelled"
    assert ada.job(running)["status"] == "running"


def test_cancel_ends_a_queued_job(scripted):
    someone = scripted.ada
    go = scripted.control / "go-cancel"
    scripted.jobs_do(f"wait={go} result")
    file_id = scripted.new_file()
    ok(someone.submit(file_id), 201)
    second = ok(someone.submit(file_id, params={"step_size": 0.4}), 201)["job_id"]

    answer = ok(someone.delete(f"/v1/jobs/{second}"))
    go.touch()

    assert answer["status"] == someone.job(second)["status"] == "cancelled"


def test_cancel_of_an_unknown_job_is_404(ada):
    error(ada.delete("/v1/jobs/job_mno345pqr678"), 404, "NOT_FOUND")


def test_cancel_of_a_completed_job_is_409(ada, completed):
    failure = error(ada.delete(f"/v1/jobs/{completed.job_id}"), 409, "CONFLICT")

    assert failure["retryable"] is False


def test_cancel_of_a_failed_job_is_409(ada, failed):
    error(ada.delete(f"/v1/jobs/{failed.job_id}"), 409, "CONFLICT")


# GET /v1/jobs


def test_list_is_answered_200_with_jobs_total_limit_and_offset(ada, completed):
    assert set(ok(ada.get("/v1/jobs"))) == {"jobs", "total", "limit", "offset"}


def test_list_gives_each_job_its_id_status_and_times(ada, ended, running):
    for job in ok(ada.get("/v1/jobs"))["jobs"]:
        assert {"job_id", "status", "created_at"} <= set(job) <= {"job_id", "status", "created_at", "completed_at"}
        assert job["status"] in STATUSES
        moment(job["created_at"])
        finished = job["status"] in {"completed", "failed", "cancelled"}
        assert ("completed_at" in job) is finished
        if finished:
            moment(job["completed_at"])


def test_list_begins_with_the_newest(ada, ended, cancelled):
    created = [moment(job["created_at"]) for job in ok(ada.get("/v1/jobs"))["jobs"]]

    assert created == sorted(created, reverse=True)


def test_list_total_counts_all_jobs_whatever_the_page(ada, ended):
    everything, page = ok(ada.get("/v1/jobs", params={"limit": 100})), ok(ada.get("/v1/jobs", params={"limit": 1}))

    assert everything["total"] == page["total"]
    assert everything["total"] >= len(everything["jobs"]) > len(page["jobs"]) == 1


@pytest.mark.parametrize("status", ["queued", "running", "completed", "failed", "cancelled"])
def test_list_filters_by_status(ada, ended, running, cancelled, status):
    page = ok(ada.get("/v1/jobs", params={"status": status, "limit": 100}))

    assert {job["status"] for job in page["jobs"]} <= {status}
    assert page["total"] >= len(page["jobs"])
    assert status == "queued" or page["jobs"]


def test_list_filter_leaves_nothing_out(ada, ended, cancelled):
    completed, failed = ended
    for status, job_id in (("completed", completed.job_id), ("failed", failed.job_id)):
        page = ok(ada.get("/v1/jobs", params={"status": status, "limit": 100}))
        assert job_id in {job["job_id"] for job in page["jobs"]}


def test_list_with_an_unknown_status_is_400(ada):
    failure = error(ada.get("/v1/jobs", params={"status": "lost"}), 400, "VALIDATION_ERROR")

    assert "status" in failure["details"]["field"]


def test_list_limit_is_50_and_offset_0_by_default(ada):
    page = ok(ada.get("/v1/jobs"))

    assert (page["limit"], page["offset"]) == (50, 0)


def test_list_limit_is_100_at_most(ada):
    assert ok(ada.get("/v1/jobs", params={"limit": 100}))["limit"] == 100
    error(ada.get("/v1/jobs", params={"limit": 101}), 400, "VALIDATION_ERROR")


@pytest.mark.parametrize("query", [{"limit": 0}, {"limit": "all"}, {"offset": -1}])
def test_list_with_an_invalid_page_is_400(ada, query):
    error(ada.get("/v1/jobs", params=query), 400, "VALIDATION_ERROR")


def test_list_offset_leaves_that_many_out(ada, ended):
    both = ok(ada.get("/v1/jobs", params={"limit": 2}))["jobs"]

    page = ok(ada.get("/v1/jobs", params={"limit": 1, "offset": 1}))

    assert page["offset"] == 1
    assert [job["job_id"] for job in page["jobs"]] == [both[1]["job_id"]]


def test_the_curl_example_of_the_list_works(target, completed):
    answer = httpx.get(
        f"{target.url}/v1/jobs?status=completed&limit=10", headers={"Authorization": f"Bearer {target.ada}"}
    )

    assert completed.job_id in {job["job_id"] for job in ok(answer)["jobs"]}
