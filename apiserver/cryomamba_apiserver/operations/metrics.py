"""Numbers for Prometheus. Labels are route templates, methods and statuses, never an id, a path or an owner."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from cryomamba_apiserver.errors import ApiError, answer_to

_SECONDS = (0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10, 60, 600)
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})
UNMATCHED = "unmatched"
"""The route of requests to addresses that there are not; also of those that were never understood."""


@dataclass(frozen=True)
class Backlog:
    """Jobs that have not ended."""

    queued: int
    running: int


class Metrics:
    """All of one server's; made once, handed to whoever counts."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._requests = Counter(
            "cryomamba_http_requests",
            "Requests answered",
            ["method", "route", "status"],
            registry=self.registry,
        )
        self._seconds = Histogram(
            "cryomamba_http_request_duration_seconds",
            "From a request's headers to the end of its response",
            ["method", "route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._bytes = Counter(
            "cryomamba_http_body_bytes", "Bytes of bodies and messages", ["direction"], registry=self.registry
        )
        self._received = self._bytes.labels("in")
        self._sent = self._bytes.labels("out")
        self.sockets = Gauge("cryomamba_websockets_open", "WebSockets that are open", registry=self.registry)
        self.uploads = Gauge("cryomamba_uploads_in_flight", "Parts being received", registry=self.registry)
        self._queued = Gauge("cryomamba_jobs_queued", "Jobs that wait", registry=self.registry)
        self._running = Gauge("cryomamba_jobs_running", "Jobs that run", registry=self.registry)
        # Looking a label's counter up costs more than counting.
        self._by_status: dict[tuple[str, str, int], Counter] = {}
        self._by_route: dict[tuple[str, str], Histogram] = {}

    def answered(self, method: str, route: str, status: int, seconds: float, received: int, sent: int) -> None:
        """Count a request: its route's template, its status, how long it took, the bytes of both bodies."""
        if method not in _METHODS:
            method = "other"
        answer = (method, route, status)
        counter = self._by_status.get(answer)
        if counter is None:
            counter = self._by_status[answer] = self._requests.labels(method, route, str(status))
        counter.inc()
        histogram = self._by_route.get(answer[:2])
        if histogram is None:
            histogram = self._by_route[answer[:2]] = self._seconds.labels(method, route)
        histogram.observe(seconds)
        if received:
            self._received.inc(received)
        if sent:
            self._sent.inc(sent)

    def told(self, sent: int) -> None:
        """Count the bytes of a WebSocket's messages, when it has ended."""
        self._sent.inc(sent)

    def refused(self, status: int) -> None:
        """Count a connection that was answered before there was a request to hand to the app."""
        self._requests.labels("other", UNMATCHED, str(status)).inc()

    def exposition(self, backlog: Backlog | None) -> bytes:
        """Return all of it in Prometheus' text format; jobs are NaN where nobody could tell how many there are."""
        self._queued.set(backlog.queued if backlog else float("nan"))
        self._running.set(backlog.running if backlog else float("nan"))
        return generate_latest(self.registry)


def metrics_app(
    metrics: Metrics, backlog: Callable[[], Awaitable[Backlog | None]], ready: Callable[[], Awaitable[BaseModel]]
) -> Starlette:
    """Return the app of the metrics port: `/metrics`, and the probes, which answer here whoever fills the API's port.

    Args:
        metrics: What there is to show.
        backlog: Counts the jobs that have not ended.
        ready: Returns what `/readyz` answers, or raises ApiError.
    """

    async def show(_: Request) -> Response:
        return Response(metrics.exposition(await backlog()), media_type=CONTENT_TYPE_LATEST)

    async def livez(_: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def readyz(_: Request) -> Response:
        try:
            return JSONResponse((await ready()).model_dump(mode="json"))
        except ApiError as error:
            return answer_to(error)

    return Starlette(routes=[Route("/metrics", show), Route("/livez", livez), Route("/readyz", readyz)])
