"""Planes that are left for a later attempt."""

from pathlib import Path

import numpy as np
import pytest

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_inference.checkpoint import Checkpoint
from cryomamba_inference.storage import DirectoryStorage

PREFIX = "jobs/uid/checkpoint/"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def checkpoint(tmp_path: Path, clock: Clock):
    def make(storage=None, **work) -> Checkpoint:
        return Checkpoint(storage or DirectoryStorage(tmp_path), PREFIX, work or {"model": "a"}, tmp_path, clock)

    return make


def slab(planes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (planes, 5, 6)).astype(np.uint8)


def restored(checkpoint: Checkpoint) -> list[tuple[int, np.ndarray]]:
    parts: list[tuple[int, np.ndarray]] = []
    planes = checkpoint.restore(lambda start, labels: parts.append((start, labels)))
    assert planes == sum(len(labels) for _, labels in parts)
    return parts


def test_what_was_left_before_a_kill_is_there_afterwards(checkpoint, clock):
    first, second, third = slab(4, 1), slab(3, 2), slab(5, 3)
    killed = checkpoint()
    killed.add(first)
    clock.now = 30
    killed.add(second)  # it is time: both are left
    killed.add(third)  # and this one is lost

    [(start, labels)] = restored(checkpoint())

    assert start == 0
    assert np.array_equal(labels, np.concatenate([first, second]))


def test_what_is_left_at_a_stop_follows_what_was_left_before(checkpoint, clock):
    stopped = checkpoint()
    clock.now = 30
    stopped.add(slab(4, 1))
    stopped.add(slab(3, 2))
    stopped.leave()
    again = checkpoint()
    restored(again)
    again.add(slab(2, 3))
    again.leave()

    parts = restored(checkpoint())

    assert [(start, len(labels)) for start, labels in parts] == [(0, 4), (4, 3), (7, 2)]
    assert np.array_equal(parts[2][1], slab(2, 3))


def test_other_work_is_not_gone_on_with(checkpoint):
    one = checkpoint(model="a", threads=2)
    one.add(slab(4, 1))
    one.leave()

    assert restored(checkpoint(model="a", threads=1)) == []


def test_leaving_takes_no_more_than_two_percent_of_the_time(checkpoint, clock, tmp_path):
    class Slow(DirectoryStorage):
        puts = 0

        def put_bytes(self, key: str, data: bytes) -> None:
            clock.now += 1
            Slow.puts += 1
            super().put_bytes(key, data)

    one = checkpoint(Slow(tmp_path))
    while clock.now < 1000:
        clock.now += 1
        one.add(slab(1, 1))

    assert 10 <= Slow.puts <= 0.02 * 1000 + 4


def test_a_store_that_fails_costs_nothing_but_planes(checkpoint, tmp_path, caplog):
    class Away(DirectoryStorage):
        def put_bytes(self, key: str, data: bytes) -> None:  # noqa: ARG002 - the store's
            raise FailureError(FailureCode.SERVICE_UNAVAILABLE, "the store is away", hint="Wait.")

    one = checkpoint(Away(tmp_path))
    one.add(slab(4, 1))
    one.leave()

    assert "the store is away" in caplog.text
    assert restored(checkpoint()) == []


@pytest.mark.parametrize("spoiled", [b"", b"no zlib", b"x\x9c\x03\x00\x00\x00\x00\x01"])
def test_a_part_that_is_damaged_is_done_again(checkpoint, tmp_path, spoiled):
    one = checkpoint()
    one.add(slab(4, 1))
    one.leave()
    one.add(slab(4, 2))
    one.leave()
    [part] = tmp_path.glob(f"{PREFIX}*/4")
    part.write_bytes(spoiled)

    assert [start for start, _ in restored(checkpoint())] == [0]
