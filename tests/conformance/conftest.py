"""Which server the suite talks to: one that it starts, or the one at `--base-url`; see docs/api.md."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from cryomamba_apiserver.commands.token import app as token_command
from support.api_target import SECONDS, Person, Target, moment, ok, volume, with_nan
from support.cluster_server import installation
from support.commands import environment_with, serving
from support.waiting import until

STUB_RUNNER = Path(__file__).parents[1] / "unit" / "apiserver" / "stub_runner.py"
SCRIPTED_SERVER = Path(__file__).parents[1] / "support" / "scripted_server.py"
_TOKENS = {"ada": "ADA", "bob": "BOB", "admin": "ADMIN", "reader": "READER"}
_ROOMY = {
    "requests_per_minute": "100000",
    "jobs_per_hour": "1000",
    "max_open_uploads": "1000",
}
"""Limits that a whole suite fits in."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("conformance")
    group.addoption("--base-url", help="test the server that is there, with the tokens in CRYOMAMBA_CONFORMANCE_*")
    group.addoption(
        "--profile",
        choices=("workstation", "kubernetes"),
        default="workstation",
        help="which server to start and test; kubernetes: with an operator and played pods on the test cluster",
    )


def _foreign(config: pytest.Config) -> str | None:
    url: str | None = config.getoption("--base-url", default=None)
    return url.rstrip("/") if url else None


def _client(url: str) -> httpx.Client:
    return httpx.Client(base_url=url, timeout=SECONDS)


@contextmanager
def _from_environment(url: str) -> Iterator[Target]:
    names = {role: f"CRYOMAMBA_CONFORMANCE_{name}_TOKEN" for role, name in _TOKENS.items()}
    if missing := [name for name in names.values() if not os.environ.get(name)]:
        pytest.exit(f"--base-url needs {', '.join(missing)} in the environment; docs/api.md says what for", 2)
    tokens = {role: os.environ[name] for role, name in names.items()}
    with _client(url) as http:
        yield Target(url=url, model=os.environ.get("CRYOMAMBA_CONFORMANCE_MODEL", "demo"), http=http, **tokens)


def _token(data_dir: Path, subject: str, scope: str) -> str:
    arguments = ["create", "--data-dir", str(data_dir), "--subject", subject, "--scope", scope]
    done = CliRunner().invoke(token_command, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout.strip()


@contextmanager
def _local(url: str, data_dir: Path) -> Iterator[Target]:
    with _client(url) as http:
        yield Target(
            url=url,
            ada=_token(data_dir, "ada", "read,write"),
            bob=_token(data_dir, "bob", "read,write"),
            admin=_token(data_dir, "root", "admin"),
            reader=_token(data_dir, "ada", "read"),
            model="demo",
            http=http,
        )


def _of_a_cluster(config: pytest.Config) -> bool:
    return bool(config.getoption("--profile", default="workstation") == "kubernetes")


@contextmanager
def _serve(request: pytest.FixtureRequest, folder: Path, settings: dict[str, str]) -> Iterator[Target]:
    """Run `cryomamba serve` with settings from the environment: on a folder, or on a namespace of the test cluster."""
    if _of_a_cluster(request.config):
        control_plane, minio = request.getfixturevalue("control_plane"), request.getfixturevalue("minio")
        with installation(control_plane, minio, folder, **settings) as target:
            yield target
        return
    with serving(folder / "data", **settings) as server, _local(server.url, server.data_dir) as target:
        yield target


@pytest.fixture(scope="package")
def target(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    """The server under test; nothing is known of what is behind it."""
    if url := _foreign(request.config):
        started = _from_environment(url)
    else:
        started = _serve(request, tmp_path_factory.mktemp("target"), _ROOMY)
    with started as running:
        yield running


@pytest.fixture(scope="package")
def serve(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Target]]:
    """Starts another server with settings of its own; one that is just there has the settings that it has."""
    with ExitStack() as servers:
        started: dict[tuple[Any, ...], Target] = {}

        def begin(**settings: object) -> Target:
            if _foreign(request.config):
                pytest.skip(f"the server at --base-url would have to run with {settings}")
            key = tuple(sorted(settings.items()))
            if key not in started:
                named = {name: str(value) for name, value in settings.items()}
                started[key] = servers.enter_context(_serve(request, tmp_path_factory.mktemp("serve"), named))
            return started[key]

        yield begin


@dataclass(frozen=True)
class Scripted:
    """A server whose clock, GPU and runner the test sets."""

    target: Target
    control: Path
    data_dir: Path

    @property
    def ada(self) -> Person:
        return Person(self.target, self.target.ada)

    def new_file(self) -> str:
        """Return the id of a file that there are no jobs for."""
        file_id: str = self.ada.upload(volume(self.control, (8, 8, 8)))["file_id"]
        return file_id

    def clock_ahead(self, seconds: float) -> None:
        self._say("clock", str(seconds))

    def jobs_do(self, script: str) -> None:
        """Say what jobs do from now on, in the words of the stub runner."""
        self._say("script", script)

    def _say(self, name: str, words: str) -> None:
        """Write a file at one stroke: the server reads them at any time."""
        (self.control / "new").write_text(words)
        (self.control / "new").replace(self.control / name)


@pytest.fixture(scope="package")
def _scripted(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scripted]:
    if _foreign(request.config):
        pytest.skip("the clock, the GPU and the runner of the server at --base-url are not the test's to set")
    if _of_a_cluster(request.config):
        pytest.skip("the clock, the GPU and the pods of a server on a cluster are not the test's to set")
    folder = tmp_path_factory.mktemp("scripted")
    (folder / "clock").write_text("0")
    (folder / "script").write_text("result")
    data_dir = folder / "data"
    data_dir.mkdir()
    environment = environment_with(**_ROOMY) | {"PYTHONPATH": str(SCRIPTED_SERVER.parents[1])}
    with (folder / "stderr").open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-P", SCRIPTED_SERVER, data_dir, folder, STUB_RUNNER],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            env=environment,
        )
    assert process.stdout
    try:
        url = process.stdout.readline().strip()
        assert url, (folder / "stderr").read_text()
        with _local(url, data_dir) as target:
            yield Scripted(target, folder, data_dir)
    finally:
        process.terminate()
        process.wait(20)
        process.stdout.close()


@pytest.fixture
def scripted(_scripted: Scripted) -> Iterator[Scripted]:
    """A server that does what the test wants; afterwards its clock is right, and no job is left to do the next's."""
    yield _scripted
    _scripted.clock_ahead(0)
    for status in ("queued", "running"):
        for job in ok(_scripted.ada.get("/v1/jobs", params={"status": status}))["jobs"]:
            _scripted.ada.delete(f"/v1/jobs/{job['job_id']}")  # 409 where it has ended meanwhile
    _scripted.jobs_do("result")


@pytest.fixture(scope="package")
def at_capacity(serve: Callable[..., Target], large_volume: bytes, small_volume: bytes) -> httpx.Response:
    """The answer to a job for which the queue has no place left."""
    target = serve(max_queued_jobs=1)
    someone = Person(target, target.ada)
    large, small = someone.upload(large_volume)["file_id"], someone.upload(small_volume)["file_id"]
    first = ok(someone.submit(large, params={"step_size": 0.1}), 201)["job_id"]
    until(lambda: someone.job(first)["status"] == "running")
    second = ok(someone.submit(small), 201)["job_id"]
    answer = someone.submit(small, params={"step_size": 0.7})
    for job_id in (second, first):
        ok(someone.delete(f"/v1/jobs/{job_id}"))
    return answer


@pytest.fixture(scope="package")
def storage_full(serve: Callable[..., Target]) -> httpx.Response:
    """The answer to an upload for which there is no storage left."""
    target = serve(storage_quota=4 << 20)
    return Person(target, target.ada).post(
        "/v1/uploads/init", json={"filename": "volume.mrc", "total_size": 5 << 20, "chunk_size": 5 << 20}
    )


@pytest.fixture(scope="package")
def ada(target: Target) -> Person:
    return Person(target, target.ada)


@pytest.fixture(scope="package")
def bob(target: Target) -> Person:
    return Person(target, target.bob)


@pytest.fixture(scope="package")
def admin(target: Target) -> Person:
    return Person(target, target.admin)


@pytest.fixture(scope="package")
def reader(target: Target) -> Person:
    return Person(target, target.reader)


@pytest.fixture(scope="package")
def stranger(target: Target) -> Person:
    return Person(target, None)


@pytest.fixture(scope="package")
def small_volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """[X, Y, Z] = [32, 28, 24] voxels of 1.0, 1.0 and 1.5 nm."""
    return volume(tmp_path_factory.mktemp("small"), (24, 28, 32))


@pytest.fixture(scope="package")
def large_volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """14 MB, which are three parts."""
    return volume(tmp_path_factory.mktemp("large"), (96, 192, 192))


@dataclass(frozen=True)
class Ended:
    """A job that has ended: what was asked, what was answered, what its WebSocket said all along."""

    request: dict[str, Any]
    file: dict[str, Any]
    created: dict[str, Any]
    messages: list[dict[str, Any]]

    @property
    def job_id(self) -> str:
        job_id: str = self.created["job_id"]
        return job_id

    def of_type(self, kind: str) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == kind]


@pytest.fixture(scope="package")
def small_file(ada: Person, small_volume: bytes) -> dict[str, Any]:
    """A file that jobs can use."""
    return ada.upload(small_volume)


@pytest.fixture(scope="package")
def ended(ada: Person, small_file: dict[str, Any], small_volume: bytes) -> tuple[Ended, Ended]:
    """One job that completes and one that fails, watched from their beginnings."""
    unusable = ada.upload(with_nan(small_volume))
    request = {
        "params": {"folds": "all", "step_size": 0.5, "disable_tta": True, "save_probabilities": False},
        "preview_config": {"enabled": True, "interval_seconds": 1, "downsample_factor": 2},
    }
    files = (small_file, unusable)
    created = [ok(ada.submit(file["file_id"], **request), 201) for file in files]
    with ThreadPoolExecutor() as watchers:
        watched = list(watchers.map(ada.watch, [job["job_id"] for job in created]))
    completes, fails = (
        Ended(request, file, job, messages) for file, job, messages in zip(files, created, watched, strict=True)
    )
    return completes, fails


@pytest.fixture(scope="package")
def completed(ended: tuple[Ended, Ended]) -> Ended:
    return ended[0]


@pytest.fixture(scope="package")
def failed(ended: tuple[Ended, Ended]) -> Ended:
    return ended[1]


@pytest.fixture(scope="package")
def large_file(ada: Person, large_volume: bytes) -> dict[str, Any]:
    """A file that keeps a job busy."""
    return ada.upload(large_volume)


@pytest.fixture(scope="package")
def running(ada: Person, ended: tuple[Ended, Ended], large_file: dict[str, Any]) -> Iterator[str]:
    """A job that is running and goes on for minutes; after `ended`, which would have to wait for it."""
    created = ok(ada.submit(large_file["file_id"], params={"step_size": 0.1}), 201)
    job_id: str = created["job_id"]
    until(lambda: ada.job(job_id).get("progress", {}).get("current_step", 0) >= 3)
    yield job_id
    ok(ada.delete(f"/v1/jobs/{job_id}"))


@pytest.fixture(scope="package")
def cancelled(ada: Person, running: str, large_file: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The answers to a job that was created behind a running one, looked at, and cancelled."""
    created = ok(ada.submit(large_file["file_id"], params={"step_size": 0.2}), 201)
    seen = ada.job(created["job_id"])
    answer = ok(ada.delete(f"/v1/jobs/{created['job_id']}"))
    assert moment(created["created_at"])
    return {"created": created, "seen": seen, "cancelled": answer}
