"""What the sweep decides to remove: case by case, and properties that hold whatever there is."""

from datetime import UTC, datetime, timedelta
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cryomamba_apiserver.ports.job_references import JobReference
from cryomamba_apiserver.ports.object_store import ObjectStat, PendingUpload
from cryomamba_apiserver.sweep.decide import Inventory, Removal, Rules, what_to_remove
from cryomamba_apiserver.uploads.schemas import UploadSession
from cryomamba_crds import keys
from cryomamba_crds.keys import OpenUpload, StoredFile

NOW = datetime(2025, 10, 17, 10, 30, tzinfo=UTC)
MARGIN, GRACE = timedelta(minutes=5), timedelta(days=1)
RULES = Rules(margin=MARGIN, grace=GRACE)
LONG_AGO = NOW - timedelta(days=90)
FILE, UPLOAD, UID = "file_aaaaaaaaaaaa", "upl_aaaaaaaaaaaa", "0000-uid"


def ago(**time: float) -> datetime:
    return NOW - timedelta(**time)


def stat(key: str, modified_at: datetime = LONG_AGO) -> ObjectStat:
    return ObjectStat(key=key, size=1, modified_at=modified_at, etag="e")


def session(status: str = "active", expires_at: datetime = NOW + timedelta(hours=1), stage: str = "receiving"):
    return UploadSession.model_validate(
        {
            "upload_id": UPLOAD,
            "owner": "ada",
            "multipart_id": "m1",
            "file_id": FILE,
            "filename": "v.mrc",
            "total_size": 10,
            "chunk_size": 10,
            "content_type": "a/b",
            "metadata": {},
            "status": status,
            "stage": stage,
            "created_at": expires_at - timedelta(hours=2),
            "expires_at": expires_at,
        }
    )


def job(ended_at: datetime | None = None, *named: str, model: str = "models/demo/1.zip") -> JobReference:
    return JobReference("job_aaaaaaaaaaaa", UID, FILE, frozenset({model}), ended_at, frozenset(named))


def decide(*, rules: Rules = RULES, **found) -> Removal:
    return what_to_remove(
        Inventory(
            **{"pending": (), "objects": (), "sessions": (), "models": {}, "jobs": ()} | found,
        ),
        rules,
        NOW,
    )


PENDING = [PendingUpload("m1", keys.file_volume(FILE), LONG_AGO)]


def test_an_upload_whose_time_has_run_out_is_expired():
    over = session(expires_at=ago(minutes=6))

    assert decide(pending=PENDING, sessions=[over]).expire == (over,)


@pytest.mark.parametrize("kept", [session(), session(expires_at=ago(minutes=4))])
def test_an_upload_under_way_keeps_its_parts(kept):
    assert decide(pending=PENDING, sessions=[kept]) == Removal()


@pytest.mark.parametrize("stage", ["assembling", "checking"])
def test_an_upload_that_is_being_completed_has_the_grace(stage):
    volume = [stat(keys.file_volume(FILE))]

    assert decide(objects=volume, sessions=[session(expires_at=ago(hours=23), stage=stage)]) == Removal()
    assert decide(objects=volume, sessions=[session(expires_at=ago(hours=24), stage=stage)]).expire


@pytest.mark.parametrize("status", ["completed", "rejected", "aborted", "expired"])
def test_parts_of_an_upload_that_is_over_go_at_once(status):
    assert decide(pending=PENDING, sessions=[session(status)]).uploads == ("m1",)


def test_parts_without_a_session_go_after_the_grace():
    fresh = PendingUpload("fresh", keys.file_volume(FILE), ago(hours=23))
    old = PendingUpload("old", keys.file_volume(FILE), ago(hours=24))

    assert decide(pending=[fresh, old]).uploads == ("old",)


def test_the_record_of_an_upload_that_is_over_is_kept_for_the_grace_so_that_it_can_be_asked_for():
    records = [stat(keys.upload_session(UPLOAD)), stat(keys.upload_parts(UPLOAD))]

    assert decide(objects=records, sessions=[session("completed", ago(hours=23))]).objects == ()
    assert decide(objects=records, sessions=[session("completed", ago(hours=24))]).objects == (
        keys.upload_parts(UPLOAD),
        keys.upload_session(UPLOAD),
    )


@pytest.mark.parametrize("status", ["rejected", "aborted", "expired"])
def test_the_volume_of_an_upload_that_came_to_nothing_goes_at_once(status):
    volume = stat(keys.file_volume(FILE), NOW)

    assert decide(objects=[volume], sessions=[session(status)]).objects == (volume.key,)


def test_a_volume_that_no_record_names_goes_after_the_grace():
    assert decide(objects=[stat(keys.file_volume(FILE), ago(hours=23))]) == Removal()
    assert decide(objects=[stat(keys.file_volume(FILE), ago(hours=24))]).objects == (keys.file_volume(FILE),)


def test_a_file_with_its_record_stays_for_ever_unless_a_setting_says_otherwise():
    objects = [stat(keys.file_record(FILE)), stat(keys.file_volume(FILE))]

    assert decide(objects=objects) == Removal()
    assert decide(objects=objects, rules=Rules(MARGIN, GRACE, keep_files=timedelta(days=90))).retire == (FILE,)
    assert decide(objects=objects, rules=Rules(MARGIN, GRACE, keep_files=timedelta(days=91))) == Removal()


def test_a_file_that_a_job_waits_for_is_kept_however_old():
    objects = [stat(keys.file_record(FILE)), stat(keys.file_volume(FILE))]
    rules = Rules(MARGIN, GRACE, keep_files=timedelta(days=1))

    assert decide(objects=objects, jobs=[job()], rules=rules) == Removal()
    assert decide(objects=objects, jobs=[job(LONG_AGO)], rules=rules).retire == (FILE,)


def test_the_volume_of_a_retired_file_waits_for_jobs_that_came_in_meanwhile():
    volume = stat(keys.file_volume(FILE))

    for tombstone, jobs, gone in (
        (ago(minutes=4), [], False),
        (ago(minutes=6), [], True),
        (ago(minutes=6), [job()], False),
    ):
        removed = decide(objects=[volume, stat(keys.file_tombstone(FILE), tombstone)], jobs=jobs).objects
        assert (volume.key in removed) == gone


ATTEMPTS = [stat(f"jobs/{UID}/{attempt}/{name}") for attempt, name in product((1, 2), ("a.mrc", "preview-live.png"))]


def test_what_a_queued_or_running_job_wrote_stays():
    assert decide(objects=ATTEMPTS, jobs=[job()]) == Removal()


def test_of_a_job_that_has_ended_what_its_record_names_stays():
    named = (f"jobs/{UID}/2/a.mrc", f"jobs/{UID}/2/preview-live.png", keys.job_manifest(UID))
    objects = [*ATTEMPTS, stat(keys.job_manifest(UID))]

    assert decide(objects=objects, jobs=[job(ago(hours=23), *named)]) == Removal()
    assert decide(objects=objects, jobs=[job(ago(hours=24), *named)]).objects == (
        f"jobs/{UID}/1/a.mrc",
        f"jobs/{UID}/1/preview-live.png",
    )


def test_what_attempts_left_for_each_other_goes_however_the_job_has_ended():
    left = [stat(f"{keys.checkpoint_prefix(UID)}{name}") for name in ("0123456789abcdef-0-12", "index.json")]
    names = tuple(one.key for one in left)
    completed = (f"jobs/{UID}/2/", f"jobs/{UID}/2/preview-live.png", keys.job_manifest(UID))

    assert decide(objects=left, jobs=[job()]) == Removal()
    assert decide(objects=left, jobs=[job(ago(hours=24), *completed)]).objects == names
    assert decide(objects=left, jobs=[job(ago(hours=24), f"jobs/{UID}/2/preview-live.png")]).objects == names
    assert decide(objects=left).objects == names, "and so it does when there is no record of the job any more"


def test_what_a_job_without_a_record_wrote_goes_once_nothing_of_it_is_new():
    assert decide(objects=[*ATTEMPTS, stat(f"jobs/{UID}/3/new", ago(hours=1))]) == Removal()
    assert len(decide(objects=ATTEMPTS).objects) == 4


def test_a_job_is_forgotten_only_if_a_setting_says_so_and_it_has_ended():
    rules = Rules(MARGIN, GRACE, keep_jobs=timedelta(days=30))

    assert decide(jobs=[job(LONG_AGO)]).jobs == ()
    assert decide(jobs=[job(LONG_AGO)], rules=rules).jobs == ("job_aaaaaaaaaaaa",)
    assert decide(jobs=[job(ago(days=29))], rules=rules).jobs == ()
    assert decide(jobs=[job()], rules=rules).jobs == ()


CURRENT, OLDER = "models/demo/2.zip", "models/demo/1.zip"


def test_a_zip_that_the_card_no_longer_names_goes_unless_a_job_waits_for_it():
    objects = [stat(keys.model_card("demo")), stat(CURRENT), stat(OLDER)]

    assert decide(objects=objects, models={"demo": frozenset({CURRENT})}).objects == (OLDER,)
    assert decide(objects=objects, models={"demo": frozenset({CURRENT})}, jobs=[job()]) == Removal()
    assert decide(objects=objects, models={"demo": frozenset({CURRENT})}, jobs=[job(LONG_AGO)]).objects == (OLDER,)


def test_a_zip_stays_for_the_grace_after_it_was_replaced():
    objects = [stat(keys.model_card("demo"), ago(hours=23)), stat(CURRENT), stat(OLDER)]

    assert decide(objects=objects, models={"demo": frozenset({CURRENT})}) == Removal()


def test_a_zip_whose_card_is_not_written_yet_stays_for_the_grace():
    assert decide(objects=[stat(CURRENT, ago(hours=23))]) == Removal()
    assert decide(objects=[stat(CURRENT)]).objects == (CURRENT,)


def test_the_mark_of_an_upload_goes_with_it_and_that_of_a_file_with_the_file():
    def mark(expires: datetime) -> str:
        return keys.open_upload("ada", OpenUpload(UPLOAD, 10, int(expires.timestamp())))

    open_, over = mark(NOW + timedelta(hours=1)), mark(ago(minutes=6))
    file = keys.stored_file("ada", StoredFile(FILE, 10))
    present = [stat(keys.file_record(FILE)), stat(keys.file_volume(FILE))]

    assert decide(objects=[stat(open_), stat(over)]).objects == (over,)
    assert decide(objects=[stat(open_)], sessions=[session("aborted")]).objects == (open_,)
    assert decide(objects=[stat(file), *present]) == Removal()
    assert decide(objects=[stat(file)]).objects == (file,)
    assert decide(objects=[stat(file, ago(hours=23))]) == Removal()


moments = st.integers(0, 60 * 24 * 10).map(lambda minutes: NOW - timedelta(minutes=minutes))
numbers = st.integers(0, 3)


@st.composite
def inventories(draw) -> Inventory:
    """Whatever mixture of records and objects may be met; few ids, so that they often belong together."""
    uploads = [f"upl_{number:012}" for number in range(4)]
    files = [f"file_{number:012}" for number in range(4)]
    uids = [f"uid-{number}" for number in range(4)]
    sessions = [
        session(
            draw(st.sampled_from(["active", "active", "completed", "rejected", "aborted", "expired"])),
            draw(moments) + timedelta(days=2),
            draw(st.sampled_from(["receiving", "assembling", "checking", "done"])),
        ).model_copy(update={"upload_id": uploads[number], "file_id": files[number], "multipart_id": f"m{number}"})
        for number in draw(st.sets(numbers))
    ]
    possible = [
        *[keys.upload_session(session.upload_id) for session in sessions],
        *map(keys.upload_parts, uploads),
        *[key(file) for key in (keys.file_record, keys.file_volume, keys.file_tombstone) for file in files],
        *[f"jobs/{uid}/{attempt}/{name}" for uid in uids for attempt in (1, 2) for name in "ab"],
        *map(keys.job_manifest, uids),
        *[keys.open_upload("ada", OpenUpload(upload, 1, int(draw(moments).timestamp()))) for upload in uploads],
        *[keys.stored_file("ada", StoredFile(file, 1)) for file in files],
        *[f"models/{name}/{version}.zip" for name in ("demo", "other") for version in range(3)],
        *map(keys.model_card, ("demo", "other")),
    ]
    jobs = [
        JobReference(
            job_id=f"job_{number}",
            uid=uids[number],
            file_id=files[draw(numbers)],
            model_keys=frozenset({f"models/demo/{draw(st.integers(0, 2))}.zip"}),
            ended_at=draw(st.none() | moments),
            keys=frozenset(draw(st.sets(st.sampled_from([f"jobs/{uids[number]}/2/{name}" for name in "ab"])))),
        )
        for number in draw(st.sets(numbers))
    ]
    return Inventory(
        pending=[PendingUpload(f"m{number}", "k", draw(moments)) for number in draw(st.sets(numbers))],
        objects=[stat(key, draw(moments)) for key in sorted(draw(st.sets(st.sampled_from(possible))))],
        sessions=sessions,
        models={
            name: frozenset({f"models/{name}/{draw(st.integers(0, 2))}.zip"}) for name in draw(st.sets(st.just("demo")))
        },
        jobs=jobs,
    )


days = st.none() | st.integers(1, 8).map(lambda number: timedelta(days=number))
all_rules = st.builds(Rules, margin=st.just(MARGIN), grace=st.just(GRACE), keep_files=days, keep_jobs=days)


@given(inventories(), all_rules)
def test_nothing_goes_that_a_queued_or_running_job_needs(inventory, rules):
    removal = what_to_remove(inventory, rules, NOW)

    for job in inventory.jobs:
        if job.ended_at is None:
            assert keys.file_record(job.file_id) not in removal.objects
            assert job.file_id not in removal.retire
            assert not any(key.startswith(keys.job_prefix(job.uid)) for key in removal.objects)
            assert not job.model_keys & set(removal.objects)
            assert job.job_id not in removal.jobs


@given(inventories(), all_rules)
def test_nothing_goes_that_an_upload_under_way_needs(inventory, rules):
    removal = what_to_remove(inventory, rules, NOW)

    for session in inventory.sessions:
        if session.status == "active" and session.expires_at > NOW:
            assert session not in removal.expire
            assert session.multipart_id not in removal.uploads
            assert keys.file_volume(session.file_id) not in removal.objects
            assert not any(key.startswith(keys.upload_prefix(session.upload_id)) for key in removal.objects)


@given(inventories(), all_rules)
def test_nothing_goes_that_a_record_names(inventory, rules):
    removal = what_to_remove(inventory, rules, NOW)

    present = {stat.key for stat in inventory.objects}
    for key in removal.objects:
        if key.startswith("files/"):
            assert keys.file_record(key.split("/")[1]) not in present
        assert not any(key in (named or ()) for named in inventory.models.values())
        assert not any(key in job.keys for job in inventory.jobs)
        assert not key.endswith("model.json")


@given(inventories(), all_rules)
def test_nothing_new_goes_that_no_record_says_is_over(inventory, rules):
    removal = what_to_remove(inventory, rules, NOW)

    over = {session.file_id for session in inventory.sessions if session.status != "active"}
    retired = {stat.key.split("/")[1] for stat in inventory.objects if stat.key.endswith("/removed")}
    for stat_ in inventory.objects:
        named = stat_.key.split("/")[1]
        if stat_.key in removal.objects and stat_.key.startswith(("files/", "jobs/", "models/")):
            assert stat_.modified_at <= NOW - GRACE or named in over | retired


@given(inventories(), all_rules)
def test_only_what_is_there_goes(inventory, rules):
    removal = what_to_remove(inventory, rules, NOW)

    assert set(removal.objects) <= {stat.key for stat in inventory.objects}
    assert set(removal.uploads) <= {upload.id for upload in inventory.pending}
    assert all(session in inventory.sessions for session in removal.expire)
    assert set(removal.jobs) <= {job.job_id for job in inventory.jobs}


def after(inventory: Inventory, removal: Removal, now: datetime) -> Inventory:
    """What there is once a removal was carried out."""
    gone = {*removal.objects, *map(keys.file_record, removal.retire)}
    expired = {session.upload_id for session in removal.expire}
    return Inventory(
        pending=[
            upload
            for upload in inventory.pending
            if upload.id not in removal.uploads and upload.id not in {s.multipart_id for s in removal.expire}
        ],
        objects=[
            *[stat for stat in inventory.objects if stat.key not in gone],
            *[stat(keys.file_tombstone(file_id), now) for file_id in removal.retire],
        ],
        sessions=[
            session.model_copy(update={"status": "expired"}) if session.upload_id in expired else session
            for session in inventory.sessions
            if keys.upload_session(session.upload_id) not in gone
        ],
        models=inventory.models,
        jobs=[job for job in inventory.jobs if job.job_id not in removal.jobs],
    )


@given(inventories(), all_rules)
def test_it_comes_to_rest_and_by_then_nothing_is_left_that_nothing_needs(inventory, rules):
    much_later = NOW + timedelta(days=30)
    for _ in range(5):
        removal = what_to_remove(inventory, rules, much_later)
        inventory = after(inventory, removal, much_later - timedelta(hours=1))

    assert what_to_remove(inventory, rules, much_later) == Removal()
    live = {job.file_id for job in inventory.jobs if job.ended_at is None}
    left = {stat.key for stat in inventory.objects}
    assert inventory.pending == []
    assert not any(key.startswith("uploads/") and "session" in key for key in left)
    for key in left:
        if key.startswith("files/"):
            file_id = key.split("/")[1]
            assert keys.file_record(file_id) in left or file_id in live


def test_the_zips_of_a_model_whose_card_cannot_be_read_stay():
    objects = [stat(keys.model_card("demo")), stat(CURRENT), stat(OLDER)]

    assert decide(objects=objects, models={"demo": None}) == Removal()
