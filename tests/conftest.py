"""What all tests share: the test cluster, started when the first test asks for it, and how property tests are run."""

import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadScopeScheduling

from cryomamba_apiserver.adapters.s3_store import S3Connection
from support.kubernetes import CRD, Kubectl, is_running, tool
from support.product_images import ProductImages, loaded
from support.s3 import new_bucket, session_minio

_OF_THE_CLUSTER = {
    "e2e": ("cluster", "images", "operator", "queueing", "rights", "trial"),
    "integration": ("chart", "cluster_jobs", "gpus", "operator", "pod", "resource"),
}
_TOGETHER = {
    "cluster": tuple(f"tests/{tier}/{name}/" for tier, names in _OF_THE_CLUSTER.items() for name in names),
    "conformance": ("tests/conformance/",),
}
"""Folders whose tests run in one process, one after another: the first share the test cluster, the second a server."""

# A busy machine is no failure, and a failure can be repeated.
settings.register_profile("cryomamba", deadline=None, derandomize=True)
settings.load_profile("cryomamba")


class _Scheduler(LoadScopeScheduling):
    """Shares tests out to processes, those that need what there is once together, the others by their modules."""

    def _split_scope(self, nodeid: str) -> str:
        path = nodeid.partition("::")[0]
        return next((name for name, folders in _TOGETHER.items() if path.startswith(folders)), path)


@pytest.hookimpl(optionalhook=True)  # not called where one process runs all
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> _Scheduler:
    """Say how `--numprocesses` shares tests out."""
    return _Scheduler(config, log)


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
