"""Routes that ask who is there, and bound what they say, before anything of a body is kept."""

import re
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive

from cryomamba_apiserver.auth import authenticate, reader
from cryomamba_apiserver.errors import MediaTypeError

_LONGEST_JSON = 2 << 20  # bytes; the longest is the list of 10,000 parts
_JSON = re.compile(r"application/([^/]+\+)?json")
_LONGEST_PART = 64 << 20  # bytes; parts are streamed, and never longer than this


class AuthenticatedRoute(APIRoute):
    """FastAPI reads a body before it looks at a token; strangers could fill the memory."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return the handler behind the question."""
        handle = self.handler()
        takes_json = self.body_field is not None
        longest = _LONGEST_PART if "PUT" in (self.methods or ()) else _LONGEST_JSON

        async def authenticated(request: Request) -> Response:
            request.state.principal = authenticate(request)
            # What is announced as too long is refused before it is sent; what lies, while it is read.
            declared = request.headers.get("content-length", "")
            if declared.isdecimal() and int(declared) > longest:  # the HTTP parser bounds its digits
                raise HTTPException(413)
            if takes_json and (declared or "transfer-encoding" in request.headers):
                _check_is_json(request.headers.get("content-type", ""))
            return await handle(Request(request.scope, _bounded(request.receive, longest)))

        return authenticated

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return what handles a request whose sender is known: FastAPI's own way."""
        return super().get_route_handler()


class PolledRoute(AuthenticatedRoute):
    """A route that is asked for more often than all others together.

    Its function has a `job_id`, a `principal` who may read and the `request`, which is how it is documented, and is
    called with them directly: to find that out for each request takes FastAPI longer than the function itself.
    """

    def handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a handler that calls the function, which makes the response itself."""

        async def handle(request: Request) -> Response:
            answer: Response = await self.endpoint(request.path_params["job_id"], await reader(request), request)
            return answer

        return handle


def _check_is_json(content_type: str) -> None:
    """Raise MediaTypeError where a body is not said to be JSON; FastAPI would say that it is no valid dictionary."""
    media_type = content_type.partition(";")[0].strip().lower()
    if not _JSON.fullmatch(media_type):
        raise MediaTypeError(
            f"The body is {media_type[:64] or 'of a type that is not said'}, and not application/json.",
            hint="Send JSON, and with it the header Content-Type: application/json.",
            details={"field": "header.Content-Type"},
        )


def _bounded(receive: Receive, longest: int) -> Receive:
    """Return `receive` that refuses a body once it is longer than it may be, whatever was announced."""
    received = 0

    async def bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > longest:
            raise HTTPException(413)
        return message

    return bounded
