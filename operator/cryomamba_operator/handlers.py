"""The watches: every event of a SegmentationJob, a Job or a Pod is handed on, and nothing else happens here.

Handlers return None, for whatever they returned would be written into the status of the object.
"""

import contextlib
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from types import AsyncGeneratorType
from typing import Any
from weakref import WeakSet

import kopf

from cryomamba_crds.resource import GROUP, PLURAL, VERSION
from cryomamba_operator.cluster import Credentials
from cryomamba_operator.intake import Intake
from cryomamba_operator.names import SELECTOR
from cryomamba_operator.settings import Settings

_SERVER_SECONDS = 300
_PAGE = 250
_OUTERMOST = "infinite_watch"
"""The function of kopf's (1.45) that makes a watch."""


def watch_settings(settings: Settings) -> kopf.OperatorSettings:
    """Return kopf's settings: it watches, and writes nothing to any object."""
    own = kopf.OperatorSettings()
    own.scanning.disabled = True  # needs no right to list namespaces and CRDs
    own.peering.standalone = True
    own.posting.enabled = False
    own.watching.server_timeout = _SERVER_SECONDS
    own.watching.client_timeout = _SERVER_SECONDS + 30
    own.watching.connect_timeout = settings.request_seconds
    own.watching.inactivity_timeout = 90  # the API server sends a bookmark each minute
    own.watching.chunk_size = _PAGE
    own.watching.label_selectors["batch", "v1", "jobs"] = SELECTOR
    own.watching.label_selectors["", "v1", "pods"] = SELECTOR
    own.networking.request_timeout = settings.request_seconds
    # The default's later pauses leave an operator deaf for 21 s after the API server is back.
    own.networking.error_backoffs = (0.5, 1, *(2,) * 8)
    own.queueing.idle_timeout = 0.1
    own.queueing.exit_timeout = 1
    own.persistence.diffbase_storage = _NoDiffBase()
    own.persistence.progress_storage = _NoProgress()
    return own


def watch_registry(
    intake: Intake, login: Callable[[], Awaitable[Credentials]], check_health: Callable[[], None]
) -> kopf.OperatorRegistry:
    """Return the handlers.

    Args:
        intake: Takes in what is seen.
        login: Returns how to reach the API server; asked again when a token is refused.
        check_health: Raises where the operator should be restarted.
    """
    registry = kopf.OperatorRegistry()

    @kopf.on.login(registry=registry)
    async def log_in(**_: Any) -> kopf.ConnectionInfo:  # noqa: ANN401 - kopf hands over more than is used
        known = await login()
        return kopf.ConnectionInfo(
            server=known.server,
            ca_path=known.ca_path,
            scheme="Bearer" if known.token else None,
            token=known.token,
            certificate_path=known.certificate_path,
            private_key_path=known.private_key_path,
        )

    @kopf.on.event(GROUP, VERSION, PLURAL, registry=registry)
    async def on_record(event: kopf.RawEvent, **_: Any) -> None:  # noqa: ANN401 - see above
        intake.saw_record(event["type"], dict(event["object"]))

    @kopf.on.event("batch", "v1", "jobs", registry=registry)
    async def on_job(event: kopf.RawEvent, **_: Any) -> None:  # noqa: ANN401 - see above
        intake.saw_job(event["type"], dict(event["object"]))

    @kopf.on.event("", "v1", "pods", registry=registry)
    async def on_pod(event: kopf.RawEvent, **_: Any) -> None:  # noqa: ANN401 - see above
        intake.saw_pod(event["type"], dict(event["object"]))

    @kopf.on.probe(id="queue", errors=kopf.ErrorsMode.PERMANENT, registry=registry)
    async def probe(**_: Any) -> None:  # noqa: ANN401 - see above
        check_health()

    return registry


@contextlib.asynccontextmanager
async def closed_watches() -> AsyncIterator[None]:
    """Run kopf within this, and no watch of it is left open.

    One that is stopped while it hands on an event stays suspended. Left to the end of the event loop, the generators
    of which it is made are closed all at once, and where an inner one is first, the outer one ends in a traceback.
    """
    watches: WeakSet[AsyncGenerator[Any, Any]] = WeakSet()
    hooks = sys.get_asyncgen_hooks()

    def note(generator: AsyncGenerator[Any, Any]) -> None:
        if isinstance(generator, AsyncGeneratorType) and generator.ag_code.co_name == _OUTERMOST:
            watches.add(generator)
        if hooks.firstiter is not None:
            hooks.firstiter(generator)

    sys.set_asyncgen_hooks(firstiter=note)
    try:
        yield
    finally:
        sys.set_asyncgen_hooks(firstiter=hooks.firstiter)
        for watch in list(watches):
            await watch.aclose()


class _NoDiffBase(kopf.DiffBaseStorage):
    """Spares two deep copies of every object of every event: there is no handler that asks what has changed."""

    def build(self, **_: Any) -> kopf.BodyEssence:  # noqa: ANN401 - kopf's signature
        return kopf.BodyEssence()

    def fetch(self, **_: Any) -> None:  # noqa: ANN401 - kopf's signature
        return None

    def store(self, **_: Any) -> None:  # noqa: ANN401 - kopf's signature
        return None


class _NoProgress(kopf.ProgressStorage):
    """Spares a search of every object of every event: there is no handler whose progress is written down."""

    def fetch(self, **_: Any) -> None:  # noqa: ANN401 - kopf's signature
        return None

    def store(self, **_: Any) -> None:  # noqa: ANN401 - kopf's signature
        return None

    def purge(self, **_: Any) -> None:  # noqa: ANN401 - kopf's signature
        return None

    def touch(self, **_: Any) -> None:  # noqa: ANN401 - kopf's signature
        return None

    def clear(self, *, essence: kopf.BodyEssence) -> kopf.BodyEssence:
        return essence
