import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from cryomamba_crds.ids import Key
from cryomamba_operator.queue import LONGEST_BACKOFF, UnavailableError, WorkQueue

ONE, TWO = Key("lab", "one"), Key("lab", "two")
Run = Callable[[Callable[[WorkQueue], Coroutine[Any, Any, None]]], None]


@pytest.fixture
def run(play: Callable[..., None]) -> Run:
    """Run a story about a queue whose pauses have no jitter."""

    def start(story: Callable[[WorkQueue], Coroutine[Any, Any, None]]) -> None:
        async def told(_: Any) -> None:
            await story(WorkQueue(monotonic=asyncio.get_running_loop().time, pause=1.0, jitter=lambda: 1.0))

        play(told)

    return start


class Log:
    """Remembers which key was worked on when, and fails as told."""

    def __init__(self, *, seconds: float = 0.0, failures: list[Exception] | None = None) -> None:
        self.entries: list[tuple[str, float]] = []
        self.running: set[Key] = set()
        self.seconds = seconds
        self.failures = failures or []

    async def __call__(self, key: Key) -> None:
        assert key not in self.running, "two workers have the same key"
        self.running.add(key)
        self.entries.append((key.name, asyncio.get_running_loop().time()))
        await asyncio.sleep(self.seconds)
        self.running.discard(key)
        if self.failures:
            raise self.failures.pop(0)


async def work(queue: WorkQueue, log: Log, *, workers: int = 1, until: float = 1000.0) -> None:
    tasks = [asyncio.create_task(queue.work(log)) for _ in range(workers)]
    await asyncio.sleep(until)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def test_a_key_that_is_added_often_is_worked_on_once(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        log = Log()
        for _ in range(5):
            queue.add(ONE)
        queue.add(TWO)
        await work(queue, log)
        assert log.entries == [("one", 0.0), ("two", 0.0)]

    run(story)


def test_a_key_that_is_added_while_it_is_worked_on_comes_again_and_never_twice_at_once(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        log = Log(seconds=10)
        queue.add(ONE)
        asyncio.get_running_loop().call_later(3, queue.add, ONE)
        asyncio.get_running_loop().call_later(4, queue.add, ONE)
        await work(queue, log, workers=3)
        assert log.entries == [("one", 0.0), ("one", 10.0)]

    run(story)


def test_several_workers_work_at_once(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        log = Log(seconds=10)
        queue.add(ONE)
        queue.add(TWO)
        await work(queue, log, workers=2)
        assert log.entries == [("one", 0.0), ("two", 0.0)]

    run(story)


def test_a_failing_key_comes_back_after_pauses_that_double(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        log = Log(failures=[ValueError("no")] * 4)
        queue.add(ONE)
        await work(queue, log)
        assert [time for _, time in log.entries] == pytest.approx([0.0, 0.25, 0.75, 1.75, 3.75])

    run(story)


def test_pauses_have_a_bound_and_start_small_again_after_a_success(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        log = Log(failures=[ValueError("no")] * 10)
        queue.add(ONE)
        await work(queue, log)
        times = [time for _, time in log.entries]
        assert times[10] - times[9] == pytest.approx(LONGEST_BACKOFF)
        log.failures = [ValueError("no")]
        queue.add(ONE)
        await work(queue, log)
        times = [time for _, time in log.entries][11:]
        assert times[1] - times[0] == pytest.approx(0.25)

    run(story)


def test_while_the_api_server_is_away_every_worker_pauses_and_no_key_is_punished(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        log = Log(failures=[UnavailableError("refused")] * 20)
        queue.add(ONE)
        queue.add(TWO)
        await work(queue, log)
        assert len(log.entries) == 22
        assert log.entries[-1][1] == pytest.approx(20.0)

    run(story)


def test_a_key_comes_back_at_its_time_and_only_the_last_wish_counts(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        log = Log()
        queue.add_later(ONE, 30)
        queue.add_later(ONE, 60)
        queue.add_later(TWO, 10)
        queue.cancel_timer(TWO)
        await work(queue, log)
        assert log.entries == [("one", 60.0)]

    run(story)


def test_the_age_of_the_oldest_key_counts_waiting_and_work(run: Run) -> None:
    async def story(queue: WorkQueue) -> None:
        assert queue.oldest_seconds == 0.0
        queue.add(ONE)
        await asyncio.sleep(5)
        assert queue.oldest_seconds == pytest.approx(5)
        await work(queue, Log(seconds=100), until=7)
        assert queue.oldest_seconds == pytest.approx(7)

    run(story)
