"""The keys of an issuer: which of a JSON Web Key Set are used, and for what."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

PublicKey = RSAPublicKey | EllipticCurvePublicKey

RS256, ES256 = "RS256", "ES256"
ALGORITHMS = frozenset({RS256, ES256})
_SHORTEST_RSA = 2048  # bits; RFC 7518, section 3.3
_MOST_KEYS = 64


@dataclass(frozen=True)
class KeySet:
    """Public keys by algorithm and key id."""

    keys: Mapping[tuple[str, str | None], PublicKey]

    def find(self, algorithm: str, kid: object) -> PublicKey | None:
        """Return the key that a token names, or the only one of its algorithm where it names none."""
        if isinstance(kid, str):
            return self.keys.get((algorithm, kid))
        of_algorithm = [key for (used_for, _), key in self.keys.items() if used_for == algorithm]
        return of_algorithm[0] if kid is None and len(of_algorithm) == 1 else None


def read_key_set(document: object) -> KeySet:
    """Return the usable keys of a JSON Web Key Set (RFC 7517).

    A key is used for one algorithm, the one that its type stands for, so that a token cannot choose another: RSA of
    2048 bits or more for RS256, P-256 for ES256. Symmetric keys, keys for encryption and keys with a private part
    are passed over, as are those that can't be read: an issuer may have more than what is used here.

    Raises:
        ValueError: It is no key set, or none of its keys is usable.
    """
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise ValueError("it is no JSON Web Key Set")  # noqa: TRY004 - a document that is wrong, no argument
    keys: dict[tuple[str, str | None], PublicKey] = {}
    for entry in listed[:_MOST_KEYS]:
        algorithm = _algorithm(entry) if isinstance(entry, dict) else None
        key = _public_key(entry) if algorithm else None
        if algorithm and key is not None:
            keys.setdefault((algorithm, entry.get("kid")), key)
    if not keys:
        raise ValueError("none of its keys is one for RS256 or ES256")
    return KeySet(keys)


def _algorithm(entry: Mapping[str, Any]) -> str | None:
    """Return what a key is for, None where it is nothing that is used here."""
    of_type = {("RSA", None): RS256, ("EC", "P-256"): ES256}.get(
        (str(entry.get("kty")), str(entry.get("crv")) if entry.get("kty") == "EC" else None)
    )
    uses = entry.get("key_ops", ["verify"])
    verifies = entry.get("use") in (None, "sig") and isinstance(uses, list) and "verify" in uses
    named = isinstance(entry.get("kid"), str | None)
    return of_type if verifies and named and "d" not in entry and entry.get("alg") in (None, of_type) else None


def _public_key(entry: dict[str, Any]) -> PublicKey | None:
    try:
        key = jwt.PyJWK(entry).key
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError, OverflowError):
        return None
    if isinstance(key, RSAPublicKey):
        return key if key.key_size >= _SHORTEST_RSA else None
    return key if isinstance(key, EllipticCurvePublicKey) else None
