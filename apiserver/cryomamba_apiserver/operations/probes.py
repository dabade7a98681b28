"""HTTP for probes: whether the process runs, and whether what it needs answers."""

from typing import Literal

from fastapi import APIRouter
from pydantic import BaseModel

from cryomamba_apiserver.context import AppContext
from cryomamba_apiserver.errors import UnavailableError
from cryomamba_apiserver.openapi import refusals

_RETRY_SECONDS = 5

router = APIRouter(tags=["system"])


class Alive(BaseModel):
    """The process runs."""

    status: Literal["alive"] = "alive"


class Ready(BaseModel):
    """Everything that the server needs answers."""

    status: Literal["ready"] = "ready"
    degraded: dict[str, str]
    """What works, and not as it should; the server takes requests all the same."""


@router.get("/livez")
async def livez() -> Alive:
    """Whether the process runs.

    For a probe that has a process restarted that hangs; asks nothing of what the server depends on.
    """
    return Alive()


@router.get("/readyz", responses=refusals({503: "Something that the server needs does not answer."}))
async def readyz(context: AppContext) -> Ready:
    """Whether everything that the server needs answers.

    For a probe that keeps requests away from a server that could not serve them.
    """
    if problems := await context.readiness.problems():
        raise UnavailableError(
            f"Not ready: {', '.join(problems)}.",
            hint="Wait until it answers again; whoever runs the server finds the reason in its log.",
            details={"not_ready": problems},
            headers={"Retry-After": str(_RETRY_SECONDS)},
        )
    # Without their store the limits are kept by each server alone: taking all servers out would be worse.
    degraded = {}
    if trouble := context.limits.trouble:
        degraded["rate_limits"] = trouble
    # Jobs, downloads and what frees room go on without any.
    if await context.objects.free_bytes() == 0:
        degraded["storage"] = "is full; uploads are refused"
    return Ready(degraded=degraded)
