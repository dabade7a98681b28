"""An operator on a real API server, and pods that no node runs: the test says how they fare."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess, installed, jobs_of

Play = Callable[..., None]

# Pods that ask for this scheduler are left alone by the cluster's own, where it has one.
UNSCHEDULED = "spec: {schedulerName: nobody}\n"


@pytest.fixture
def operator(control_plane_namespace: Kubectl, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Installed, and not yet started."""
    template = tmp_path / "pod-template.yaml"
    template.write_text(UNSCHEDULED)
    with installed(control_plane_namespace, tmp_path) as operator:
        operator.settings["pod_template"] = str(template)
        yield operator


@pytest.fixture
def jobs(control_plane_namespace: Kubectl) -> Iterator[Jobs]:
    with jobs_of(control_plane_namespace) as jobs:
        yield jobs


@pytest.fixture
def play(control_plane_namespace: Kubectl) -> Play:
    """Write what a kubelet would write into a pod's status; `state` is that of the runner's container."""

    def write(pod: dict[str, Any], phase: str, state: dict[str, Any] | None = None, **status: Any) -> None:
        containers = [
            {
                "name": "inference",
                "image": "localhost/stub:1",
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": state,
            }
        ]
        patch = {"status": {"phase": phase, "containerStatuses": containers if state else [], **status}}
        control_plane_namespace(
            "patch",
            "pod",
            pod["metadata"]["name"],
            "--subresource=status",
            "--type=strategic",
            "--patch-file=/dev/stdin",
            manifest=patch,
        )

    return write
