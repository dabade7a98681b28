"""What Kubernetes refuses, and in which words an operator of the service is told. Pure."""

import json
from dataclasses import dataclass
from http import HTTPStatus

from cryomamba_apiserver.ports.job_store import JobsRefusedError, JobsUnavailableError
from cryomamba_crds.resource import GROUP, PLURAL

_LONGEST = 500
"""Characters of what Kubernetes says: a webhook may say anything."""


class NotThereError(LookupError):
    """There is no such object."""


class AlreadyThereError(Exception):
    """There is an object of this name."""


class ChangedError(Exception):
    """The object is not as it was any more, or another has its name."""


class ExpiredError(Exception):
    """What was to be gone on with is too old; to be listed anew."""


class UnreachableError(JobsUnavailableError):
    """There was no answer."""


class NotAllowedError(JobsUnavailableError):
    """The server's own rights do not suffice."""


@dataclass(frozen=True)
class Asked:
    """A request, as people speak of it."""

    verb: str
    resource: str
    namespace: str | None

    def __str__(self) -> str:
        """As an administrator would look for it in a Role."""
        where = f" in the namespace {self.namespace}" if self.namespace else ""
        return f"{self.verb} {self.resource}{where}"


def unreachable(asked: Asked, error: BaseException) -> UnreachableError:
    """Return the error for a request that got no answer."""
    return UnreachableError(
        f"The API server of Kubernetes cannot be reached ({type(error).__name__}), to {asked}.",
        hint="Try again in a while; if that does not help, whoever runs the server looks at the control plane.",
    )


def refusal(asked: Asked, status: int, body: bytes) -> Exception:
    """Return the error that an answer means.

    Args:
        asked: What was asked for.
        status: HTTP status, at least 400.
        body: What Kubernetes said.
    """
    said, reason = _said(body)
    if status == HTTPStatus.GONE:
        return ExpiredError(said)
    if status == HTTPStatus.CONFLICT:
        return AlreadyThereError(said) if reason == "AlreadyExists" else ChangedError(said)
    if status == HTTPStatus.NOT_FOUND:
        return _not_found(asked, said, reason)
    if status == HTTPStatus.FORBIDDEN:
        return _forbidden(asked, said)
    return _other(asked, status, said)


def _other(asked: Asked, status: int, said: str) -> JobsUnavailableError:
    if status == HTTPStatus.UNAUTHORIZED:
        return JobsUnavailableError(
            f"Kubernetes does not take the server's credentials, to {asked}.",
            hint="Whoever runs the server gives it a service account, or a kubeconfig, that is still good.",
        )
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return JobsUnavailableError(
            f"Kubernetes cannot {asked} now: {said}", hint="Try again in a while; the cluster is busy or starting."
        )
    return JobsRefusedError(
        f"Kubernetes does not {asked}: {said}",
        hint="The CustomResourceDefinition or a policy of the cluster fits another version; whoever runs the server "
        "upgrades them together.",
    )


def _not_found(asked: Asked, said: str, reason: str) -> Exception:
    if reason == "NotFound" and said.startswith("namespaces "):
        return JobsUnavailableError(
            f"The namespace {asked.namespace} is not there, to {asked}.",
            hint="Whoever runs the server creates it, or corrects CRYOMAMBA_KUBERNETES_NAMESPACE.",
        )
    if reason == "NotFound" and f'{PLURAL}.{GROUP} "' in said:
        return NotThereError(said)
    return JobsUnavailableError(
        f"Kubernetes does not know {asked.resource}, to {asked}: its CustomResourceDefinition is not installed.",
        hint="Whoever runs the server applies crds/segmentationjobs.yaml, or sets crds.enabled in the chart.",
    )


def _forbidden(asked: Asked, said: str) -> JobsUnavailableError:
    if 'User "' in said and " cannot " in said:
        return not_allowed(asked)
    if "exceeded quota" in said:
        return JobsUnavailableError(
            f"The cluster's quota is used up: {said}",
            hint="Wait until jobs are removed, or ask whoever runs the cluster for more.",
        )
    return JobsRefusedError(
        f"A policy of the cluster refuses to {asked}: {said}",
        hint="Ask whoever runs the cluster what the policy wants.",
    )


def not_allowed(asked: Asked) -> NotAllowedError:
    """Return the error where a right is missing."""
    return NotAllowedError(
        f"The server is not allowed to {asked}.",
        hint="Whoever runs the server lets its service account do that, by a Role as the chart has it.",
    )


def _said(body: bytes) -> tuple[str, str]:
    try:
        status = json.loads(body)
        return str(status["message"])[:_LONGEST], str(status.get("reason", ""))
    except (ValueError, KeyError, TypeError):
        return body[:_LONGEST].decode(errors="replace"), ""
