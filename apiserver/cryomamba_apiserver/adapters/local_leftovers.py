"""What killed processes left in a data directory, outside of what the object store shows.

Other sweeps, and requests, remove and write while this one looks: a folder that has gone meanwhile is as an empty one.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from pathlib import Path

from cryomamba_crds.ids import resource_name

_TEMPORARY = re.compile(r"^\..+\.[0-9a-f]{16}$")
_UPLOAD = re.compile(r"^[0-9a-f]{32}$")
_GENERATED_JOB = re.compile(r"^job_[a-z0-9]{12}$")


def remove_local_leftovers(data_dir: Path, job_ids: Collection[str], older_than: datetime) -> list[Path]:
    """Remove what nobody can be writing any more, and return it; blocking.

    These are files that were never given their name, models that were never unpacked to their end, logs of jobs that
    there are no more, uploads whose record was never written or went before them, and the empty folders of objects
    that were removed.

    Args:
        data_dir: The data directory.
        job_ids: The jobs that there are.
        older_than: What has changed since stays.
    """
    candidates = [
        *_unnamed(data_dir / "store" / "objects"),
        *_unfinished_models(data_dir / "models"),
        *_logs(data_dir / "logs", frozenset(job_ids)),
        *_uploads(data_dir / "store" / "uploads"),
        *_empty(data_dir / "store" / "objects"),
    ]
    return [path for path in candidates if _is_older(path, older_than) and _remove(path)]


def _unnamed(objects: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(objects, onerror=_unless_gone):
        yield from (Path(folder, name) for name in names if _TEMPORARY.match(name))


def _unfinished_models(models: Path) -> Iterator[Path]:
    return (path for path in _entries(models) if path.name.startswith(".unpacking-"))


def _logs(logs: Path, job_ids: frozenset[str]) -> Iterator[Path]:
    known = job_ids | {resource_name(job_id) for job_id in job_ids}
    return (folder for folder in _entries(logs) if _GENERATED_JOB.match(folder.name) and folder.name not in known)


def _uploads(uploads: Path) -> Iterator[Path]:
    """Folders that the store does not list, since what would be listed is not there."""
    return (path for path in _entries(uploads) if path.is_dir() and not (path / "upload.json").exists())


def _empty(objects: Path) -> Iterator[Path]:
    """Folders named by an id that is never used again; nothing will be written into them."""
    owners = _entries(objects / "jobs")
    for parent in (objects / "uploads", objects / "files", *owners, objects / "jobs"):
        yield from (folder for folder in _entries(parent) if folder.is_dir() and not _entries(folder))


def _entries(folder: Path) -> list[Path]:
    try:
        return sorted(folder.iterdir())
    except (FileNotFoundError, NotADirectoryError):
        return []


def _unless_gone(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _is_older(path: Path, moment: datetime) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return datetime.fromtimestamp(path.stat().st_mtime, UTC) <= moment
    return False


def _remove(path: Path) -> bool:
    """Return whether this call removed it; another sweep may be about the same."""
    try:
        if not path.is_dir():
            path.unlink()
        elif path.name.startswith(".") or _GENERATED_JOB.match(path.name) or _UPLOAD.match(path.name):
            shutil.rmtree(path)
        else:
            path.rmdir()
    except FileNotFoundError:
        return False
    except OSError as error:
        if error.errno != errno.ENOTEMPTY:
            raise
        return False  # something has come in
    return True
