"""The WebSocket `/ws/jobs/{job_id}`."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from cryomamba_apiserver.auth import Scope, bearer_token
from cryomamba_apiserver.context import Context
from cryomamba_apiserver.errors import (
    AuthenticationError,
    ForbiddenError,
    NotFoundError,
    RateLimitedError,
    UnavailableError,
)
from cryomamba_apiserver.jobs.mailbox import FRAMES, WriteFrame
from cryomamba_apiserver.jobs.schemas import PongMessage
from cryomamba_apiserver.limits.admission import admit_socket
from cryomamba_apiserver.ports.job_store import JobsUnavailableError
from cryomamba_apiserver.ports.object_store import StoreUnavailableError

_log = logging.getLogger(__name__)

router = APIRouter(tags=["jobs"])

_FINISHED = 1000
_GOING_AWAY = 1012
_TRY_AGAIN_LATER = 1013
_REFUSALS = {
    AuthenticationError: 4401,
    ForbiddenError: 4403,
    NotFoundError: 4404,
    RateLimitedError: 4429,
    UnavailableError: _TRY_AGAIN_LATER,
}
_LONGEST_REASON = 123
"""Bytes; all that a closing frame has room for."""
_LONGEST_PING = 1024
_BEARER = "bearer."
_TOKEN_CHECK_SECONDS = 15
"""How often the token of an open socket is looked at again: it may have expired or been revoked."""


@dataclass(frozen=True)
class _Watching:
    """One socket and what it is for."""

    context: Context
    socket: WebSocket
    job_id: str
    token: str


@router.websocket("/ws/jobs/{job_id}")
async def watch_job(
    socket: WebSocket,
    job_id: str,
    token: Annotated[str | None, Query()] = None,
) -> None:
    """Progress, previews and the end of a job, as they happen."""
    offered: Sequence[str] = socket.scope["subprotocols"]
    bearer = next((name for name in offered if name.startswith(_BEARER)), "")
    # Accepted before anything is asked: a closing code only reaches a client whose connection stands.
    await socket.accept(subprotocol=_chosen(offered))
    credentials = bearer_token(socket) or bearer.removeprefix(_BEARER) or token or ""
    try:
        code, reason = await _watch(_Watching(socket.app.state.context, socket, job_id, credentials))
    except StoreUnavailableError as error:
        _log.error("the store cannot be used: %s", error)
        code, reason = _TRY_AGAIN_LATER, "The server's object store cannot be used now."
    except JobsUnavailableError as error:
        _log.error("jobs cannot be asked about: %s", error)
        code, reason = _TRY_AGAIN_LATER, str(error)
    except tuple(_REFUSALS) as refusal:
        code, reason = _REFUSALS[type(refusal)], refusal.failure.message
    except WebSocketDisconnect:
        return
    with contextlib.suppress(WebSocketDisconnect):  # gone meanwhile
        await socket.close(code, reason.encode()[:_LONGEST_REASON].decode(errors="ignore"))


def _chosen(offered: Sequence[str]) -> str | None:
    """Return the subprotocol that is answered: a browser gives up unless it is one that it offered.

    Rather another than the one with the token, which would then be in the answer's headers too.
    """
    return next((name for name in offered if not name.startswith(_BEARER)), offered[0] if offered else None)


async def _watch(watching: _Watching) -> tuple[int, str]:
    """Serve a socket that may watch; return the code and reason to close it with."""
    context = watching.context
    principal = await admit_socket(context, watching.socket.scope, watching.token)
    if not principal.scopes & {Scope.READ, Scope.ADMIN}:
        raise ForbiddenError("The token lacks the scope 'read'.", hint="Ask for a token with the scope 'read'.")
    await context.jobs.get(principal, watching.job_id)
    async with context.limits.socket(principal.subject):
        await _serve(watching)
    return (_GOING_AWAY, "the server restarts") if context.live.closed else (_FINISHED, "")


async def _serve(watching: _Watching) -> None:
    """Send until the job has ended, the client has gone or its token is no longer good, whichever is first."""
    tasks = [asyncio.create_task(part(watching)) for part in (_send, _answer_pings, _check_token)]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception):
            raise result


async def _send(watching: _Watching) -> None:
    extensions = watching.socket.scope.get("extensions") or {}
    write: WriteFrame | None = extensions.get(FRAMES, {}).get("write")
    async with contextlib.aclosing(watching.context.live.messages(watching.job_id, write)) as messages:
        async for message in messages:
            await watching.socket.send(message.event)


async def _answer_pings(watching: _Watching) -> None:
    socket = watching.socket
    while (message := await socket.receive())["type"] == "websocket.receive":
        if _is_ping(message.get("text")):
            await socket.send_text(PongMessage(timestamp=watching.context.now()).model_dump_json())
    raise WebSocketDisconnect


async def _check_token(watching: _Watching) -> None:
    """Raise AuthenticationError once the token is no longer good."""
    while True:
        await asyncio.sleep(_TOKEN_CHECK_SECONDS)
        with contextlib.suppress(UnavailableError):  # it was good; whether it still is shows when this can be known
            await watching.context.authority.check(watching.token)


def _is_ping(text: str | None) -> bool:
    """Whether a client's message is a ping; anything else is nothing to us, and never parsed where it is long."""
    if text is None or len(text) > _LONGEST_PING:
        return False
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(message, dict) and message.get("type") == "ping"
