"""Makes the limits that the settings ask for."""

from collections.abc import Callable
from datetime import datetime

from cryomamba_apiserver.limits.memory import MemorySlots, MemoryWindows
from cryomamba_apiserver.limits.rate_limits import LEASE_SECONDS, Allowances, Counters, RateLimits
from cryomamba_apiserver.limits.redis_store import RedisSlots, connect, redis_windows
from cryomamba_apiserver.settings import Settings


def open_limits(settings: Settings, now: Callable[[], datetime]) -> RateLimits:
    """Return the limits, counted in this server's memory or, by the setting, in one Redis for all servers."""
    allowances = Allowances(
        requests_per_minute=settings.requests_per_minute,
        jobs_per_hour=settings.jobs_per_hour,
        uploads_in_flight=settings.uploads_per_subject,
        sockets=settings.sockets_per_subject,
    )

    def clock() -> float:
        return now().timestamp()

    own = Counters(MemoryWindows(clock), MemorySlots())
    if settings.limits_url is None:
        return RateLimits(allowances, own, clock=clock)
    client = connect(settings.limits_url.get_secret_value())
    shared = Counters(redis_windows(client), RedisSlots(client, LEASE_SECONDS), client.aclose)
    return RateLimits(allowances, own, shared, clock=clock)
