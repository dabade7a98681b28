"""What Kubernetes says no with becomes what an administrator can act on."""

import json

import pytest

from cryomamba_apiserver.adapters.cluster_jobs.refusals import (
    AlreadyThereError,
    Asked,
    ChangedError,
    ExpiredError,
    NotAllowedError,
    NotThereError,
    refusal,
)
from cryomamba_apiserver.ports.job_store import JobsRefusedError, JobsUnavailableError

CREATE = Asked("create", "segmentationjobs.cryomamba.io", "lab")


def said(message: str, reason: str = "") -> bytes:
    return json.dumps({"kind": "Status", "message": message, "reason": reason}).encode()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (409, said('segmentationjobs.cryomamba.io "a" already exists', "AlreadyExists"), AlreadyThereError),
        (409, said("the object has been modified", "Conflict"), ChangedError),
        (410, said("too old resource version", "Expired"), ExpiredError),
        (404, said('segmentationjobs.cryomamba.io "a" not found', "NotFound"), NotThereError),
    ],
)
def test_what_the_server_expects_has_an_error_of_its_own(status, body, kind):
    assert type(refusal(CREATE, status, body)) is kind


@pytest.mark.parametrize(
    ("status", "body", "kind", "words"),
    [
        (404, b"404 page not found\n", JobsUnavailableError, "CustomResourceDefinition is not installed"),
        (404, said('namespaces "lab" not found', "NotFound"), JobsUnavailableError, "namespace lab is not there"),
        (
            403,
            said('segmentationjobs.cryomamba.io is forbidden: User "system:serviceaccount:lab:api" cannot create it'),
            NotAllowedError,
            "not allowed to create segmentationjobs.cryomamba.io in the namespace lab",
        ),
        (
            403,
            said('segmentationjobs "a" is forbidden: exceeded quota: jobs, requested: 1, used: 5, limited: 5'),
            JobsUnavailableError,
            "exceeded quota: jobs",
        ),
        (403, said('admission webhook "policy.lab" denied the request: no GPUs'), JobsRefusedError, "no GPUs"),
        (422, said("spec.colour: Unknown field", "Invalid"), JobsRefusedError, "spec.colour"),
        (401, said("Unauthorized"), JobsUnavailableError, "credentials"),
        (429, said("too many requests"), JobsUnavailableError, "too many requests"),
        (500, said('failed calling webhook "policy.lab": no endpoints'), JobsUnavailableError, "policy.lab"),
        (503, b"\xff\x00", JobsUnavailableError, "create segmentationjobs"),
    ],
)
def test_what_is_missing_is_named(status, body, kind, words):
    error = refusal(CREATE, status, body)

    assert type(error) is kind
    assert words in str(error)
    assert error.hint
