"""What all tests share: the test cluster, started when the first test asks for it, and how property tests are run."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import settings

from cryomamba_apiserver.adapters.s3_store import S3Connection
from support.kubernetes import CRD, Kubectl, is_running, tool
from support.product_images import ProductImages, loaded
from support.s3 import new_bucket, session_minio

_TESTS = Path(__file__).parent

# A busy machine is no failure, and a failure can be repeated.
settings.register_profile("cryomamba", deadline=None, derandomize=True)
settings.load_profile("cryomamba")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say which tests stay together where several processes share them out (`--dist loadgroup`).

    All that need the test cluster do, since there is one; of the others, those of a package or a module whose fixtures
    last as long.
    """
    for item in items:
        if "_cluster_goes_at_the_end" in getattr(item, "fixturenames", ()):
            group = "cluster"
        elif item.path.is_relative_to(_TESTS / "conformance"):
            group = "conformance"
        else:
            group = item.path.relative_to(_TESTS).as_posix()
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture(scope="session")
def _cluster_goes_at_the_end() -> Iterator[None]:
    was_there = is_running()
    yield
    if not was_there:
        tool("down")


def _kubectl(kubeconfig: str) -> Kubectl:
    kubectl = Kubectl(Path(tool("build", "kubernetes")) / "kubectl", Path(kubeconfig))
    kubectl("apply", "--filename", str(CRD))
    kubectl("wait", "--for=condition=Established", "crd/segmentationjobs.cryomamba.io")
    return kubectl


@pytest.fixture(scope="session")
def control_plane(_cluster_goes_at_the_end: None) -> Kubectl:
    """A real API server that knows SegmentationJobs; there may be no node."""
    return _kubectl(tool("up", "--control-plane"))


@pytest.fixture(scope="session")
def cluster(_cluster_goes_at_the_end: None) -> Kubectl:
    """A real cluster that knows SegmentationJobs, with a node that runs pods."""
    return _kubectl(tool("up"))


@pytest.fixture(scope="session")
def product_images(cluster: Kubectl) -> ProductImages:
    """The product's images, on the cluster's node."""
    return loaded()


def _namespace(kubectl: Kubectl) -> Iterator[Kubectl]:
    name = f"test-{secrets.token_hex(4)}"
    kubectl("create", "namespace", name)
    yield replace(kubectl, namespace=name)
    kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture
def control_plane_namespace(control_plane: Kubectl) -> Iterator[Kubectl]:
    """`kubectl` in a namespace of the test's own; there may be no node."""
    yield from _namespace(control_plane)


@pytest.fixture
def namespace(cluster: Kubectl) -> Iterator[Kubectl]:
    """`kubectl` in a namespace of the test's own, on a cluster that runs pods."""
    yield from _namespace(cluster)


@pytest.fixture(scope="session")
def minio(tmp_path_factory) -> Iterator[S3Connection]:
    """A real S3 store of this session's own; its buckets are made by `bucket`."""
    with session_minio(tmp_path_factory.mktemp("minio")) as connection:
        yield connection


@pytest.fixture(scope="module")
def bucket(minio: S3Connection) -> S3Connection:
    """A fresh bucket for a module's tests."""
    return new_bucket(minio)
