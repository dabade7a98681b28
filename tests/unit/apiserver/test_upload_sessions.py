"""Upload sessions: looked at, gone on with, given up, expired, counted."""

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from cryomamba_crds import keys

MIB = 1024**2


def begin(client, total_size: int, chunk_size: int = 5 * MIB, **fields):
    return client.post(
        "/v1/uploads/init",
        json={"filename": "volume.mrc", "total_size": total_size, "chunk_size": chunk_size, **fields},
    )


def complete(client, upload_id: str, *etags: str):
    parts = [{"part_number": number, "etag": etag} for number, etag in enumerate(etags)]
    return client.post(f"/v1/uploads/{upload_id}/complete", json={"parts": parts})


def stored_bytes(context) -> int:
    root = context.objects.root.parent
    return sum(path.stat().st_blocks * 512 for path in root.rglob("volume") if path.is_file())


@pytest.fixture
def whole(ada, emd_3197):
    """An upload with its one part."""
    begun = begin(ada, len(emd_3197)).json()
    ada.put(begun["chunk_urls"][0], content=emd_3197)
    return begun["upload_id"], hashlib.md5(emd_3197).hexdigest()


def test_an_upload_shows_its_session_and_the_parts_held(ada, clock):
    begun = begin(ada, 11 * MIB, content_type="image/x-mrc").json()
    last = ada.put(begun["chunk_urls"][2], content=bytes(MIB)).json()
    first = ada.put(begun["chunk_urls"][0], content=bytes(5 * MIB)).json()

    answer = ada.get(f"/v1/uploads/{begun['upload_id']}")

    assert answer.status_code == 200
    assert answer.json() == {
        "upload_id": begun["upload_id"],
        "filename": "volume.mrc",
        "total_size": 11 * MIB,
        "chunk_size": 5 * MIB,
        "content_type": "image/x-mrc",
        "status": "active",
        "created_at": clock.wire(),
        "expires_at": clock.wire(timedelta(hours=2)),
        "stage": "receiving",
        "parts": [
            {"part_number": 0, "size": 5 * MIB, "etag": first["etag"]},
            {"part_number": 2, "size": MIB, "etag": last["etag"]},
        ],
        "file_id": None,
        "error": None,
    }


def test_an_upload_goes_on_after_the_server_was_restarted(start, emd_3197, tmp_path):
    with start() as first:
        token = first.app.state.context.authority.issue("ada", frozenset({"read", "write"}), timedelta(hours=1))
        headers = {"Authorization": f"Bearer {token}"}
        request = {"filename": "v.mrc", "total_size": len(emd_3197), "chunk_size": 5 * MIB}
        begun = first.post("/v1/uploads/init", json=request, headers=headers).json()
        first.put(begun["chunk_urls"][0], content=emd_3197, headers=headers)

    with start() as second:
        session = second.get(f"/v1/uploads/{begun['upload_id']}", headers=headers).json()
        parts = [{"part_number": part["part_number"], "etag": part["etag"]} for part in session["parts"]]
        done = second.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": parts}, headers=headers)

    assert done.status_code == 200
    assert done.json()["checksum"] == "sha256:" + hashlib.sha256(emd_3197).hexdigest()


def test_a_completed_upload_shows_its_file(ada, whole):
    upload_id, etag = whole
    file_id = complete(ada, upload_id, etag).json()["file_id"]

    body = ada.get(f"/v1/uploads/{upload_id}").json()

    assert (body["status"], body["stage"], body["file_id"]) == ("completed", "done", file_id)
    assert [part["etag"] for part in body["parts"]] == [etag]


def test_an_upload_whose_file_was_refused_is_complete_and_says_why(ada):
    data = b"not a volume" * 100
    begun = begin(ada, len(data)).json()
    etag = ada.put(begun["chunk_urls"][0], content=data).json()["etag"]
    refused = complete(ada, begun["upload_id"], etag)

    body = ada.get(f"/v1/uploads/{begun['upload_id']}").json()

    assert (body["status"], body["file_id"]) == ("completed", None)
    assert body["error"] == refused.json()["error"]


def test_an_expired_upload_says_so_to_get_and_is_gone_to_everything_else(ada, clock, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    url = f"/v1/uploads/{begun['upload_id']}"
    clock.forward(timedelta(hours=2))

    assert ada.get(url).json()["status"] == "expired"
    for answer in (
        ada.put(begun["chunk_urls"][0], content=emd_3197),
        complete(ada, begun["upload_id"], "0" * 32),
        ada.delete(url),
    ):
        assert answer.status_code == 410
        assert answer.json()["error"]["code"] == "NOT_FOUND"
        assert "init" in answer.json()["error"]["hint"]


def test_an_upload_that_is_given_up_frees_its_storage_at_once_and_is_gone(ada, context):
    begun = begin(ada, 11 * MIB).json()
    ada.put(begun["chunk_urls"][0], content=bytes(5 * MIB))
    url = f"/v1/uploads/{begun['upload_id']}"
    before = stored_bytes(context)

    first, again = ada.delete(url), ada.delete(url)

    assert (first.status_code, again.status_code) == (204, 204)
    assert first.content == b""
    assert before >= 11 * MIB
    assert stored_bytes(context) == 0
    assert ada.get(url).status_code == 410
    assert ada.put(begun["chunk_urls"][1], content=bytes(5 * MIB)).status_code == 410
    assert complete(ada, begun["upload_id"], "0" * 32).status_code == 410


def test_a_complete_upload_cannot_be_given_up(ada, whole):
    upload_id, etag = whole
    file_id = complete(ada, upload_id, etag).json()["file_id"]

    answer = ada.delete(f"/v1/uploads/{upload_id}")

    assert answer.status_code == 409
    assert answer.json()["error"]["details"] == {"file_id": file_id}
    assert complete(ada, upload_id, etag).status_code == 200


def test_a_refused_upload_can_be_given_up(ada):
    begun = begin(ada, 7).json()
    etag = ada.put(begun["chunk_urls"][0], content=b"nothing").json()["etag"]
    complete(ada, begun["upload_id"], etag)

    assert ada.delete(f"/v1/uploads/{begun['upload_id']}").status_code == 204
    assert ada.get(f"/v1/uploads/{begun['upload_id']}").status_code == 410


@pytest.mark.parametrize("upload_id", ["upl_aaaaaaaaaaaa", "nonsense", "%2e%2e%2fetc"])
def test_an_unknown_upload_cannot_be_looked_at_or_given_up(ada, upload_id):
    assert ada.get(f"/v1/uploads/{upload_id}").status_code == 404
    assert ada.delete(f"/v1/uploads/{upload_id}").status_code == 404


def test_somebody_elses_upload_is_not_there(ada, bob, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    url = f"/v1/uploads/{begun['upload_id']}"

    assert bob.get(url).status_code == 404
    assert bob.delete(url).status_code == 404
    assert complete(bob, begun["upload_id"], "0" * 32).status_code == 404
    assert ada.get(url).json()["status"] == "active"


def test_looking_needs_read_and_giving_up_needs_write(server, token, ada):
    begun = begin(ada, 100).json()
    url, reader = f"/v1/uploads/{begun['upload_id']}", {"Authorization": f"Bearer {token('ada', 'read')}"}

    assert server.get(url, headers=reader).status_code == 200
    assert server.delete(url, headers=reader).status_code == 403


class TestOpenUploads:
    """How many one owner may have."""

    @pytest.fixture
    def server(self, start):
        with start(max_open_uploads=3, requests_per_minute=10_000) as client:
            yield client

    def test_one_more_than_the_limit_is_refused_with_what_to_do(self, ada, clock):
        first = begin(ada, 100).json()["upload_id"]
        clock.forward(timedelta(minutes=20))
        others = [begin(ada, 100).json()["upload_id"] for _ in range(2)]

        answer = begin(ada, 100)

        assert answer.status_code == 429
        error = answer.json()["error"]
        assert error["code"] == "RATE_LIMIT_EXCEEDED"
        assert error["retryable"] is True
        assert "DELETE /v1/uploads" in error["hint"]
        assert error["details"]["limit"] == 3
        assert error["details"]["retry_after_seconds"] == 100 * 60
        assert answer.headers["Retry-After"] == str(100 * 60)
        assert error["details"]["open_uploads"][0] == first
        assert set(error["details"]["open_uploads"]) >= {first, *others}

    def test_those_of_others_do_not_count(self, ada, bob):
        for _ in range(3):
            begin(bob, 100)

        assert begin(ada, 100).status_code == 201

    def test_a_refused_one_leaves_nothing_behind(self, ada, context):
        for _ in range(3):
            begin(ada, 100)
        before = sorted(context.objects.root.parent.rglob("*"))

        assert {begin(ada, 100).status_code for _ in range(3)} == {429}
        assert sorted(context.objects.root.parent.rglob("*")) == before

    @pytest.mark.parametrize("ending", ["given up", "complete", "refused", "expired"])
    def test_one_that_is_over_counts_no_more(self, ada, clock, emd_3197, ending):
        data = b"no volume" if ending == "refused" else emd_3197
        begun, *_ = [begin(ada, len(data)).json() for _ in range(3)]
        if ending == "given up":
            ada.delete(f"/v1/uploads/{begun['upload_id']}")
        elif ending == "expired":
            clock.forward(timedelta(hours=2))
        else:
            etag = ada.put(begun["chunk_urls"][0], content=data).json()["etag"]
            complete(ada, begun["upload_id"], etag)

        assert begin(ada, 100).status_code == 201

    def test_of_many_at_once_no_more_than_the_limit_are_opened(self, ada):
        with ThreadPoolExecutor(8) as threads:
            answers = list(threads.map(lambda _: begin(ada, 100).status_code, range(24)))

        assert set(answers) <= {201, 429}
        assert answers.count(201) <= 3

    def test_the_count_outlives_a_restart(self, ada, start, token):
        for _ in range(3):
            begin(ada, 100)
        headers = {"Authorization": f"Bearer {token()}"}

        with start(max_open_uploads=3) as restarted:
            request = {"filename": "v", "total_size": 100, "chunk_size": 100}
            assert restarted.post("/v1/uploads/init", json=request, headers=headers).status_code == 429

    def test_counting_lists_what_the_owner_has_open_and_nothing_else(self, ada, context, monkeypatch):
        listed: list[str] = []
        list_keys = context.objects.list_keys

        async def noting(prefix: str) -> list[str]:
            listed.append(prefix)
            return await list_keys(prefix)

        monkeypatch.setattr(context.objects, "list_keys", noting)
        begin(ada, 100)

        assert listed == [keys.owner_uploads_prefix("ada")]


class TestQuota:
    """What one owner's files and open uploads may take."""

    @pytest.fixture
    def server(self, start):
        with start(storage_quota=70_000) as client:
            yield client

    def test_files_and_open_uploads_count_together(self, ada, bob, upload, emd_3197):
        upload(emd_3197)
        begin(ada, 30_000)

        answer = begin(ada, 10_000)

        assert answer.status_code == 507
        error = answer.json()["error"]
        assert error["code"] == "INSUFFICIENT_STORAGE"
        assert error["details"] == {"quota_bytes": 70_000, "used_bytes": len(emd_3197) + 30_000}
        assert begin(bob, 70_000).status_code == 201

    def test_an_upload_that_is_given_up_makes_room(self, ada):
        begun = begin(ada, 60_000).json()
        assert begin(ada, 60_000).status_code == 507

        ada.delete(f"/v1/uploads/{begun['upload_id']}")

        assert begin(ada, 60_000).status_code == 201
