"""Uploading, over the API of a server in this process."""

import asyncio
import gzip
import hashlib
import pickle
import struct
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from cryomamba_apiserver.errors import TimedOutError
from support import volume_files

MIB = 1024**2


def begin(client, total_size: int, chunk_size: int = 5 * MIB, **fields):
    return client.post(
        "/v1/uploads/init",
        json={"filename": "volume.mrc", "total_size": total_size, "chunk_size": chunk_size, **fields},
    )


def mrc(nx: int = 4, ny: int = 4, nz: int = 4, mode: int = 2, voxels: bytes | None = None, **words: int) -> bytes:
    """A minimal MRC file; `words` sets 32-bit words of the header by their 0-based index, as w7=0."""
    header = bytearray(1024)
    struct.pack_into("<10i", header, 0, nx, ny, nz, mode, 0, 0, 0, nx, ny, nz)
    struct.pack_into("<6f3i", header, 40, nx * 10.0, ny * 10.0, nz * 10.0, 90, 90, 90, 1, 2, 3)
    header[208:216] = b"MAP \x44\x44\0\0"
    for name, value in words.items():
        struct.pack_into("<i", header, 4 * int(name.removeprefix("w")), value)
    return bytes(header) + (struct.pack(f"<{nx * ny * nz}f", *range(nx * ny * nz)) if voxels is None else voxels)


def test_a_real_volume_becomes_a_file_with_the_facts_of_its_header(upload, emd_3197, clock):
    answer = upload(emd_3197, "EMD-3197.map")

    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"file_id", "filename", "size", "content_type", "checksum", "metadata", "created_at"}
    assert body["filename"] == "EMD-3197.map"
    assert body["size"] == len(emd_3197)
    assert body["checksum"] == "sha256:" + hashlib.sha256(emd_3197).hexdigest()
    assert body["created_at"] == clock.wire()
    assert body["metadata"]["shape"] == [20, 20, 20]
    assert body["metadata"]["voxel_size"] == pytest.approx([1.14, 1.14, 1.14])
    assert body["metadata"]["dtype"] == "float32"
    assert body["metadata"]["min_intensity"] == pytest.approx(-4.13374567)
    assert body["metadata"]["mean_intensity"] == pytest.approx(0.78361203)
    assert body["metadata"]["std_intensity"] == pytest.approx(2.39995291)


def test_init_answers_where_each_part_goes_and_until_when(ada, clock):
    answer = begin(ada, 11 * MIB)

    assert answer.status_code == 201
    body = answer.json()
    assert set(body) == {"upload_id", "chunk_urls", "expires_at"}
    assert body["chunk_urls"] == [f"/v1/uploads/{body['upload_id']}/part/{number}" for number in range(3)]
    assert body["expires_at"] == clock.wire(timedelta(hours=2))


def test_parts_may_come_in_any_order(ada):
    voxels = bytes(range(256)) * (6 * MIB // 256)
    data = mrc(1024, 1024, 6, mode=0, voxels=voxels)
    begun = begin(ada, len(data)).json()
    second = ada.put(begun["chunk_urls"][1], content=data[5 * MIB :]).json()
    first = ada.put(begun["chunk_urls"][0], content=data[: 5 * MIB]).json()

    answer = ada.post(
        f"/v1/uploads/{begun['upload_id']}/complete",
        json={"parts": [{"part_number": 1, "etag": second["etag"]}, {"part_number": 0, "etag": first["etag"]}]},
    )

    assert answer.status_code == 200
    assert answer.json()["checksum"] == "sha256:" + hashlib.sha256(data).hexdigest()


def test_a_part_is_answered_with_its_md5(ada, emd_3197):
    begun = begin(ada, len(emd_3197)).json()

    answer = ada.put(begun["chunk_urls"][0], content=emd_3197)

    assert answer.json() == {
        "upload_id": begun["upload_id"],
        "part_number": 0,
        "received_bytes": len(emd_3197),
        "etag": hashlib.md5(emd_3197).hexdigest(),
    }


def test_the_same_part_again_is_welcome_and_another_in_its_place_is_not(ada, upload, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    first = ada.put(begun["chunk_urls"][0], content=emd_3197)

    again = ada.put(begun["chunk_urls"][0], content=emd_3197)
    other = ada.put(begun["chunk_urls"][0], content=bytes(len(emd_3197)))

    assert again.status_code == 200
    assert again.json() == first.json()
    assert other.status_code == 409
    assert other.json()["error"]["code"] == "CONFLICT"
    done = ada.post(
        f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": [{"part_number": 0, "etag": first.json()["etag"]}]}
    )
    assert done.json()["checksum"] == "sha256:" + hashlib.sha256(emd_3197).hexdigest()


def test_completing_twice_answers_the_same(ada, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    part = ada.put(begun["chunk_urls"][0], content=emd_3197).json()
    url, body = f"/v1/uploads/{begun['upload_id']}/complete", {"parts": [{"part_number": 0, "etag": part["etag"]}]}

    first, second = ada.post(url, json=body), ada.post(url, json=body)

    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()


def test_completing_again_gives_the_same_answer_whatever_parts_are_named(ada, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    part = ada.put(begun["chunk_urls"][0], content=emd_3197).json()
    url = f"/v1/uploads/{begun['upload_id']}/complete"

    first = ada.post(url, json={"parts": [{"part_number": 0, "etag": part["etag"]}]})
    second = ada.post(url, json={"parts": [{"part_number": 7, "etag": "of nothing"}]})

    assert first.status_code == second.status_code == 200
    assert first.json() == second.json()


def test_a_volumes_metadata_has_the_name_that_it_was_uploaded_under(upload, emd_3197):
    assert upload(emd_3197, "membrane.map").json()["metadata"]["filename"] == "membrane.map"


def test_what_gzip_made_small_enough_to_be_uploaded_is_refused_by_field(start, emd_3197):
    zeros = gzip.compress(volume_files.nifti(dim=(3, 100, 100, 100, 1, 1, 1, 1), data=bytes(4_000_000)))
    with start(max_upload_size=1_000_000) as client:
        token = client.app.state.context.authority.issue("ada", frozenset({"write"}), timedelta(hours=1))
        client.headers["Authorization"] = f"Bearer {token}"
        begun = begin(client, len(zeros)).json()
        part = client.put(begun["chunk_urls"][0], content=zeros).json()

        answer = client.post(
            f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": [{"part_number": 0, "etag": part["etag"]}]}
        )

    assert len(zeros) < 1_000_000
    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["field"] == "dim"


@pytest.mark.parametrize("sent", [0, 1, 33_023, 33_025])
def test_a_part_of_another_length_is_refused(ada, emd_3197, sent):
    begun = begin(ada, len(emd_3197)).json()

    answer = ada.put(begun["chunk_urls"][0], content=bytes(sent))

    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["expected"] == 33_024


@pytest.mark.parametrize("number", [-1, 1, 10**9])
def test_a_part_that_the_file_does_not_have_is_refused(ada, emd_3197, number):
    begun = begin(ada, len(emd_3197)).json()

    answer = ada.put(f"/v1/uploads/{begun['upload_id']}/part/{number}", content=emd_3197)

    assert answer.status_code == 400
    assert "0" in answer.json()["error"]["hint"]


def test_completing_with_parts_missing_names_them(ada):
    begun = begin(ada, 11 * MIB).json()

    answer = ada.post(
        f"/v1/uploads/{begun['upload_id']}/complete", json={"parts": [{"part_number": 0, "etag": "0" * 32}]}
    )

    assert answer.status_code == 400
    assert answer.json()["error"]["details"]["missing"] == [0, 1, 2]


def test_completing_with_a_wrong_etag_names_the_part_and_may_be_repeated(ada, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    part = ada.put(begun["chunk_urls"][0], content=emd_3197).json()
    url = f"/v1/uploads/{begun['upload_id']}/complete"

    wrong = ada.post(url, json={"parts": [{"part_number": 0, "etag": "f" * 32}]})
    right = ada.post(url, json={"parts": [{"part_number": 0, "etag": part["etag"]}]})

    assert wrong.status_code == 400
    assert wrong.json()["error"]["details"]["wrong"] == [0]
    assert right.status_code == 200


@pytest.mark.parametrize(
    ("fields", "status", "code"),
    [
        ({"total_size": 0}, 400, "VALIDATION_ERROR"),
        ({"total_size": -5}, 400, "VALIDATION_ERROR"),
        ({"total_size": 2**63}, 413, "PAYLOAD_TOO_LARGE"),
        ({"total_size": 10 * 1024**3 + 1}, 413, "PAYLOAD_TOO_LARGE"),
        ({"total_size": 100 * MIB, "chunk_size": MIB}, 400, "VALIDATION_ERROR"),
        ({"total_size": 100 * MIB, "chunk_size": 65 * MIB}, 400, "VALIDATION_ERROR"),
        ({"filename": ""}, 400, "VALIDATION_ERROR"),
        ({"surprise": 1}, 400, "VALIDATION_ERROR"),
    ],
)
def test_an_impossible_upload_is_refused_at_once(ada, fields, status, code):
    answer = ada.post(
        "/v1/uploads/init", json={"filename": "a.mrc", "total_size": 10 * MIB, "chunk_size": 5 * MIB, **fields}
    )

    assert answer.status_code == status
    assert answer.json()["error"]["code"] == code
    assert answer.json()["error"]["hint"]


def test_an_upload_larger_than_the_disk_is_refused_at_once(ada, context, monkeypatch):
    async def no_room() -> int:
        return 1000

    monkeypatch.setattr(context.objects, "free_bytes", no_room)

    answer = begin(ada, 2000)

    assert answer.status_code == 507
    assert answer.json()["error"]["code"] == "INSUFFICIENT_STORAGE"


def test_an_expired_upload_is_gone(ada, clock, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    clock.forward(timedelta(hours=2))

    answer = ada.put(begun["chunk_urls"][0], content=emd_3197)

    assert answer.status_code == 410
    assert answer.json()["error"]["code"] == "NOT_FOUND"


@pytest.mark.parametrize("upload_id", ["upl_aaaaaaaaaaaa", "nonsense", "..", "%2e%2e%2fetc", "upl_aaaaaaaaaaaa%0a"])
def test_an_unknown_upload_is_not_found(ada, upload_id):
    assert ada.put(f"/v1/uploads/{upload_id}/part/0", content=b"x").status_code == 404


def test_somebody_elses_upload_is_not_found(ada, bob, emd_3197):
    begun = begin(ada, len(emd_3197)).json()

    assert bob.put(begun["chunk_urls"][0], content=emd_3197).status_code == 404


HOSTILE = {
    "a text file": (b"This is not a volume.\n" * 100, "format"),
    "a truncated volume": (mrc(64, 64, 64, voxels=bytes(1000)), "size"),
    "a header that claims 2**63 voxels": (mrc(2**21, 2**21, 2**21, voxels=bytes(64)), "nx"),
    "no voxels along x": (mrc(nx=0, voxels=bytes(64)), "nx"),
    "complex voxels": (mrc(mode=4, voxels=bytes(512)), "mode"),
    "a pickle": (pickle.dumps({"a": list(range(1000))}), "format"),
    "an extended header of 2 GB": (mrc(w23=2**31 - 1), "nsymbt"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_volume_is_refused_by_field(upload, ada, name):
    data, field = HOSTILE[name]

    answer = upload(data)

    assert answer.status_code == 422
    error = answer.json()["error"]
    assert error["code"] == "VALIDATION_ERROR"
    assert error["details"]["field"] == field
    assert error["hint"]
    assert ada.get("/v1/server/info").status_code == 200


def gzip_bomb(tmp_path: Path) -> bytes:
    """A NIfTI header of 8 voxels, then 1 GiB of zeros, as gzip: about 1 MB."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 2, 2, 2, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, 16, 32)
    struct.pack_into("<8f", header, 76, 1, 2, 2, 2, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    path = tmp_path / "bomb.nii.gz"
    with gzip.open(path, "wb", compresslevel=9) as out:
        out.write(header)
        for _ in range(1024):
            out.write(bytes(MIB))
    return path.read_bytes()


def test_a_gzip_bomb_is_refused_without_being_inflated(upload, tmp_path):
    bomb = gzip_bomb(tmp_path)

    answer = upload(bomb, "bomb.nii.gz")

    assert answer.status_code == 422
    assert answer.json()["error"]["details"]["field"]


@pytest.mark.parametrize("name", HOSTILE)
def test_judging_what_is_no_volume_takes_less_than_a_megabyte(name, tmp_path):
    from cryomamba_apiserver.uploads.inspect import inspect_volume
    from cryomamba_crds.volumes import VolumeError

    path = tmp_path / "volume"
    path.write_bytes(HOSTILE[name][0])
    with path.open("rb") as stream:
        tracemalloc.start()
        with pytest.raises(VolumeError):
            inspect_volume(stream, path.stat().st_size, 10**9)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()

    assert peak < MIB


def test_a_refused_file_leaves_nothing_behind_and_cannot_be_used(upload, ada, context):
    answer = upload(b"not a volume" * 100)

    assert answer.status_code == 422
    stored = [path for path in context.objects.root.rglob("*") if path.is_file() and path.name == "volume"]
    assert stored == []


def test_voxels_that_are_not_finite_are_told_in_the_warnings(upload):
    voxels = struct.pack("<64f", *([float("nan")] + [1.0] * 62 + [5.0]))

    body = upload(mrc(voxels=voxels)).json()

    assert body["metadata"]["min_intensity"] == 1.0
    assert body["metadata"]["max_intensity"] == 5.0
    assert "1 voxels are NaN or infinite" in body["metadata"]["warnings"][0]


def nifti(dtype_code: int, bits: int, voxels: bytes) -> bytes:
    """A NIfTI-1 file of 2 x 2 x 2 voxels."""
    header = bytearray(352)
    struct.pack_into("<i", header, 0, 348)
    struct.pack_into("<8h", header, 40, 3, 2, 2, 2, 1, 1, 1, 1)
    struct.pack_into("<2h", header, 70, dtype_code, bits)
    struct.pack_into("<8f", header, 76, 1, 2, 2, 2, 0, 0, 0, 0)
    struct.pack_into("<f", header, 108, 352)
    header[344:348] = b"n+1\0"
    return bytes(header) + voxels


def test_intensities_that_float32_cannot_hold_are_told_and_the_file_stays_usable(upload, ada):
    answer = upload(nifti(64, 64, struct.pack("<8d", 1.7e308, -1.7e308, 1, 2, 3, 4, 5, 6)), "volume.nii")

    assert answer.status_code == 200
    metadata = answer.json()["metadata"]
    assert (metadata["min_intensity"], metadata["max_intensity"], metadata["mean_intensity"]) == (1, 6, 3.5)
    assert "2 voxels" in metadata["warnings"][-1]
    job = ada.post("/v1/jobs", json={"file_id": answer.json()["file_id"], "model": "demo"})
    assert job.status_code == 201


def test_a_refused_file_is_refused_again_in_the_same_words(ada):
    data = b"not a volume" * 100
    begun = begin(ada, len(data)).json()
    part = ada.put(begun["chunk_urls"][0], content=data).json()
    url, body = f"/v1/uploads/{begun['upload_id']}/complete", {"parts": [{"part_number": 0, "etag": part["etag"]}]}

    first, second = ada.post(url, json=body), ada.post(url, json=body)

    assert first.status_code == second.status_code == 422
    assert first.json() == second.json()


def test_requests_to_complete_at_once_answer_the_same(ada, emd_3197):
    begun = begin(ada, len(emd_3197)).json()
    part = ada.put(begun["chunk_urls"][0], content=emd_3197).json()
    url, body = f"/v1/uploads/{begun['upload_id']}/complete", {"parts": [{"part_number": 0, "etag": part["etag"]}]}

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: ada.post(url, json=body), range(8)))

    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.text for answer in answers}) == 1


def test_a_client_that_falls_silent_gives_its_part_up(server, ada, emd_3197, monkeypatch):
    from cryomamba_apiserver.uploads import router

    monkeypatch.setattr(router, "_SILENCE_SECONDS", 0.1)
    begun = begin(ada, len(emd_3197)).json()

    async def silent() -> bytes:
        class Sleeper:
            async def stream(self):
                yield b"x"
                await asyncio.Event().wait()

        return b"".join([chunk async for chunk in router._body(Sleeper())])

    with pytest.raises(TimedOutError):
        asyncio.run(silent())
    assert ada.put(begun["chunk_urls"][0], content=emd_3197).status_code == 200
