"""Downloads: who holds a good link gets the artifact that it names."""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryomamba_apiserver.artifacts.conditions import Representation
from cryomamba_apiserver.artifacts.signing import LinkSigner
from cryomamba_apiserver.errors import ForbiddenError, NotFoundError
from cryomamba_apiserver.ports.job_store import JobMissingError, JobRecord, JobStatus, JobStore
from cryomamba_crds import keys
from cryomamba_crds.report import Artifact

_A_NAME = re.compile(r"(?!\.{1,2}\Z)[^/\\\0]+")
"""Of one file, not of a way through folders."""
_LONGEST_EXPIRY = 20
"""Digits."""


@dataclass(frozen=True)
class Link:
    """A link as somebody sent it."""

    job_id: str
    name: str
    token: str
    expires: str
    """Unix time in seconds."""


@dataclass(frozen=True)
class Download:
    """An artifact that somebody may have."""

    name: str
    key: str
    """In the store."""
    held: Representation
    link_ends_in: timedelta


class Downloads:
    """Finds what links stand for."""

    def __init__(self, jobs: JobStore, signer: LinkSigner, now: Callable[[], datetime]) -> None:
        """Take the jobs, what signs their links, and the clock."""
        self._jobs = jobs
        self._signer = signer
        self._now = now

    async def find(self, link: Link) -> Download:
        """Return what a link stands for.

        Raises:
            ForbiddenError: it was not made here, was changed, or has expired; also for a job that is not there, so that
                nobody learns without a link which jobs there are.
            NotFoundError: the link is good, and the job has no such artifact.
        """
        try:
            record = await self._jobs.get(link.job_id)
        except JobMissingError:
            raise _refused() from None
        now, expires = self._now(), _seconds(link.expires)
        owner = record.request.owner or ""
        if expires is None or not self._signer.valid(link.job_id, link.name, owner, link.token, expires, now):
            raise _refused()
        return _download(record, link.name, datetime.fromtimestamp(expires, UTC) - now)


def no_artifact() -> NotFoundError:
    """Return the refusal where a good link leads to nothing."""
    return NotFoundError("There is no such artifact.", hint="GET /v1/jobs/{job_id} lists a job's artifacts.")


def _refused() -> ForbiddenError:
    return ForbiddenError("The link is not valid or has expired.", hint="Get a fresh one from GET /v1/jobs/{job_id}.")


def _seconds(text: str) -> int | None:
    """Return a time as the server writes it; the same time written in another way is another link."""
    plain = text.isascii() and text.isdigit() and len(text) <= _LONGEST_EXPIRY
    return int(text) if plain and str(int(text)) == text else None


def _download(record: JobRecord, name: str, link_ends_in: timedelta) -> Download:
    artifacts = record.result.artifacts if record.status is JobStatus.COMPLETED and record.result else []
    artifact = next((artifact for artifact in artifacts if artifact.name == name), None)
    if artifact is None or record.result is None or not _A_NAME.fullmatch(name):
        raise no_artifact()
    # Not the key that the runner reported: what a job may write and what may be read for it is below this prefix.
    key = keys.attempt_prefix(record.uid, record.result.attempt) + name
    return Download(name=name, key=key, held=_representation(key, artifact), link_ends_in=link_ends_in)


def _representation(key: str, artifact: Artifact) -> Representation:
    # An attempt writes each of its artifacts once, so that this stands for the bytes without reading them.
    what = f"{key}\n{artifact.size}\n{artifact.created_at.isoformat()}"
    etag = f'"{hashlib.sha256(what.encode()).hexdigest()[:32]}"'
    return Representation(size=artifact.size, etag=etag, modified_at=artifact.created_at)
