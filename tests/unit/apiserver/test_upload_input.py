"""What is wrong with a request about uploads is answered in the envelope, whatever it is."""

import json

import pytest

MIB = 1024**2


def init(client, **fields):
    return client.post(
        "/v1/uploads/init", json={"filename": "a.mrc", "total_size": 10 * MIB, "chunk_size": 5 * MIB, **fields}
    )


def raw(ada, body: bytes, path: str = "/v1/uploads/init"):
    headers = {"Authorization": f"Bearer {ada.token}", "Content-Type": "application/json"}
    return ada.client.post(path, content=body, headers=headers)


def envelope(answer, *statuses: int) -> dict[str, object]:
    assert answer.status_code in statuses, answer.text[:500]
    error = answer.json()["error"]
    assert set(error) == {"code", "message", "hint", "retryable", "details"}
    assert error["hint"]
    assert len(answer.content) < 20_000
    return error


@pytest.mark.parametrize(
    "filename",
    ["a\r\nSet-Cookie: x=1", "a\nb", "a\0b", "\x1b[2Jcleared", "a\x7f", "a\x85b", "a\u2028b", "", "x" * 256],
)
def test_a_filename_with_control_characters_is_refused_by_field(ada, filename):
    error = envelope(init(ada, filename=filename), 400)

    assert error["details"]["field"] == "body.filename"


@pytest.mark.parametrize(
    "filename", ["../../etc/passwd", "/etc/passwd", "C:\\volumes\\a.mrc", "..", "Å 電子 🧊.mrc", " "]
)
def test_a_filename_is_data_and_never_a_path(ada, context, filename):
    begun = init(ada, filename=filename)

    assert begun.status_code == 201
    assert ada.get(f"/v1/uploads/{begun.json()['upload_id']}").json()["filename"] == filename
    stored = [str(path.relative_to(context.objects.root.parent)) for path in context.objects.root.parent.rglob("*")]
    assert not any(filename.strip(" ./") and filename.strip(" ./") in path for path in stored)


@pytest.mark.parametrize(
    "content_type",
    ["a/b\r\nX-Evil: 1", "a/b\n", "a\0/b", "text", "/", "a/", "text/html; charset=\r\n", "é/b", "a/b" + "c" * 200],
)
def test_a_content_type_that_is_none_is_refused_by_field(ada, content_type):
    error = envelope(init(ada, content_type=content_type), 400)

    assert error["details"]["field"] == "body.content_type"


@pytest.mark.parametrize("content_type", ["image/x-mrc", "application/octet-stream", "text/plain; charset=utf-8"])
def test_a_content_type_is_kept(ada, content_type):
    begun = init(ada, content_type=content_type)

    assert ada.get(f"/v1/uploads/{begun.json()['upload_id']}").json()["content_type"] == content_type


SURPRISING = {
    "no JSON": b"{",
    "nothing": b"",
    "an array": b"[]",
    "null": b"null",
    "NaN": b'{"filename": "a", "total_size": NaN, "chunk_size": 1}',
    "Infinity": b'{"filename": "a", "total_size": Infinity, "chunk_size": 1}',
    "10,000 digits": b'{"filename": "a", "total_size": ' + b"9" * 10_000 + b', "chunk_size": 1}',
    "an exponent": b'{"filename": "a", "total_size": 1e400, "chunk_size": 1}',
    "100,000 brackets": b"[" * 100_000 + b"]" * 100_000,
    "100,000 objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "no UTF-8": b'{"filename": "\xff\xfe"}',
    "half a character": rb'{"filename": "\ud800", "total_size": 10, "chunk_size": 10}',
    "half a character as a name": rb'{"\ud800": 1}',
    "a NUL as a name": rb'{"\u0000": 1}',
    "a name of a megabyte": b'{"' + b"x" * MIB + b'": 1}',
    "100,000 names": json.dumps({f"x{number}": 1 for number in range(100_000)}).encode(),
    "UTF-16": '{"filename": "a"}'.encode("utf-16"),
    "numbers as text": b'{"filename": 1, "total_size": "x", "chunk_size": []}',
    "true as a size": b'{"filename": "a", "total_size": {}, "chunk_size": true}',
}


@pytest.mark.parametrize("name", SURPRISING)
@pytest.mark.parametrize("path", ["/v1/uploads/init", "/v1/uploads/upl_aaaaaaaaaaaa/complete"])
def test_a_surprising_body_is_answered_in_the_envelope(ada, name, path):
    error = envelope(raw(ada, SURPRISING[name], path), 400, 413)

    assert error["code"] in ("VALIDATION_ERROR", "PAYLOAD_TOO_LARGE")


def test_a_body_of_10_mb_is_refused_before_it_is_read_whole(ada):
    body = b'{"filename": "' + b"x" * (10 * MIB) + b'"}'

    assert envelope(raw(ada, body), 413)["code"] == "PAYLOAD_TOO_LARGE"


@pytest.mark.parametrize(
    ("metadata", "field"),
    [
        ({"a": {"b": 1}}, "body.metadata.a"),
        ({"a": ["b"]}, "body.metadata.a"),
        ({"a": "x" * 5000}, "body.metadata.a"),
        ({"x" * 129: 1}, "body.metadata"),
        ({str(number): 1 for number in range(65)}, "body.metadata"),
    ],
)
def test_metadata_that_is_more_than_a_few_words_is_refused_by_field(ada, metadata, field):
    error = envelope(init(ada, metadata=metadata), 400)

    assert error["details"]["field"].startswith(field)


@pytest.mark.parametrize("number", ["-1", "3", "9" * 30, "9" * 5000, "1e3", "0x0", "%00", "%EF%BC%91", "true", "0.5"])
def test_a_part_number_that_is_none_is_refused(ada, number):
    begun = init(ada).json()

    answer = ada.put(f"/v1/uploads/{begun['upload_id']}/part/{number}", content=bytes(5 * MIB))

    envelope(answer, 400)


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [{"part_number": 0}],
        [{"part_number": -1, "etag": "x"}],
        [{"part_number": 10_000, "etag": "x"}],
        [{"part_number": 2**70, "etag": "x"}],
        [{"part_number": 0, "etag": "x" * 200}],
        [{"part_number": 0, "etag": "\0\r\n"}],
        [{"part_number": 0, "etag": "x"}] * 2,
        [{"part_number": 0, "etag": "x"}] * 10_001,
        [{"part_number": 0, "etag": None}],
        "all",
    ],
    ids=repr,
)
def test_a_list_of_parts_that_is_none_is_refused(ada, parts):
    begun = init(ada, total_size=1000, chunk_size=1000).json()
    ada.put(begun["chunk_urls"][0], content=bytes(1000))

    answer = ada.post(f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": parts})

    envelope(answer, 400)


@pytest.mark.parametrize(
    "upload_id", ["%00", "..%2f..", "upl_aaaaaaaaaaaa%0d%0a", "x" * 5000, "%ff", "upl_%F0%9F%A7%8A"]
)
def test_an_upload_id_that_is_none_is_not_found(ada, upload_id):
    for answer in (ada.get(f"/v1/uploads/{upload_id}"), ada.delete(f"/v1/uploads/{upload_id}")):
        envelope(answer, 404)
