"""Agents as processes of their own, on a driver that the test makes up."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from support.gpu_agents import Agent, agent
from support.nvml import MadeUpGpus, built


@pytest.fixture(scope="package")
def driver(tmp_path_factory: pytest.TempPathFactory) -> MadeUpGpus:
    folder = built(tmp_path_factory.mktemp("nvml"))
    return MadeUpGpus(folder, folder / "gpus")


@pytest.fixture
def gpus(driver: MadeUpGpus) -> Iterator[MadeUpGpus]:
    """The agents' driver: it has two GPUs until it is told otherwise."""
    driver.say("gpus=2")
    yield driver
    driver.say("gpus=2")


@pytest.fixture(scope="package")
def _agents(driver: MadeUpGpus, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Agent]]:
    folder = tmp_path_factory.mktemp("agents")
    started: dict[tuple[str, ...], Agent] = {}
    with ExitStack() as agents:

        def begin(node: str, settings: dict[str, str]) -> Agent:
            key = (node, *map(str, sorted(settings.items())))
            if key not in started:
                running = agent(node, folder / f"{len(started)}.stderr", driver.environment, **settings)
                started[key] = agents.enter_context(running)
            return started[key]

        yield begin


@pytest.fixture
def start(gpus: MadeUpGpus, _agents: Callable[..., Agent]) -> Callable[..., Agent]:
    """Starts an agent on that driver, unless one with these settings runs already."""

    def begin(node: str = "node-a", **settings: str) -> Agent:
        return _agents(node, settings)

    return begin
