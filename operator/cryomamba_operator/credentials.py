"""Hands each job its own credentials for the object store: a Secret that its Job owns, renewed before it expires."""

import base64
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

from cryomamba_crds import pod
from cryomamba_crds.ids import Key
from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.access import session_policy
from cryomamba_operator.manifests import credentials_secret
from cryomamba_operator.names import CREDENTIALS_TYPE, JOB_LABEL, MANAGED_BY, MANAGED_BY_LABEL
from cryomamba_operator.ports import Cluster
from cryomamba_operator.settings import Settings, read_file_setting
from cryomamba_operator.sts import StsError, TemporaryCredentials, TokenService, Trouble

logger = logging.getLogger(__name__)

_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_BREATHER = timedelta(seconds=5)
"""In which a store that did not answer one job is not asked for the next: each would keep a worker for seconds."""
_SESSION_NAME = 64
"""Longest that AWS takes."""


class JobCredentials(Protocol):
    """What the reconciler asks for on behalf of a job."""

    async def prepare(self, record: SegmentationJob) -> TemporaryCredentials | None:
        """Return new credentials for a job that may not have a Job yet, so that none is made where there are none.

        Raises:
            StsError: There are none.
        """

    async def deliver(self, record: SegmentationJob, job_uid: str, credentials: TemporaryCredentials | None) -> None:
        """Put credentials where the pods of a Job find them.

        Raises:
            RefusedError: The API server refuses the Secret.
        """

    def due(self, record: SegmentationJob, job_uid: str) -> datetime | None:
        """Return when a Job's credentials are to be renewed; None where they never are."""

    def forget(self, key: Key) -> None:
        """Take in that a record is over or gone."""


class SharedCredentials:
    """All jobs have the credentials of one Secret that somebody else keeps."""

    async def prepare(self, record: SegmentationJob) -> TemporaryCredentials | None:
        """See `JobCredentials`."""

    async def deliver(self, record: SegmentationJob, job_uid: str, credentials: TemporaryCredentials | None) -> None:
        """See `JobCredentials`."""

    def due(self, record: SegmentationJob, job_uid: str) -> datetime | None:
        """See `JobCredentials`."""

    def forget(self, key: Key) -> None:
        """See `JobCredentials`."""


class OwnCredentials:
    """Each job has temporary ones that open its input, its model and its own prefix.

    When they are to be renewed is known for those that this process has given; after a restart, all that still run get
    new ones.

    Args:
        service: Gives them.
        cluster: Keeps them.
        settings: Of the installation.
        clock: Returns the time.
    """

    def __init__(
        self, service: TokenService, cluster: Cluster, settings: Settings, clock: Callable[[], datetime]
    ) -> None:
        self._service = service
        self._cluster = cluster
        self._settings = settings
        self._clock = clock
        self._half_life = timedelta(seconds=settings.s3_credentials_seconds / 2)
        self._renewals: dict[Key, tuple[str, datetime]] = {}
        self._undelivered: dict[Key, tuple[str | None, TemporaryCredentials]] = {}
        self._away: tuple[datetime, str] | None = None

    async def prepare(self, record: SegmentationJob) -> TemporaryCredentials | None:
        """See `JobCredentials`; what could not be delivered (a quota refuses the Job) is there for the next try."""
        uid, kept = self._undelivered.get(_key(record), (None, None))
        if kept is not None and uid == record.metadata.uid and kept.expires - self._clock() > self._half_life:
            return kept
        credentials = await self._ask(record)
        self._undelivered[_key(record)] = record.metadata.uid, credentials
        return credentials

    async def _ask(self, record: SegmentationJob) -> TemporaryCredentials:
        if self._away is not None and self._clock() < self._away[0] + _BREATHER:
            raise StsError(Trouble.UNREACHABLE, self._away[1])
        session = f"{MANAGED_BY}-{record.metadata.name}"[:_SESSION_NAME]
        self._certificates()  # not to be read is better known before there is a Job
        policy = session_policy(record, self._settings.s3_bucket, _partition(self._settings.s3_role_arn))
        try:
            return await self._service.assume(policy, session)
        except StsError as error:
            if error.trouble is Trouble.UNREACHABLE:
                self._away = self._clock(), str(error)
            raise

    async def deliver(self, record: SegmentationJob, job_uid: str, credentials: TemporaryCredentials | None) -> None:
        """See `JobCredentials`."""
        if credentials is None:
            return
        await self._cluster.apply_secret(secret_manifest(record, job_uid, credentials, self._certificates()))
        self._undelivered.pop(_key(record), None)
        now = self._clock()
        self._renewals[_key(record)] = job_uid, now + max((credentials.expires - now) / 2, timedelta(minutes=1))

    def due(self, record: SegmentationJob, job_uid: str) -> datetime | None:
        """See `JobCredentials`."""
        known, when = self._renewals.get(_key(record), ("", _LONG_AGO))
        return when if known == job_uid else _LONG_AGO

    def forget(self, key: Key) -> None:
        """See `JobCredentials`."""
        self._renewals.pop(key, None)
        self._undelivered.pop(key, None)

    def _certificates(self) -> str | None:
        path = self._settings.s3_ca_file
        if path is None:
            return None
        try:
            return read_file_setting("s3_ca_file", path)
        except ValueError as error:
            raise StsError(Trouble.KEYS, str(error)) from None


def secret_manifest(
    record: SegmentationJob, job_uid: str, credentials: TemporaryCredentials, certificates: str | None
) -> dict[str, Any]:
    """Return the Secret of a job; its Job owns it, so that it goes with it.

    Args:
        record: Whose Job it is.
        job_uid: The uid of the Job itself.
        credentials: What goes into it.
        certificates: Those to trust in place of the system's, in PEM form; None: the system's.
    """
    metadata = record.metadata
    files = {
        pod.ACCESS_KEY_FILE: credentials.access_key,
        pod.SECRET_KEY_FILE: credentials.secret_key,
        pod.SESSION_TOKEN_FILE: credentials.session_token,
        **({pod.CERTIFICATES.rpartition("/")[2]: certificates} if certificates else {}),
    }
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": credentials_secret(metadata.name),
            "namespace": metadata.namespace,
            "labels": {MANAGED_BY_LABEL: MANAGED_BY, JOB_LABEL: metadata.name},
            "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "Job", "name": metadata.name, "uid": job_uid, "controller": True}
            ],
        },
        "type": CREDENTIALS_TYPE,
        "data": {name: base64.b64encode(text.encode()).decode() for name, text in files.items()},
    }


def _key(record: SegmentationJob) -> Key:
    return Key(record.metadata.namespace or "", record.metadata.name)


def _partition(role_arn: str | None) -> str:
    """Return the second word of a role's name, such as `aws` or `aws-cn`."""
    words = (role_arn or "").split(":")
    return words[1] if len(words) > 1 and words[1] else "aws"
