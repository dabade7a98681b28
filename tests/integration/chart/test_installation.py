"""Releases on a real API server. Their pods wait for a node that nobody has; what runs is the business of `e2e`."""

import base64
import json
import secrets
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest

from cryomamba_operator.names import CREDENTIALS_TYPE
from support.helm import TRIAL, HelmError, Manifest, pod_specs, release, template
from support.kube_http import MERGE, client, segmentation_jobs
from support.kubernetes import Kubectl
from support.operators import as_service_account
from support.segmentation_jobs import segmentation_job
from support.waiting import until

NOWHERE = {"nodeSelector": {"example.org/nowhere": "true"}}
VALUES: Manifest = {
    **TRIAL,
    # Other tests use the definition at the same time.
    "crds": {"enabled": False},
    "minio": {**TRIAL["minio"], **NOWHERE},
    **dict.fromkeys(("apiServer", "operator", "gpuAgent", "sweep"), NOWHERE),
}
OF_THE_CLUSTER = "clusterroles,clusterrolebindings,validatingadmissionpolicies,validatingadmissionpolicybindings"
OF_A_NAMESPACE = (
    "deployments,daemonsets,cronjobs,services,configmaps,secrets,serviceaccounts,roles,rolebindings,networkpolicies,"
    "poddisruptionbudgets,persistentvolumeclaims,ingresses,horizontalpodautoscalers"
)


@pytest.fixture
def namespace(control_plane_namespace: Kubectl) -> Iterator[Kubectl]:
    """A namespace that lets in only what Pod Security calls restricted."""
    kubectl = control_plane_namespace
    kubectl("label", "namespace", str(kubectl.namespace), "pod-security.kubernetes.io/enforce=restricted")
    yield kubectl
    if "cryomamba" in release(kubectl, "list", "--short"):
        release(kubectl, "uninstall", "cryomamba")


def _objects(kubectl: Kubectl) -> set[str]:
    """Return what Helm has made in the namespace, and for it in the cluster."""
    selector = "app.kubernetes.io/managed-by=Helm,app.kubernetes.io/instance=cryomamba"
    found = kubectl.get(OF_A_NAMESPACE, "--selector", selector)["items"]
    names = {f"{item['kind']}/{item['metadata']['name']}" for item in found}
    everywhere = kubectl.get(OF_THE_CLUSTER, "--selector", selector)["items"]
    suffix = f".{kubectl.namespace}-"
    return names | {
        f"{item['kind']}/{item['metadata']['name']}" for item in everywhere if suffix in item["metadata"]["name"]
    }


def _token_secret(kubectl: Kubectl) -> bytes:
    return base64.b64decode(kubectl.get("secret", "cryomamba-token")["data"]["token_secret"])


def _helm(kubectl: Kubectl, command: str, *words: str, values: Manifest | None = None) -> str:
    return release(kubectl, command, "cryomamba", *words, values=values)


def test_a_release_comes_changes_goes_back_and_leaves_nothing(namespace):
    notes = _helm(namespace, "install", values=VALUES)
    first, secret = _objects(namespace), _token_secret(namespace)
    assert f"kubectl -n {namespace.namespace} exec deployment/cryomamba-apiserver -- cryomamba token create" in notes
    assert "The bundled MinIO is for a trial" in notes
    assert {"Deployment/cryomamba-apiserver", "Secret/cryomamba-minio", "CronJob/cryomamba-sweep"} <= first
    assert len(secret) == 64

    without_sweep = {**VALUES, "sweep": {"enabled": False}, "jobs": {"memory": "64Gi"}}
    _helm(namespace, "upgrade", values=without_sweep)
    of_the_sweep = ("CronJob", "ServiceAccount", "Role", "RoleBinding", "NetworkPolicy")
    assert first - _objects(namespace) == {f"{kind}/cryomamba-sweep" for kind in of_the_sweep}
    assert _settings(namespace)["CRYOMAMBA_JOB_MEMORY"] == "64Gi"
    assert _token_secret(namespace) == secret

    _helm(namespace, "rollback", "1")
    assert _objects(namespace) == first
    assert _settings(namespace)["CRYOMAMBA_JOB_MEMORY"] == "16Gi"
    assert _token_secret(namespace) == secret

    _helm(namespace, "uninstall", "--wait")
    assert _objects(namespace) == set()


def _settings(kubectl: Kubectl) -> dict[str, str]:
    data: dict[str, str] = kubectl.get("configmap", "cryomamba-apiserver")["data"]
    return data


def test_the_definition_and_what_is_of_it_stay_when_the_release_goes(namespace):
    namespace.apply(segmentation_job("kept"))
    uid = namespace.get("segmentationjob", "kept")["metadata"]["uid"]

    # Other tests have applied it by hand.
    _helm(namespace, "install", "--take-ownership", values={**VALUES, "crds": {"enabled": True}})
    definition = namespace.get("crd", "segmentationjobs.cryomamba.io")["metadata"]
    _helm(namespace, "uninstall")

    assert definition["labels"]["app.kubernetes.io/managed-by"] == "Helm"
    assert namespace.get("segmentationjob", "kept")["metadata"]["uid"] == uid


def test_every_pod_meets_pod_security_restricted(namespace):
    for name, spec in pod_specs(template(VALUES, namespace=str(namespace.namespace))).items():
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "tried"}, "spec": dict(spec)}
        # Kubernetes wants accounts and classes to exist; what they are called is not the question.
        pod["spec"].pop("serviceAccountName", None)
        if name.startswith("Deployment"):
            pod["spec"]["restartPolicy"] = "Always"

        namespace("create", "--dry-run=server", "--filename", "-", manifest=pod)


def test_a_release_without_a_store_is_refused_and_leaves_nothing(namespace):
    with pytest.raises(HelmError, match="No object store is configured"):
        _helm(namespace, "install", values={**VALUES, "minio": {"enabled": False}})

    assert _objects(namespace) == set()


def _may(http: httpx.Client, namespace: str, account: str, verb: str, resource: str) -> bool:
    group, _, name = resource.rpartition("/")
    name, _, subresource = name.partition(":")
    asked = {"namespace": namespace, "verb": verb, "group": group, "resource": name, "subresource": subresource}
    review = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {"user": f"system:serviceaccount:{namespace}:lab-cryomamba-{account}", "resourceAttributes": asked},
    }
    answer = http.post("/apis/authorization.k8s.io/v1/subjectaccessreviews", json=review)
    allowed: bool = answer.raise_for_status().json()["status"]["allowed"]
    return allowed


@pytest.fixture(scope="module")
def installed(control_plane: Kubectl) -> Iterator[Kubectl]:
    """A namespace with a release that the tests below share, and do not change.

    It has a name of its own: the account of another release's runners, in another namespace, may be called the same.
    """
    kubectl = replace(control_plane, namespace=f"test-{secrets.token_hex(4)}")
    control_plane("create", "namespace", str(kubectl.namespace))
    release(kubectl, "install", "lab", values=VALUES)
    yield kubectl
    release(kubectl, "uninstall", "lab")
    control_plane("delete", "namespace", str(kubectl.namespace), "--wait=false")


JOBS, STATUS = "cryomamba.io/segmentationjobs", "cryomamba.io/segmentationjobs:status"
RIGHTS = {
    "apiserver": {
        *((verb, JOBS) for verb in ("get", "list", "watch", "create", "patch", "delete")),
        *(("get", "namespaces"), ("list", "pods")),
    },
    "operator": {
        *((verb, JOBS) for verb in ("get", "list", "watch", "delete")),
        *((verb, "batch/jobs") for verb in ("get", "list", "watch", "create", "delete")),
        *(("patch", STATUS), ("list", "pods"), ("watch", "pods"), ("list", "events"), ("create", "events")),
        *(("create", "secrets"), ("patch", "secrets"), ("list", "nodes")),
    },
    "sweep": {("get", JOBS), ("list", JOBS), ("delete", JOBS)},
    "runner": {("patch", STATUS)},
    "gpu-agent": set[tuple[str, str]](),
}


@pytest.mark.parametrize("account", RIGHTS)
def test_an_account_may_do_what_it_has_to_and_nothing_near_it(account, installed):
    verbs = ["get", "list", "watch", "create", "update", "patch", "delete", "deletecollection"]
    resources = [
        JOBS,
        STATUS,
        "batch/jobs",
        "pods",
        "pods:exec",
        "events",
        "secrets",
        "configmaps",
        "namespaces",
        "nodes",
    ]

    with client(installed) as http:
        may = {
            (verb, resource)
            for verb in verbs
            for resource in resources
            if _may(http, str(installed.namespace), account, verb, resource)
        }

    assert may == RIGHTS[account]


def test_the_policy_of_the_release_holds_its_runners_to_their_own_job(installed, tmp_path):
    installed.apply(segmentation_job("somebodys"))
    runner = as_service_account(installed, "lab-cryomamba-runner", tmp_path / "runner.kubeconfig")
    path = f"{segmentation_jobs(installed)}/somebodys/status"

    with client(runner) as http:

        def answer() -> httpx.Response:
            report = json.dumps({"status": {"attempt": 1}})
            return http.patch(path, content=report, headers={"Content-Type": MERGE})

        # A policy counts a moment after it has been made.
        until(lambda: answer().status_code == 403)

        assert "the token belongs to no pod" in answer().json()["message"]


def test_the_operator_writes_credentials_of_jobs_and_no_other_secret(installed, tmp_path):
    operator = as_service_account(installed, "lab-cryomamba-operator", tmp_path / "operator.kubeconfig")
    path = f"/api/v1/namespaces/{installed.namespace}/secrets"
    stranger = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "stranger"}}
    own = {**stranger, "metadata": {"name": "tomogram-s3"}, "type": CREDENTIALS_TYPE}

    with client(operator) as http:
        until(lambda: http.post(path, json=stranger, params={"dryRun": "All"}).status_code == 403)
        signs_tokens = http.patch(
            f"{path}/lab-cryomamba-token",
            content='{"stringData": {"token_secret": "x"}}',
            headers={"Content-Type": MERGE},
        )
        created = http.post(path, json=own)

    assert signs_tokens.status_code == 403
    assert "writes the credentials of jobs and no other Secret" in signs_tokens.json()["message"]
    assert created.status_code == 201, created.text
