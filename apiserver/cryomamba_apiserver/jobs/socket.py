"""The WebSocket `/ws/jobs/{job_id}`."""

import asyncio
import contextlib
import json
from typing import Annotated

from fastapi import APIRouter, Query, WebSocket, WebSocketDisconnect

from cryomamba_apiserver.auth import Principal, Scope, bearer_token
from cryomamba_apiserver.context import Context
from cryomamba_apiserver.errors import AuthenticationError, NotFoundError
from cryomamba_apiserver.jobs.schemas import PongMessage

router = APIRouter(tags=["jobs"])

_UNAUTHENTICATED = 4401
_FORBIDDEN = 4403
_NOT_FOUND = 4404
_LONGEST_PING = 1024
_GOING_AWAY = 1012
_SUBPROTOCOL = "bearer."


@router.websocket("/ws/jobs/{job_id}")
async def watch_job(
    socket: WebSocket,
    job_id: str,
    token: Annotated[str | None, Query()] = None,
) -> None:
    """Progress, previews and the end of a job, as they happen."""
    context: Context = socket.app.state.context
    offered = next((name for name in socket.scope["subprotocols"] if name.startswith(_SUBPROTOCOL)), None)
    await socket.accept(subprotocol=offered)
    credentials = bearer_token(socket) or (offered or "").removeprefix(_SUBPROTOCOL) or token
    try:
        principal = _principal(context, credentials)
        if not principal.scopes & {Scope.READ, Scope.ADMIN}:
            await socket.close(_FORBIDDEN, "the token lacks the scope 'read'")
            return
        await context.jobs.get(principal, job_id)
    except AuthenticationError as error:
        await socket.close(_UNAUTHENTICATED, error.failure.message)
        return
    except NotFoundError as error:
        await socket.close(_NOT_FOUND, error.failure.message)
        return
    await _serve(context, socket, job_id)


def _principal(context: Context, token: str | None) -> Principal:
    if token is None:
        raise AuthenticationError("The request carries no token.", hint="Send one as ?token=… or in a header.")
    return context.authority.check(token)


async def _serve(context: Context, socket: WebSocket, job_id: str) -> None:
    """Send until the job has ended or the client has gone, whichever is first."""
    sending = asyncio.create_task(_send(context, socket, job_id))
    receiving = asyncio.create_task(_answer_pings(context, socket))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (sending, receiving):
            task.cancel()
        results = await asyncio.gather(sending, receiving, return_exceptions=True)
    for result in results:
        if isinstance(result, Exception) and not isinstance(result, WebSocketDisconnect):
            raise result


async def _send(context: Context, socket: WebSocket, job_id: str) -> None:
    async with contextlib.aclosing(context.live.messages(job_id)) as messages:
        async for message in messages:
            await socket.send_text(message)
    await socket.close(_GOING_AWAY if context.live.closed else 1000)


async def _answer_pings(context: Context, socket: WebSocket) -> None:
    while (message := await socket.receive())["type"] == "websocket.receive":
        if _is_ping(message.get("text")):
            await socket.send_text(PongMessage(timestamp=context.now()).model_dump_json())


def _is_ping(text: str | None) -> bool:
    """Whether a client's message is a ping; anything else is nothing to us, and never parsed where it is long."""
    if text is None or len(text) > _LONGEST_PING:
        return False
    try:
        message = json.loads(text)
    except ValueError:
        return False
    return isinstance(message, dict) and message.get("type") == "ping"
