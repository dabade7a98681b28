"""A real server with real runners, as a user starts them."""

import subprocess
from collections.abc import Callable, Iterator

import pytest

from support.commands import CRYOMAMBA, ENVIRONMENT, Server, serving


@pytest.fixture(scope="session")
def server(tmp_path_factory) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("server") / "data") as running:
        yield running


@pytest.fixture
def cryomamba() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command as a user would."""

    def run(*arguments: object, server: Server | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
        known = {"CRYOMAMBA_URL": server.url, "CRYOMAMBA_TOKEN": server.token()} if server else {}
        return subprocess.run(
            [*CRYOMAMBA, *map(str, arguments)],
            capture_output=True,
            text=True,
            timeout=300,
            env=ENVIRONMENT | known | environment,
            check=False,
        )

    return run
