"""API servers of the cluster profile, as tests start them."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx

from cryomamba_apiserver.adapters.s3_store import S3Connection
from cryomamba_apiserver.app import utc_now
from cryomamba_apiserver.auth import Scope
from cryomamba_apiserver.settings import read_settings
from cryomamba_apiserver.tokens.opening import own_authority
from support.api_target import SECONDS, Target
from support.commands import Server
from support.kubernetes import Kubectl
from support.waiting import until


def cluster_settings(kubectl: Kubectl, bucket: S3Connection, token_secret: str) -> dict[str, str]:
    """Return the settings of one installation; there is no limit that a test would meet by chance."""
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
        "requests_per_minute": "100000",
        "jobs_per_hour": "100000",
        "max_open_uploads": "1000",
    }


@contextmanager
def person_target(server: Server) -> Iterator[Target]:
    """A server that is ready, and the tokens of those who talk to it."""
    authority = own_authority(read_settings(server.environment), utc_now)

    def token(subject: str, *scopes: Scope) -> str:
        return authority.issue(subject, frozenset(scopes), timedelta(hours=1))

    with httpx.Client(base_url=server.url, timeout=SECONDS) as http:
        until(lambda: http.get("/readyz").status_code == 200, 30)
        yield Target(
            url=server.url,
            ada=token("ada", Scope.READ, Scope.WRITE),
            bob=token("bob", Scope.READ, Scope.WRITE),
            admin=token("root", Scope.ADMIN),
            reader=token("ada", Scope.READ),
            model="demo",
            http=http,
        )
