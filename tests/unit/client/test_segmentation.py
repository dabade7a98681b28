"""From a volume to a folder of results, against a server in memory."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.server import ServerConnection, serve

from cryomamba import ApiError, Client, CryoMambaError
from cryomamba.models import JobParams, JobProgress, JobRecord
from cryomamba.segmentation import SegmentationRequest, run_segmentation
from cryomamba_crds.volumes import VolumeError

NOBODY_LISTENS = "http://127.0.0.1:1"
"""The watch follows the job's record there."""


class Diary:
    """An observer that keeps what it is told, and may press Ctrl-C at a point."""

    def __init__(self, press_ctrl_c_at: str = "") -> None:
        self.notes: list[str] = []
        self.told: list[str] = []
        self.pictures: list[bytes] = []
        self._press_at = press_ctrl_c_at

    def note(self, text: str) -> None:
        self.notes.append(text)

    def uploading(self, sent: int, total: int) -> None:
        self._tell(f"uploading {sent}/{total}")

    def working(self, job: JobRecord) -> None:
        self._tell(f"working {job.job_id}")

    def progress(self, progress: JobProgress) -> None:
        self._tell(f"progress {progress.percentage:g}")

    def preview(self, path: Path, count: int) -> None:
        self.pictures.append(path.read_bytes())
        self._tell(f"preview {count}")

    def downloading(self, name: str, received: int, total: int) -> None:
        self._tell(f"downloading {name} {received}/{total}")

    def _tell(self, what: str) -> None:
        self.told.append(what)
        if self._press_at and what.startswith(self._press_at):
            raise KeyboardInterrupt


@pytest.fixture
def request_(volume: Path, tmp_path: Path) -> SegmentationRequest:
    return SegmentationRequest(volume, "demo", tmp_path / "out", JobParams(invert=True))


@pytest.fixture
def finished(server: Any, results: dict[str, bytes]) -> Any:
    """A server on which the job is done."""
    server.files = results
    server.job |= {"status": "completed", "artifacts": server.artifacts()}
    return server


def test_the_results_of_a_job_come_into_the_folder(
    make_client: Callable[..., Client], finished: Any, results: dict[str, bytes], request_: SegmentationRequest
) -> None:
    diary = Diary()

    result = run_segmentation(make_client(NOBODY_LISTENS), request_, diary)

    assert {file.name for file in request_.output.iterdir()} == {*results, "overview.png"}
    assert all((request_.output / name).read_bytes() == data for name, data in results.items())
    assert result.labels == request_.output / "segmentation.mrc"
    assert result.files[-1] == result.overview
    assert result.statistics.label_counts == {"1": 24}
    assert finished.body("/v1/jobs") == {"file_id": "file_1", "model": "demo", "params": {"invert": True}}
    assert diary.told[0].startswith("uploading")
    assert "working job_abc" in diary.told


@pytest.fixture
def socket_server(messages: dict[str, Any], finished: Any) -> Iterator[str]:
    """A WebSocket that sends progress, two previews and the last word."""

    def handler(socket: ServerConnection) -> None:
        for kind in ("progress", "preview", "preview"):
            socket.send(json.dumps(messages[kind]))
        socket.send(json.dumps(messages["completed"] | {"artifacts": finished.artifacts()}))

    with serve(handler, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.socket.getsockname()[1]}"
        server.shutdown()
        thread.join()


def test_previews_are_saved_as_they_come_and_replaced_by_the_final_one(
    make_client: Callable[..., Client], socket_server: str, request_: SegmentationRequest
) -> None:
    diary = Diary()

    result = run_segmentation(make_client(socket_server), request_, diary)

    assert diary.pictures == [b"picture", b"picture"]
    assert result.previews == 2
    assert (request_.output / "preview.png").read_bytes() == b"final picture"
    assert [told for told in diary.told if told.startswith("progress")] == ["progress 60"]


def test_ctrl_c_cancels_the_job(make_client: Callable[..., Client], server: Any, request_: SegmentationRequest) -> None:
    server.job |= {"status": "running", "progress": {"current_step": 3, "total_steps": 5, "percentage": 40}}
    diary = Diary(press_ctrl_c_at="progress")

    with pytest.raises(KeyboardInterrupt):
        run_segmentation(make_client(NOBODY_LISTENS), request_, diary)

    assert server.paths("DELETE") == ["/v1/jobs/job_abc"]
    assert diary.notes == ["Cancelled job job_abc."]


def test_ctrl_c_as_soon_as_the_job_exists_cancels_it(
    make_client: Callable[..., Client], server: Any, request_: SegmentationRequest
) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_segmentation(make_client(NOBODY_LISTENS), request_, Diary(press_ctrl_c_at="working"))

    assert server.paths("DELETE") == ["/v1/jobs/job_abc"]


def test_a_job_that_cannot_be_cancelled_is_named(
    make_client: Callable[..., Client], server: Any, request_: SegmentationRequest
) -> None:
    diary = Diary(press_ctrl_c_at="working")
    refused = {"error": {"code": "FORBIDDEN", "message": "Not yours.", "hint": "", "retryable": False}}
    server.fail("/v1/jobs/job_abc", httpx.Response(403, json=refused))

    with pytest.raises(KeyboardInterrupt):
        run_segmentation(make_client(NOBODY_LISTENS), request_, diary)

    assert diary.notes == ["Job job_abc may still be running: Not yours."]


@pytest.fixture
def live_elsewhere(server: Any) -> Any:
    """A server on which the same job runs already."""
    conflict = {"code": "CONFLICT", "message": "Exists.", "hint": "", "retryable": False}
    answer = {"error": conflict | {"details": {"job_id": "job_live"}}}
    answered = server.handle

    def handle(request: httpx.Request) -> httpx.Response:
        if request.method == "POST" and request.url.path == "/v1/jobs":
            return httpx.Response(409, json=answer)
        return answered(request)

    server.handle = handle
    server.job |= {"job_id": "job_live", "status": "running"}
    return server


def test_the_same_job_elsewhere_is_followed(
    make_client: Callable[..., Client], live_elsewhere: Any, results: dict[str, bytes], request_: SegmentationRequest
) -> None:
    live_elsewhere.files = results
    live_elsewhere.job |= {"status": "completed", "artifacts": live_elsewhere.artifacts()}
    diary = Diary()

    result = run_segmentation(make_client(NOBODY_LISTENS), request_, diary)

    assert result.job_id == "job_live"
    assert diary.notes == ["Job job_live does the same already; following that one."]


def test_ctrl_c_leaves_a_job_alone_that_was_started_elsewhere(
    make_client: Callable[..., Client], live_elsewhere: Any, request_: SegmentationRequest
) -> None:
    live_elsewhere.job["progress"] = {"current_step": 1, "total_steps": 5, "percentage": 1}

    with pytest.raises(KeyboardInterrupt):
        run_segmentation(make_client(NOBODY_LISTENS), request_, Diary(press_ctrl_c_at="progress"))

    assert live_elsewhere.paths("DELETE") == []


def test_a_job_that_fails_tells_why(
    make_client: Callable[..., Client], server: Any, request_: SegmentationRequest
) -> None:
    error = {"code": "INFERENCE_ERROR", "message": "NaN in the volume", "hint": "Mask it.", "retryable": False}
    server.job |= {"status": "failed", "error": error}

    with pytest.raises(ApiError, match="NaN in the volume") as caught:
        run_segmentation(make_client(NOBODY_LISTENS), request_, Diary())

    assert (caught.value.code, caught.value.hint) == ("INFERENCE_ERROR", "Mask it.")


def test_an_unknown_model_is_refused_before_anything_is_sent(
    make_client: Callable[..., Client], server: Any, volume: Path, tmp_path: Path
) -> None:
    with pytest.raises(CryoMambaError, match="no model 'ribosome'; it has: demo"):
        run_segmentation(make_client(), SegmentationRequest(volume, "ribosome", tmp_path / "out"), Diary())

    assert server.paths("POST") == []


def test_a_file_that_is_no_volume_is_refused_before_the_server_is_asked(
    make_client: Callable[..., Client], server: Any, tmp_path: Path
) -> None:
    path = tmp_path / "notes.mrc"
    path.write_text("Grid 3, good ice.\n" * 100)

    with pytest.raises(VolumeError):
        run_segmentation(make_client(), SegmentationRequest(path, "demo", tmp_path / "out"), Diary())

    assert server.requests == []


def test_a_volume_is_never_overwritten_by_its_own_result(
    make_client: Callable[..., Client], server: Any, volume: Path
) -> None:
    mine = volume.rename(volume.with_name("segmentation.mrc"))

    with pytest.raises(CryoMambaError, match="would be overwritten"):
        run_segmentation(make_client(), SegmentationRequest(mine, "demo", mine.parent), Diary())

    assert server.requests == []


def test_a_file_where_the_folder_should_be_is_named(make_client: Callable[..., Client], volume: Path) -> None:
    with pytest.raises(CryoMambaError, match="cannot be made a folder"):
        run_segmentation(make_client(), SegmentationRequest(volume, "demo", volume), Diary())
