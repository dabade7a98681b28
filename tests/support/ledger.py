"""What a cluster did with the jobs of a namespace, and when, by the watches of its API server."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

import httpx

from support.kube_http import client, watch
from support.kubernetes import Kubectl

JOB_LABEL = "cryomamba.io/job"


@dataclass
class Ledger:
    """Seen so far; each name is a SegmentationJob's."""

    begun: list[str] = field(default_factory=list)
    """In the order in which their Kubernetes Jobs were created; one that was created twice is in it twice."""
    pods: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    """Uids of the pods that each has had."""
    running: dict[str, float] = field(default_factory=dict)
    """When a pod of each was first seen running, by the monotonic clock."""

    def saw_job(self, kind: str, job: dict[str, Any]) -> None:
        if kind == "ADDED":
            self.begun.append(job["metadata"]["labels"][JOB_LABEL])

    def saw_pod(self, _: str, pod: dict[str, Any]) -> None:
        name = pod["metadata"]["labels"][JOB_LABEL]
        self.pods[name].add(pod["metadata"]["uid"])
        # One that is over by the time it is seen has run as well.
        if pod["status"].get("phase") in {"Running", "Succeeded"}:
            self.running.setdefault(name, monotonic())


@contextmanager
def ledger(kubectl: Kubectl) -> Iterator[Ledger]:
    """Keep a ledger of the namespace until the end of the with statement; it must have no jobs yet."""
    kept = Ledger()
    sources = {
        f"/apis/batch/v1/namespaces/{kubectl.namespace}/jobs": kept.saw_job,
        f"/api/v1/namespaces/{kubectl.namespace}/pods": kept.saw_pod,
    }
    over = threading.Event()
    with client(kubectl) as http:
        watchers = [
            threading.Thread(target=_follow, args=(http, path, _now(http, path), saw, over), daemon=True)
            for path, saw in sources.items()
        ]
        for watcher in watchers:
            watcher.start()
        try:
            yield kept
        finally:
            over.set()
            for watcher in watchers:
                watcher.join(30)


def _follow(
    http: httpx.Client,
    path: str,
    version: str,
    saw: Callable[[str, dict[str, Any]], None],
    over: threading.Event,
) -> None:
    while not over.is_set():
        # The server ends a watch after these seconds, so that an end is noticed.
        query = {"labelSelector": JOB_LABEL, "resourceVersion": version, "timeoutSeconds": "5"}
        # One that breaks off goes on where it was.
        with suppress(httpx.TransportError):
            for kind, found in watch(http, path, **query):
                assert kind != "ERROR", found
                version = found["metadata"]["resourceVersion"]
                saw(kind, found)
        over.wait(0.1)


def _now(http: httpx.Client, path: str) -> str:
    """Return the version from which on a watch tells what there is not yet."""
    answer = http.get(path, params={"labelSelector": JOB_LABEL})
    answer.raise_for_status()
    listed = answer.json()
    assert listed["items"] == []
    version: str = listed["metadata"]["resourceVersion"]
    return version
