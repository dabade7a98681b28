"""`/ws/jobs/{job_id}`: the five messages, and how a connection begins and ends."""

import base64
import io
import json

import numpy as np
import pytest
from PIL import Image
from websockets.exceptions import ConnectionClosed

from support.api_target import Person, moment, number, ok, whole


@pytest.fixture(scope="module")
def progress(completed):
    return completed.of_type("progress")


@pytest.fixture(scope="module")
def preview(completed):
    return completed.of_type("preview")[-1]


@pytest.fixture(scope="module")
def completion(completed):
    return completed.of_type("completed")[-1]


@pytest.fixture(scope="module")
def failure(failed):
    return failed.of_type("error")[-1]


def closing(person, job_id):
    """Return how the server closes a connection that it does not like."""
    with person.socket(job_id) as connection, pytest.raises(ConnectionClosed) as closed:
        connection.recv(timeout=30)
    return closed.value.rcvd


def test_a_connection_is_made_with_the_token_in_the_query(completed):
    assert completed.messages  # `Person.socket` sends it there


def test_a_connection_without_a_token_is_closed_with_4401(stranger, completed):
    assert closing(stranger, completed.job_id).code == 4401


def test_a_connection_with_a_wrong_token_is_closed_with_4401(target, completed):
    assert closing(Person(target, "nonsense"), completed.job_id).code == 4401


def test_a_connection_to_an_unknown_job_is_closed_with_4404(ada):
    assert closing(ada, "job_mno345pqr678").code == 4404


def test_a_connection_to_somebody_elses_job_is_closed_with_4404(bob, completed):
    assert closing(bob, completed.job_id).code == 4404


def test_every_message_has_type_job_id_and_timestamp(ended):
    for job in ended:
        for message in job.messages:
            assert message["type"] in {"progress", "preview", "completed", "error"}
            assert message["job_id"] == job.job_id
            moment(message["timestamp"])


def test_progress_messages_have_the_fields_of_the_reference(progress):
    assert progress
    for message in progress:
        assert set(message) == {"type", "job_id", "timestamp", "progress"}
        fields = {"current_step", "total_steps", "percentage", "message"}
        assert fields <= set(message["progress"]) <= fields | {"eta_seconds"}


def test_progress_counts_steps_percent_and_seconds_in_whole_numbers(progress):
    for message in progress:
        told = message["progress"]
        assert 1 <= told["current_step"] <= told["total_steps"] == 5
        assert whole(told["percentage"])
        assert 0 <= told["percentage"] <= 100
        assert isinstance(told["message"], str)
        assert told.get("eta_seconds") is None or whole(told["eta_seconds"])


def test_progress_never_falls(progress):
    percentages = [message["progress"]["percentage"] for message in progress]

    assert percentages == sorted(percentages)


def test_progress_is_the_same_as_in_the_details(ada, completed, progress):
    assert ada.job(completed.job_id)["progress"] == progress[-1]["progress"]


def test_preview_messages_have_the_fields_of_the_reference(preview):
    assert set(preview) == {"type", "job_id", "timestamp", "preview"}
    assert set(preview["preview"]) == {"scale", "shape", "dtype", "slice_idx", "encoding", "data"}


def test_preview_scale_is_the_downsample_factor_of_the_request(preview, completed):
    assert preview["preview"]["scale"] == completed.request["preview_config"]["downsample_factor"]


def test_preview_shape_is_that_of_the_downsampled_volume_in_the_order_x_y_z(preview):
    assert preview["preview"]["shape"] == [16, 14, 12]


def test_preview_dtype_is_uint8_and_encoding_base64(preview):
    assert preview["preview"]["dtype"] == "uint8"
    assert preview["preview"]["encoding"] == "base64"


def test_preview_slice_idx_is_the_middle_of_z(preview):
    assert preview["preview"]["slice_idx"] == 6


def test_preview_data_is_a_png_of_a_slice(preview):
    with Image.open(io.BytesIO(base64.b64decode(preview["preview"]["data"], validate=True))) as picture:
        assert picture.format == "PNG"
        assert picture.size == (16, 14)
        assert np.asarray(picture).dtype == np.uint8


def test_completion_has_the_fields_of_the_reference(completion):
    assert set(completion) == {"type", "job_id", "timestamp", "artifacts", "statistics"}


def test_completion_names_each_artifact_with_size_and_signed_url(completion, ada, completed):
    assert {artifact["name"] for artifact in completion["artifacts"]} >= {"segmentation.mrc", "statistics.json"}
    sizes = {artifact["name"]: artifact["size"] for artifact in ada.job(completed.job_id)["artifacts"]}
    for artifact in completion["artifacts"]:
        assert artifact["size"] == sizes[artifact["name"]]
        assert artifact["url"].startswith(f"/v1/files/{completed.job_id}/{artifact['name']}?token=")


def test_completion_statistics_have_the_fields_of_the_reference(completion):
    assert set(completion["statistics"]) == {"label_counts", "physical_volume_nm3", "surface_area_nm2"}


def test_completion_label_counts_are_voxels_by_label(completion):
    counts = completion["statistics"]["label_counts"]

    assert all(label.isdecimal() and whole(count) and count >= 0 for label, count in counts.items())
    assert sum(counts.values()) <= 32 * 28 * 24


def test_completion_physical_volume_is_in_cubic_nm(completion):
    counts = completion["statistics"]["label_counts"]
    volumes = completion["statistics"]["physical_volume_nm3"]

    assert volumes == {
        label: pytest.approx(count * 1.5)
        for label, count in counts.items()
        # A voxel has 1.0 by 1.0 by 1.5 nm.
    }


def test_completion_surface_area_is_in_square_nm(completion):
    counts = completion["statistics"]["label_counts"]
    surfaces = completion["statistics"]["surface_area_nm2"]

    assert set(surfaces) == set(counts)
    assert all(number(surface) and (surface > 0) == (counts[label] > 0) for label, surface in surfaces.items())


def test_the_last_message_of_a_completed_job_is_its_completion(completed):
    assert completed.messages[-1]["type"] == "completed"
    assert len(completed.of_type("completed")) == 1


def test_the_last_message_of_a_failed_job_is_its_error(failed):
    assert failed.messages[-1]["type"] == "error"
    assert len(failed.of_type("error")) == 1


def test_error_messages_have_the_fields_of_the_reference(failure):
    assert set(failure) == {"type", "job_id", "timestamp", "error"}
    assert {"code", "message", "hint", "retryable"} <= set(failure["error"])


def test_an_error_message_says_what_the_details_say(ada, failed, failure):
    assert ada.job(failed.job_id)["error"] == failure["error"]


def test_an_error_message_is_for_people_and_programs(failure):
    assert failure["error"]["code"] == "VALIDATION_ERROR"
    assert "NaN" in failure["error"]["message"]
    assert failure["error"]["hint"]
    assert failure["error"]["retryable"] is False


@pytest.mark.parametrize("index", [0, 1])
def test_a_connection_to_a_job_that_has_ended_tells_the_end_and_is_closed_with_1000(ada, ended, index):
    job = ended[index]

    with ada.socket(job.job_id) as connection:
        messages = [json.loads(message) for message in connection]

    assert messages[-1]["type"] == job.messages[-1]["type"]
    assert connection.protocol.close_code == 1000


def test_a_connection_to_a_running_job_tells_the_latest_state_at_once(ada, running):
    message = ada.watch_until(running, lambda message: message["type"] == "progress")

    assert message["progress"]["current_step"] == 3


def test_a_ping_is_answered_with_a_pong_that_has_a_timestamp(ada, running):
    with ada.socket(running) as connection:
        connection.send('{"type": "ping"}')
        pong = next(message for message in map(json.loads, connection) if message["type"] == "pong")

    assert set(pong) == {"type", "timestamp"}
    moment(pong["timestamp"])


def test_a_cancelled_job_ends_its_connections_with_an_error_that_is_not_retryable(scripted):
    someone = scripted.ada
    scripted.jobs_do(f"progress=10 wait={scripted.control / 'never'}")
    job_id = ok(someone.submit(scripted.new_file()), 201)["job_id"]

    with someone.socket(job_id) as connection:
        ok(someone.delete(f"/v1/jobs/{job_id}"))
        *_, last = (json.loads(message) for message in connection)

    assert last["type"] == "error"
    assert last["error"]["code"] == "CONFLICT"
    assert last["error"]["retryable"] is False
