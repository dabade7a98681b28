"""What a person has who follows `docs/install.md`, and what the test cluster needs to be told instead of them."""

import json
import os
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import mrcfile
import pytest

from cryomamba.phantom import VOXEL_SIZE_NM, make_phantom
from cryomamba_apiserver.models import catalogue
from devcluster.images import busybox_archive
from support.commands import ENVIRONMENT
from support.helm import CHART, binary
from support.kubernetes import Kubectl, tool
from support.product_images import ProductImages

MINIO_IMAGE = "localhost/cryomamba-test-minio:1"
NAMESPACE = "cryomamba"
MC = Path(__file__).with_name("mc.py")


def _image(reference: str) -> dict[str, str]:
    repository, _, tag = reference.rpartition(":")
    return {"repository": repository, "tag": tag}


def _values(images: ProductImages) -> str:
    """Return what a node of two cores, without a registry, a disk for claims and real GPUs, needs."""
    small = {"requests": {"cpu": "10m", "memory": "64Mi"}}
    return json.dumps(
        {
            "image": {"registry": "", "server": _image(images.server), "inference": _image(images.inference)},
            "minio": {"image": _image(MINIO_IMAGE), "persistence": {"enabled": False}, "resources": small},
            "apiServer": {"resources": small},
            "operator": {"resources": small},
            "gpuAgent": {"nodeSelector": None},
            "jobs": {"memory": "2Gi", "cpu": "100m"},
            "runner": {"device": "cpu", "scratchSize": "2Gi"},
        }
    )


@pytest.fixture(scope="session")
def minio_image(cluster: Kubectl, tmp_path_factory: pytest.TempPathFactory) -> None:
    """The pinned MinIO as an image on the node."""
    archive = tmp_path_factory.mktemp("minio") / "minio.tar"
    busybox_archive(archive, MINIO_IMAGE, ["/bin/minio"], {"bin/minio": (binary("minio")).read_bytes()})
    tool("load-image", archive)


@pytest.fixture
def desk(cluster: Kubectl, product_images: ProductImages, minio_image: None, tmp_path: Path) -> Path:
    """A folder with a tomogram, a model and the chart."""
    with mrcfile.new(tmp_path / "tomogram.mrc", make_phantom(3, (32, 64, 64)).density) as file:
        file.voxel_size = VOXEL_SIZE_NM * 10
    (tmp_path / "tomogram-17.mrc").write_bytes((tmp_path / "tomogram.mrc").read_bytes())
    model = tmp_path / "RESULTS" / "Dataset001_X" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    with zipfile.ZipFile(Path(catalogue.__file__).parent / "bundled" / "demo" / "model.zip") as archive:
        archive.extractall(model)
    (tmp_path / "charts").symlink_to(CHART.parent)
    (tmp_path / "cluster.json").write_text(_values(product_images))
    return tmp_path


@pytest.fixture
def environment(desk: Path, cluster: Kubectl) -> dict[str, str]:
    """Programs by the names that the page calls them."""
    programs = desk / "bin"
    programs.mkdir()
    # The definition is the other tests', too; there is no registry.
    only_here = f"--take-ownership --values {desk}/cluster.json --set image.registry="
    for name, line in {
        "kubectl": f'exec {cluster.binary} "$@"',
        "helm": f'if [ "$1" = upgrade ]; then set -- "$@" {only_here}; fi; exec {binary("helm")} "$@"',
        "cryomamba": f'exec {sys.executable} -m cryomamba "$@"',
        "mc": f'exec {sys.executable} {MC} "$@"',
    }.items():
        (programs / name).write_text(f"#!/bin/sh\n{line}\n")
        (programs / name).chmod(0o755)
    return ENVIRONMENT | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "KUBECONFIG": str(cluster.kubeconfig),
        "HOME": str(desk),
        "USER": "ada",
    }


@pytest.fixture
def afterwards(cluster: Kubectl):
    """Take away what the page has made, whatever happens."""
    yield replace(cluster, namespace=NAMESPACE)
    cluster("delete", "namespace", NAMESPACE, "--ignore-not-found", timeout=120)
    for kind in ("clusterrole", "clusterrolebinding", "validatingadmissionpolicy", "validatingadmissionpolicybinding"):
        cluster("delete", kind, "--selector", f"app.kubernetes.io/instance={NAMESPACE}")
