"""Downloads of a finished job's results."""

import asyncio
from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

import pytest

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.artifacts.conditions import Span
from cryomamba_apiserver.artifacts.router import _opened, _Streamed
from cryomamba_apiserver.ports.job_store import JobStatus
from cryomamba_crds import keys
from cryomamba_crds.report import Artifact, Manifest, Statistics
from support.server_data import job_request

CONTENT = bytes(range(256)) * 10_000  # more than two blocks of the store
NAME = "segmentation.mrc"
HEADERS = ("cache-control", "content-disposition", "content-type", "etag", "last-modified", "accept-ranges")


@pytest.fixture
def artifact(server, context, clock):
    """Makes a completed job of ada's with one result; returns its record."""

    def make(name: str = NAME, content: bytes = CONTENT):
        async def write():
            receipt = await context.job_store.create(job_request(f"file_{len(name)}"))
            record = await context.job_store.cancel(receipt.job_id)
            made = Artifact(name=name, key="models/elsewhere", size=len(content), content_type="x", created_at=clock())
            nothing = Statistics(label_counts={}, physical_volume_nm3={}, surface_area_nm2={})
            record = record.model_copy(
                update={
                    "status": JobStatus.COMPLETED,
                    "result": Manifest(attempt=1, artifacts=[made], statistics=nothing),
                }
            )
            context.job_store._recent.written(record)  # a job that has ended cannot be made to end otherwise
            if name[:2] not in ("..", ".") and "\0" not in name:  # what no runner could have written
                await context.objects.write(keys.attempt_prefix(record.uid, 1) + name, content)
            return record

        return server.portal.call(write)

    return make


@pytest.fixture
def link(artifact, context, clock):
    def make(*args) -> str:
        record = artifact(*args)
        return context.signer.link(record.job_id, record.result.artifacts[0].name, "ada", clock())

    return make


def test_a_download_says_what_it_is_and_belongs_to_nobody_else(server, link, clock):
    answer = server.get(link())

    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert answer.headers["content-length"] == str(len(CONTENT))
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == f'attachment; filename="{NAME}"'
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["cache-control"] == "private"
    assert answer.headers.get_list("referrer-policy") == ["no-referrer"]
    assert answer.headers["last-modified"] == clock().strftime("%a, %d %b %Y %H:%M:%S GMT")


def test_a_range_is_sent_as_partial_content(server, link):
    answer = server.get(link(), headers={"Range": "bytes=1000000-2000000"})

    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes 1000000-2000000/{len(CONTENT)}"
    assert answer.headers["content-length"] == "1000001"
    assert answer.content == CONTENT[1_000_000:2_000_001]


def test_a_download_that_broke_off_goes_on_with_if_range(server, link):
    url = link()
    seen = server.get(url, headers={"Range": "bytes=0-99"})

    rest = server.get(url, headers={"Range": "bytes=100-", "If-Range": seen.headers["etag"]})
    changed = server.get(url, headers={"Range": "bytes=100-", "If-Range": '"another"'})

    assert seen.content + rest.content == CONTENT
    assert (changed.status_code, changed.content) == (200, CONTENT)


def test_a_range_beyond_the_end_is_refused_with_the_size(server, link):
    answer = server.get(link(), headers={"Range": f"bytes={len(CONTENT)}-"})

    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(CONTENT)}"
    assert answer.json()["error"]["details"] == {"field": "header.Range", "size": len(CONTENT)}


def test_what_the_client_has_is_not_sent_again(server, link):
    url = link()
    etag = server.get(url).headers["etag"]

    answer = server.get(url, headers={"If-None-Match": etag})

    assert (answer.status_code, answer.content) == (304, b"")
    assert answer.headers["etag"] == etag


def test_a_link_to_download_is_one_to_look_too(server, link):
    url = link()
    got, looked = server.get(url), server.head(url)

    assert (looked.status_code, looked.content) == (200, b"")
    assert looked.headers["content-length"] == str(len(CONTENT))
    assert [looked.headers[name] for name in HEADERS] == [got.headers[name] for name in HEADERS]


def test_an_empty_result_is_downloaded(server, link):
    answer = server.get(link(NAME, b""))

    assert (answer.status_code, answer.content, answer.headers["content-length"]) == (200, b"", "0")


def forbidden(answer) -> bool:
    return answer.status_code == 403 and answer.json()["error"]["code"] == "FORBIDDEN"


def test_a_link_that_has_expired_is_forbidden(server, link, clock, context):
    url = link()
    clock.forward(context.signer.ttl - timedelta(seconds=1))
    in_time = server.get(url)
    clock.forward(timedelta(seconds=1))

    assert in_time.status_code == 200
    assert forbidden(server.get(url))
    assert server.head(url).status_code == 403


@pytest.mark.parametrize(
    "tampered",
    [
        "{path}x?token={token}&expires={expires}",
        "{job}y/{name}?token={token}&expires={expires}",
        "{path}?token={token}&expires={later}",
        "{path}?token={token}&expires=0{expires}",
        "{path}?token={token}&expires=%20{expires}",
        "{path}?token={token}&expires=%2B{expires}",
        "{path}?token={token}&expires={expires}.0",
        "{path}?token={token}&expires=",
        "{path}?token={token}&expires=x",
        "{path}?token={token}&expires=" + "9" * 5000,
        "{path}?token={token}",
        "{path}?expires={expires}",
        "{path}?token=&expires={expires}",
        "{path}?token={upper}&expires={expires}",
        "{path}?token={token}0&expires={expires}",
        "{path}?token={flipped}&expires={expires}",
        "{path}?token=%C3%A9%00&expires={expires}",
        "{path}?token={token}&expires={expires}&expires={later}",
        "{job}/%2e%2e?token={token}&expires={expires}",
        "{job}/..%00{name}?token={token}&expires={expires}",
        "{job}/%00?token={token}&expires={expires}",
        "{job}/{name}%00?token={token}&expires={expires}",
        "{job}/{name}%0d%0aX-Injected:%201?token={token}&expires={expires}",
        "{path}?token={token}&expires=%D9%A1%D9%A2",
    ],
)
def test_a_link_that_was_changed_anywhere_is_forbidden(server, link, tampered):
    parts = urlsplit(link())
    query = parse_qs(parts.query)
    token, expires = query["token"][0], query["expires"][0]
    job, _, name = parts.path.rpartition("/")
    url = tampered.format(
        path=parts.path,
        job=job,
        name=name,
        token=token,
        expires=expires,
        upper=token.upper(),
        flipped=("0" if token[0] != "0" else "1") + token[1:],
        later=int(expires) + 1,
    )

    answer = server.get(url)

    assert forbidden(answer)
    assert "x-injected" not in answer.headers


@pytest.mark.parametrize(
    "tail",
    ["/segmentation.mrc/", "//segmentation.mrc", "/..%2fsegmentation.mrc", "/%252e%252e%252fsegmentation.mrc", "", "/"],
)
def test_another_path_leads_nowhere_in_the_envelope(server, link, tail):
    parts = urlsplit(link())

    answer = server.get(f"{parts.path.rpartition('/')[0]}{tail}?{parts.query}")

    assert answer.status_code in (403, 404)
    assert answer.json()["error"]["code"] in ("FORBIDDEN", "NOT_FOUND")


@pytest.mark.parametrize("name", ["..", ".", "a\\b", "a\0b", "../../models/demo/model.json"])
def test_a_result_with_the_name_of_a_way_through_folders_is_not_there(server, link, name):
    answer = server.get(link(name))

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize(
    ("name", "disposition"),
    [
        ("Vólume 1.mrc", "attachment; filename*=UTF-8''V%C3%B3lume%201.mrc"),
        ('a";b.mrc', "attachment; filename*=UTF-8''a%22%3Bb.mrc"),
        (".hidden", "attachment; filename*=UTF-8''.hidden"),
    ],
)
def test_a_name_never_becomes_more_than_a_name_in_the_answers_headers(server, link, name, disposition):
    assert server.get(link(name)).headers["content-disposition"] == disposition


def test_a_result_that_is_gone_from_the_store_is_not_found(server, artifact, context, clock):
    record = artifact()
    server.portal.call(context.objects.delete, keys.attempt_prefix(record.uid, 1) + NAME)
    url = context.signer.link(record.job_id, NAME, "ada", clock())

    got, looked = server.get(url), server.head(url)

    assert (got.status_code, looked.status_code) == (404, 404)
    assert got.json()["error"]["code"] == "NOT_FOUND"


def test_a_store_that_clients_can_reach_serves_downloads_itself(server, link, context, monkeypatch):
    asked = []

    def presigned_get(_: DirectoryObjectStore, key: str, ttl: timedelta, filename: str) -> str:
        asked.append((key, ttl, filename))
        return "https://objects.example.org/key?signature=s"

    url = link()
    monkeypatch.setattr(DirectoryObjectStore, "presigned_get", presigned_get)

    answer = server.get(url, headers={"Range": "bytes=0-1"}, follow_redirects=False)
    looked = server.head(url, follow_redirects=False)

    assert answer.status_code == 307
    assert answer.headers["location"] == "https://objects.example.org/key?signature=s"
    assert answer.headers["cache-control"] == "private"
    ((key, ttl, filename),) = asked
    assert key.endswith(f"/1/{NAME}")
    assert key.startswith("jobs/")
    assert (ttl, filename) == (context.signer.ttl, NAME)
    assert looked.status_code == 200  # a presigned URL is good for one method only


def test_what_is_gone_from_a_store_that_clients_can_reach_is_not_found(server, artifact, context, clock, monkeypatch):
    record = artifact()
    asyncio.run(context.objects.delete(keys.attempt_prefix(record.uid, 1) + NAME))
    monkeypatch.setattr(DirectoryObjectStore, "presigned_get", lambda *_: "https://objects.example.org/key")

    url = context.signer.link(record.job_id, NAME, "ada", clock())

    assert server.get(url, follow_redirects=False).status_code == 404


def test_a_client_that_goes_away_leaves_no_file_open():
    closed = []

    class Store:
        async def stream(self, key: str, _start: int, _stop: int):
            try:
                while True:
                    yield b"block"
            finally:
                closed.append(key)

    async def story() -> None:
        gone = asyncio.Event()

        async def receive() -> dict:
            await gone.wait()
            return {"type": "http.disconnect"}

        async def send(message: dict) -> None:
            gone.set()
            await asyncio.sleep(0)

        response = _Streamed(await _opened(Store(), "key", Span(0, 10, partial=False)))
        await response({"type": "http", "asgi": {"spec_version": "2.3"}}, receive, send)

    asyncio.run(story())

    assert closed == ["key"]
