import configparser
import json
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster import minio, processes
from devcluster.errors import ClusterError
from devcluster.state import Layout, Record

# Serves the health check, and shows to the test with what it was started.
SERVER = """
import http.server, json, os, sys
host, port = sys.argv[sys.argv.index("--address") + 1].split(":")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({**os.environ, "path": self.path, "argv": sys.argv}).encode())
http.server.HTTPServer((host, int(port)), Handler).serve_forever()
"""


@pytest.fixture
def layout(tmp_path: Path) -> Iterator[Layout]:
    layout = Layout(tmp_path / "minio")
    yield layout
    minio.down(layout)


@pytest.fixture
def binaries(tmp_path: Path) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "minio").write_text(f"#!{sys.executable}{SERVER}")
    (folder / "minio").chmod(0o755)
    return folder


def test_the_server_runs_with_the_credentials_of_its_file(layout: Layout, binaries: Path) -> None:
    description = minio.up(layout, binaries, "127.0.0.1")

    with urllib.request.urlopen(f"{description['endpoint']}/x", timeout=10) as answer:
        started = json.load(answer)
    credentials = configparser.ConfigParser()
    credentials.read(description["credentials"])
    assert started["MINIO_ROOT_USER"] == credentials["default"]["aws_access_key_id"]
    assert started["MINIO_ROOT_PASSWORD"] == credentials["default"]["aws_secret_access_key"]
    assert not any(started["MINIO_ROOT_PASSWORD"] in word for word in started["argv"])


def test_nobody_else_reads_the_credentials(layout: Layout, binaries: Path) -> None:
    description = minio.up(layout, binaries, "127.0.0.1")

    assert Path(description["credentials"]).stat().st_mode & 0o777 == 0o600


def test_a_server_that_runs_is_not_started_again(layout: Layout, binaries: Path) -> None:
    first = minio.up(layout, binaries, "127.0.0.1")
    process = Record.read(layout.record)

    assert minio.up(layout, binaries, "127.0.0.1") == first
    assert Record.read(layout.record) == process


def test_a_server_that_runs_elsewhere_is_not_moved(layout: Layout, binaries: Path) -> None:
    minio.up(layout, binaries, "127.0.0.1")

    with pytest.raises(ClusterError, match=r"at 127\.0\.0\.1"):
        minio.up(layout, binaries, "127.0.0.2")


def test_after_a_crash_it_starts_afresh(layout: Layout, binaries: Path) -> None:
    before = Path(minio.up(layout, binaries, "127.0.0.1")["credentials"]).read_text()
    record = Record.read(layout.record)
    assert record is not None
    processes.stop(record.processes["minio"], 0)

    after = Path(minio.up(layout, binaries, "127.0.0.1")["credentials"]).read_text()

    assert after != before


def test_down_leaves_the_log_and_nothing_else(layout: Layout, binaries: Path) -> None:
    minio.up(layout, binaries, "127.0.0.1")
    record = Record.read(layout.record)
    assert record is not None

    minio.down(layout)
    minio.down(layout)

    assert not record.processes["minio"].is_alive()
    assert [path.name for path in layout.folder.iterdir()] == ["logs"]


def test_a_server_that_ends_is_named_with_its_last_words(layout: Layout, binaries: Path) -> None:
    (binaries / "minio").write_text("#!/bin/sh\necho no space left\nexit 1\n")

    with pytest.raises(ClusterError, match=r"minio does not come up.*\n.*no space left"):
        minio.up(layout, binaries, "127.0.0.1")

    assert not (layout.folder / "credentials").exists()
