"""A server of one's own: started, found, and gone afterwards with everything that it started."""

import os
import signal
import sys
import textwrap
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cryomamba.errors import CryoMambaError
from cryomamba.interruption import stoppable
from cryomamba.local_server import local_server, redacted


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], list[str]]:
    """Write a stand-in for a server and return its command line."""

    def write(text: str) -> list[str]:
        path = tmp_path / "server.py"
        path.write_text("import os, signal, subprocess, sys, time\n" + textwrap.dedent(text))
        return [sys.executable, str(path)]

    return write


def gone(pid: int) -> bool:
    """Whether a process has ended; one that nobody has collected yet has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_the_url_is_read_from_the_output(script: Callable[[str], list[str]]) -> None:
    command = script("""
        print("starting for http://127.0.0.1:0", flush=True)
        print("CryoMamba listens on http://127.0.0.1:4321 (Ctrl-C stops)", flush=True)
        signal.pause()
    """)

    with local_server(command) as url:
        assert url == "http://127.0.0.1:4321"


def test_the_server_is_asked_to_stop_and_waited_for(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    command = script(f"""
        def stop(*_):
            open({str(tmp_path / "stopped")!r}, "w").close()
            sys.exit()
        signal.signal(signal.SIGTERM, stop)
        print("http://127.0.0.1:4321", flush=True)
        signal.pause()
    """)

    with local_server(command):
        pass

    assert (tmp_path / "stopped").exists()


def test_what_the_server_left_behind_in_its_group_is_killed(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    command = script(f"""
        stubborn = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); signal.pause()"
        child = subprocess.Popen([sys.executable, "-c", stubborn], stdout=subprocess.PIPE)
        child.stdout.read(1)
        open({str(tmp_path / "child")!r}, "w").write(str(child.pid))
        print("http://127.0.0.1:4321", flush=True)
        signal.pause()
    """)

    with pytest.raises(ZeroDivisionError), local_server(command):
        raise ZeroDivisionError

    assert gone(int((tmp_path / "child").read_text()))


def test_a_server_that_ends_early_shows_its_last_lines_without_tokens(script: Callable[[str], list[str]]) -> None:
    command = script("""
        print("token: eyJhbGciOi.eyJzdWIi.c2lnbmF0dXJl")
        sys.exit("the port is taken")
    """)

    with pytest.raises(CryoMambaError, match="the port is taken") as caught, local_server(command):
        pass

    assert "ended before it listened" in caught.value.message
    assert "eyJ" not in caught.value.message


def test_a_server_that_stays_silent_is_given_up_and_stopped(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    command = script(f"""
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        print("thinking", flush=True)
        signal.pause()
    """)

    with pytest.raises(CryoMambaError, match="did not listen within 1 s"), local_server(command, start_seconds=1):
        pass

    assert gone(int((tmp_path / "pid").read_text()))


def test_a_server_that_prints_a_lot_never_blocks(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    done = tmp_path / "done"
    os.mkfifo(done)
    command = script(f"""
        print("http://127.0.0.1:4321", flush=True)
        for _ in range(20_000):
            print("x" * 100)
        sys.stdout.flush()
        open({str(done)!r}, "w").close()
        signal.pause()
    """)
    finished = threading.Event()

    def wait_for_it() -> None:
        done.read_bytes()
        finished.set()

    thread = threading.Thread(target=wait_for_it)
    with local_server(command):
        thread.start()
        assert finished.wait(30)
    thread.join()


def test_sigterm_unwinds_and_stops_the_server(script: Callable[[str], list[str]], tmp_path: Path) -> None:
    command = script(f"""
        open({str(tmp_path / "pid")!r}, "w").write(str(os.getpid()))
        print("http://127.0.0.1:4321", flush=True)
        signal.pause()
    """)

    with pytest.raises(SystemExit) as caught, stoppable(), local_server(command):
        signal.raise_signal(signal.SIGTERM)

    assert caught.value.code == 128 + signal.SIGTERM
    assert gone(int((tmp_path / "pid").read_text()))
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_text_without_tokens_is_left_alone() -> None:
    assert redacted("eyJustname listening on http://127.0.0.1:1") == "eyJustname listening on http://127.0.0.1:1"
