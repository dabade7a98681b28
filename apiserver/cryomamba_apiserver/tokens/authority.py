"""The port of what checks tokens, and the order in which it is done."""

import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jwt

from cryomamba_apiserver.auth import Principal, invalid_token
from cryomamba_apiserver.tokens.claims import Claims, check_expiry, read_claims
from cryomamba_apiserver.tokens.denied import DeniedTokens
from cryomamba_apiserver.tokens.key_set import PublicKey

LONGEST_TOKEN = 8192
"""Bytes; nothing longer is looked into."""
_REMEMBERED = 4096


class TokenAuthority(Protocol):
    """Whose tokens are good here."""

    async def check(self, token: str) -> Principal:
        """Return who holds a token.

        Raises:
            AuthenticationError: It is not valid. The error never repeats it.
            UnavailableError: What it takes to know is not there at the moment.
        """
        ...

    async def close(self) -> None:
        """End what is still going on."""
        ...


class Verifier:
    """Checks all of a token but its signature, and remembers those that were good.

    A signature takes longer to check than everything else that a small request asks for. What changes is asked each
    time all the same: the clock, and the tokens that have been revoked. Only what has a good signature is remembered,
    so that nobody else can fill the memory, and only by its hash.
    """

    def __init__(self, issuer: str, audience: str, denied: DeniedTokens, clock: Callable[[], float]) -> None:
        """Take what a token must claim, and the clock in seconds of the Unix epoch."""
        self._issuer = issuer
        self._audience = audience
        self._denied = denied
        self._clock = clock
        self._good: dict[bytes, Claims] = {}

    def remembered(self, token: str) -> Principal | None:
        """Return the holder of a token that was good before, None where it is a new one.

        Raises:
            AuthenticationError: It is no longer good, or too long to be looked into.
        """
        if len(token) > LONGEST_TOKEN:
            raise invalid_token("The token is too long.")
        claims = self._good.get(_digest(token))
        return None if claims is None else self._still_good(claims)

    def accept(self, token: str, payload: Mapping[str, Any]) -> Principal:
        """Return the holder of a token whose signature is good; raise AuthenticationError."""
        claims = read_claims(payload, self._issuer, self._audience, self._clock())
        principal = self._still_good(claims)
        if len(self._good) >= _REMEMBERED:
            del self._good[next(iter(self._good))]  # the oldest
        self._good[_digest(token)] = claims
        return principal

    def forget(self) -> None:
        """Forget all tokens: keys have changed."""
        self._good.clear()

    def _still_good(self, claims: Claims) -> Principal:
        check_expiry(claims.expires, self._clock())
        if claims.jti is not None and self._denied.has(claims.jti):
            raise invalid_token("The token has been revoked.")
        return claims.principal


def read_header(token: str, algorithms: frozenset[str]) -> dict[str, Any]:
    """Return the header of a token, which nobody has vouched for yet.

    Raises:
        AuthenticationError: There is none that can be read, or its algorithm is none of those that are used here, or it
            asks for something that is not understood here.
    """
    try:
        header = jwt.get_unverified_header(token)
    except (jwt.InvalidTokenError, ValueError, RecursionError):
        raise invalid_token("This is no token that can be read here.") from None
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms:
        raise invalid_token("The token is signed in a way that does not count here.")
    # RFC 7515, section 4.1.11: what is critical and not understood makes it invalid. Nothing is understood here, while
    # PyJWT understands `b64`.
    if "crit" in header:
        raise invalid_token("The token has critical extensions that are unknown here.")
    return header


def read_payload(token: str, key: bytes | PublicKey, algorithm: str) -> dict[str, Any]:
    """Return the payload of a token that this key has signed; raise AuthenticationError."""
    # Not `jwt.decode`: the claims are `read_claims`' business, which asks the clock that everybody else here asks.
    try:
        payload = json.loads(jwt.PyJWS().decode(token, key, algorithms=[algorithm]))
    except (jwt.PyJWTError, ValueError, RecursionError):
        raise invalid_token("The token is not valid here.") from None
    if not isinstance(payload, dict):
        raise invalid_token("The token claims nothing.")
    return payload


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode(errors="surrogatepass")).digest()
