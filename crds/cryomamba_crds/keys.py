"""Keys of objects in the store (design section 5). No name that a client sends is ever part of one."""

import hashlib
from typing import NamedTuple


class OpenUpload(NamedTuple):
    """What the key of an open upload's mark says, so that nothing has to be read to count them."""

    upload_id: str
    size: int
    """Bytes of the whole file."""
    expires: int
    """Unix time in seconds."""


class StoredFile(NamedTuple):
    """What the key of a file's mark says."""

    file_id: str
    size: int
    """In bytes."""


def upload_session(upload_id: str) -> str:
    """Record of an upload under way."""
    return f"uploads/{upload_id}/session.json"


def upload_parts(upload_id: str) -> str:
    """The parts that an upload was completed with; the store forgets them once it has put them together."""
    return f"uploads/{upload_id}/parts.json"


def upload_refusal(upload_id: str) -> str:
    """Why an upload's file was refused; written once, whichever server judged it."""
    return f"uploads/{upload_id}/refusal.json"


def upload_prefix(upload_id: str) -> str:
    """All records of an upload."""
    return f"uploads/{upload_id}/"


def uploads_prefix() -> str:
    """All records of all uploads."""
    return "uploads/"


def owners_prefix() -> str:
    """The marks of everybody's open uploads and files."""
    return "owners/"


def owner_uploads_prefix(owner: str) -> str:
    """One owner's open uploads; the owner's name is a client's, so its digest stands for it."""
    return f"owners/{_digest(owner)}/uploads/"


def owner_files_prefix(owner: str) -> str:
    """One owner's files."""
    return f"owners/{_digest(owner)}/files/"


def open_upload(owner: str, mark: OpenUpload) -> str:
    """An empty object that is there while an upload is open."""
    return f"{owner_uploads_prefix(owner)}{mark.expires}-{mark.size}-{mark.upload_id}"


def stored_file(owner: str, mark: StoredFile) -> str:
    """An empty object that is there while a file is."""
    return f"{owner_files_prefix(owner)}{mark.size}-{mark.file_id}"


def read_owner_mark(key: str) -> OpenUpload | StoredFile:
    """Return what a key of `open_upload` or `stored_file` says."""
    _, _, kind, name = key.split("/")
    if kind == "files":
        size, file_id = name.split("-")
        return StoredFile(file_id=file_id, size=int(size))
    expires, size, upload_id = name.split("-")
    return OpenUpload(upload_id=upload_id, size=int(size), expires=int(expires))


def files_prefix() -> str:
    """All files."""
    return "files/"


def file_prefix(file_id: str) -> str:
    """All that belongs to a file."""
    return f"files/{file_id}/"


def jobs_prefix() -> str:
    """All that jobs have written."""
    return "jobs/"


def job_prefix(job_uid: str) -> str:
    """All that a job has written."""
    return f"jobs/{job_uid}/"


def file_volume(file_id: str) -> str:
    """The bytes of an uploaded volume."""
    return f"files/{file_id}/volume"


def file_record(file_id: str) -> str:
    """What is known about an uploaded volume."""
    return f"files/{file_id}/file.json"


def file_tombstone(file_id: str) -> str:
    """Says since when a file is no more, while jobs that may just have been created with it are waited for."""
    return f"files/{file_id}/removed"


def attempt_prefix(job_uid: str, attempt: int) -> str:
    """Where one attempt (1-based) writes its artifacts and previews."""
    return f"jobs/{job_uid}/{attempt}/"


def checkpoint_prefix(job_uid: str) -> str:
    """Where attempts leave the planes that are done for the one that comes after; no artifact, so it is swept."""
    return f"jobs/{job_uid}/checkpoint/"


def live_preview(prefix: str) -> str:
    """The newest preview of an attempt, below its prefix; each replaces the one before."""
    return f"{prefix}preview-live.png"


def job_manifest(job_uid: str) -> str:
    """The list of artifacts, written once by the attempt that wins."""
    return f"jobs/{job_uid}/manifest.json"


def model_archive(name: str, digest: str) -> str:
    """The zip of a model; named by its digest (`sha256:…`), so that a newer one never replaces what a job waits for."""
    return f"models/{name}/{digest.removeprefix('sha256:')}.zip"


def model_archive_card(name: str, digest: str) -> str:
    """The card that came with a zip: what a job needs to know of it, whatever the name stands for by then."""
    return f"models/{name}/{digest.removeprefix('sha256:')}.json"


def model_prefix(name: str) -> str:
    """All that belongs to a model."""
    return f"models/{name}/"


def model_card(name: str) -> str:
    """The card of the zip that the name stands for now."""
    return f"models/{name}/model.json"


def models_prefix() -> str:
    """All models of the catalogue."""
    return "models/"


def _digest(owner: str) -> str:
    return hashlib.sha256(owner.encode()).hexdigest()[:32]
