"""Many jobs at once, an operator that is killed, and an API server that goes away."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.conclusions import jobs_succeed_at_once
from support.kubernetes import Kubectl, restart_watchers, tool
from support.operators import Jobs, OperatorProcess, manifest
from support.waiting import until

MANY = 1000
PLACES = 20


def succeeded(kubectl: Kubectl) -> int:
    return kubectl("get", "segjob", "--no-headers").count("Succeeded")


@pytest.mark.timeout(600)  # 40 s on a quiet machine
def test_a_thousand_jobs_are_taken_in_order_though_the_operator_is_killed_on_the_way(
    operator: OperatorProcess, control_plane_namespace: Kubectl, tmp_path: Path
) -> None:
    kubectl = control_plane_namespace
    names = [f"tomo-{number:04d}" for number in range(MANY)]
    everything = {"apiVersion": "v1", "kind": "List", "items": [manifest(name) for name in names]}
    kubectl("create", "--filename", "-", manifest=everything, timeout=110)
    with jobs_succeed_at_once(kubectl, tmp_path) as witness:
        operator.start(max_active_jobs=PLACES)
        until(lambda: len(witness.created) >= MANY // 3, 200)
        operator.kill()
        operator.start()
        until(lambda: len(witness.created) >= 2 * MANY // 3, 200)
        operator.kill()
        operator.start()

        until(lambda: succeeded(kubectl) == MANY, 200)

        assert sorted(witness.created) == names, "each has had one Job"
        assert witness.most <= PLACES
        # Creation is counted in whole seconds and several are made at a time, so neighbours may change places.
        assert max(abs(names.index(name) - place) for place, name in enumerate(witness.created)) < PLACES


@pytest.fixture
def _others_recover(control_plane: Kubectl) -> Iterator[None]:
    yield
    restart_watchers(control_plane)


@pytest.mark.usefixtures("_others_recover")
def test_the_operator_goes_on_by_itself_when_the_api_server_is_back(operator: OperatorProcess, jobs: Jobs) -> None:
    operator.start(max_active_jobs=5)
    jobs.submit("before")
    jobs.wait("before", "Scheduled", "False", "Pending")
    tool("stop-component", "kube-apiserver", "--kill")
    gone = time.monotonic()
    until(lambda: time.monotonic() - gone > 20)
    tool("start-component", "kube-apiserver")

    jobs.submit("after")
    back = time.monotonic()
    jobs.wait("after", "Scheduled", "False", "Pending", seconds=5)

    assert time.monotonic() - back < 5
    assert operator.process
    assert operator.process.poll() is None
