"""Jobs on the test cluster, from REST to their pods and back (run with `python -P`, as `make bench` does).

A real Kubernetes with one node and two made-up GPUs, a real operator, API server and MinIO; the pods' image is a stub
that does nothing, or nothing for ever. Prints lines ``name ours peer ratio``, where the peer is the bound:

- ``post-to-running-s``: from `POST /v1/jobs` to its pod running, for a job that finds a GPU free; the slowest of 10.
- ``status-to-websocket-s``: from a change of a resource's status to the message on the job's WebSocket; the slowest of
  30.
- ``queued-jobs-out-of-turn``: of 200 jobs that come at once, how many were begun before an earlier one that waited for
  a GPU; ``queued-jobs-lost``: how many did not complete; ``queued-jobs-twice``: how many had more than one pod.
- ``queued-jobs-a-minute``: the same jobs; there is no bound.

Needs what the test cluster needs (docs/test-cluster.md), and the machine for itself.
"""

import json
import secrets
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from time import monotonic, sleep

# The test cluster is driven by what drives it in tests.
sys.path.append(str(Path(__file__).parents[1] / "tests"))
sys.path.append(str(Path(__file__).parents[1] / "tools"))

from cryomamba_crds import ids
from support.api_target import Person
from support.kube_http import MERGE, client, segmentation_jobs
from support.kubernetes import CRD, Kubectl, is_running, tool
from support.queueing import Lab, lab, load_stub
from support.s3 import new_bucket, session_minio
from support.waiting import until

GPUS = 2
QUEUED = 200
QUEUED_SECONDS = 1800
LONE = 10
CHANGES = 30
RUNNING_BOUND = 5.0
MESSAGE_BOUND = 1.0
APART_SECONDS = 0.3


def lone_jobs(running: Lab) -> list[float]:
    """Return how long each of some jobs took to run, one after the other."""
    took = []
    for number in range(LONE):
        start = monotonic()
        name = running.submit(number)
        until(lambda name=name: name in running.ledger.running)  # type: ignore[misc]
        took.append(running.ledger.running[name] - start)
        until(lambda done=number + 1: running.count("completed") == done)  # type: ignore[misc]
    return took


def changes(running: Lab) -> list[float]:
    """Return how long each of some changes of a status took to arrive at a WebSocket."""
    name = running.submit(LONE, stays=True)
    ada = Person(running.target, running.target.ada)
    job_id = ids.job_id(name)
    until(lambda: ada.job(job_id)["status"] == "running")
    path = f"{segmentation_jobs(running.kubectl)}/{name}/status"
    took = []
    with client(running.kubectl) as http, ada.socket(job_id) as socket:
        for number in range(1, CHANGES + 1):
            start = monotonic()
            patch = {"status": {"progress": _progress(number)}}
            http.patch(path, content=json.dumps(patch), headers={"Content-Type": MERGE}).raise_for_status()
            while json.loads(socket.recv(30)).get("progress", {}).get("percentage") != number:
                pass
            took.append(monotonic() - start)
            sleep(APART_SECONDS)
    ada.delete(f"/v1/jobs/{job_id}")
    until(lambda: running.count("cancelled") == 1)
    return took


def _progress(number: int) -> dict[str, object]:
    now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    steps = {"currentStep": 3, "totalSteps": 5}
    return {"sequence": number, "percentage": number, "message": "Inferring", "updatedAt": now, **steps}


def queued_jobs(running: Lab) -> tuple[list[str], float]:
    """Ask for many jobs at once; return their names, and how long all of them took."""
    before = running.count("completed")
    start = monotonic()
    names = [running.submit(number) for number in range(LONE + 1, LONE + 1 + QUEUED)]
    posted = monotonic() - start
    until(lambda: running.count("queued") + running.count("running") == 0, QUEUED_SECONDS)
    took = monotonic() - start
    print(
        f"{running.count('completed') - before} of {QUEUED} completed, taken in within {posted:.1f} s", file=sys.stderr
    )
    return names, took


def print_bound(name: str, ours: float, bound: float) -> None:
    """Print a line."""
    print(f"{name} {ours:.2f} {bound:.2f} {ours / bound if bound else ours:.2f}", flush=True)


def measure(kubectl: Kubectl, folder: Path) -> None:
    """Measure on a namespace of our own."""
    minio, scratch = folder / "minio", folder / "lab"
    minio.mkdir()
    scratch.mkdir()
    with session_minio(minio) as store, lab(kubectl, new_bucket(store), scratch) as running:
        lone = lone_jobs(running)
        print_bound("post-to-running-s", max(lone), RUNNING_BOUND)
        told = changes(running)
        print_bound("status-to-websocket-s", max(told), MESSAGE_BOUND)
        print(f"medians: {median(lone):.2f} s and {median(told):.3f} s", file=sys.stderr)
        before = running.count("completed")
        names, took = queued_jobs(running)
        print_bound("queued-jobs-out-of-turn", len(running.out_of_turn(names, GPUS)), 0)
        print_bound("queued-jobs-lost", QUEUED - (running.count("completed") - before), 0)
        print_bound("queued-jobs-twice", sum(len(running.ledger.pods[name]) > 1 for name in names), 0)
        print(f"queued-jobs-a-minute {60 * QUEUED / took:.1f}", flush=True)


def main() -> None:
    """Start what is not there, measure, and stop what was started."""
    was_there = is_running()
    kubeconfig = Path(tool("up"))
    kubectl = Kubectl(Path(tool("build", "kubernetes")) / "kubectl", kubeconfig)
    namespace = f"benchmark-{secrets.token_hex(4)}"
    try:
        kubectl("apply", "--filename", str(CRD))
        kubectl("wait", "--for=condition=Established", "crd/segmentationjobs.cryomamba.io")
        kubectl("create", "namespace", namespace)
        with tempfile.TemporaryDirectory() as folder:
            load_stub(Path(folder))
            measure(Kubectl(kubectl.binary, kubeconfig, namespace), Path(folder))
        kubectl("delete", "namespace", namespace, "--wait=false")
    finally:
        if not was_there:
            tool("down")


if __name__ == "__main__":
    main()
