"""Asks the agents of a cluster's nodes about their GPUs, all at once and for a limited time."""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable
from http import HTTPStatus

import aiohttp
from pydantic import ValidationError
from yarl import URL

from cryomamba_apiserver.errors import ErrorEnvelope
from cryomamba_apiserver.gpus.agent import NODE_PATH, NodeReport
from cryomamba_apiserver.gpus.census import GpuCensus, GpuSource, UnavailableNode, of_nodes
from cryomamba_apiserver.gpus.service import GpuInventory
from cryomamba_apiserver.ports.job_store import JobsUnavailableError
from cryomamba_apiserver.settings import Settings

_log = logging.getLogger(__name__)

_KEPT_SECONDS = 1.0
_AT_A_TIME = 256
_LONGEST = 1 << 20  # bytes of an answer
_LONGEST_REASON = 300
_NO_AGENT = "what answers in its agent's place is none"

PodLister = Callable[[str], Awaitable[Iterable[tuple[str | None, str | None]]]]
"""Lists the pods that have these labels: of each its address and its node's name, None as long as it has none.

Raises JobsUnavailableError.
"""


class _SilentError(Exception):
    """A node's agent says nothing of use; the message says why."""


def cluster_gpus(list_pods: PodLister, settings: Settings) -> GpuSource:
    """Return the source of a server whose jobs run on a cluster; without a selector there are no agents to ask."""
    if settings.gpu_agent_selector is None:
        return _no_agents
    return ClusterGpus(list_pods, settings.gpu_agent_selector, settings.gpu_agent_port, settings.gpu_agent_seconds)


async def _no_agents() -> GpuCensus:
    return GpuCensus(None, ())


class ClusterGpus:
    """The GPUs of all nodes that have an agent.

    An answer is kept for a second, and who asks meanwhile waits for the same one: clients that poll don't multiply what
    the agents and Kubernetes are asked.

    Args:
        list_pods: Lists the agents' pods.
        selector: Their labels.
        port: Where they listen.
        seconds: How long Kubernetes, and then each agent, may take.
        clock: Seconds from some time on.
    """

    def __init__(
        self,
        list_pods: PodLister,
        selector: str,
        port: int,
        seconds: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._list_pods = list_pods
        self._selector = selector
        self._port = port
        self._seconds = seconds
        self._clock = clock
        self._asking = asyncio.Lock()
        self._asked_at = float("-inf")
        self._census = GpuCensus(None, ())

    async def __call__(self) -> GpuCensus:
        """Return what the agents say, and which say nothing."""
        async with self._asking:
            if self._clock() - self._asked_at >= _KEPT_SECONDS:
                self._census = await self._ask()
                self._asked_at = self._clock()
            return self._census

    async def _ask(self) -> GpuCensus:
        try:
            async with asyncio.timeout(self._seconds):
                pods = list(await self._list_pods(self._selector))
        except (JobsUnavailableError, TimeoutError) as error:
            reason = f"Kubernetes does not say where the GPU agents are: {str(error) or 'no answer in time'}"
            _log.warning("%s", reason)
            return GpuCensus(None, (), (UnavailableNode(None, reason),))
        addresses: dict[str, list[str]] = {}
        for address, node in pods:
            if node is not None:
                addresses.setdefault(node, []).extend([address] if address else [])
        turns = asyncio.Semaphore(_AT_A_TIME)
        timeout = aiohttp.ClientTimeout(total=self._seconds)
        # A connection each time: an agent's pod may be another by the next.
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

            async def ask(node: str) -> GpuInventory | _SilentError:
                async with turns:
                    return await self._ask_node(session, addresses[node])

            said = dict(zip(addresses, await asyncio.gather(*map(ask, addresses)), strict=True))
        silent = {node: str(answer) for node, answer in said.items() if isinstance(answer, _SilentError)}
        if silent:
            _log.warning("nodes do not tell of their GPUs", extra={"nodes": silent})
        return of_nodes({node: told for node, told in said.items() if isinstance(told, GpuInventory)}, silent)

    async def _ask_node(self, session: aiohttp.ClientSession, addresses: list[str]) -> GpuInventory | _SilentError:
        """Return what one of a node's agents says: while they are being replaced there may be two."""
        if not addresses:
            return _SilentError("its agent has not started")
        asked = await asyncio.gather(*(self._ask_agent(session, address) for address in addresses))
        return next((answer for answer in asked if isinstance(answer, GpuInventory)), asked[0])

    async def _ask_agent(self, session: aiohttp.ClientSession, address: str) -> GpuInventory | _SilentError:
        url = URL.build(scheme="http", host=address, port=self._port, path=NODE_PATH)
        try:
            async with session.get(url, allow_redirects=False) as answer:
                body = await _read(answer)
                if answer.status != HTTPStatus.OK:
                    return _SilentError(_refusal(answer.status, body))
                report = NodeReport.model_validate_json(body)
        except TimeoutError:
            return _SilentError(f"its agent did not answer within {self._seconds:g} s")
        except aiohttp.ClientConnectorError as error:
            return _SilentError(f"its agent cannot be reached: {_plain(error)}")
        except (aiohttp.ServerDisconnectedError, ConnectionError):
            return _SilentError("its agent broke the connection off")
        except (aiohttp.ClientError, ValidationError, _SilentError):
            return _SilentError(_NO_AGENT)
        return GpuInventory(report.cuda_version, report.gpus, report.problems)


def _plain(error: aiohttp.ClientConnectorError) -> str:
    """Return why there is no connection; the error's own text has the pod's address in it."""
    return os.strerror(error.errno).lower() if error.errno else "no connection"


async def _read(answer: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in answer.content.iter_any():
        body += chunk
        if len(body) > _LONGEST:
            raise _SilentError(_NO_AGENT)
    return bytes(body)


def _refusal(status: int, body: bytes) -> str:
    """Return an agent's own words where it has some."""
    try:
        return ErrorEnvelope.model_validate_json(body).error.message[:_LONGEST_REASON]
    except ValidationError:
        return f"its agent answered {status}"
