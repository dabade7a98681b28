"""A server with a runner that a test scripts, behind a real nginx."""

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner

from cryomamba_apiserver.commands.token import app as token_command
from support.commands import environment_with
from support.reverse_proxy import Proxy, ingress_annotations, proxying

TESTS = Path(__file__).parents[2]
SERVER = TESTS / "support" / "scripted_server.py"
RUNNER = TESTS / "unit" / "apiserver" / "stub_runner.py"
REQUESTS_PER_MINUTE = 200


@dataclass(frozen=True)
class Site:
    """What a client knows of: the proxy, and a token."""

    proxy: Proxy
    token: str
    server: subprocess.Popen[str]
    script: Path
    errors: Path

    def client(self, address: str = "127.0.0.1", token: str | None = None) -> httpx.Client:
        """Return a client on one of this machine's addresses."""
        transport = httpx.HTTPTransport(verify=self.proxy.trust, local_address=address)
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return httpx.Client(base_url=self.proxy.url, transport=transport, headers=headers, timeout=60)


@pytest.fixture(scope="session")
def annotations() -> dict[str, str]:
    return ingress_annotations()


@pytest.fixture
def site(tmp_path: Path, annotations: dict[str, str]) -> Iterator[Site]:
    data_dir, script, errors = tmp_path / "data", tmp_path / "script", tmp_path / "stderr"
    data_dir.mkdir()
    (tmp_path / "clock").write_text("0")
    script.write_text("result")
    settings = {"trusted_proxies": "127.0.0.1", "requests_per_minute": str(REQUESTS_PER_MINUTE)}
    environment = environment_with(**settings) | {"PYTHONPATH": str(TESTS)}
    with errors.open("w") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-P", SERVER, data_dir, tmp_path, RUNNER],
            stdout=subprocess.PIPE,
            stderr=stderr,
            text=True,
            env=environment,
        )
    assert server.stdout
    try:
        url = server.stdout.readline().strip()
        assert url, errors.read_text()
        token = CliRunner().invoke(token_command, ["create", "--data-dir", str(data_dir), "--subject", "ada"])
        folder = tmp_path / "proxy"
        folder.mkdir()
        with proxying(folder, url, annotations) as proxy:
            yield Site(proxy, token.stdout.strip(), server, script, errors)
    finally:
        server.terminate()
        server.wait(120)
        server.stdout.close()


@pytest.fixture
def ada(site: Site) -> Iterator[httpx.Client]:
    with site.client(token=site.token) as client:
        yield client
