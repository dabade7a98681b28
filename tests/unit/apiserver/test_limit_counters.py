"""What counts for the limits: in memory and in a real Redis, alone and many at once."""

import asyncio
import logging
import signal
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from cryomamba_apiserver.errors import RateLimitedError
from cryomamba_apiserver.limits.memory import MemorySlots, MemoryWindows
from cryomamba_apiserver.limits.rate_limits import Allowances, Counters, RateLimits
from cryomamba_apiserver.limits.redis_store import RedisSlots, connect, redis_windows
from cryomamba_apiserver.limits.slots import Lease
from support.redis_server import PASSWORD, redis_running

FEW = Allowances(requests_per_minute=3, jobs_per_hour=2, uploads_in_flight=2, sockets=1)


class Time:
    """Seconds of a clock that only the test moves."""

    def __init__(self):
        self.seconds = 1_700_000_000.0

    def __call__(self):
        return self.seconds


@pytest.fixture
def time():
    return Time()


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory):
    with redis_running(tmp_path_factory.mktemp("redis")) as server:
        yield server.url


@pytest.fixture(params=["memory", "redis"])
def limited(request, time):
    """Opens limits on fresh counters of either kind."""

    @asynccontextmanager
    async def opened():
        if request.param == "memory":
            yield RateLimits(FEW, Counters(MemoryWindows(time), MemorySlots()), clock=time)
            return
        client = connect(request.getfixturevalue("redis_url"))
        await client.flushdb()
        limits = shared_limits(client, time)
        async with limits.running():
            yield limits

    return opened


def shared_limits(client, time, **changes):
    own = Counters(MemoryWindows(time), MemorySlots())
    shared = Counters(redis_windows(client), RedisSlots(client, 30), client.aclose)
    return RateLimits(FEW, own, shared, clock=time, **changes)


def test_requests_at_once_are_each_counted(limited):
    async def story():
        async with limited() as limits:
            return await asyncio.gather(*(limits.request("ada") for _ in range(10)), return_exceptions=True)

    outcomes = asyncio.run(story())

    refused = [outcome for outcome in outcomes if isinstance(outcome, RateLimitedError)]
    assert len(refused) == 7
    assert sorted(outcome.remaining for outcome in outcomes if outcome not in refused) == [0, 1, 2]


def test_looking_does_not_count(limited):
    async def story():
        async with limited() as limits:
            await limits.request("ada")
            return [(await limits.quota("ada")).remaining for _ in range(5)]

    assert asyncio.run(story()) == [2, 2, 2, 2, 2]


def test_a_job_that_did_not_come_to_be_is_not_counted(limited):
    async def story():
        async with limited() as limits:
            for _ in range(5):
                with pytest.raises(ValueError, match="no"):
                    async with limits.job("ada"):
                        raise ValueError("no")
            for _ in range(2):
                async with limits.job("ada"):
                    pass
            with pytest.raises(RateLimitedError) as refused:
                async with limits.job("ada"):
                    pass
            return refused.value.failure.details

    assert asyncio.run(story())["limit"] == 2


def test_what_is_in_flight_is_limited_and_given_back(limited):
    async def story():
        async with limited() as limits:
            async with limits.upload("ada"), limits.upload("ada"), limits.upload("bob"):
                with pytest.raises(RateLimitedError) as refused:
                    await limits.upload("ada").__aenter__()
            async with limits.upload("ada"), limits.upload("ada"):
                return refused.value

    error = asyncio.run(story())

    assert error.failure.details == {"limit": 2, "window_seconds": 0, "retry_after_seconds": 1}
    assert error.headers == {"Retry-After": "1"}


def test_what_is_cancelled_gives_its_slot_back(limited):
    async def story():
        async with limited() as limits:

            async def hold():
                async with limits.socket("ada"):
                    held.set()
                    await asyncio.Event().wait()

            held = asyncio.Event()
            holding = asyncio.create_task(hold())
            await held.wait()
            holding.cancel()
            await asyncio.gather(holding, return_exceptions=True)
            async with limits.socket("ada"):
                return True

    assert asyncio.run(story())


def test_many_addresses_take_little_memory_for_no_longer_than_their_window(time):
    async def story():
        windows = MemoryWindows(time)
        for number in range(10_000):
            await windows.incr(f"requests:ip:{number}", 60)
        time.seconds += 60
        for number in range(2_000):
            await windows.incr(f"requests:ip:new-{number}", 60)
        return await windows.reset()

    assert asyncio.run(story()) == 2_000


def test_servers_share_their_counts(redis_url, time):
    async def story():
        async with AsyncExitStack() as stack:
            first, second = [shared_limits(connect(redis_url), time) for _ in range(2)]
            for limits in (first, second):
                await stack.enter_async_context(limits.running())
            await first._shared.slots._client.flushdb()
            async with first.socket("ada"):
                with pytest.raises(RateLimitedError):
                    await second.socket("ada").__aenter__()
            async with second.socket("ada"):
                pass
            await first.request("ada")
            return (await second.request("ada")).remaining

    assert asyncio.run(story()) == 1


def test_what_a_killed_server_held_lapses_and_what_a_living_one_holds_does_not(redis_url):
    """Redis' own clock decides, so this waits for it; a lease is short here."""

    async def story():
        client = connect(redis_url)
        await client.flushdb()
        slots = RedisSlots(client, lease_seconds=0.5)
        killed, alive = await slots.take("sockets:ada", 2), await slots.take("sockets:ada", 2)
        assert await slots.take("sockets:ada", 2) is None
        async with asyncio.timeout(20):
            while (third := await slots.take("sockets:ada", 2)) is None:
                await slots.renew([alive])
        held = {name.decode() for name in await client.zrange("cryomamba:limits:sockets:ada", 0, -1)}
        await client.aclose()
        return killed, alive, third, held

    killed, alive, third, held = asyncio.run(story())

    assert killed.name not in held
    assert held == {alive.name, third.name}


def test_what_was_given_back_is_not_renewed(redis_url):
    async def story():
        client = connect(redis_url)
        await client.flushdb()
        slots = RedisSlots(client, 30)
        lease = await slots.take("sockets:ada", 1)
        await slots.release(lease)
        await slots.renew([lease])
        taken = await slots.take("sockets:ada", 1)
        await client.aclose()
        return taken

    assert isinstance(asyncio.run(story()), Lease)


def test_nothing_stays_in_redis_for_ever(redis_url, time):
    async def story():
        limits = shared_limits(connect(redis_url), time)
        client = limits._shared.slots._client
        await client.flushdb()
        async with limits.running(), limits.upload("ada"), limits.job("ada"):
            await limits.request("ada")
            return [await client.ttl(key) for key in await client.keys("*")]

    ttls = asyncio.run(story())

    assert len(ttls) == 3
    assert all(0 < ttl <= 3600 for ttl in ttls)


def test_without_redis_each_server_counts_alone_and_says_so(tmp_path, time, caplog):
    """It goes away in the middle, comes back empty, and its password is in no log."""
    caplog.set_level(logging.DEBUG)
    passed = Time()

    async def story(server):
        limits = shared_limits(connect(server.url), time, monotonic=passed)
        async with limits.running():
            before, trouble_before = (await limits.request("ada")).remaining, limits.trouble
            await asyncio.to_thread(server.stop)
            during = [(await limits.request("ada")).remaining for _ in range(3)]
            with pytest.raises(RateLimitedError):
                await limits.request("ada")
            async with limits.socket("ada"):
                with pytest.raises(RateLimitedError):
                    await limits.socket("ada").__aenter__()
            trouble_during = limits.trouble
            await asyncio.to_thread(server.start)
            passed.seconds += 5
            after = (await limits.request("ada")).remaining
            return before, trouble_before, during, trouble_during, after, limits.trouble

    with redis_running(tmp_path) as server:
        before, trouble_before, during, trouble_during, after, trouble_after = asyncio.run(story(server))

    assert (before, trouble_before) == (2, None)
    assert during == [2, 1, 0]
    assert "does not answer" in trouble_during
    assert (after, trouble_after) == (2, None)
    said = [record.getMessage() for record in caplog.records if record.name.startswith("cryomamba_apiserver.limits")]
    assert len(said) == 2
    assert "each server counts alone" in said[0]
    assert "answers again" in said[1]
    assert PASSWORD not in caplog.text


def test_a_redis_that_hangs_is_not_waited_for(tmp_path, time):
    async def story(server):
        limits = shared_limits(connect(server.url), time)
        async with limits.running():
            await limits.request("ada")
            server.process.send_signal(signal.SIGSTOP)
            async with asyncio.timeout(20):
                during = [(await limits.request("ada")).remaining for _ in range(3)]
            return during, limits.trouble

    with redis_running(tmp_path) as server:
        during, trouble = asyncio.run(story(server))

    assert during == [2, 1, 0]
    assert "does not answer" in trouble


def test_a_slot_that_was_taken_in_redis_is_given_back_though_redis_has_gone(tmp_path, time):
    async def story(server):
        limits = shared_limits(connect(server.url), time)
        async with limits.running():
            async with limits.socket("ada"):
                await asyncio.to_thread(server.stop)
            return limits.trouble

    with redis_running(tmp_path) as server:
        assert "does not answer" in asyncio.run(story(server))


def test_a_wrong_password_is_told_without_it(redis_url, time, caplog):
    async def story():
        limits = shared_limits(connect(redis_url.replace(PASSWORD, "another-password")), time)
        async with limits.running():
            await limits.request("ada")
            return limits.trouble

    assert "does not answer" in asyncio.run(story())
    assert "another-password" not in caplog.text
    assert "WRONGPASS" in caplog.text or "invalid" in caplog.text


def test_leases_are_renewed_while_the_server_runs(redis_url, time, monkeypatch):
    monkeypatch.setattr("cryomamba_apiserver.limits.rate_limits.LEASE_SECONDS", 0.03)

    async def story():
        limits = shared_limits(connect(redis_url), time)
        client = limits._shared.slots._client
        await client.flushdb()
        async with limits.running(), limits.socket("ada"):
            key = "cryomamba:limits:sockets:ada"
            [(_, first)] = await client.zrange(key, 0, -1, withscores=True)
            async with asyncio.timeout(20):
                while (await client.zrange(key, 0, -1, withscores=True))[0][1] == first:
                    pass
            return True

    assert asyncio.run(story())
