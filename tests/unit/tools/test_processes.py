import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devcluster import processes
from devcluster.processes import Process

ENVIRONMENT = {"PATH": "/usr/bin:/bin"}
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); signal.pause()"


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[Process]:
    process = processes.start(["sleep", "600"], tmp_path / "log", tmp_path, ENVIRONMENT)
    yield process
    processes.stop(process, 10)


def test_a_process_ends_when_it_is_stopped(sleeper: Process) -> None:
    assert sleeper.is_alive()

    processes.stop(sleeper, 10)

    assert not sleeper.is_alive()


def test_a_process_is_gone_from_the_table_when_stop_returns(sleeper: Process) -> None:
    processes.stop(sleeper, 10)

    assert not Path(f"/proc/{sleeper.pid}").exists()


def test_another_process_with_the_id_is_left_alone(sleeper: Process) -> None:
    former = replace(sleeper, start=sleeper.start - 1)

    processes.stop(former, 10)

    assert not former.is_alive()
    assert sleeper.is_alive()


def test_a_process_of_an_earlier_boot_is_not_taken_for_one_of_this(sleeper: Process) -> None:
    assert not replace(sleeper, boot="earlier").is_alive()


def test_a_process_that_ended_and_was_not_reaped_is_not_alive(tmp_path: Path) -> None:
    process = processes.start(["true"], tmp_path / "log", tmp_path, ENVIRONMENT)

    assert processes.wait(lambda: not process.is_alive(), 10)
    assert Path(f"/proc/{process.pid}").exists()
    processes.stop(process, 10)


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.start([sys.executable, "-c", STUBBORN], log, tmp_path, ENVIRONMENT)
    assert processes.wait(lambda: "deaf" in log.read_text(), 30)

    processes.stop(process, 0.1)

    assert not process.is_alive()


def test_stopping_what_ended_long_ago_does_nothing() -> None:
    processes.stop(Process(2**22 - 1, 1, "earlier"), 10, signal.SIGKILL)


def test_output_of_every_start_is_appended_to_the_log(tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("first", "second"):
        process = processes.start(["sh", "-c", f"echo {word}; echo {word} >&2"], log, tmp_path, ENVIRONMENT)
        assert processes.wait(lambda process=process: not process.is_alive(), 10)
        processes.stop(process, 10)

    assert log.read_text().split() == ["first", "first", "second", "second"]


def test_a_started_process_sees_only_the_environment_it_is_given(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = processes.start(["/usr/bin/env"], log, tmp_path, {"ONLY": "this"})
    assert processes.wait(lambda: not process.is_alive(), 10)
    processes.stop(process, 10)

    assert log.read_text() == "ONLY=this\n"


def test_processes_are_found_by_program_and_a_whole_word(tmp_path: Path) -> None:
    word = f"{tmp_path}/socket"
    ours = processes.start(["sleep", "600"], tmp_path / "log", tmp_path, ENVIRONMENT)
    marked = processes.start(
        [sys.executable, "-c", "import signal; signal.pause()", word], tmp_path / "log", tmp_path, ENVIRONMENT
    )

    found = processes.find(Path(sys.executable).name, word)
    part = processes.find(Path(sys.executable).name, word[:-1])

    for process in (ours, marked):
        processes.stop(process, 10)
    assert found == [marked]
    assert part == []


def test_this_very_process_is_alive() -> None:
    process = Process.of(os.getpid())

    assert process is not None
    assert process.is_alive()


def test_the_tail_of_a_log_is_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    log.write_text("".join(f"{number}\n" for number in range(100)))

    assert processes.tail(log, 3) == "97\n98\n99"
    assert processes.tail(tmp_path / "absent") == ""


def test_a_condition_that_does_not_come_true_is_given_up() -> None:
    assert not processes.wait(lambda: False, 0.05, pause=0.01)
