"""What a client may do to a connection, and what it is told where it does more."""

from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import IPv4Network, IPv6Network

from cryomamba_apiserver.operations.envelopes import Headers, envelope, response_bytes
from cryomamba_crds.failures import Failure, FailureCode


@dataclass(frozen=True)
class Bounds:
    """The settings of the same names; times in seconds, lengths in bytes."""

    max_connections: int
    max_connections_per_address: int
    trusted_proxies: tuple[IPv4Network | IPv6Network, ...]
    """The bound on an address is not theirs."""
    header_seconds: float
    body_seconds: float
    body_rate: int
    """Bytes a second."""
    send_seconds: float
    max_request_line: int
    max_headers: int


@dataclass(frozen=True)
class Refusal:
    """An answer that the protocol gives, since there is no request that an app could."""

    status: int
    message: str
    hint: str
    code: FailureCode = FailureCode.VALIDATION_ERROR
    retry_seconds: int | None = None

    def response(self, identity: str, headers: Headers) -> bytes:
        """Return the whole response: the envelope, the request's id, what all responses carry."""
        # Whoever was too slow may be faster the next time; what else is wrong stays so.
        retryable = self.code.retryable or self.status == HTTPStatus.REQUEST_TIMEOUT
        failure = Failure(code=self.code, message=self.message, hint=self.hint, retryable=retryable)
        own = [(b"x-request-id", identity.encode()), *headers, (b"cache-control", b"no-store")]
        if self.retry_seconds is not None:
            own.append((b"retry-after", str(self.retry_seconds).encode()))
        return response_bytes(self.status, own, envelope(failure))


MALFORMED = Refusal(400, "This is not an HTTP request.", "Use an HTTP/1.1 client.")
FULL = Refusal(
    503,
    "The server has as many connections as it may.",
    "Try again in a moment; close connections that are no longer needed.",
    code=FailureCode.SERVICE_UNAVAILABLE,
    retry_seconds=5,
)


CROWDED = Refusal(
    503,
    "There are as many connections from this address as there may be.",
    "Try again in a moment; close connections that are no longer needed.",
    code=FailureCode.SERVICE_UNAVAILABLE,
    retry_seconds=5,
)


def late_headers(bounds: Bounds) -> Refusal:
    """Return what a client is told whose headers do not come to their end."""
    return Refusal(408, f"The headers took longer than {bounds.header_seconds:g} s.", "Send the request again.")


def late_body(bounds: Bounds) -> Refusal:
    """Return what a client is told whose body comes too slowly."""
    message = f"The body came slower than {bounds.body_rate} bytes/s for {bounds.body_seconds:g} s."
    return Refusal(408, message, "Send the request again, over fewer connections at a time.")


def long_target(bounds: Bounds) -> Refusal:
    """Return what a client is told whose path and query are too long."""
    return Refusal(414, f"Path and query have more than {bounds.max_request_line} bytes.", "Send a shorter query.")


def long_headers(bounds: Bounds) -> Refusal:
    """Return what a client is told whose headers are too long."""
    return Refusal(431, f"The headers have more than {bounds.max_headers} bytes.", "Send fewer or shorter headers.")
