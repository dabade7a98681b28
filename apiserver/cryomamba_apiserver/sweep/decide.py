"""What to remove: a pure decision from records, objects and the time.

Nothing is removed that an active upload, a file's record or a queued or running job names, nor anything that nobody
names before it is older than the grace: whoever wrote it may be about to write the record. The inventory is read in
the order of its fields, objects before the records that name them, so that a record is never older than its objects.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from cryomamba_apiserver.ports.job_references import JobReference
from cryomamba_apiserver.ports.object_store import ObjectStat, PendingUpload
from cryomamba_apiserver.uploads.schemas import UploadSession
from cryomamba_apiserver.uploads.sessions import expiry
from cryomamba_crds import keys
from cryomamba_crds.keys import OpenUpload


@dataclass(frozen=True)
class Inventory:
    """All that there is, read in this order."""

    pending: Sequence[PendingUpload]
    """Uploads whose parts the store holds."""
    objects: Sequence[ObjectStat]
    sessions: Sequence[UploadSession]
    models: Mapping[str, frozenset[str] | None]
    """Keys of the zip that each model's card names and of that zip's card, by the model's name; None where the card
    cannot be read."""
    jobs: Sequence[JobReference]


@dataclass(frozen=True)
class Rules:
    """How long things are kept."""

    margin: timedelta
    """Longer than any request takes between reading one record and writing the next."""
    grace: timedelta
    """How old something must be that nothing names; at least the time of an upload."""
    keep_files: timedelta | None = None
    """None: for ever."""
    keep_jobs: timedelta | None = None
    """How long after their end; None: for ever."""


@dataclass(frozen=True)
class Removal:
    """What is to be removed."""

    expire: tuple[UploadSession, ...] = ()
    """Uploads whose time has run out: their parts are dropped, and they say so from now on."""
    uploads: tuple[str, ...] = ()
    """The store's ids of uploads that nobody can finish any more."""
    retire: tuple[str, ...] = ()
    """Files that are kept no longer: their records go now, their volumes at a later sweep if no job came in between."""
    objects: tuple[str, ...] = ()
    """Keys."""
    jobs: tuple[str, ...] = ()
    """Ids of jobs whose records go now; their objects are then named by nobody."""


def what_to_remove(inventory: Inventory, rules: Rules, now: datetime) -> Removal:
    """Return what nothing needs any more at the time `now`."""
    retired = frozenset(_retired(inventory, rules, now))
    return Removal(
        expire=tuple(session for session in inventory.sessions if expires(session, rules.margin, rules.grace, now)),
        uploads=tuple(_abandoned(inventory, rules, now)),
        retire=tuple(sorted(retired)),
        objects=tuple(
            sorted(
                {
                    *_old_sessions(inventory, rules, now),
                    *_marks(inventory, rules, now),
                    *_volumes(inventory, rules, now),
                    *_leftovers_of_jobs(inventory, rules, now),
                    *_old_models(inventory, rules, now),
                }
            )
        ),
        jobs=tuple(job.job_id for job in inventory.jobs if _older(job.ended_at, rules.keep_jobs, now)),
    )


def is_over(session: UploadSession) -> bool:
    """Return whether nothing can come of an upload any more than what has."""
    return session.status != "active"


def expires(session: UploadSession, margin: timedelta, grace: timedelta, now: datetime) -> bool:
    """Return whether the time of an upload has run out.

    One that all parts have come for may be read at this moment, or may have been when its server died, and takes no
    more than `complete` to be done: it is given the grace.
    """
    return (
        session.status == "active" and session.expires_at + (margin if session.stage == "receiving" else grace) <= now
    )


def _abandoned(inventory: Inventory, rules: Rules, now: datetime) -> Iterator[str]:
    """Parts of uploads that are over, or that never had a session."""
    sessions = {session.multipart_id: session for session in inventory.sessions}
    for upload in inventory.pending:
        session = sessions.get(upload.id)
        if is_over(session) if session else upload.created_at + rules.grace <= now:
            yield upload.id


def _old_sessions(inventory: Inventory, rules: Rules, now: datetime) -> Iterator[str]:
    """Records of uploads that are long over: until then, whoever asks is told how they ended."""
    sessions = {session.upload_id: session for session in inventory.sessions}
    for upload_id, records in _groups(inventory.objects, keys.uploads_prefix()).items():
        session = sessions.get(upload_id)
        if session is None:
            over = _newest(records) + rules.grace <= now and keys.upload_session(upload_id) not in _keys(records)
        else:
            over = is_over(session) and session.expires_at + rules.grace <= now
        if over:
            yield from _keys(records)


def _marks(inventory: Inventory, rules: Rules, now: datetime) -> Iterator[str]:
    """Marks of uploads that are not open any more, and of files that are gone."""
    over = {session.upload_id for session in inventory.sessions if is_over(session)}
    present = _keys(inventory.objects)
    for stat in _below(inventory.objects, keys.owners_prefix()):
        mark = keys.read_owner_mark(stat.key)
        if isinstance(mark, OpenUpload):
            gone = mark.upload_id in over or expiry(mark) + rules.margin <= now
        else:
            gone = keys.file_record(mark.file_id) not in present and stat.modified_at + rules.grace <= now
        if gone:
            yield stat.key


def _retired(inventory: Inventory, rules: Rules, now: datetime) -> Iterator[str]:
    needed = _needed_files(inventory.jobs)
    for file_id, objects in _groups(inventory.objects, keys.files_prefix()).items():
        record = next((stat for stat in objects if stat.key == keys.file_record(file_id)), None)
        if record and file_id not in needed and _older(record.modified_at, rules.keep_files, now):
            yield file_id


def _volumes(inventory: Inventory, rules: Rules, now: datetime) -> Iterator[str]:
    """Volumes without a record."""
    needed = _needed_files(inventory.jobs) | {
        session.file_id for session in inventory.sessions if session.status == "active"
    }
    refused = {session.file_id for session in inventory.sessions if is_over(session) and session.status != "completed"}
    for file_id, objects in _groups(inventory.objects, keys.files_prefix()).items():
        present = _keys(objects)
        if keys.file_record(file_id) in present or file_id in needed:
            continue
        wait = rules.margin if keys.file_tombstone(file_id) in present else rules.grace
        if file_id in refused or _newest(objects) + wait <= now:
            yield from present


def _leftovers_of_jobs(inventory: Inventory, rules: Rules, now: datetime) -> Iterator[str]:
    """What attempts wrote that no record names."""
    jobs = {job.uid: job for job in inventory.jobs}
    for uid, objects in _groups(inventory.objects, keys.jobs_prefix()).items():
        job = jobs.get(uid)
        if _newest(objects) + rules.grace > now:
            continue
        if job is None:
            yield from _keys(objects)
        elif _older(job.ended_at, rules.grace, now):
            below = tuple(key for key in job.keys if key.endswith("/"))
            yield from (key for key in _keys(objects) - job.keys if not key.startswith(below))


def _old_models(inventory: Inventory, rules: Rules, now: datetime) -> Iterator[str]:
    """Zips and their cards that no model names, once no job can have been created with an earlier card."""
    named = {
        *(key for keys_of_card in inventory.models.values() for key in keys_of_card or ()),
        *(key for job in inventory.jobs if job.ended_at is None for key in job.model_keys),
    }
    for name, objects in _groups(inventory.objects, keys.models_prefix()).items():
        if inventory.models.get(name, frozenset()) is None:
            continue  # which zip its card names is not known
        # The card is among them: what it replaced is as old as the card is new.
        if _newest(objects) + rules.grace <= now:
            yield from _keys(objects) - named - {keys.model_card(name)}


def _needed_files(jobs: Iterable[JobReference]) -> set[str]:
    return {job.file_id for job in jobs if job.ended_at is None and job.file_id is not None}


def _below(objects: Iterable[ObjectStat], prefix: str) -> Iterator[ObjectStat]:
    return (stat for stat in objects if stat.key.startswith(prefix))


def _groups(objects: Iterable[ObjectStat], prefix: str) -> dict[str, list[ObjectStat]]:
    """Objects below a prefix by the next part of their keys: the id of the upload, the file, the job, the model."""
    found: dict[str, list[ObjectStat]] = defaultdict(list)
    for stat in _below(objects, prefix):
        found[stat.key.removeprefix(prefix).split("/", 1)[0]].append(stat)
    return found


def _keys(objects: Iterable[ObjectStat]) -> set[str]:
    return {stat.key for stat in objects}


def _newest(objects: Iterable[ObjectStat]) -> datetime:
    return max(stat.modified_at for stat in objects)


def _older(moment: datetime | None, kept: timedelta | None, now: datetime) -> bool:
    return moment is not None and kept is not None and moment + kept <= now
