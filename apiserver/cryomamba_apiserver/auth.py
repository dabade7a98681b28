"""Who is asking: JWT bearer tokens, HS256 with a secret that the data directory keeps."""

import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import jwt
from fastapi import Depends, Request
from fastapi.requests import HTTPConnection
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from cryomamba_apiserver.errors import AuthenticationError, ForbiddenError

_ALGORITHM = "HS256"
_SECRET_BYTES = 32


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

    def may_see(self, owner: str) -> bool:
        """Return whether something of this owner exists for this principal."""
        return self.owner_filter in (None, owner)


@dataclass(frozen=True)
class TokenAuthority:
    """Issues and checks tokens."""

    secret: bytes
    issuer: str
    audience: str
    now: Callable[[], datetime]

    def issue(self, subject: str, scopes: frozenset[Scope], ttl: timedelta) -> str:
        """Return a token for a subject."""
        now = self.now()
        claims = {
            "iss": self.issuer,
            "aud": self.audience,
            "sub": subject,
            "scope": " ".join(sorted(scopes)),
            "iat": now,
            "exp": now + ttl,
            "jti": secrets.token_hex(16),
        }
        return jwt.encode(claims, self.secret, algorithm=_ALGORITHM)

    def check(self, token: str) -> Principal:
        """Return who holds a token; raise AuthenticationError, which never repeats it."""
        try:
            claims: dict[str, Any] = jwt.decode(
                token,
                self.secret,
                algorithms=[_ALGORITHM],
                issuer=self.issuer,
                audience=self.audience,
                options={"require": ["exp", "iss", "aud", "sub"]},
            )
        except jwt.ExpiredSignatureError:
            raise _unauthenticated("The token has expired.") from None
        except jwt.InvalidTokenError:
            raise _unauthenticated("The token is not valid here.") from None
        return Principal(subject=claims["sub"], scopes=_scopes(claims))


def _scopes(claims: dict[str, Any]) -> frozenset[Scope]:
    named = claims.get("scope", claims.get("scopes", ""))
    names = named.split() if isinstance(named, str) else named
    return frozenset(scope for scope in Scope if isinstance(names, list) and scope in names)


def _unauthenticated(message: str) -> AuthenticationError:
    return AuthenticationError(
        message,
        hint="Send a token as 'Authorization: Bearer …'; `cryomamba token create` makes one.",
        headers={"WWW-Authenticate": "Bearer"},
    )


def load_or_create_secret(data_dir: Path) -> bytes:
    """Return the data directory's signing secret, made at the first call and readable by its owner alone."""
    path = data_dir / "secret"
    data_dir.mkdir(parents=True, exist_ok=True)
    temporary = data_dir / f".secret.{secrets.token_hex(8)}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(_SECRET_BYTES).encode())
        # Two commands that start at once must end up with one secret: the first link wins.
        if not path.exists():
            os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    return path.read_bytes()


def bearer_token(connection: HTTPConnection) -> str | None:
    """Return the token of a request or a WebSocket handshake, None where it carries none."""
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" and token else None


def authenticate(connection: HTTPConnection) -> Principal:
    """Return who sent a request; raise AuthenticationError."""
    token = bearer_token(connection)
    if token is None:
        raise _unauthenticated("The request carries no token.")
    authority: TokenAuthority = connection.app.state.context.authority
    return authority.check(token)


# Only shown in the OpenAPI document; `authenticate` does the work, so that its errors come out in the envelope.
_bearer = HTTPBearer(auto_error=False, bearerFormat="JWT", description="`cryomamba token create` makes one.")
_ShownScheme = Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]


def _authenticated(request: Request) -> Principal:
    """Return who sent a request, as `AuthenticatedRoute` found out."""
    principal: Principal = request.state.principal
    return principal


def _require(scope: Scope) -> Callable[..., Principal]:
    def check(principal: Annotated[Principal, Depends(_authenticated)], _: _ShownScheme) -> Principal:
        if scope not in principal.scopes and Scope.ADMIN not in principal.scopes:
            raise ForbiddenError(
                f"The token does not allow this: it lacks the scope '{scope}'.",
                hint=f"Ask for a token with the scope '{scope}'.",
            )
        return principal

    return check


Reader = Annotated[Principal, Depends(_require(Scope.READ))]
Writer = Annotated[Principal, Depends(_require(Scope.WRITE))]
