"""Signed, time-limited links to artifacts: HMAC-SHA256 over method, path, owner and expiry."""

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from urllib.parse import quote


def download_path(job_id: str, name: str) -> str:
    """Return the path of an artifact."""
    return f"/v1/files/{_quoted(job_id)}/{_quoted(name)}"


@lru_cache(maxsize=4096)  # a job's details are asked for again and again, and this is most of what a link costs
def _quoted(text: str) -> str:
    return quote(text, safe="")


@dataclass(frozen=True)
class LinkSigner:
    """Makes and checks links."""

    key: bytes
    ttl: timedelta

    @classmethod
    def from_secret(cls, secret: bytes, ttl: timedelta) -> "LinkSigner":
        """Derive a key of its own, so that a signature is never good for anything else than a download."""
        return cls(hmac.digest(secret, b"cryomamba download links", "sha256"), ttl)

    def link(self, job_id: str, name: str, owner: str, now: datetime) -> str:
        """Return a relative URL that lets its holder download one artifact for a while."""
        path = download_path(job_id, name)
        expires = int((now + self.ttl).timestamp())
        return f"{path}?token={self._sign(path, owner, expires)}&expires={expires}"

    def valid(self, job_id: str, name: str, owner: str, token: str, expires: int, now: datetime) -> bool:
        """Return whether a link was made here and has not expired."""
        expected = self._sign(download_path(job_id, name), owner, expires)
        return hmac.compare_digest(expected.encode(), token.encode()) and now.timestamp() < expires

    def _sign(self, path: str, owner: str, expires: int) -> str:
        # No part can contain a line feed: paths are quoted, and an owner's are escaped.
        signed = "\n".join(["GET", path, _quoted(owner), str(expires)])
        return hmac.digest(self.key, signed.encode(), "sha256").hex()
