"""The API server. What is known of it comes from the official client, and this is the only module that imports that.

Objects are plain JSON throughout, and requests go straight over aiohttp: the client's models cost more time than the
request, and its own way of sending one a third as much again.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Self

import aiohttp
from kubernetes.aio import client, config
from pydantic_core import from_json, to_json

from cryomamba_crds.ids import Key
from cryomamba_crds.resource import GROUP, KIND, PLURAL, VERSION
from cryomamba_operator.names import GPU_RESOURCE, MANAGER, SELECTOR
from cryomamba_operator.observe import EventFacts, Raw, event_facts
from cryomamba_operator.ports import ConflictError, GoneError, Page, RefusedError
from cryomamba_operator.queue import UnavailableError
from cryomamba_operator.settings import Settings

_RECORDS = f"/apis/{GROUP}/{VERSION}"
_BATCH = "/apis/batch/v1"
_CORE = "/api/v1"
_MERGE_PATCH = "application/merge-patch+json"
_APPLY = "application/apply-patch+yaml"
_PAGE = 250
_TRY_AGAIN = {HTTPStatus.UNAUTHORIZED, HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.GONE}
"""A token that is being rotated, too many requests, a list that took so long that its next page has expired."""


@dataclass(frozen=True)
class Credentials:
    """Where the API server is and how to talk to it, for whoever else opens connections to it."""

    server: str
    ca_path: str | None
    token: str | None
    certificate_path: str | None
    private_key_path: str | None


class KubernetesCluster:
    """Implements `ports.Cluster`.

    Args:
        configuration: Where the API server is, and as whom to talk to it.
        session: Carries the requests (see `open_session`).
        namespaces: Which to list; none: all.
    """

    def __init__(
        self, configuration: client.Configuration, session: aiohttp.ClientSession, namespaces: Sequence[str]
    ) -> None:
        self._configuration = configuration
        self._session = session
        self._namespaces = namespaces

    @classmethod
    @asynccontextmanager
    async def connect(cls, settings: Settings) -> AsyncIterator[Self]:
        """Open a client with the kubeconfig of the settings, or with the pod's own service account."""
        configuration = client.Configuration()
        if settings.kubeconfig is not None:
            path = str(settings.kubeconfig)
            await config.load_kube_config(path, client_configuration=configuration)  # type: ignore[no-untyped-call]
        else:
            config.load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call]
        async with open_session(configuration, settings.request_seconds) as session:
            yield cls(configuration, session, settings.namespaces)

    async def credentials(self) -> Credentials:
        """Return what another client needs; tokens are rotated, so ask again when one is refused."""
        configuration = self._configuration
        token = await configuration.get_api_key_with_prefix("BearerToken")
        return Credentials(
            server=configuration.host,
            ca_path=configuration.ssl_ca_cert,
            token=token.partition(" ")[2] if token else None,
            certificate_path=configuration.cert_file,
            private_key_path=configuration.key_file,
        )

    async def list_records(self) -> AsyncIterator[Page]:
        """See `ports.Cluster`."""
        async for page in self._list(_RECORDS, PLURAL, {}):
            # The items of a list need not say what they are.
            own = {"apiVersion": f"{GROUP}/{VERSION}", "kind": KIND}
            yield Page([{**own, **item} for item in page.items], page.resource_version)

    async def list_jobs(self) -> AsyncIterator[Page]:
        """See `ports.Cluster`."""
        async for page in self._list(_BATCH, "jobs", {"labelSelector": SELECTOR}):
            yield page

    async def list_pods(self) -> AsyncIterator[Page]:
        """See `ports.Cluster`."""
        async for page in self._list(_CORE, "pods", {"labelSelector": SELECTOR}):
            yield page

    async def read_record(self, key: Key) -> Raw | None:
        """See `ports.Cluster`."""
        return await self._read(_path(_RECORDS, key.namespace, PLURAL, key.name))

    async def read_job(self, key: Key) -> Raw | None:
        """See `ports.Cluster`."""
        return await self._read(_path(_BATCH, key.namespace, "jobs", key.name))

    async def warnings_about(self, namespace: str, uid: str) -> list[EventFacts]:
        """See `ports.Cluster`."""
        query = {"fieldSelector": f"involvedObject.uid={uid},type=Warning", "limit": "100"}
        answer = await self._request("GET", _path(_CORE, namespace, "events"), query=query)
        return [event_facts(item) for item in answer["items"]]

    async def create_job(self, manifest: Mapping[str, Any]) -> Raw:
        """See `ports.Cluster`."""
        return await self._request("POST", _path(_BATCH, manifest["metadata"]["namespace"], "jobs"), manifest)

    async def delete_job(self, key: Key, uid: str) -> None:
        """See `ports.Cluster`."""
        await self._delete(_path(_BATCH, key.namespace, "jobs", key.name), uid)

    async def delete_record(self, key: Key, uid: str) -> None:
        """See `ports.Cluster`."""
        await self._delete(_path(_RECORDS, key.namespace, PLURAL, key.name), uid)

    async def patch_status(self, key: Key, patch: Mapping[str, Any]) -> Raw:
        """See `ports.Cluster`."""
        path = _path(_RECORDS, key.namespace, PLURAL, key.name, "status")
        return await self._request("PATCH", path, patch, content_type=_MERGE_PATCH)

    async def apply_secret(self, manifest: Mapping[str, Any]) -> None:
        """See `ports.Cluster`."""
        metadata = manifest["metadata"]
        path = _path(_CORE, metadata["namespace"], "secrets", metadata["name"])
        query = {"fieldManager": MANAGER, "force": "true"}
        await self._request("PATCH", path, manifest, query=query, content_type=_APPLY)

    async def create_event(self, manifest: Mapping[str, Any]) -> None:
        """See `ports.Cluster`."""
        await self._request("POST", _path(_CORE, manifest["metadata"]["namespace"], "events"), manifest)

    async def count_gpus(self) -> int:
        """See `ports.Cluster`."""
        total = 0
        async for page in self._list_everywhere(f"{_CORE}/nodes", {}):
            total += sum(int(node.get("status", {}).get("allocatable", {}).get(GPU_RESOURCE, 0)) for node in page.items)
        return total

    async def taints(self) -> list[str]:
        """See `ports.Cluster`."""
        found: set[str] = set()
        async for page in self._list_everywhere(f"{_CORE}/nodes", {}):
            taints = (taint for node in page.items for taint in node.get("spec", {}).get("taints", []))
            found |= {taint["key"] for taint in taints if taint["effect"] != "PreferNoSchedule"}
        return sorted(found)

    async def priorities(self) -> dict[str | None, int]:
        """See `ports.Cluster`."""
        values: dict[str | None, int] = {}
        async for page in self._list_everywhere("/apis/scheduling.k8s.io/v1/priorityclasses", {}):
            for item in page.items:
                values[item["metadata"]["name"]] = item["value"]
                if item.get("globalDefault"):
                    values[None] = item["value"]
        return values

    async def _list(self, api: str, plural: str, query: Mapping[str, str]) -> AsyncIterator[Page]:
        paths = [_path(api, namespace, plural) for namespace in self._namespaces] or [f"{api}/{plural}"]
        for path in paths:
            async for page in self._list_everywhere(path, query):
                yield page

    async def _list_everywhere(self, path: str, query: Mapping[str, str]) -> AsyncIterator[Page]:
        token = ""
        while True:
            more = {"continue": token} if token else {}
            answer = await self._request("GET", path, query={**query, "limit": str(_PAGE), **more})
            yield Page(answer["items"], int(answer["metadata"]["resourceVersion"]))
            token = answer["metadata"].get("continue", "")
            if not token:
                return

    async def _read(self, path: str) -> Raw | None:
        try:
            return await self._request("GET", path)
        except GoneError:
            return None

    async def _delete(self, path: str, uid: str) -> None:
        options = {"propagationPolicy": "Background", "preconditions": {"uid": uid}}
        try:
            await self._request("DELETE", path, options)
        except ConflictError as error:  # 409 is the answer to a precondition, too
            raise GoneError(str(error)) from error

    async def _request(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        content_type: str = "application/json",
    ) -> Raw:
        configuration = self._configuration
        headers = {"Content-Type": content_type, "Accept": "application/json"}
        # Asked for each time, for tokens are rotated.
        if token := await configuration.get_api_key_with_prefix("BearerToken"):
            headers["Authorization"] = token
        try:
            async with self._session.request(
                method,
                f"{configuration.host}{path}",
                params=query,
                data=None if body is None else to_json(body),
                headers=headers,
                server_hostname=configuration.tls_server_name,
            ) as response:
                payload = await response.read()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise UnavailableError(f"{method} {path}: {error or type(error).__name__}") from error
        if response.status >= HTTPStatus.BAD_REQUEST:
            raise _refusal(response.status, payload)
        answer: Raw = from_json(payload)
        return answer


def open_session(configuration: client.Configuration, timeout: float) -> aiohttp.ClientSession:
    """Return a session that talks to an API server as the official client would.

    Args:
        configuration: The client's.
        timeout: Seconds that a request may take.
    """
    api = client.ApiClient(configuration)  # reads the certificates; it has no connections of its own before a request
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(ssl=api.rest_client.ssl_context, limit=configuration.connection_pool_maxsize),
        headers=api.default_headers,
        proxy=configuration.proxy,
        timeout=aiohttp.ClientTimeout(total=timeout),
    )


def _path(api: str, namespace: str, *parts: str) -> str:
    return "/".join((api, "namespaces", namespace, *parts))


def _refusal(status: int, payload: bytes) -> Exception:
    try:
        message = str(from_json(payload)["message"])
    except (ValueError, KeyError, TypeError):
        message = payload[:200].decode(errors="replace")
    if status == HTTPStatus.NOT_FOUND:
        return GoneError(message)
    if status == HTTPStatus.CONFLICT:
        return ConflictError(message)
    # While an API server starts, it does not know yet what the operator may do; what it says of a request that it
    # understood (a quota, a webhook) names the object instead of the user.
    of_the_operator = status == HTTPStatus.FORBIDDEN and 'User "' in message and " cannot " in message
    if status in _TRY_AGAIN or status >= HTTPStatus.INTERNAL_SERVER_ERROR or of_the_operator:
        return UnavailableError(f"{status}: {message}")
    return RefusedError(status, message)
