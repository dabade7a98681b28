"""An operator whose pods run a stub."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from devcluster.images import busybox_archive
from support.kubernetes import Kubectl, tool
from support.operators import Jobs, OperatorProcess, installed, jobs_of

STUB = Path(__file__).with_name("stub.sh")
IMAGE = "localhost/cryomamba-test-stub:1"
EMPTY = "localhost/cryomamba-test-nothing:1"


@pytest.fixture(scope="session")
def images(cluster: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The stub's image, and one whose entry point is missing."""
    folder = tmp_path_factory.mktemp("images")
    files = {"stub.sh": STUB.read_bytes(), "bin/kubectl": cluster.binary.read_bytes()}
    busybox_archive(folder / "stub.tar", IMAGE, ["/stub.sh"], files)
    busybox_archive(folder / "empty.tar", EMPTY, ["/cryomamba-runner"])
    for archive in ("stub.tar", "empty.tar"):
        tool("load-image", folder / archive)


@pytest.fixture
def operator(namespace: Kubectl, images: None, tmp_path: Path) -> Iterator[OperatorProcess]:
    """Installed, and not yet started; pods have a second to end and 16 MiB of scratch space."""
    with installed(namespace, tmp_path) as operator:
        operator.settings |= {"image": IMAGE, "stop_seconds": "1", "scratch_size": "16Mi"}
        yield operator


@pytest.fixture
def jobs(namespace: Kubectl) -> Iterator[Jobs]:
    with jobs_of(namespace) as jobs:
        yield jobs
