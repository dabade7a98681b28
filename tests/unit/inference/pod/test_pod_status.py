"""What a pod writes into the status of its job, how often, and what becomes of writes that are refused."""

import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.report import Artifact, GpuStats, Manifest, Preview, Progress, Report, Statistics
from cryomamba_crds.resource import SegmentationJobStatus
from cryomamba_inference.pod.api_server import Answer, read_answer
from cryomamba_inference.pod.reporter import StatusReporter
from cryomamba_inference.pod.status import Pace, StatusChanges

NOW = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
REFUSED = Answer(accepted=False, status=403, message="no pod has been recorded for this job yet; try again")
ACCEPTED = Answer(accepted=True, status=200, attempt=2)


def progress(percentage: int, message: str = "Processing", eta: int | None = None) -> Report:
    return Report(progress=Progress(current_step=3, percentage=percentage, message=message, eta_seconds=eta))


def result() -> Report:
    artifact = Artifact(
        name="segmentation.mrc", key="jobs/u/1/segmentation.mrc", size=7, content_type="x/y", created_at=NOW
    )
    empty = Statistics(label_counts={}, physical_volume_nm3={}, surface_area_nm2={})
    return Report(result=Manifest(attempt=1, artifacts=[artifact], statistics=empty))


class Writer:
    """An API server that answers as it is told, the last answer for ever, and merges what it accepts."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = list(answers)
        self.patches: list[dict[str, Any]] = []
        self.status: dict[str, Any] = {}

    def patch(self, status: dict[str, Any]) -> Answer:
        self.patches.append(status)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer.accepted:
            for name, value in status.items():
                merged = {**(self.status.get(name) or {}), **value} if isinstance(value, dict) else value
                self.status[name] = merged
        return answer


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds

    def sleep(self, seconds: float) -> None:
        self.seconds += seconds


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def reporting(clock: Clock, tmp_path: Path) -> Callable[[Writer], StatusReporter]:
    def make(writer: Writer) -> StatusReporter:
        return StatusReporter(writer, tmp_path / "word", clock=clock, now=lambda: NOW, sleep=clock.sleep)

    return make


def test_reports_become_what_the_resource_has_for_them() -> None:
    changes = StatusChanges(lambda: NOW)
    changes.add(progress(40, "Processing tile 4/9", eta=60))
    changes.add(Report(preview=Preview(sequence=3, key="k", scale=4, shape=(12, 10, 9), slice_idx=4)))
    changes.add(Report(gpu=GpuStats(gpu_id=0, memory_used=512, memory_total=49152, utilization=97)))
    changes.add(result())

    taken = changes.take()

    status = SegmentationJobStatus.model_validate(taken)
    assert status.progress
    assert (status.progress.percentage, status.progress.eta_seconds) == (40, 60)
    assert taken["progress"]["updatedAt"] == "2026-03-01T12:00:00Z"
    assert taken["preview"] == {"sequence": 3, "scale": 4, "shape": [12, 10, 9], "sliceIdx": 4}
    assert taken["gpu"] == {"gpuId": 0, "memoryUsed": 512, "memoryTotal": 49152, "utilization": 97}
    assert [sorted(item) for item in taken["artifacts"]] == [["contentType", "createdAt", "name", "size"]]
    assert changes.take() == {}


def test_the_first_patch_takes_back_what_an_earlier_attempt_has_said() -> None:
    changes = StatusChanges(lambda: NOW)
    changes.add(progress(0))

    assert {name: value for name, value in changes.take().items() if value is None} == {
        "preview": None,
        "gpu": None,
        "artifacts": None,
    }


def test_a_time_left_that_is_not_known_any_more_is_taken_back() -> None:
    changes = StatusChanges(lambda: NOW)
    changes.add(progress(1))

    assert changes.take()["progress"]["etaSeconds"] is None


def test_of_each_kind_the_newest_is_written_and_the_sequence_grows() -> None:
    changes = StatusChanges(lambda: NOW)
    changes.add(progress(1))
    changes.add(progress(2))
    first = changes.take()
    changes.add(progress(3))
    changes.give_back(first)

    second = changes.take()

    assert (first["progress"]["percentage"], first["progress"]["sequence"]) == (2, 2)
    assert (second["progress"]["percentage"], second["progress"]["sequence"]) == (3, 3)
    assert second["preview"] is None, "what was given back and has nothing newer is said again"


def test_a_message_is_as_long_as_the_resource_takes() -> None:
    changes = StatusChanges(lambda: NOW)
    changes.add(progress(1, "x" * 1000))

    assert len(changes.take()["progress"]["message"]) == 256


def simulate(
    reporter: StatusReporter, clock: Clock, seconds: float, every: float = 0.25, gaps: list[float] | None = None
) -> None:
    """Report tiles, previews and the GPU, as fast as a small volume makes them, and let the thread's work be done."""
    end, number = clock() + seconds, 0
    while clock() < end:
        number += 1
        reporter.send(progress(min(99, int(100 * (1 - (end - clock()) / seconds))), f"tile {number}"))
        reporter.send(Report(preview=Preview(sequence=number, key="k", scale=4, shape=(1, 1, 1), slice_idx=0)))
        reporter.tick()
        clock.sleep(every)


def test_a_job_of_half_an_hour_writes_its_status_at_most_60_times(
    reporting: Callable[[Writer], StatusReporter], clock: Clock
) -> None:
    writer = Writer(ACCEPTED)
    reporter = reporting(writer)

    reporter.introduce()
    simulate(reporter, clock, 1800)
    reporter.send(progress(100, "Done"))
    reporter.send(result())
    reporter.finish()

    assert 40 <= len(writer.patches) <= 60
    assert writer.status["progress"]["percentage"] == 100
    assert writer.status["artifacts"]


@pytest.mark.parametrize("minutes", [1, 5, 240])
def test_no_half_hour_of_any_job_has_more_than_60_writes_and_none_are_closer_than_two_seconds(
    reporting: Callable[[Writer], StatusReporter], clock: Clock, minutes: int
) -> None:
    times: list[float] = []

    class Timed(Writer):
        def patch(self, status: dict[str, Any]) -> Answer:
            times.append(clock())
            return super().patch(status)

    reporter = reporting(Timed(ACCEPTED))
    reporter.introduce()
    simulate(reporter, clock, 60 * minutes, every=0.5)

    assert min(later - earlier for earlier, later in itertools.pairwise(times)) >= 2
    for start in times:
        assert sum(start <= time < start + 1800 for time in times) <= 60
    assert len(times) > 5


def test_the_gap_between_writes_follows_the_time_so_far() -> None:
    pace = Pace(0)
    gaps = {}
    for second in (0.0, 7.0, 70.0, 700.0):
        pace.wrote(second, accepted=True)
        gaps[second] = pace.next() - second

    assert gaps == {0.0: 2.0, 7.0: 2.0, 70.0: 10.0, 700.0: 60.0}


def test_the_attempt_is_learnt_from_the_first_report_that_is_accepted(
    reporting: Callable[[Writer], StatusReporter], clock: Clock
) -> None:
    other = Answer(accepted=False, status=403, message="another pod runs this job")
    away = Answer(accepted=False, message="NewConnectionError: no answer")
    writer = Writer(away, other, REFUSED, ACCEPTED)

    attempt = reporting(writer).introduce()

    assert attempt == 2
    assert clock() - 1000 < 5
    assert len(writer.patches) == 4
    assert all(patch["progress"] for patch in writer.patches)


def test_a_report_that_is_accepted_before_the_operator_has_counted_the_pod_is_sent_again(
    reporting: Callable[[Writer], StatusReporter],
) -> None:
    writer = Writer(Answer(accepted=True, status=200), Answer(accepted=True, status=200), ACCEPTED)

    assert reporting(writer).introduce() == 2
    assert all(patch.get("progress") for patch in writer.patches)


def test_a_pod_that_is_not_let_report_gives_up_after_minutes_and_says_what_it_was_told(
    reporting: Callable[[Writer], StatusReporter], clock: Clock
) -> None:
    denied = Answer(accepted=False, status=403, message='segmentationjobs "tomo" is forbidden: User "x" cannot patch')

    with pytest.raises(FailureError, match="cannot patch") as failed:
        reporting(Writer(denied)).introduce()

    assert failed.value.failure.retryable
    assert "segmentationjobs/status" in failed.value.failure.hint
    assert 600 <= clock() - 1000 < 610


def test_a_pod_of_a_job_that_is_over_does_not_begin(reporting: Callable[[Writer], StatusReporter]) -> None:
    over = Answer(accepted=False, status=403, message="denied: the job has finished; nothing more is reported about it")

    with pytest.raises(FailureError, match="not needed") as failed:
        reporting(Writer(over)).introduce()

    assert failed.value.failure.code is FailureCode.CONFLICT


@pytest.mark.parametrize(
    "refusal",
    [
        REFUSED,
        Answer(accepted=False, status=401, message="Unauthorized"),
        Answer(accepted=False, status=404, message="not found"),
        Answer(accepted=False, status=500, message="etcdserver: request timed out"),
        Answer(accepted=False, message="ReadTimeoutError: no answer"),
    ],
)
def test_what_is_refused_is_said_again_later_with_what_is_new(
    reporting: Callable[[Writer], StatusReporter], clock: Clock, refusal: Answer
) -> None:
    writer = Writer(ACCEPTED, refusal, refusal, ACCEPTED)
    reporter = reporting(writer)
    reporter.introduce()
    reporter.send(Report(preview=Preview(sequence=1, key="k", scale=4, shape=(1, 1, 1), slice_idx=0)))
    reporter.send(progress(10))

    for _ in range(3):
        clock.sleep(3)
        reporter.send(progress(int(clock()) - 980))
        reporter.tick()

    assert len(writer.patches) == 4
    assert writer.status["preview"]["sequence"] == 1
    assert writer.status["progress"]["percentage"] == 29


def test_an_api_server_that_asks_for_patience_gets_it(
    reporting: Callable[[Writer], StatusReporter], clock: Clock
) -> None:
    writer = Writer(ACCEPTED, Answer(accepted=False, status=429, message="too many", retry_after=20), ACCEPTED)
    reporter = reporting(writer)
    reporter.introduce()
    clock.sleep(2)
    reporter.send(progress(10))
    reporter.tick()
    clock.sleep(10)
    assert (reporter.tick() or 0) == pytest.approx(10)
    clock.sleep(10)
    reporter.tick()

    assert len(writer.patches) == 3
    assert writer.status["progress"]["percentage"] == 10


def test_what_the_api_server_finds_malformed_is_not_said_again(
    reporting: Callable[[Writer], StatusReporter], clock: Clock
) -> None:
    writer = Writer(ACCEPTED, Answer(accepted=False, status=422, message="gpu: out of bounds"), ACCEPTED)
    reporter = reporting(writer)
    reporter.introduce()
    reporter.send(Report(gpu=GpuStats(gpu_id=0, memory_used=1, memory_total=2, utilization=3)))
    clock.sleep(2)
    reporter.tick()
    reporter.send(progress(50))
    clock.sleep(2)
    reporter.tick()

    assert "gpu" not in writer.patches[-1]
    assert writer.status["progress"]["percentage"] == 50


def test_the_last_report_does_not_wait_for_its_turn_and_is_tried_for_half_a_minute_only(
    reporting: Callable[[Writer], StatusReporter], clock: Clock
) -> None:
    writer = Writer(ACCEPTED, Answer(accepted=False, message="no answer"))
    reporter = reporting(writer)
    reporter.introduce()
    reporter.send(result())
    began = clock()
    reporter.finish()

    assert 30 <= clock() - began <= 33
    assert writer.patches[-1]["artifacts"]


def test_writes_in_the_background_never_keep_the_work_waiting(tmp_path: Path) -> None:
    import threading

    hanging = threading.Event()

    class Hanging(Writer):
        def patch(self, status: dict[str, Any]) -> Answer:
            if self.patches:
                hanging.wait(20)
            return super().patch(status)

    writer = Hanging(ACCEPTED)
    reporter = StatusReporter(writer, tmp_path / "word")
    reporter.introduce()
    reporter.start()
    for number in range(1000):
        reporter.send(progress(number // 11))
    hanging.set()
    reporter.send(progress(100, "Done"))
    reporter.finish()

    assert writer.status["progress"]["percentage"] == 100


@pytest.mark.parametrize(
    ("status", "body", "answer"),
    [
        (200, {"status": {"attempt": 2, "podUid": "me"}}, Answer(accepted=True, status=200, attempt=2)),
        (200, {"status": {"attempt": 1, "podUid": "other"}}, Answer(accepted=True, status=200)),
        (200, {"metadata": {}}, Answer(accepted=True, status=200)),
        (403, {"message": "no"}, Answer(accepted=False, status=403, message="no", retry_after=7)),
        (502, "<html>", Answer(accepted=False, status=502, message="no reason", retry_after=7)),
        (500, [], Answer(accepted=False, status=500, message="no reason", retry_after=7)),
    ],
)
def test_answers_are_read_and_an_attempt_is_ours_only_where_the_pod_is(status: int, body: Any, answer: Answer) -> None:
    text = body if isinstance(body, str) else json.dumps(body)

    assert read_answer(status, text.encode(), "7", "me") == answer
