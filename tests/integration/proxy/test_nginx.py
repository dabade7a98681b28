"""The API through a reverse proxy that is set as the chart sets ingress-nginx."""

import json
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from http.client import HTTPSConnection
from urllib.parse import urlsplit

import httpx
import pytest
from websockets.exceptions import ConnectionClosedError
from websockets.sync.client import connect

from support.api_target import CHUNK, ok, volume
from support.waiting import until

LARGEST_CHUNK = 64 << 20
CONTENT = b"labels"
BUFFERED = "buffered to a temporary file"


def upload(client: httpx.Client, data: bytes, chunk: int = CHUNK) -> dict:
    begun = ok(
        client.post("/v1/uploads/init", json={"filename": "v.mrc", "total_size": len(data), "chunk_size": chunk}), 201
    )
    pieces = [data[start : start + chunk] for start in range(0, len(data), chunk)]
    with ThreadPoolExecutor(4) as senders:
        answers = list(senders.map(lambda url, piece: ok(client.put(url, content=piece)), begun["chunk_urls"], pieces))
    parts = [{"part_number": answer["part_number"], "etag": answer["etag"]} for answer in answers]
    return ok(client.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": parts}))


def messages(site, job_id: str, **how) -> list[dict]:
    url = f"wss{site.proxy.url.removeprefix('https')}/ws/jobs/{job_id}"
    with connect(url, ssl=site.proxy.trust, open_timeout=60, **how) as socket:
        return [json.loads(message) for message in socket]


def test_a_volume_goes_up_in_parts_its_job_is_watched_and_its_result_comes_down(site, ada, tmp_path):
    data = volume(tmp_path, (80, 256, 256))
    go_on = tmp_path / "go-on"
    site.script.write_text(f"progress=10 preview=1 wait={go_on} progress=60 result")

    file = upload(ada, data)
    job = ok(ada.post("/v1/jobs", json={"file_id": file["file_id"], "model": "demo"}), 201)
    with ThreadPoolExecutor(1) as watcher:
        watching = watcher.submit(messages, site, job["job_id"], subprotocols=[f"bearer.{site.token}"])
        until(lambda: ok(ada.get(f"/v1/jobs/{job['job_id']}")).get("progress", {}).get("percentage") == 10)
        go_on.touch()
        told = watching.result(60)

    assert len(data) > 20 << 20
    assert file["size"] == len(data)
    assert file["metadata"]["shape"] == [256, 256, 80]
    assert {message["type"] for message in told} >= {"progress", "completed"}
    assert told[-1]["type"] == "completed"
    (link,) = [artifact["url"] for artifact in told[-1]["artifacts"] if artifact["name"] == "segmentation.mrc"]
    with site.client() as nobody:
        answer = nobody.get(link)
        part = nobody.get(link, headers={"Range": "bytes=2-4"})
    assert answer.content == CONTENT
    assert (part.status_code, part.content) == (206, CONTENT[2:5])
    assert BUFFERED not in site.proxy.log.read_text()


def test_the_largest_part_of_an_upload_fits_through(site, ada, tmp_path):
    data = volume(tmp_path, (272, 256, 256))

    file = upload(ada, data, LARGEST_CHUNK)

    assert LARGEST_CHUNK < len(data) < 2 * LARGEST_CHUNK
    assert file["size"] == len(data)
    assert BUFFERED not in site.proxy.log.read_text()


def test_what_no_part_can_be_is_refused_by_the_proxy_at_once(site, ada):
    begun = ok(
        ada.post("/v1/uploads/init", json={"filename": "v.mrc", "total_size": 1 << 30, "chunk_size": LARGEST_CHUNK}),
        201,
    )

    url = urlsplit(site.proxy.url + begun["chunk_urls"][0])
    with closing(HTTPSConnection(url.hostname, url.port, context=site.proxy.trust, timeout=30)) as connection:
        connection.putrequest("PUT", url.path)
        connection.putheader("Authorization", f"Bearer {site.token}")
        connection.putheader("Content-Length", str(101 << 20))
        connection.endheaders()
        answer = connection.getresponse()

        assert answer.status == 413
        assert b"nginx" in answer.read()


def test_a_websocket_takes_its_token_from_the_address_and_answers_pings(site, ada, tmp_path):
    site.script.write_text(f"progress=10 wait={tmp_path / 'never'}")
    file = upload(ada, volume(tmp_path, (8, 8, 8)))
    job = ok(ada.post("/v1/jobs", json={"file_id": file["file_id"], "model": "demo"}), 201)
    url = f"wss{site.proxy.url.removeprefix('https')}/ws/jobs/{job['job_id']}?token={site.token}"

    with connect(url, ssl=site.proxy.trust, open_timeout=60) as socket:
        socket.send('{"type": "ping"}')
        kinds = (json.loads(message)["type"] for message in socket)
        assert "pong" in kinds


def test_a_server_that_stops_closes_websockets_through_the_proxy_with_its_own_code(site, ada, tmp_path):
    site.script.write_text(f"progress=10 wait={tmp_path / 'never'}")
    file = upload(ada, volume(tmp_path, (8, 8, 8)))
    job = ok(ada.post("/v1/jobs", json={"file_id": file["file_id"], "model": "demo"}), 201)
    url = f"wss{site.proxy.url.removeprefix('https')}/ws/jobs/{job['job_id']}"

    with connect(url, ssl=site.proxy.trust, open_timeout=60, subprotocols=[f"bearer.{site.token}"]) as socket:
        socket.recv(30)
        site.server.terminate()
        with pytest.raises(ConnectionClosedError) as closed:
            list(socket)

    assert closed.value.rcvd.code == 1012
    assert site.server.wait(30) == 0
    assert ada.get("/v1/healthz").status_code == 502


def test_limits_count_the_clients_address_and_not_the_proxys(site):
    with site.client("127.0.0.5") as greedy, site.client("127.0.0.6") as other:
        answers = [greedy.get("/v1/jobs") for _ in range(205)]

        assert answers[0].status_code == 401
        assert answers[-1].status_code == 429
        assert other.get("/v1/jobs").status_code == 401


def test_a_client_cannot_make_itself_another_address(site):
    with site.client("127.0.0.5") as forger:
        for number in range(205):
            answer = forger.get("/v1/jobs", headers={"X-Forwarded-For": f"10.0.0.{number}"})

    assert answer.status_code == 429


def test_the_log_has_the_clients_address(site):
    with site.client("127.0.0.5") as client:
        client.get("/v1/healthz", headers={"X-Request-Id": "through-the-proxy"})

    until(lambda: "through-the-proxy" in site.errors.read_text(), 10)
    (line,) = [line for line in site.errors.read_text().splitlines() if "through-the-proxy" in line]
    assert "127.0.0.5" in line


def test_pages_of_a_list_are_found_through_the_proxy(site, ada, tmp_path):
    for shape in ((8, 8, 8), (8, 8, 9)):
        file = upload(ada, volume(tmp_path, shape))
        ok(ada.post("/v1/jobs", json={"file_id": file["file_id"], "model": "demo"}), 201)

    first = ada.get("/v1/jobs", params={"limit": 1})
    (link,) = re.findall(r"<([^>]+)>", first.headers["link"])
    second = ok(ada.get(link))

    assert {first.json()["jobs"][0]["job_id"], second["jobs"][0]["job_id"]} == {
        job["job_id"] for job in ok(ada.get("/v1/jobs"))["jobs"]
    }


def test_a_body_that_is_no_part_is_refused_by_the_server_in_the_envelope(ada):
    answer = ada.post("/v1/jobs", content=bytes(3 << 20), headers={"Content-Type": "application/json"})

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "PAYLOAD_TOO_LARGE"
