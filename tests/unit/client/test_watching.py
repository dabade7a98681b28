"""Watching a job: a real WebSocket server in a thread, and the job's record for when the socket is gone."""

import json
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import httpx
import pytest
from websockets.http11 import Request, Response
from websockets.sync.server import Server, ServerConnection, serve

from cryomamba import ApiError, Client, ConnectionFailedError, UnexpectedAnswerError
from cryomamba.watching import parsed, socket_url

Handler = Callable[[ServerConnection], None]


@pytest.fixture
def listen() -> Iterator[Callable[..., str]]:
    """Start WebSocket servers; returns their URLs."""
    running: list[tuple[Server, threading.Thread]] = []

    def start(handler: Handler, process_request: Callable[..., Response | None] | None = None) -> str:
        server = serve(handler, "127.0.0.1", 0, process_request=process_request)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{server.socket.getsockname()[1]}"

    yield start
    for server, thread in running:
        server.shutdown()
        thread.join()


def test_messages_come_typed_and_the_last_one_ends_the_watch(
    listen: Callable[..., str], make_client: Callable[..., Client], messages: dict[str, Any]
) -> None:
    asked: list[Request] = []

    def handler(socket: ServerConnection) -> None:
        asked.append(socket.request)
        for kind in ("progress", "preview", "completed"):
            socket.send(json.dumps(messages[kind]))

    seen = list(make_client(listen(handler)).watch("job_abc"))

    assert [message.type for message in seen] == ["progress", "preview", "completed"]
    assert seen[0].progress.message == "Tile 45/75"
    assert seen[2].statistics.label_counts == {"1": 7}
    assert asked[0].path == "/ws/jobs/job_abc"
    assert asked[0].headers["Authorization"] == "Bearer test-token"


def test_a_dropped_connection_is_opened_again(
    listen: Callable[..., str],
    make_client: Callable[..., Client],
    messages: dict[str, Any],
    server: Any,
    pauses: list[float],
) -> None:
    connections = 0

    def handler(socket: ServerConnection) -> None:
        nonlocal connections
        connections += 1
        socket.send(json.dumps(messages["progress"]))
        if connections == 1:
            socket.socket.close()
        else:
            socket.send(json.dumps(messages["completed"]))

    seen = list(make_client(listen(handler)).watch("job_abc"))

    assert [message.type for message in seen] == ["progress", "progress", "completed"]
    assert connections == 2
    assert len(pauses) == 1
    assert server.paths("GET") == ["/v1/jobs/job_abc"]


def test_the_record_has_the_final_word_when_the_socket_is_gone(
    listen: Callable[..., str], make_client: Callable[..., Client], messages: dict[str, Any], server: Any
) -> None:
    server.files = {"statistics.json": b"{}"}

    def handler(socket: ServerConnection) -> None:
        socket.send(json.dumps(messages["progress"]))
        server.job |= {"status": "completed", "artifacts": server.artifacts()}
        socket.socket.close()

    *_, last = make_client(listen(handler)).watch("job_abc")

    assert last.type == "completed"
    assert [artifact.name for artifact in last.artifacts] == ["statistics.json"]
    assert last.statistics is None


def test_where_websockets_do_not_get_through_the_record_is_followed(
    make_client: Callable[..., Client], server: Any, pauses: list[float]
) -> None:
    steps = iter(
        [
            {"status": "running", "progress": {"current_step": 3, "total_steps": 5, "percentage": 40}},
            {"status": "failed", "error": {"code": "OUT_OF_MEMORY", "message": "GPU memory ran out"}},
        ]
    )

    def handle(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=server.job | next(steps))

    server.handle = handle
    nobody_listens = "http://127.0.0.1:1"
    seen = list(make_client(nobody_listens).watch("job_abc"))

    assert [message.type for message in seen] == ["progress", "error"]
    assert seen[1].error.code == "OUT_OF_MEMORY"
    assert len(pauses) == 1


def test_a_cancelled_job_ends_the_watch_even_without_a_reason(make_client: Callable[..., Client], server: Any) -> None:
    server.job["status"] = "cancelled"

    [only] = make_client("http://127.0.0.1:1").watch("job_abc")

    assert (only.type, only.error.code) == ("error", "CONFLICT")


def test_a_server_that_is_gone_for_good_is_given_up_after_some_minutes(
    make_client: Callable[..., Client], server: Any, pauses: list[float]
) -> None:
    client = make_client("http://127.0.0.1:1")
    client.server_info()
    server.fail("/", *[httpx.ConnectError("refused") for _ in range(50)])

    with pytest.raises(ConnectionFailedError):
        list(client.watch("job_abc"))

    assert 60 < sum(pauses) < 300


@pytest.mark.parametrize(
    ("close_code", "code"), [(4401, "AUTHENTICATION_REQUIRED"), (4403, "FORBIDDEN"), (4404, "NOT_FOUND")]
)
def test_a_refusal_ends_the_watch_at_once(
    listen: Callable[..., str], make_client: Callable[..., Client], server: Any, close_code: int, code: str
) -> None:
    url = listen(lambda socket: socket.close(close_code))

    with pytest.raises(ApiError) as caught:
        list(make_client(url).watch("job_abc"))

    assert caught.value.code == code
    assert caught.value.hint
    assert server.requests == []


def test_a_refused_handshake_tells_the_servers_own_words(
    listen: Callable[..., str], make_client: Callable[..., Client]
) -> None:
    def refuse(connection: ServerConnection, _request: Request) -> Response:
        body = {"error": {"code": "FORBIDDEN", "message": "Not yours.", "hint": "Ask.", "retryable": False}}
        return connection.respond(HTTPStatus.FORBIDDEN, json.dumps(body))

    with pytest.raises(ApiError, match="Not yours") as caught:
        list(make_client(listen(lambda _socket: None, refuse)).watch("job_abc"))

    assert caught.value.status == 403


def test_a_message_of_a_kind_not_known_yet_is_passed_over(messages: dict[str, Any]) -> None:
    assert parsed(json.dumps({"type": "pong", "timestamp": "2025-10-17T10:45:40Z"})) is None
    assert parsed(json.dumps(messages["progress"] | {"added": 1})) is not None


@pytest.mark.parametrize("text", ["", "[]", "{'type'", '{"type": "progress"}'])
def test_what_is_no_message_is_called_so(text: str) -> None:
    with pytest.raises(UnexpectedAnswerError):
        parsed(text)


def test_the_socket_lies_beside_the_api() -> None:
    assert socket_url("http://localhost:8000", "job_a") == "ws://localhost:8000/ws/jobs/job_a"
    assert socket_url("https://host.example/cryomamba", "job_a") == "wss://host.example/cryomamba/ws/jobs/job_a"
