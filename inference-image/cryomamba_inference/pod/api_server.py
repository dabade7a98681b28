"""The one thing that a pod asks of the Kubernetes API: to patch the status of its own job."""

import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import urllib3
from urllib3.exceptions import HTTPError

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.resource import GROUP, PLURAL, VERSION

_CONNECT_SECONDS = 5.0
_READ_SECONDS = 10.0
_OK = 200
_BEGIN_OF_REFUSALS = 300


@dataclass(frozen=True)
class Answer:
    """What the API server said to a patch, or that it said nothing."""

    accepted: bool
    status: int = 0
    """Of HTTP; 0 where there was no answer."""
    message: str = ""
    """Why not."""
    attempt: int | None = None
    """Which attempt the operator counts this pod as; None where it has not seen it yet."""
    retry_after: float = 0.0
    """Seconds in which it does not want to be asked again."""


class StatusWriter(Protocol):
    """Writes to the status of one job."""

    def patch(self, status: dict[str, Any]) -> Answer:
        """Merge a patch into the status; never raises because it is refused or cannot be sent."""


class ApiServer:
    """The real one.

    Args:
        url: Of the API server, without a path.
        account: Folder with `token` and `ca.crt`; the token is read anew for each request, as kubelet replaces it.
        namespace: The job's.
        name: The job's.
        pod_uid: The pod's own.

    Raises:
        FailureError: The pod has no service account.
    """

    def __init__(self, url: str, account: Path, *, namespace: str, name: str, pod_uid: str) -> None:
        self._pod_uid = pod_uid
        self._url = f"{url}/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}/{name}/status"
        self._token = account / "token"
        try:
            trust = ssl.create_default_context(cafile=account / "ca.crt")
        except OSError as error:
            raise FailureError(
                FailureCode.VALIDATION_ERROR,
                f"The pod cannot report to its job: {account / 'ca.crt'} cannot be read ({type(error).__name__}).",
                hint="The operator mounts the token of the runners' service account; a pod template of the "
                "administrator's must not take it away.",
            ) from None
        self._http = urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=_CONNECT_SECONDS, read=_READ_SECONDS), retries=False, ssl_context=trust
        )

    def patch(self, status: dict[str, Any]) -> Answer:
        """See `StatusWriter`."""
        try:
            headers = {
                "Authorization": f"Bearer {self._token.read_text().strip()}",
                "Content-Type": "application/merge-patch+json",
                "Accept": "application/json",
            }
            answer = self._http.request("PATCH", self._url, body=json.dumps({"status": status}), headers=headers)
        except (HTTPError, OSError) as error:
            return Answer(accepted=False, message=f"{type(error).__name__}: no answer")
        return read_answer(answer.status, answer.data, answer.headers.get("Retry-After", ""), self._pod_uid)


def read_answer(status: int, body: bytes, retry_after: str, pod_uid: str) -> Answer:
    """Return what an answer of the API server means to the pod of this uid.

    The number of an attempt is that of the pod which the operator has recorded; it is taken for one's own only where
    that is oneself, also where no admission policy sees to it.
    """
    try:
        said = json.loads(body)
    except ValueError:
        said = {}
    if not isinstance(said, dict):
        said = {}
    if _OK <= status < _BEGIN_OF_REFUSALS:
        recorded = said.get("status") or {}
        return Answer(
            accepted=True, status=status, attempt=recorded.get("attempt") if recorded.get("podUid") == pod_uid else None
        )
    seconds = float(retry_after) if retry_after.isdecimal() else 0.0
    return Answer(
        accepted=False, status=status, message=str(said.get("message", "no reason"))[:500], retry_after=seconds
    )
