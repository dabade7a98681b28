"""What a token must claim: the rules, without keys and signatures."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryomamba_apiserver.auth import Principal, Scope, invalid_token

LEEWAY_SECONDS = 30
"""How far the clocks of an issuer and of this server may be apart."""
LONGEST_SUBJECT = 255
"""Characters; as OpenID Connect Core 1.0, section 2, has it."""
_LONGEST_JTI = 255
_LATEST = 2**53
"""Seconds; whole ones up to this are exact as a float, and no clock gets there."""


@dataclass(frozen=True, slots=True)
class Claims:
    """What of a verified token still matters when it is sent again.

    Attributes:
        principal: Who holds it.
        expires: Seconds of the Unix epoch.
        jti: Its id, by which it can be revoked; None where it has none.
    """

    principal: Principal
    expires: float
    jti: str | None


def read_claims(claims: Mapping[str, Any], issuer: str, audience: str, now: float) -> Claims:
    """Return what a token with a good signature claims.

    Args:
        claims: The token's payload.
        issuer: The `iss` that it must have.
        audience: What its `aud` must be, or name among others.
        now: Seconds of the Unix epoch.

    Raises:
        AuthenticationError: A claim is missing, malformed, or not one that counts here. It never repeats a value.
    """
    if missing := [name for name in ("exp", "iss", "aud", "sub") if name not in claims]:
        raise invalid_token(f"The token lacks the claim {missing[0]}.")
    if claims["iss"] != issuer:
        raise invalid_token("The token is of another issuer.")
    audiences = claims["aud"] if isinstance(claims["aud"], list) else [claims["aud"]]
    if audience not in audiences:
        raise invalid_token("The token is for another audience.")
    expires = _moment(claims, "exp")
    check_expiry(expires, now)
    for name in ("nbf", "iat"):
        if name in claims and _moment(claims, name) > now + LEEWAY_SECONDS:
            raise invalid_token("The token is not valid yet.")
    jti = claims.get("jti")
    if jti is not None and not (isinstance(jti, str) and len(jti) <= _LONGEST_JTI):
        raise _malformed("jti")
    return Claims(Principal(_subject(claims), _scopes(claims)), expires, jti)


def check_expiry(expires: float, now: float) -> None:
    """Raise AuthenticationError where a token has expired; both in seconds of the Unix epoch."""
    if expires + LEEWAY_SECONDS <= now:
        raise invalid_token("The token has expired.")


def is_subject(name: str) -> bool:
    """Return whether somebody can be called so: something to be seen, and nothing that ends up elsewhere as control."""
    return name == name.strip() and 0 < len(name) <= LONGEST_SUBJECT and name.isprintable()


def _moment(claims: Mapping[str, Any], name: str) -> float:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not -_LATEST < value < _LATEST:
        raise _malformed(name)
    return value


def _subject(claims: Mapping[str, Any]) -> str:
    subject = claims["sub"]
    if not isinstance(subject, str) or not is_subject(subject):
        raise _malformed("sub")
    return subject


def _scopes(claims: Mapping[str, Any]) -> frozenset[Scope]:
    if "scope" in claims:
        if not isinstance(claims["scope"], str):
            raise _malformed("scope")
        names = claims["scope"].split()
    else:
        names = claims.get("scopes", [])
        if not isinstance(names, list):
            raise _malformed("scopes")
    # An issuer's tokens have scopes that mean something elsewhere.
    return frozenset(scope for scope in Scope if scope in names)


def _malformed(name: str) -> Exception:
    return invalid_token(f"The claim {name} of the token is malformed.")
