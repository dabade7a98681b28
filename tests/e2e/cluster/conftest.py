"""One installation of the chart for all tests of this folder, users of it, and volumes for it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import mrcfile
import numpy as np
import pytest

from cryomamba.phantom import VOXEL_SIZE_NM, make_phantom
from devcluster import network
from support.installation import Installation, User, installed
from support.kubernetes import Kubectl
from support.product_images import ProductImages
from support.s3 import new_bucket, session_minio


@pytest.fixture(scope="package")
def site(
    cluster: Kubectl, product_images: ProductImages, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    kubectl = replace(cluster, namespace="cryomamba-e2e")
    with session_minio(tmp_path_factory.mktemp("minio"), network.NODE_ADDRESS) as minio:
        cluster("create", "namespace", "cryomamba-e2e")
        try:
            with installed(kubectl, tmp_path_factory.mktemp("proxy"), product_images, new_bucket(minio)) as site:
                yield site
        finally:
            cluster("delete", "namespace", "cryomamba-e2e", timeout=120)


@pytest.fixture(scope="package")
def ada(site: Installation) -> Iterator[User]:
    with site.user("ada") as user:
        yield user


@pytest.fixture(scope="package")
def bob(site: Installation) -> Iterator[User]:
    with site.user("bob") as user:
        yield user


def _mrc(path: Path, voxels: np.ndarray) -> bytes:
    with mrcfile.new(path, voxels) as file:
        file.voxel_size = VOXEL_SIZE_NM * 10
    return path.read_bytes()


@pytest.fixture(scope="package")
def small_volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A phantom of one patch: seconds of inference."""
    return _mrc(tmp_path_factory.mktemp("small") / "volume.mrc", make_phantom(3, (32, 64, 64)).density)


@pytest.fixture(scope="package")
def busy_volume(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A phantom that keeps a pod busy for longer than it takes to disturb it."""
    return _mrc(tmp_path_factory.mktemp("busy") / "volume.mrc", make_phantom(4, (48, 128, 128)).density)
