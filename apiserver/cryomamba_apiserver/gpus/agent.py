"""The HTTP server of one node's agent: tells the API server which GPUs the node has and what they do."""

from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Annotated

from pydantic import BaseModel, Field
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from cryomamba_apiserver.gpus.service import Gpu, GpuInventory
from cryomamba_apiserver.operations.envelopes import envelope
from cryomamba_crds.failures import Failure, FailureCode

NODE_PATH = "/v1/node"
_JSON = "application/json"
_RETRY_SECONDS = 5


class NodeReport(BaseModel):
    """What an agent tells; memory in bytes. What a newer one says besides is not looked at."""

    node: str
    cuda_version: Annotated[str, Field(pattern=r"^\d{1,6}\.\d{1,6}$")] | None
    gpus: Annotated[tuple[Gpu, ...], Field(max_length=256)]
    problems: Annotated[tuple[Annotated[str, Field(max_length=512)], ...], Field(max_length=256)] = ()


def agent_app(node: str, read: Callable[[], Awaitable[GpuInventory]]) -> Starlette:
    """Return the app of a node's agent.

    Args:
        node: The node's name, as Kubernetes has it.
        read: Asks the driver, and returns in good time whatever it does.
    """

    async def report(_: Request) -> Response:
        inventory = await read()
        if inventory.problems and not inventory.gpus:
            return _unavailable(inventory.problems)
        body = NodeReport(
            node=node, cuda_version=inventory.cuda_version, gpus=inventory.gpus, problems=inventory.problems
        )
        return Response(body.model_dump_json(), media_type=_JSON)

    async def livez(_: Request) -> Response:
        """The process runs; one that is started again finds the same driver, so that is not asked."""
        return Response('{"status":"alive"}', media_type=_JSON)

    return Starlette(routes=[Route(NODE_PATH, report), Route("/livez", livez)])


def _unavailable(problems: tuple[str, ...]) -> Response:
    failure = Failure(
        code=FailureCode.SERVICE_UNAVAILABLE,
        message="; ".join(problems)[:2000],
        hint="Run nvidia-smi on the node; a driver that hangs or has lost a GPU often needs the node restarted.",
        retryable=True,
    )
    headers = {"Retry-After": str(_RETRY_SECONDS)}
    return Response(envelope(failure), HTTPStatus.SERVICE_UNAVAILABLE, headers, _JSON)
