"""The sweep on a real store with real jobs: what it removes, and that it may be run twice at once or die."""

import asyncio
import contextlib
import os
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cryomamba_apiserver.adapters.job_references import LocalJobReferences
from cryomamba_apiserver.adapters.local_leftovers import remove_local_leftovers
from cryomamba_apiserver.sweep.decide import Rules
from cryomamba_apiserver.sweep.run import Sweep, Swept, sweeping
from cryomamba_crds import keys
from support.dying_store import DyingStore, ServerDied
from support.waiting import until

MIB = 1024**2
EMD_3197 = Path(__file__).parents[2] / "data" / "EMD-3197.map"
RULES = Rules(margin=timedelta(minutes=5), grace=timedelta(days=1))


@pytest.fixture
def sweep(server, context, clock, tmp_path):
    """Runs one sweep and returns what it removed."""
    data_dir = tmp_path / "data"

    def run(rules: Rules = RULES, objects=None) -> Swept:
        jobs = LocalJobReferences(data_dir / "jobs.sqlite")
        return asyncio.run(Sweep(objects or context.objects, jobs, rules, clock, data_dir).run())

    return run


def stored(context) -> list[str]:
    root = context.objects.root
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def uploads_folder(context) -> list[str]:
    return sorted(path.name for path in (context.objects.root.parent / "uploads").iterdir())


def begin(client, total_size: int):
    request = {"filename": "v.mrc", "total_size": total_size, "chunk_size": 5 * MIB}
    return client.post("/v1/uploads/init", json=request).json()


def run_job(ada, file_id: str) -> dict[str, str]:
    job = ada.post("/v1/jobs", json={"file_id": file_id, "model": "demo"}).json()
    until(lambda: ada.get(f"/v1/jobs/{job['job_id']}").json()["status"] == "completed")
    return ada.get(f"/v1/jobs/{job['job_id']}").json()


@pytest.fixture
def start(start):
    return lambda **settings: start(requests_per_minute=100_000, **settings)


def test_an_expired_upload_is_ended_and_its_storage_is_free(sweep, ada, clock, context):
    begun = begin(ada, 11 * MIB)
    ada.put(begun["chunk_urls"][0], content=bytes(5 * MIB))
    clock.forward(timedelta(hours=2, minutes=5))

    swept = sweep()

    assert swept.uploads == 1
    assert uploads_folder(context) == []
    assert ada.get(f"/v1/uploads/{begun['upload_id']}").json()["status"] == "expired"
    assert ada.put(begun["chunk_urls"][1], content=bytes(5 * MIB)).status_code == 410


def test_an_upload_under_way_is_left_alone(sweep, ada, clock, context):
    begun = begin(ada, 11 * MIB)
    part = ada.put(begun["chunk_urls"][0], content=bytes(5 * MIB)).json()
    clock.forward(timedelta(hours=2, minutes=-1))

    assert not sweep()
    assert ada.get(f"/v1/uploads/{begun['upload_id']}").json()["parts"][0]["etag"] == part["etag"]


def test_an_upload_is_not_found_any_more_once_it_has_been_over_for_long(sweep, ada, clock, context):
    begun = begin(ada, 1000)
    clock.forward(timedelta(hours=3))
    sweep()
    clock.forward(timedelta(days=2))
    sweep()

    assert ada.get(f"/v1/uploads/{begun['upload_id']}").status_code == 404
    assert not any(key.startswith(("uploads/", "owners/")) for key in stored(context))


def test_what_a_server_left_that_died_in_the_middle_of_an_upload_is_freed(sweep, context, clock):
    volume = keys.file_volume("file_aaaaaaaaaaaa")
    asyncio.run(context.objects.create_upload(volume, 1000))  # no session was written
    asyncio.run(context.objects.write(keys.file_volume("file_bbbbbbbbbbbb"), b"no record"))
    before = stored(context)

    assert not sweep()
    clock.forward(timedelta(days=1, minutes=1))
    assert sweep()

    assert uploads_folder(context) == []
    assert set(before) - set(stored(context)) == {keys.file_volume("file_bbbbbbbbbbbb")}


def test_files_and_results_stay_however_often_it_is_swept(sweep, ada, upload, emd_3197, context, clock):
    file_id = upload(emd_3197).json()["file_id"]
    job = run_job(ada, file_id)
    clock.forward(timedelta(days=400))

    sweep()
    sweep()

    assert keys.file_volume(file_id) in stored(context)
    headers = {"Authorization": f"Bearer {context.authority.issue('ada', frozenset({'read'}), timedelta(hours=1))}"}
    job = ada.client.get(f"/v1/jobs/{job['job_id']}", headers=headers).json()
    assert ada.client.get(job["artifacts"][0]["url"]).content == b"labels"


def test_leftovers_of_an_attempt_go_and_the_result_stays(sweep, ada, upload, emd_3197, context, clock):
    job = run_job(ada, upload(emd_3197).json()["file_id"])
    manifest = next(key for key in stored(context) if key.startswith("jobs/") and key.endswith("manifest.json"))
    uid = manifest.split("/")[1]
    asyncio.run(context.objects.write(f"jobs/{uid}/7/segmentation.mrc", b"of an attempt that was killed"))
    clock.forward(timedelta(days=2))

    sweep()

    left = [key for key in stored(context) if key.startswith(f"jobs/{uid}/")]
    assert left == [f"jobs/{uid}/1/segmentation.mrc", manifest]
    assert job["status"] == "completed"


def test_retention_removes_files_and_jobs_that_were_kept_long_enough(sweep, ada, upload, emd_3197, context, clock):
    rules = Rules(RULES.margin, RULES.grace, keep_files=timedelta(days=30), keep_jobs=timedelta(days=30))
    file_id = upload(emd_3197).json()["file_id"]
    run_job(ada, file_id)
    clock.forward(timedelta(days=31))

    first = sweep(rules)
    second = sweep(rules)
    clock.forward(timedelta(days=2))
    sweep(rules)

    assert (first.files, first.jobs) == (1, 1)
    assert second.objects >= 2
    assert [key for key in stored(context) if key.startswith(("files/", "jobs/", "owners/", "uploads/"))] == []


def test_a_job_that_is_running_keeps_its_old_file(sweep, ada, upload, context, clock, script, tmp_path):
    rules = Rules(RULES.margin, RULES.grace, keep_files=timedelta(days=30), keep_jobs=timedelta(days=30))
    go_on = tmp_path / "go-on"
    script.write_text(f"progress=50 wait={go_on} result")
    file_id = upload(EMD_3197.read_bytes()).json()["file_id"]
    job_id = ada.post("/v1/jobs", json={"file_id": file_id, "model": "demo"}).json()["job_id"]
    clock.forward(timedelta(days=60))

    sweep(rules)
    sweep(rules)

    assert {keys.file_volume(file_id), keys.file_record(file_id)} <= set(stored(context))
    go_on.touch()
    table = LocalJobReferences(tmp_path / "data" / "jobs.sqlite")
    until(lambda: any(job.ended_at for job in asyncio.run(table.all()) if job.job_id == job_id))


def test_a_zip_that_was_replaced_goes_and_the_current_one_stays(sweep, ada, context, clock):
    asyncio.run(context.objects.write("models/demo/" + "0" * 64 + ".zip", b"an older one"))
    before = stored(context)
    clock.forward(timedelta(days=2))

    sweep()

    assert set(before) - set(stored(context)) == {"models/demo/" + "0" * 64 + ".zip"}
    assert "demo" in asyncio.run(context.catalogue.names())


def test_what_killed_processes_left_in_the_data_directory_goes_when_it_is_old(sweep, context, tmp_path):
    data_dir = tmp_path / "data"
    unnamed = context.objects.root / "files" / "file_aaaaaaaaaaaa" / f".file.json.{'0' * 16}"
    unpacking = data_dir / "models" / ".unpacking-abc"
    log = data_dir / "logs" / "job_aaaaaaaaaaaa" / "1"
    for folder in (unnamed.parent, unpacking, log):
        folder.mkdir(parents=True)
    unnamed.write_bytes(b"half")
    (unpacking / "plans.json").touch()
    long_ago = time.time() - 2 * 86400
    for path in (unnamed, unpacking, log.parent):
        os.utime(path, (long_ago, long_ago))
    fresh = data_dir / "models" / ".unpacking-fresh"
    fresh.mkdir()

    swept = sweep()

    assert swept.leftovers == 3
    assert not any(path.exists() for path in (unnamed, unpacking, log.parent))
    assert fresh.exists()


@pytest.mark.parametrize("left", ["volume", f".upload.json.{'0' * 16}"])
def test_the_folder_of_an_upload_without_its_record_goes_when_it_is_old(sweep, context, left):
    """What is left where a server was killed before the record was written, or by an earlier version after it."""
    uploads = context.objects.root.parent / "uploads"
    old, fresh = uploads / ("0" * 32), uploads / ("1" * 32)
    for folder in (old, fresh):
        folder.mkdir()
        (folder / left).write_bytes(bytes(1000))
    long_ago = time.time() - 2 * 86400
    os.utime(old, (long_ago, long_ago))

    swept = sweep()

    assert swept.leftovers == 1
    assert uploads_folder(context) == [fresh.name]


def test_a_folder_that_something_came_into_meanwhile_stays_and_stops_nothing(tmp_path, monkeypatch):
    objects = tmp_path / "store" / "objects"
    filling, empty = objects / "uploads" / "upl_aaaaaaaaaaaa", objects / "uploads" / "upl_bbbbbbbbbbbb"
    for folder in (filling, empty):
        folder.mkdir(parents=True)
    rmdir = Path.rmdir

    def comes_in(path: Path) -> None:
        (filling / "session.json").touch()
        rmdir(path)

    monkeypatch.setattr(Path, "rmdir", comes_in)

    assert remove_local_leftovers(tmp_path, (), datetime.now(UTC) + timedelta(days=1)) == [empty]
    assert (filling / "session.json").exists()


@pytest.mark.parametrize("gone", ["uploads/upl_aaaaaaaaaaaa", "files/file_aaaaaaaaaaaa", "jobs/ada", "jobs/ada/job_a"])
@pytest.mark.parametrize("reader", ["listdir", "scandir"])
def test_a_folder_that_goes_as_it_is_looked_into_stops_nothing(tmp_path, monkeypatch, gone, reader):
    objects = tmp_path / "store" / "objects"
    empty = objects / "uploads" / "upl_bbbbbbbbbbbb"
    for folder in (objects / gone, empty):
        folder.mkdir(parents=True)
    read = getattr(os, reader)

    def goes(path="."):
        if path == str(objects / gone) or path == objects / gone:
            with contextlib.suppress(FileNotFoundError):
                (objects / gone).rmdir()
        return read(path)

    monkeypatch.setattr(os, reader, goes)

    assert empty in remove_local_leftovers(tmp_path, (), datetime.now(UTC) + timedelta(days=1))


def test_a_model_card_that_cannot_be_read_is_told_and_stops_nothing_and_its_zips_stay(
    sweep, ada, context, clock, caplog
):
    archive = "models/broken/" + "0" * 64 + ".zip"
    asyncio.run(context.objects.write(archive, b"zip"))
    asyncio.run(context.objects.write(keys.model_card("broken"), b'{"old": 1}'))
    begin(ada, 1000)
    clock.forward(timedelta(days=2))

    assert sweep().uploads == 1
    assert "broken" in caplog.text
    assert {archive, keys.model_card("broken")} <= set(stored(context))


def test_two_sweeps_at_once_remove_what_one_would(context, ada, upload, emd_3197, clock, tmp_path):
    kept = upload(emd_3197).json()["file_id"]
    for _ in range(5):
        begin(ada, 1000)
    asyncio.run(context.objects.write(keys.file_volume("file_bbbbbbbbbbbb"), b"no record"))
    clock.forward(timedelta(days=2))
    jobs = LocalJobReferences(tmp_path / "data" / "jobs.sqlite")

    async def both() -> None:
        await asyncio.gather(*(Sweep(context.objects, jobs, RULES, clock, tmp_path / "data").run() for _ in range(3)))

    asyncio.run(both())

    assert uploads_folder(context) == []
    assert [key for key in stored(context) if key.startswith("files/")] == [
        keys.file_record(kept),
        keys.file_volume(kept),
    ]


@pytest.mark.parametrize("step", range(12))
def test_a_sweep_that_dies_anywhere_is_finished_by_the_next(sweep, context, ada, upload, emd_3197, clock, step):
    rules = Rules(RULES.margin, RULES.grace, keep_files=timedelta(days=1))
    upload(emd_3197)
    begin(ada, 1000)
    clock.forward(timedelta(days=2))

    with contextlib.suppress(ServerDied):
        sweep(rules, DyingStore(context.objects, step, done=True))
    for _ in range(3):
        clock.forward(timedelta(days=2))
        sweep(rules)

    assert uploads_folder(context) == []
    assert [key for key in stored(context) if not key.startswith("models/")] == []


def test_a_record_that_cannot_be_read_is_told_and_stops_nothing(sweep, ada, context, clock, caplog):
    asyncio.run(context.objects.write(keys.upload_session("upl_aaaaaaaaaaaa"), b"{"))
    begin(ada, 1000)
    clock.forward(timedelta(hours=3))

    assert sweep().uploads == 1
    assert "upl_aaaaaaaaaaaa" in caplog.text
    assert keys.upload_session("upl_aaaaaaaaaaaa") in stored(context)


def test_the_server_sweeps_by_itself_and_a_sweep_that_fails_is_repeated(caplog, monkeypatch):
    class Failing(Sweep):
        runs = 0

        async def run(self) -> Swept:
            self.runs += 1
            if self.runs < 3:
                raise OSError("no")
            enough.set()
            return Swept(1, 0, 0, 0, 0)

    async def story() -> None:
        async with sweeping(Failing(None, None, RULES, None), timedelta(milliseconds=1)):
            await asyncio.wait_for(enough.wait(), 30)

    enough = asyncio.Event()
    asyncio.run(story())

    assert "the sweep failed" in caplog.text


def test_an_interval_of_zero_means_that_the_server_does_not_sweep():
    async def story() -> list[str]:
        async with sweeping(Sweep(None, None, RULES, None), timedelta()):
            return [task.get_name() for task in asyncio.all_tasks()]

    assert "sweep" not in asyncio.run(story())
