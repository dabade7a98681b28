"""Real jobs on the test cluster: the chart, the images, a real MinIO (run with `python -P`, as `make bench` does).

Prints lines ``name ours peer ratio``, where the peer is the bound: of 20 jobs with the demo model that come at once and
share two made-up GPUs, ``real-jobs-lost``: how many did not complete; ``real-jobs-twice``: how many had more than one
pod; ``real-jobs-out-of-turn``: how many were begun before an earlier one that waited for a GPU; and, without a bound,
``real-jobs-a-minute``.

Needs what the test cluster needs (docs/test-cluster.md), and the machine for itself.
"""

import secrets
import sys
import tempfile
from pathlib import Path
from time import monotonic

# The test cluster is driven by what drives it in tests.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "tools"))

from cryomamba_crds import ids
from devcluster import network
from support.api_target import volume
from support.installation import Installation, installed
from support.kubernetes import CRD, Kubectl, is_running, tool
from support.ledger import Ledger, ledger
from support.product_images import loaded
from support.queueing import out_of_turn
from support.s3 import new_bucket, session_minio
from support.waiting import until

GPUS = 2
JOBS = 20
SECONDS = 1200
SHAPE = (24, 48, 48)


def real_jobs(site: Installation, kept: Ledger, folder: Path) -> None:
    """Ask for the jobs at once and print what became of them."""
    with site.user("ada") as ada:
        file_id = ada.upload(volume(folder, SHAPE))
        start = monotonic()
        jobs = [ada.submit(file_id, step_size=(50 + number) / 100) for number in range(JOBS)]
        until(lambda: all(ada.job(job)["status"] not in {"queued", "running"} for job in jobs), SECONDS)
        took = monotonic() - start
        lost = sum(ada.job(job)["status"] != "completed" for job in jobs)
    names = [ids.resource_name(job) for job in jobs]
    print_count("real-jobs-lost", lost)
    print_count("real-jobs-twice", sum(len(kept.pods[name]) > 1 for name in names))
    print_count("real-jobs-out-of-turn", len(out_of_turn(kept.begun, names, GPUS)))
    print(f"real-jobs-a-minute {60 * JOBS / took:.1f}", flush=True)


def print_count(name: str, ours: int) -> None:
    """Print a line about what should not have happened at all."""
    print(f"{name} {ours} 0 {ours}", flush=True)


def main() -> None:
    """Start what is not there, measure, and stop what was started."""
    was_there = is_running()
    kubeconfig = Path(tool("up"))
    everywhere = Kubectl(Path(tool("build", "kubernetes")) / "kubectl", kubeconfig)
    kubectl = Kubectl(everywhere.binary, kubeconfig, f"benchmark-{secrets.token_hex(4)}")
    try:
        everywhere("apply", "--filename", str(CRD))
        everywhere("wait", "--for=condition=Established", "crd/segmentationjobs.cryomamba.io")
        images = loaded()
        everywhere("create", "namespace", str(kubectl.namespace))
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            (folder / "proxy").mkdir()
            with (
                session_minio(folder / "minio", network.NODE_ADDRESS) as store,
                installed(kubectl, folder / "proxy", images, new_bucket(store)) as site,
                ledger(kubectl) as kept,
            ):
                real_jobs(site, kept, folder)
        everywhere("delete", "namespace", str(kubectl.namespace), "--wait=false")
    finally:
        if not was_there:
            tool("down")


if __name__ == "__main__":
    main()
