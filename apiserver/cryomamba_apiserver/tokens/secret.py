"""Tokens of the server's own: HS256 with a secret that only it knows."""

import os
import secrets
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import jwt

from cryomamba_apiserver.auth import Principal, Scope
from cryomamba_apiserver.tokens.authority import Verifier, read_header, read_payload
from cryomamba_apiserver.tokens.denied import DeniedTokens
from cryomamba_crds.failures import FailureCode, FailureError

SHORTEST_SECRET = 32
"""Bytes; RFC 7518, section 3.2: not shorter than the hash."""
_ALGORITHM = "HS256"


class SecretAuthority:
    """Issues tokens, and checks them."""

    def __init__(
        self, secret: bytes, issuer: str, audience: str, now: Callable[[], datetime], denied: DeniedTokens
    ) -> None:
        """Take the secret, what tokens claim, and the clock."""
        self.secret = secret
        self._issuer = issuer
        self._audience = audience
        self._now = now
        self._verifier = Verifier(issuer, audience, denied, lambda: now().timestamp())

    def issue(self, subject: str, scopes: frozenset[Scope], ttl: timedelta) -> str:
        """Return a token for a subject."""
        now = self._now()
        claims = {
            "iss": self._issuer,
            "aud": self._audience,
            "sub": subject,
            "scope": " ".join(sorted(scopes)),
            "iat": now,
            "exp": now + ttl,
            "jti": secrets.token_hex(16),
        }
        return jwt.encode(claims, self.secret, algorithm=_ALGORITHM)

    async def check(self, token: str) -> Principal:
        """Return who holds a token; raise AuthenticationError, which never repeats it."""
        if (principal := self._verifier.remembered(token)) is not None:
            return principal
        read_header(token, frozenset({_ALGORITHM}))
        return self._verifier.accept(token, read_payload(token, self.secret, _ALGORITHM))

    async def close(self) -> None:
        """Do nothing: nothing goes on."""


def token_id(token: str) -> str:
    """Return the `jti` of a token that was issued here."""
    jti: str = jwt.decode(token, options={"verify_signature": False})["jti"]
    return jti


def load_or_create_secret(data_dir: Path) -> bytes:
    """Return the data directory's signing secret, made at the first call and readable by its owner alone."""
    path = data_dir / "secret"
    if not path.exists():  # nothing is written where it does: a full disk must not keep anybody from reading it
        _create_secret(path)
    return long_enough(path.read_bytes(), str(path))


def _create_secret(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".secret.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_hex(SHORTEST_SECRET).encode())
        # Two commands that start at once must end up with one secret: the first link wins.
        os.link(temporary, path)
    except FileExistsError:
        pass
    finally:
        temporary.unlink()


def read_secret(file: Path) -> bytes:
    """Return the secret of a file, without the line feed that editors put at its end; raise FailureError."""
    try:
        secret = file.read_bytes()
    except OSError as error:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"CRYOMAMBA_TOKEN_SECRET_FILE: {file} can't be read: {error.strerror}.",
            hint="Name a file that the server may read.",
        ) from error
    return long_enough(secret.rstrip(b"\r\n"), f"CRYOMAMBA_TOKEN_SECRET_FILE: {file}")


def long_enough(secret: bytes, source: str) -> bytes:
    """Return a secret; raise FailureError, which does not show it, where guessing it would be too easy."""
    if len(secret) < SHORTEST_SECRET:
        raise FailureError(
            FailureCode.VALIDATION_ERROR,
            f"{source}: the secret has {len(secret)} bytes, and {SHORTEST_SECRET} are the fewest.",
            hint="Make one: openssl rand -hex 32",
        )
    return secret
