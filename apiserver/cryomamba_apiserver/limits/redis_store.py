"""Counts for the limits of many servers, in one Redis or Valkey."""

import secrets
from collections.abc import Iterable
from typing import Any

from limits.aio.storage import RedisStorage
from limits.errors import StorageError
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from cryomamba_apiserver.limits.slots import Lease

_PREFIX = "cryomamba:limits"
_CONNECTIONS = 32
_ANSWER_SECONDS = 0.5
"""A limit that takes longer to look up than this is worth less than the request that waits for it."""

# The server's clock is the only one that all who count have in common. Each key expires on its own, so that nothing
# is left of somebody who never comes back.
_TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[2]) then
  return 0
end
redis.call('ZADD', KEYS[1], now + ARGV[3], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
"""
# XX: what was given back at this very moment must not come back. So a lease that lapsed while Redis was away stays
# lapsed, and somebody may hold more than the limit until what it stands for ends.
_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZADD', KEYS[1], 'XX', now + ARGV[2], ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""


def connect(url: str) -> Redis:
    """Return a client for `redis://`, `rediss://`, `valkey://` or `valkeys://`; it connects when it is first used."""
    scheme, separator, rest = url.partition("://")
    pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
        # Valkey speaks the protocol of Redis, the client knows one name for it only.
        f"{scheme.replace('valkey', 'redis')}{separator}{rest}",
        max_connections=_CONNECTIONS,
        timeout=_ANSWER_SECONDS,
        socket_timeout=_ANSWER_SECONDS,
        socket_connect_timeout=_ANSWER_SECONDS,
        # Once again at once: a connection of the pool may be of a server that has been restarted since.
        retry=Retry(NoBackoff(), 1),
    )
    return Redis.from_pool(pool)


def redis_windows(client: Redis) -> RedisStorage:
    """Return the library's counters on this client; what goes wrong there is a `StorageError`."""
    options: dict[str, Any] = {"connection_pool": client.connection_pool}  # typed too narrowly there
    return RedisStorage(
        # Names a server only where no pool is handed over; so the password stays in the pool.
        "async+redis://",
        wrap_exceptions=True,
        implementation="redispy",
        key_prefix=_PREFIX,
        **options,
    )


class RedisSlots:
    """What is in flight on all servers: a sorted set of leases by when they lapse."""

    def __init__(self, client: Redis, lease_seconds: float) -> None:
        """Take the client, and for how long a lease holds unless it is renewed."""
        self._client = client
        self._lease_ms = int(lease_seconds * 1000)
        self._take = client.register_script(_TAKE)
        self._renew = client.register_script(_RENEW)

    async def take(self, key: str, limit: int) -> Lease | None:
        """Take one of the slots, None where all are taken; raise StorageError."""
        lease = Lease(key, secrets.token_hex(8))
        taken = await _asked(self._take([_named(key)], [lease.name, limit, self._lease_ms]))
        return lease if taken else None

    async def release(self, lease: Lease) -> None:
        """Give a slot back; raise StorageError."""
        await _asked(self._client.zrem(_named(lease.key), lease.name))

    async def renew(self, leases: Iterable[Lease]) -> None:
        """Keep slots from lapsing; raise StorageError."""
        pipeline = self._client.pipeline(transaction=False)
        for lease in leases:
            await self._renew([_named(lease.key)], [lease.name, self._lease_ms], client=pipeline)
        await _asked(pipeline.execute())


def _named(key: str) -> str:
    return f"{_PREFIX}:{key}"


async def _asked(answer: Any) -> Any:  # noqa: ANN401 - Redis' commands are typed as answers of both its clients
    try:
        return await answer
    except RedisError as error:
        raise StorageError(error) from error
