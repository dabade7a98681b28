"""Who is asking: principals, their scopes, and what routes demand of them."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

from fastapi import Depends, Request
from fastapi.openapi.models import HTTPBearer as HTTPBearerModel
from fastapi.requests import HTTPConnection
from fastapi.security.base import SecurityBase

from cryomamba_apiserver.errors import ApiError, AuthenticationError, ForbiddenError

_HINT = "Send a token as 'Authorization: Bearer …'; `cryomamba token create` makes one."


class Scope(StrEnum):
    """What a token allows."""

    READ = "read"
    WRITE = "write"
    ADMIN = "admin"


@dataclass(frozen=True)
class Principal:
    """Whoever sent the request."""

    subject: str
    scopes: frozenset[Scope]

    @property
    def owner_filter(self) -> str | None:
        """The owner whose things this principal sees; None: everybody's."""
        return None if Scope.ADMIN in self.scopes else self.subject

    def may_see(self, owner: str | None) -> bool:
        """Return whether something of this owner, or of nobody, exists for this principal."""
        return self.owner_filter is None or self.owner_filter == owner


def no_token() -> AuthenticationError:
    """Return the refusal of a request without a token."""
    return AuthenticationError("The request carries no token.", hint=_HINT, headers={"WWW-Authenticate": "Bearer"})


def invalid_token(message: str) -> AuthenticationError:
    """Return the refusal of a token; the message must not repeat it."""
    # RFC 6750, section 3: a client learns from it that another token is needed, and not another way of sending it.
    challenge = f'Bearer error="invalid_token", error_description="{message}"'
    return AuthenticationError(message, hint=_HINT, headers={"WWW-Authenticate": challenge})


def bearer_token(connection: HTTPConnection) -> str | None:
    """Return the token of a request or a WebSocket handshake, None where it carries none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None


def authenticate(connection: HTTPConnection) -> Principal:
    """Return who sent a request, as the middleware `Admission` found out; raise what it met instead."""
    caller: Principal | ApiError = connection.scope["state"]["caller"]
    if isinstance(caller, ApiError):
        raise caller
    return caller


class _Requires(SecurityBase):
    """The dependency of a route: who sent the request, if they may.

    One that shows the scheme in the OpenAPI document and does the work as well, and a coroutine: each dependency costs
    as much as all of a small answer, and one that is a function a thread besides.
    """

    def __init__(self, scope: Scope) -> None:
        self.model = HTTPBearerModel(bearerFormat="JWT", description="`cryomamba token create` makes one.")
        self.scheme_name = "HTTPBearer"
        self._scope = scope

    async def __call__(self, request: Request) -> Principal:
        """Return who sent a request, as `AuthenticatedRoute` found out; raise ForbiddenError."""
        principal: Principal = request.state.principal
        if self._scope not in principal.scopes and Scope.ADMIN not in principal.scopes:
            raise ForbiddenError(
                f"The token does not allow this: it lacks the scope '{self._scope}'.",
                hint=f"Ask for a token with the scope '{self._scope}'.",
                headers={"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{self._scope}"'},
            )
        return principal


reader = _Requires(Scope.READ)
Reader = Annotated[Principal, Depends(reader)]
Writer = Annotated[Principal, Depends(_Requires(Scope.WRITE))]
