"""What else a runner's pod might ask of the API server, all of it refused."""

import pytest

from support.segmentation_jobs import segmentation_job
from support.waiting import until

ACCOUNT = "cryomamba-runner"
CORE = "/api/v1/namespaces/{namespace}"

REQUESTS = {
    "get its job": ("GET", "segmentationjobs/tomogram", None, "cannot get resource"),
    "get its job's status": ("GET", "segmentationjobs/tomogram/status", None, "cannot get resource"),
    "list jobs": ("GET", "segmentationjobs", None, "cannot list resource"),
    "watch jobs": ("GET", "segmentationjobs?watch=true", None, "cannot watch resource"),
    "watch its job": ("GET", "segmentationjobs?watch=1&fieldSelector=metadata.name%3Dtomogram", None, "cannot watch"),
    "create a job": ("POST", "segmentationjobs", segmentation_job("more"), "cannot create resource"),
    "delete its job": ("DELETE", "segmentationjobs/tomogram", None, "cannot delete resource"),
    "delete all jobs": ("DELETE", "segmentationjobs", None, "cannot deletecollection resource"),
    "replace its job": ("PUT", "segmentationjobs/tomogram", segmentation_job(), "cannot update resource"),
    "replace its status": ("PUT", "segmentationjobs/tomogram/status", segmentation_job(), "cannot update resource"),
    "list jobs everywhere": ("GET", "/apis/cryomamba.io/v1alpha1/segmentationjobs", None, "cannot list resource"),
    "read secrets": ("GET", f"{CORE}/secrets", None, "cannot list resource"),
    "read its pod": ("GET", f"{CORE}/pods/tomogram-x7k2p", None, "cannot get resource"),
    "create a pod": ("POST", f"{CORE}/pods", {"kind": "Pod"}, "cannot create resource"),
    "make itself a token": ("POST", f"{CORE}/serviceaccounts/{ACCOUNT}/token", {}, "cannot create resource"),
    "write an event": ("POST", f"{CORE}/events", {"kind": "Event"}, "cannot create resource"),
}
SPEC = {"spec": {"desiredState": "Cancelled"}}
METADATA = {"metadata": {"labels": {"cryomamba.io/owner": "mallory"}}}
NOTHING_ELSE = "a runner changes the status of its own job and nothing else"

# What everybody may who has a token: ask what they may do.
SELF_REVIEWS = {"selfsubjectreviews", "selfsubjectaccessreviews", "selfsubjectrulesreviews"}


@pytest.mark.parametrize(("verb", "path", "body", "why"), REQUESTS.values(), ids=REQUESTS)
def test_every_other_request_is_refused(pod, refuses, verb, path, body, why):
    refuses(pod.request(verb, path.format(namespace=pod.namespace), body), 403, why)


@pytest.mark.parametrize("patch", [SPEC, METADATA, {"status": {}}], ids=["spec", "metadata", "status"])
def test_the_job_itself_is_not_patched(pod, refuses, patch):
    answer = pod.request("PATCH", "segmentationjobs/tomogram", patch, "application/merge-patch+json")

    refuses(answer, 403, "cannot patch resource")


def test_the_job_itself_is_not_applied(pod, refuses):
    path = "segmentationjobs/tomogram?fieldManager=runner&force=true"

    answer = pod.request("PATCH", path, segmentation_job(), "application/apply-patch+yaml")

    refuses(answer, 403, "cannot patch resource")


def test_a_pod_of_the_same_account_in_another_namespace_is_a_stranger(place, other_place, pod, refuses):
    stranger = other_place.create_pod()

    answer = stranger.request(
        "PATCH",
        f"/apis/cryomamba.io/v1alpha1/namespaces/{place.namespace}/segmentationjobs/tomogram/status",
        {"status": {}},
        "application/merge-patch+json",
    )

    refuses(answer, 403, "cannot patch resource")


def test_the_account_has_one_right(place):
    account = f"system:serviceaccount:{place.namespace}:{ACCOUNT}"

    lines = place.kubectl("auth", "can-i", "--list", "--no-headers", f"--as={account}").splitlines()

    resources = [line.split() for line in lines if not line.startswith(" ")]
    granted = [words for words in resources if words[0].split(".")[0] not in SELF_REVIEWS]
    assert [(words[0], words[-1]) for words in granted] == [("segmentationjobs.cryomamba.io/status", "[patch]")]


class TestWhereSomebodyGrantsTooMuch:
    """A second role does not open what the policy closes."""

    @pytest.fixture
    def spoilt(self, place, pod):
        place.kubectl(
            "create", "role", "generous", "--verb=*", "--resource=segmentationjobs.cryomamba.io",
            "--resource=segmentationjobs.cryomamba.io/status",
        )  # fmt: skip
        account = f"{place.namespace}:{ACCOUNT}"
        place.kubectl("create", "rolebinding", "generous", "--role=generous", f"--serviceaccount={account}")
        until(lambda: pod.request("GET", "segmentationjobs/tomogram").status_code == 200, seconds=20)
        return pod

    @pytest.mark.parametrize("patch", [SPEC, METADATA], ids=["spec", "metadata"])
    def test_the_job_is_not_changed(self, spoilt, refuses, patch):
        answer = spoilt.request("PATCH", "segmentationjobs/tomogram", patch, "application/merge-patch+json")

        refuses(answer, 403, NOTHING_ELSE)

    def test_no_job_is_created_or_deleted(self, spoilt, refuses):
        refuses(spoilt.request("POST", "segmentationjobs", segmentation_job("more")), 403, NOTHING_ELSE)
        refuses(spoilt.request("DELETE", "segmentationjobs/tomogram"), 403, NOTHING_ELSE)
        refuses(spoilt.request("DELETE", "segmentationjobs"), 403, NOTHING_ELSE)

    def test_a_status_is_not_replaced(self, spoilt, refuses):
        job = spoilt.request("GET", "segmentationjobs/tomogram").json()

        answer = spoilt.request("PUT", "segmentationjobs/tomogram/status", job | {"status": {"attempt": 1}})

        refuses(answer, 403, "not ")
        assert "podUid" in answer.json()["message"]

    def test_nobody_elses_status_is_replaced(self, place, spoilt, refuses):
        place.create_job("lamella", place.create_pod("lamella-p2x7k"))
        job = spoilt.request("GET", "segmentationjobs/lamella").json()

        answer = spoilt.request("PUT", "segmentationjobs/lamella/status", job)

        refuses(answer, 403, "another pod runs this job")


def test_a_pod_that_does_not_ask_for_a_token_has_none(place):
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "plain"},
        "spec": {
            "serviceAccountName": ACCOUNT,
            "schedulingGates": [{"name": "cryomamba.io/never"}],
            "containers": [{"name": "plain", "image": "localhost/none:1"}],
        },
    }

    place.kubectl("create", "--filename", "-", manifest=manifest)

    assert "volumes" not in place.kubectl.get("pod", "plain")["spec"]


def test_the_policy_itself_has_no_warnings(place):
    policy = place.kubectl.get("validatingadmissionpolicy", ACCOUNT)

    assert policy["spec"]["failurePolicy"] == "Fail"
    assert policy.get("status", {}).get("typeChecking", {}).get("expressionWarnings", []) == []
