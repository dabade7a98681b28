"""API servers of the cluster profile, as tests start them, and whole installations without a node."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import httpx

from cryomamba_apiserver.adapters.s3_store import S3Connection
from cryomamba_apiserver.app import utc_now
from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.settings import read_settings
from cryomamba_apiserver.tokens.opening import own_authority
from support.api_target import SECONDS, Target
from support.commands import Server, serving
from support.kubernetes import Kubectl
from support.operators import installed
from support.played_node import UNSCHEDULED, played_node
from support.s3 import new_bucket
from support.waiting import until


def cluster_settings(kubectl: Kubectl, bucket: S3Connection, token_secret: str) -> dict[str, str]:
    """Return the settings of one installation."""
    return {
        "kubernetes_namespace": str(kubectl.namespace),
        "kubeconfig": str(kubectl.kubeconfig),
        "s3_endpoint": bucket.endpoint,
        "s3_bucket": bucket.bucket,
        "s3_access_key": bucket.access_key,
        "s3_secret_key": bucket.secret_key,
        "token_secret": token_secret,
        "job_gpus": "0",
        "job_memory": "64Mi",
        "job_cpu": "10m",
    }


@contextmanager
def person_target(server: Server) -> Iterator[Target]:
    """A server that is ready, and the tokens of those who talk to it."""
    authority = own_authority(read_settings(server.environment), utc_now)

    def token(subject: str, *scopes: Scope) -> str:
        return authority.issue(subject, frozenset(scopes), timedelta(hours=24))

    with httpx.Client(base_url=server.url, timeout=SECONDS) as http:
        until(lambda: http.get("/readyz").status_code == 200)
        yield Target(
            url=server.url,
            ada=token("ada", Scope.READ, Scope.WRITE),
            bob=token("bob", Scope.READ, Scope.WRITE),
            admin=token("root", Scope.ADMIN),
            reader=token("ada", Scope.READ),
            model="demo",
            http=http,
        )


@contextmanager
def fresh_namespace(kubectl: Kubectl) -> Iterator[Kubectl]:
    """`kubectl` in a namespace of its own."""
    name = f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield replace(kubectl, namespace=name)
    kubectl("delete", "namespace", name, "--wait=false")


@contextmanager
def installation(kubectl: Kubectl, store: S3Connection, folder: Path, **settings: str) -> Iterator[Target]:
    """An API server and an operator in a namespace and a bucket of their own, on a control plane without a node.

    One job runs at a time, as on a workstation without a GPU. Pods are played; what they run is the real runner.
    """
    bucket = new_bucket(store)
    template, access, secret = folder / "pod-template.yaml", folder / "access_key", folder / "secret_key"
    template.write_text(UNSCHEDULED)
    access.write_text(bucket.access_key)
    secret.write_text(bucket.secret_key)
    with fresh_namespace(kubectl) as namespace:
        own = cluster_settings(namespace, bucket, secrets.token_hex(32)) | settings
        operator_settings = {
            "pod_template": str(template),
            "s3_endpoint": bucket.endpoint,
            "s3_bucket": bucket.bucket,
            "s3_credentials": "sts",
            "s3_access_key_file": str(access),
            "s3_secret_key_file": str(secret),
            "max_active_jobs": "1",
            "device": "cpu",
        }
        with (
            installed(namespace, folder, **operator_settings) as operator,
            played_node(namespace, folder / "node"),
            serving(folder / "unused", **own) as server,
        ):
            operator.start()
            with person_target(server) as target:
                yield target
