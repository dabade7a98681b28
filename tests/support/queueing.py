"""Jobs through REST on the test cluster, whose pods do nothing: they are done at once, or stay until they are ended."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

import httpx

from cryomamba_crds import ids
from devcluster import network
from devcluster.images import busybox_archive
from support.api_target import Person, Target, ok, volume
from support.cluster_server import cluster_settings, person_target
from support.commands import serving
from support.kubernetes import Kubectl, tool
from support.ledger import Ledger, ledger
from support.operators import installed
from support.s3 import S3Connection
from support.waiting import until

STUB = "localhost/cryomamba-queue-stub:1"
_SECRET = "a secret of thirty-two bytes or more"
_STEPS = range(10, 101)
# One person asks for everything.
_OF_THE_LAB = {"job_gpus": "1", "requests_per_minute": "100000", "jobs_per_hour": "100000"}
# What is asked of a runner is all that a pod knows; keeping probabilities is what tells it to stay.
_SCRIPT = b"""#!/bin/sh
case $CRYOMAMBA_JOB_SPEC in
  *'"saveProbabilities":true'*) trap 'exit 75' TERM; while true; do sleep 0.1; done ;;
esac
"""


def load_stub(folder: Path) -> None:
    """Put the image on the node."""
    busybox_archive(folder / "stub.tar", STUB, ["/stub.sh"], {"stub.sh": _SCRIPT})
    tool("load-image", folder / "stub.tar")


@dataclass(frozen=True)
class Lab:
    """A namespace with an operator, and an API server whose jobs each ask for a GPU."""

    kubectl: Kubectl
    target: Target
    ledger: Ledger
    file_id: str

    def submit(self, number: int, *, stays: bool = False) -> str:
        """Ask for a job that differs from those of other numbers, up to 363; return its resource's name."""
        steps, rest = len(_STEPS), number // len(_STEPS)
        params = {
            "step_size": _STEPS[number % steps] / 100,
            "disable_tta": bool(rest % 2),
            "invert": bool(rest // 2 % 2),
            "save_probabilities": stays,
        }
        answer = Person(self.target, self.target.ada).submit(self.file_id, params=params)
        return ids.resource_name(ok(answer, 201)["job_id"])

    def out_of_turn(self, names: list[str], gpus: int) -> list[int]:
        """Return which of these jobs, by their place, were begun before an earlier one that had been waiting for a GPU.

        Those that are given the free GPUs at the same time may begin in either order.
        """
        place = {name: number for number, name in enumerate(names)}
        begun = [place[name] for name in self.ledger.begun if name in place]
        return [number for turn, number in enumerate(begun) if number > turn + gpus - 1]

    def count(self, status: str) -> int:
        """Return how many jobs are so, by the API."""
        listed = ok(Person(self.target, self.target.ada).get("/v1/jobs", params={"status": status, "limit": 1}))
        total: int = listed["total"]
        return total


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=10).status_code == HTTPStatus.OK
    except httpx.TransportError:
        return False


@contextmanager
def lab(kubectl: Kubectl, bucket: S3Connection, folder: Path) -> Iterator[Lab]:
    """Run it all until the end of the with statement; the node must have the stub."""
    settings = cluster_settings(kubectl, bucket, _SECRET) | _OF_THE_LAB
    with installed(kubectl, folder) as operator, serving(folder / "data", **settings) as server:
        port = network.free_port("127.0.0.1", random.SystemRandom())
        operator.start(image=STUB, health_port=port)
        until(lambda: _answers(f"http://127.0.0.1:{port}/healthz"))
        with person_target(server) as target, ledger(kubectl) as kept:
            uploaded = Person(target, target.ada).upload(volume(folder, (8, 8, 8)))
            yield Lab(kubectl, target, kept, uploaded["file_id"])
