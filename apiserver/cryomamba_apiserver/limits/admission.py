"""Asks of every request who sends it and whether that is too much, before anything else looks at it."""

import contextlib
import ipaddress
import re
from typing import TYPE_CHECKING

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cryomamba_apiserver.auth import Principal, bearer_token, no_token
from cryomamba_apiserver.errors import ApiError, RateLimitedError, answer_to

if TYPE_CHECKING:
    from cryomamba_apiserver.context import Context
    from cryomamba_apiserver.limits.quota import Quota

PROBES = frozenset({"/v1/healthz", "/livez", "/readyz"})
"""Never counted nor refused: a probe that is answered 429 has a healthy server killed."""
_PART = re.compile(r"/v1/uploads/[^/]+/part/[^/]+")
_LINK = re.compile(r"/v1/files/[^/]+/[^/]+")
_FORBIDDEN = 403
_IPV6_NETWORK = 64  # bits; whoever has one IPv6 address usually has all of its network


class RateLimitHeaders:
    """Middleware that adds the three headers to every answer; goes around whatever else may answer."""

    def __init__(self, app: ASGIApp) -> None:
        """Take the app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                quota: Quota | None = scope["state"].get("quota")
                # What was answered before `Admission` saw it, a preflight for one, counts for nobody.
                quota = quota or await _context(scope).limits.quota(address_of(scope))
                message["headers"] = [*message.get("headers", ()), *quota.headers()]
            await send(message)

        scope.setdefault("state", {})
        await self._app(scope, receive, send_with_headers)


class Admission:
    """Middleware that finds out who sends a request, counts it for them, and refuses what is too much.

    Routes find who it is in the request's state, as `caller`: a principal, or the error that its token met. A request
    with a token that is valid counts for its subject, any other for its address. Parts of an upload are not counted:
    how many are in flight is what limits them. Neither are downloads by a good link, which many behind one address may
    have, and of which ranges make many requests; links that are refused are, for the address.
    """

    def __init__(self, app: ASGIApp) -> None:
        """Take the app."""
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""
        if scope["type"] != "http" or scope["path"] in PROBES:
            await self._app(scope, receive, send)
            return
        context, state = _context(scope), scope.setdefault("state", {})
        caller = state["caller"] = await _holder(context, bearer_token(HTTPConnection(scope)))
        if is_link(scope["method"], scope["path"]):
            await self._link(context, scope, receive, send)
            return
        who = _who(caller, scope)
        if isinstance(caller, Principal) and is_part(scope["method"], scope["path"]):
            state["quota"] = await context.limits.quota(who)
        else:
            try:
                state["quota"] = await context.limits.request(who)
            except RateLimitedError as error:
                state["quota"] = await context.limits.quota(who)
                await answer_to(error)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    async def _link(self, context: "Context", scope: Scope, receive: Receive, send: Send) -> None:
        """Let a download pass that may be good; whoever has sent many bad links is refused before one is looked up."""
        who, state = f"link:{address_of(scope)}", scope["state"]
        state["quota"] = await context.limits.quota(who)
        if not state["quota"].remaining:
            try:
                state["quota"] = await context.limits.request(who)
            except RateLimitedError as error:
                await answer_to(error)(scope, receive, send)
                return

        async def send_counting(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == _FORBIDDEN:
                with contextlib.suppress(RateLimitedError):  # then the next is refused; this one is answered already
                    state["quota"] = await context.limits.request(who)
            await send(message)

        await self._app(scope, receive, send_counting)


async def admit_socket(context: "Context", scope: Scope, token: str) -> Principal:
    """Return who opens a WebSocket with a token; an empty one is none. The handshake counts like a request.

    Raises:
        AuthenticationError: The token is missing or not valid.
        RateLimitedError: It is one too many.
        UnavailableError: The token can't be checked at the moment.
    """
    caller = scope.setdefault("state", {})["caller"] = await _holder(context, token or None)
    await context.limits.request(_who(caller, scope))
    if isinstance(caller, ApiError):
        raise caller
    return caller


def is_part(method: str, path: str) -> bool:
    """Return whether a request sends a part of an upload."""
    return method == "PUT" and _PART.fullmatch(path) is not None


def is_link(method: str, path: str) -> bool:
    """Return whether a request shows a signed link."""
    return method in {"GET", "HEAD"} and _LINK.fullmatch(path) is not None


def _who(caller: Principal | ApiError, scope: Scope) -> str:
    # A subject may be called like an address.
    return f"subject:{caller.subject}" if isinstance(caller, Principal) else address_of(scope)


def address_of(scope: Scope) -> str:
    """Return what stands for the sender of a connection that has no valid token.

    Behind a proxy this is the client's address where uvicorn trusts the proxy's X-Forwarded-For.
    """
    client = scope.get("client")
    host = client[0] if client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return f"ip:{host}"  # a Unix socket, for one
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return f"ip:{address.ipv4_mapped}"
        return f"ip:{ipaddress.ip_network((int(address), _IPV6_NETWORK), strict=False)}"
    return f"ip:{address}"


def _context(scope: Scope) -> "Context":
    context: Context = scope["app"].state.context
    return context


async def _holder(context: "Context", token: str | None) -> Principal | ApiError:
    if token is None:
        return no_token()
    try:
        return await context.authority.check(token)
    except ApiError as error:
        return error
