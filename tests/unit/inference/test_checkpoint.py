"""Planes that are left for a later attempt."""

import itertools
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import CheckpointParams
from cryomamba_inference.checkpoint import Checkpoint, Restored
from cryomamba_inference.engine import Rung
from cryomamba_inference.storage import DirectoryStorage

PREFIX = "jobs/uid/checkpoint/"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Away(DirectoryStorage):
    def put_bytes(self, key: str, data: bytes) -> None:  # noqa: ARG002 - the store's
        raise FailureError(FailureCode.SERVICE_UNAVAILABLE, "the store is away", hint="Wait.")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def checkpoint(tmp_path: Path, clock: Clock):
    scratches = (tmp_path / f"scratch{number}" for number in itertools.count())

    def make(storage=None, **work) -> Checkpoint:
        scratch = next(scratches)
        scratch.mkdir()
        store = storage or DirectoryStorage(tmp_path)
        return Checkpoint(store, PREFIX, work or {"model": "a"}, scratch, clock=clock, params=CheckpointParams())

    return make


def slab(planes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 3, (planes, 5, 6)).astype(np.uint8)


def chances(planes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((2, planes, 5, 6)).astype(np.float16)


def restored(checkpoint: Checkpoint) -> list[tuple[int, np.ndarray]]:
    parts: list[tuple[int, np.ndarray]] = []
    there = checkpoint.restore(lambda start, labels, _: parts.append((start, labels)))
    assert there.planes == sum(len(labels) for _, labels in parts)
    return parts


def there(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.glob(f"{PREFIX}*"))


def test_what_was_left_before_a_kill_is_there_afterwards(checkpoint, clock):
    first, second, third = slab(4, 1), slab(3, 2), slab(5, 3)
    killed = checkpoint()
    killed.add(first, None, None)
    clock.now = 30
    killed.add(second, None, None)  # it is time: both are left
    killed.add(third, None, None)  # and this one is lost

    [(start, labels)] = restored(checkpoint())

    assert start == 0
    assert np.array_equal(labels, np.concatenate([first, second]))


def test_what_is_left_at_a_stop_follows_what_was_left_before(checkpoint, clock):
    stopped = checkpoint()
    clock.now = 30
    stopped.add(slab(4, 1), None, None)
    stopped.add(slab(3, 2), None, None)
    stopped.leave()
    again = checkpoint()
    restored(again)
    again.add(slab(2, 3), None, None)
    again.leave()

    parts = restored(checkpoint())

    assert [(start, len(labels)) for start, labels in parts] == [(0, 4), (4, 3), (7, 2)]
    assert np.array_equal(parts[2][1], slab(2, 3))


def test_probabilities_come_back_with_their_labels(checkpoint):
    one = checkpoint()
    for planes, seed in ((4, 1), (3, 2)):
        one.add(slab(planes, seed), chances(planes, seed), None)
    one.leave()

    parts: list[tuple[int, np.ndarray, np.ndarray]] = []
    checkpoint().restore(lambda *part: parts.append(part))

    [(start, labels, probabilities)] = parts
    assert start == 0
    assert np.array_equal(labels, np.concatenate([slab(4, 1), slab(3, 2)]))
    assert probabilities.dtype == np.float16
    assert np.array_equal(probabilities, np.concatenate([chances(4, 1), chances(3, 2)], axis=1))


def test_an_order_to_stop_between_any_two_steps_of_leaving_loses_nothing_that_was_there(
    checkpoint, tmp_path, monkeypatch
):
    class Stop(BaseException):
        pass

    class Stopping(DirectoryStorage):
        left = 0

        def put_bytes(self, key: str, data: bytes) -> None:
            if Stopping.left == 0:
                raise Stop
            Stopping.left -= 1
            super().put_bytes(key, data)
            if Stopping.left == 0:
                raise Stop

    for puts in range(3):
        one = checkpoint(Stopping(tmp_path))
        one.remove()
        Stopping.left = 99
        one.add(slab(4, 1), None, None)
        one.leave()
        one.add(slab(3, 2), None, None)
        Stopping.left = puts
        with pytest.raises(Stop):
            one.leave()
        Stopping.left = 99
        one.leave()

        parts = restored(checkpoint())

        assert np.array_equal(np.concatenate([labels for _, labels in parts]), np.concatenate([slab(4, 1), slab(3, 2)]))


def test_the_rung_of_the_ladder_is_that_of_the_last_plane_that_came_back(checkpoint, tmp_path):
    one = checkpoint()
    halved = Rung(2, steps=("2 instead of 4 passes at once",))
    one.add(slab(4, 1), None, Rung(4))
    one.leave()
    one.add(slab(4, 1), None, Rung(4))
    one.add(slab(4, 2), None, halved)
    one.leave()

    whole = checkpoint().restore(lambda *_: None)
    [part] = tmp_path.glob(f"{PREFIX}*-4-12")
    part.write_bytes(b"damaged")
    half = checkpoint().restore(lambda *_: None)

    assert whole == Restored(12, halved)
    assert half == Restored(4, Rung(4))


def test_other_work_is_not_gone_on_with_and_it_is_said_what_differs(checkpoint, tmp_path, caplog):
    one = checkpoint(model="a", threads=2, versions={"torch": "2.8", "numpy": "2"})
    one.add(slab(4, 1), None, None)
    one.leave()
    other = checkpoint(model="a", threads=1, versions={"torch": "2.9", "numpy": "2"})

    result = other.restore(lambda *_: pytest.fail("nothing is to come"))

    assert result.planes == 0
    assert result.different == ("threads was 2 and is 1", 'versions.torch was "2.8" and is "2.9"')
    assert "starting over: threads was 2 and is 1; versions.torch" in caplog.text
    assert there(tmp_path) == []


def test_planes_are_left_when_it_is_time_and_earlier_when_much_has_gathered(checkpoint, clock, tmp_path, monkeypatch):
    monkeypatch.setattr("cryomamba_inference.checkpoint.keeping._PART_BYTES", 300)
    one = checkpoint()

    def left_after(seconds: float, planes: int) -> int:
        clock.now += seconds
        before = len(there(tmp_path))
        one.add(slab(planes, 1), None, None)
        return len(there(tmp_path)) - before

    assert left_after(19, 4) == 0
    assert left_after(1, 1) == 2  # a part, and the index
    assert left_after(1, 9) == 0
    assert left_after(1, 1) == 1  # 10 planes of 30 bytes
    assert left_after(1, 35) == 3
    assert [len(labels) for _, labels in restored(checkpoint())] == [5, 10, 10, 10, 10]


@pytest.mark.parametrize("planes", [1, 150])
def test_leaving_takes_no_more_than_two_percent_of_the_time(checkpoint, clock, tmp_path, monkeypatch, planes):
    monkeypatch.setattr("cryomamba_inference.checkpoint.keeping._PART_BYTES", 3000)

    class Slow(DirectoryStorage):
        puts = 0

        def put_bytes(self, key: str, data: bytes) -> None:
            clock.now += 1
            Slow.puts += 1
            super().put_bytes(key, data)

    one = checkpoint(Slow(tmp_path))
    while clock.now < 1000:
        clock.now += 1
        one.add(slab(planes, 1), None, None)

    assert 18 <= Slow.puts <= 0.02 * 1000 + 2


def test_memory_is_bounded_however_much_waits(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr("cryomamba_inference.checkpoint.keeping._PART_BYTES", 1 << 18)
    one = checkpoint(Away(tmp_path))
    labels = np.zeros((4, 256, 256), np.uint8)
    probabilities = np.zeros((2, 4, 256, 256), np.float16)
    one.add(labels, probabilities, None)

    tracemalloc.start()
    try:
        for _ in range(40):
            one.add(labels, probabilities, None)
        one.leave()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert peak < 3 << 20, "50 MB have gathered"


def test_a_store_that_fails_costs_nothing_but_planes(checkpoint, tmp_path, caplog):
    one = checkpoint(Away(tmp_path))
    one.add(slab(4, 1), None, None)
    one.leave()

    assert "the store is away" in caplog.text
    assert restored(checkpoint()) == []


def test_a_store_that_comes_back_gets_all_that_has_gathered(checkpoint, clock, tmp_path):
    class Coming(DirectoryStorage):
        def put_bytes(self, key: str, data: bytes) -> None:
            if clock.now < 100:
                raise FailureError(FailureCode.SERVICE_UNAVAILABLE, "the store is away", hint="Wait.")
            super().put_bytes(key, data)

    one = checkpoint(Coming(tmp_path))
    for _ in range(10):
        clock.now += 15
        one.add(slab(2, int(clock.now)), None, None)

    labels = np.concatenate([labels for _, labels in restored(checkpoint())])
    assert np.array_equal(labels, np.concatenate([slab(2, second) for second in range(15, 151, 15)]))


def test_a_full_disk_costs_nothing_but_planes(checkpoint, tmp_path, monkeypatch, caplog):
    one = checkpoint()
    one.add(slab(4, 1), None, None)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr("cryomamba_inference.checkpoint.waiting.Waiting.add", full)
        one.add(slab(4, 2), None, None)
    one.add(slab(4, 3), None, None)
    one.leave()

    assert "No space left" in caplog.text
    [(_, labels)] = restored(checkpoint())
    assert np.array_equal(labels, slab(4, 1))


@pytest.mark.parametrize("spoil", ["empty", "no zip", "changed"])
def test_a_part_that_is_damaged_is_done_again(checkpoint, tmp_path, spoil):
    one = checkpoint()
    for seed in (1, 2, 3):
        one.add(slab(4, seed), chances(4, seed), None)
        one.leave()
    [part] = tmp_path.glob(f"{PREFIX}*-4-8")
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1  # of a probability
    part.write_bytes({"empty": b"", "no zip": b"no zip", "changed": bytes(data)}[spoil])

    assert [start for start, _ in restored(checkpoint())] == [0]


def test_nothing_is_left_once_there_is_a_result(checkpoint, tmp_path):
    one = checkpoint()
    one.add(slab(4, 1), None, None)
    one.leave()
    again = checkpoint()
    restored(again)
    again.add(slab(4, 2), None, None)
    again.leave()
    assert len(there(tmp_path)) == 3

    again.remove()

    assert there(tmp_path) == []


def test_a_store_that_lets_nothing_be_removed_stops_nothing(checkpoint, tmp_path, caplog):
    class Kept(DirectoryStorage):
        def remove(self, key: str) -> None:  # noqa: ARG002 - the store's
            raise FailureError(FailureCode.SERVICE_UNAVAILABLE, "not to be removed", hint="Let the sweep do it.")

    caplog.set_level("INFO")
    one = checkpoint(Kept(tmp_path))
    one.add(slab(4, 1), None, None)
    one.leave()

    one.remove()

    assert "until the sweep (not to be removed)" in caplog.text
