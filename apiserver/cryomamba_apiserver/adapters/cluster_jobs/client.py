"""Kubernetes, over the official client; the only module of the API server that imports it.

Objects are plain JSON throughout: a custom resource has no model in the client, and its models cost more time than the
request.
"""

import contextlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio import client, config

from cryomamba_apiserver.adapters.cluster_jobs.refusals import Asked, ChangedError, NotThereError, refusal, unreachable
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.resource import GROUP, PLURAL, VERSION

Raw = dict[str, Any]

RIGHTS = ("list", "watch", "get", "create", "patch", "delete")
"""What the server does with SegmentationJobs."""

CONNECTED = "CONNECTED"
"""Type of the event that says that a watch has begun; the others are Kubernetes' own."""

_PAGE = 500
_REQUEST_SECONDS = 15.0
_CONNECT_SECONDS = 5.0
_NO_ANSWER = (aiohttp.ClientError, TimeoutError, OSError)
_RESOURCE = f"{PLURAL}.{GROUP}"


@dataclass(frozen=True)
class Page:
    """A part of a list."""

    items: list[Raw]
    version: int
    """Of the whole list."""


class KubernetesApi:
    """The SegmentationJobs of one namespace, and what else the server asks Kubernetes.

    Every method raises JobsUnavailableError where there is no answer, or one that says that something is missing.

    Args:
        api: The official client.
        namespace: Where the jobs are.
        seconds: How long a request may take.
    """

    def __init__(self, api: client.ApiClient, namespace: str, seconds: float = _REQUEST_SECONDS) -> None:
        self._api = api
        self.namespace = namespace
        self._timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=_CONNECT_SECONDS)
        self._jobs = f"/apis/{GROUP}/{VERSION}/namespaces/{namespace}/{PLURAL}"

    @classmethod
    @contextlib.asynccontextmanager
    async def connect(cls, namespace: str, kubeconfig: Path | None) -> AsyncIterator[Self]:
        """Open a client with a kubeconfig, or else with the pod's own service account; nothing is asked yet.

        Raises:
            FailureError: there are no credentials.
        """
        configuration = client.Configuration()
        try:
            if kubeconfig is not None:
                await config.load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call]
            else:
                config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise FailureError(
                FailureCode.VALIDATION_ERROR,
                f"There are no credentials for Kubernetes: {error}",
                hint="Run the server in a pod with a service account, or name a kubeconfig in CRYOMAMBA_KUBECONFIG.",
            ) from error
        # By default each request looks for a netrc and for proxies in the environment, in a thread.
        configuration.client_session_kwargs = {"trust_env": False}
        async with client.ApiClient(configuration) as api:
            yield cls(api, namespace)

    async def list_jobs(self) -> AsyncIterator[Page]:
        """Yield all jobs as they are now; raise ExpiredError where it took too long."""
        more = ""
        while True:
            query = {"limit": str(_PAGE)} | ({"continue": more} if more else {})
            answer = await self._ask("GET", self._jobs, "list", query=query)
            yield Page(answer["items"], int(answer["metadata"]["resourceVersion"]))
            more = answer["metadata"].get("continue", "")
            if not more:
                return

    async def find_jobs(self, label: str, value: str, version: int) -> list[Raw]:
        """Return the jobs with a label as they were at a version of the list or later.

        Kubernetes answers from its memory. For the state of just now it would first ask etcd, or read all jobs from it.
        """
        query = {
            "labelSelector": f"{label}={value}",
            "resourceVersion": str(version),
            "resourceVersionMatch": "NotOlderThan",
        }
        answer = await self._ask("GET", self._jobs, "list", query=query)
        found: list[Raw] = answer["items"]
        return found

    async def read_job(self, name: str) -> Raw | None:
        """Return a job, None where there is none."""
        try:
            return await self._ask("GET", f"{self._jobs}/{name}", "get")
        except NotThereError:
            return None

    async def create_job(self, manifest: Mapping[str, Any]) -> Raw:
        """Create a job and return it as it is kept; raise AlreadyThereError, JobsRefusedError."""
        return await self._ask("POST", self._jobs, "create", manifest)

    async def patch_job(self, name: str, patch: Mapping[str, Any]) -> Raw:
        """Merge a patch into a job and return it; raise NotThereError, ChangedError, JobsRefusedError."""
        return await self._ask("PATCH", f"{self._jobs}/{name}", "patch", patch, "application/merge-patch+json")

    async def delete_job(self, name: str, uid: str) -> None:
        """Delete this very job; one that is gone is no error."""
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        with contextlib.suppress(NotThereError, ChangedError):  # 409 is the answer to a precondition
            await self._ask("DELETE", f"{self._jobs}/{name}", "delete", options)

    async def watch_jobs(self, version: int, seconds: int) -> AsyncGenerator[Raw, None]:
        """Yield what happens to jobs after a version of the list, bookmarks included, for a time.

        Ends when Kubernetes ends it. Raises ConnectionError where it breaks off, ExpiredError where the version is too
        old; JobsUnavailableError before the first event only.
        """
        query = {
            "watch": "true",
            "allowWatchBookmarks": "true",
            "resourceVersion": str(version),
            "timeoutSeconds": str(seconds),
        }
        asked = Asked("watch", _RESOURCE, self.namespace)
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_SECONDS)
        answer = await self._send("GET", f"{self._jobs}?{urlencode(query)}", asked, None, None, timeout)
        try:
            if answer.status >= HTTPStatus.BAD_REQUEST:
                raise refusal(asked, answer.status, await answer.read())
            yield {"type": CONNECTED, "object": {}}
            async for line in answer.content:
                yield json.loads(line)
        except aiohttp.ClientError as error:
            raise ConnectionError(type(error).__name__) from error
        finally:
            answer.close()

    async def priorities(self) -> dict[str | None, int]:
        """Return the values of the priority classes; None stands for jobs that name none."""
        answer = await self._ask(
            "GET", "/apis/scheduling.k8s.io/v1/priorityclasses", "list", resource="priorityclasses"
        )
        values: dict[str | None, int] = {item["metadata"]["name"]: item["value"] for item in answer["items"]}
        default = next((item["value"] for item in answer["items"] if item.get("globalDefault")), 0)
        return {**values, None: default}

    async def pods(self, selector: str) -> list[tuple[str | None, str | None]]:
        """Return address and node of the pods with these labels, None as long as they have none."""
        path = f"/api/v1/namespaces/{self.namespace}/pods"
        answer = await self._ask("GET", path, "list", query={"labelSelector": selector}, resource="pods")
        return [(pod.get("status", {}).get("podIP"), pod["spec"].get("nodeName")) for pod in answer["items"]]

    async def may(self, verb: str) -> bool:
        """Return whether the server is allowed to do something with SegmentationJobs."""
        attributes = {"group": GROUP, "resource": PLURAL, "namespace": self.namespace, "verb": verb}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        answer = await self._ask("POST", path, "create", review, resource="selfsubjectaccessreviews")
        return bool(answer["status"]["allowed"])

    async def namespace_is_there(self) -> None:
        """Return where the namespace is there; raise JobsUnavailableError where it is not, or may not be looked at."""
        await self._ask("GET", f"/api/v1/namespaces/{self.namespace}", "get", resource="namespaces")

    async def _ask(
        self,
        method: str,
        path: str,
        verb: str,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        *,
        query: Mapping[str, str] | None = None,
        resource: str = _RESOURCE,
    ) -> Raw:
        asked = Asked(verb, resource, self.namespace if "/namespaces/" in path else None)
        url = f"{path}?{urlencode(query)}" if query else path
        answer = await self._send(method, url, asked, body, content_type, self._timeout)
        try:
            payload = await answer.read()
        except _NO_ANSWER as error:
            raise unreachable(asked, error) from error
        if answer.status >= HTTPStatus.BAD_REQUEST:
            raise refusal(asked, answer.status, payload)
        found: Raw = json.loads(payload)
        return found

    async def _send(
        self,
        method: str,
        path: str,
        asked: Asked,
        body: Mapping[str, Any] | None,
        content_type: str | None,
        limit: aiohttp.ClientTimeout,
    ) -> aiohttp.ClientResponse:
        headers = {"Content-Type": content_type or "application/json", "Accept": "application/json"}
        method, url, headers, _, _ = await self._api.param_serialize(
            method, path, header_params=headers, auth_settings=["BearerToken"]
        )
        try:
            answer = await self._api.call_api(method, url, headers, body, _request_timeout=limit)
        except _NO_ANSWER as error:
            raise unreachable(asked, error) from error
        response: aiohttp.ClientResponse = answer.response
        return response
