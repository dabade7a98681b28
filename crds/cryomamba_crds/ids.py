"""Ids of uploads, files and jobs, and the two-way mapping between a job's id and its resource's name."""

import re
import secrets
from typing import NamedTuple

_ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789"
_LENGTH = 12  # 62 bits: never guessed by chance, and the owner is checked as well

JOB_ID_PATTERN = r"^[a-z0-9][a-z0-9_-]{0,56}$"

_UPLOAD_ID = re.compile(r"^upl_[a-z0-9]{12}\Z")
_FILE_ID = re.compile(r"^file_[a-z0-9]{12}\Z")
_GENERATED_ID = re.compile(r"^job_[a-z0-9]{12}$")
_GENERATED_NAME = re.compile(r"^job-[a-z0-9]{12}$")


class Key(NamedTuple):
    """Which SegmentationJob; its Kubernetes Job has the same name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As kubectl and logs write it."""
        return f"{self.namespace}/{self.name}"


def _new(prefix: str) -> str:
    return f"{prefix}_" + "".join(secrets.choice(_ALPHABET) for _ in range(_LENGTH))


def new_upload_id() -> str:
    """Return a fresh id such as ``upl_abc123def456``."""
    return _new("upl")


def new_file_id() -> str:
    """Return a fresh id such as ``file_xyz789abc123``."""
    return _new("file")


def new_job_id() -> str:
    """Return a fresh id such as ``job_mno345pqr678``."""
    return _new("job")


def is_upload_id(text: str) -> bool:
    """Return whether a client's text has the form of an upload's id, and so may become part of a key."""
    return _UPLOAD_ID.match(text) is not None


def is_file_id(text: str) -> bool:
    """Return whether a client's text has the form of a file's id, and so may become part of a key."""
    return _FILE_ID.match(text) is not None


def resource_name(job_id: str) -> str:
    """Return the name of a job's resource; a name that somebody else gave with kubectl is its own id."""
    return job_id.replace("_", "-") if _GENERATED_ID.match(job_id) else job_id


def job_id(name: str) -> str:
    """Return the id under which the API shows the resource of this name; the inverse of `resource_name`."""
    return name.replace("-", "_") if _GENERATED_NAME.match(name) else name
