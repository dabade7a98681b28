"""Plays the node of a control plane that has none: runs each pod's container as a process of this machine."""

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

from cryomamba_crds import pod as words
from support.kube_http import client
from support.kubernetes import Kubectl, RefusedError
from support.pods import Container

UNSCHEDULED = "spec: {schedulerName: nobody}\n"
"""Pod template with which the cluster's own scheduler leaves pods to whoever plays the node."""
_STRATEGIC = "application/strategic-merge-patch+json"
_PAUSE = 0.1


@dataclass
class PlayedNode:
    """Runs the pods of a namespace, all at once: how many there are is the operator's business.

    Args:
        kubectl: In the namespace.
        folder: For the file systems of containers.
    """

    kubectl: Kubectl
    folder: Path
    problems: list[str] = field(default_factory=list)
    """What went wrong in playing."""
    _over: threading.Event = field(default_factory=threading.Event)
    _threads: dict[str, threading.Thread] = field(default_factory=dict)

    def run(self) -> None:
        """Run pods until it is over."""
        with client(self.kubectl) as http:
            while not self._over.wait(_PAUSE):
                with suppress(httpx.TransportError):
                    for pod in self._pods(http):
                        uid = pod["metadata"]["uid"]
                        if uid not in self._threads:
                            self._threads[uid] = threading.Thread(target=self._run_pod, args=(pod,))
                            self._threads[uid].start()
        for thread in self._threads.values():
            thread.join()

    def stop(self) -> None:
        """Let it be over."""
        self._over.set()

    def _pods(self, http: httpx.Client) -> list[dict[str, Any]]:
        pods = http.get(f"/api/v1/namespaces/{self.kubectl.namespace}/pods").raise_for_status().json()["items"]
        return [pod for pod in pods if pod.get("status", {}).get("phase") == "Pending"]

    def _run_pod(self, pod: dict[str, Any]) -> None:
        try:
            with client(self.kubectl) as http:
                container = self._made(pod)
                if container is not None:
                    self._run_container(http, pod, container)
        except Exception as error:  # noqa: BLE001 - a thread has nobody to tell but this list
            self._note(repr(error))

    def _made(self, pod: dict[str, Any]) -> Container | None:
        """Return a container once its Secret is there; None where the pod is gone before."""
        shared = {words.MODEL_CACHE_VARIABLE: str(self.folder / "models")}
        tried = 0
        while not self._over.wait(_PAUSE):
            tried += 1
            try:
                folder = self.folder / f"{pod['metadata']['uid']}-{tried}"
                return Container(self.kubectl, pod, folder, shared)
            except RefusedError as error:
                if "pods" in str(error) and "not found" in str(error):
                    return None
        return None

    def _run_container(self, http: httpx.Client, pod: dict[str, Any], container: Container) -> None:
        begun = _now()
        container.start()
        process = container.process
        assert process
        try:
            self._say(http, pod, "Running", {"running": {"startedAt": begun}}, startTime=begun)
            path = f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{pod['metadata']['name']}"
            while process.poll() is None and not self._over.wait(_PAUSE):
                with suppress(httpx.TransportError):
                    if http.get(path).status_code == 404:
                        process.terminate()
                        process.wait(60)
                        return
            if process.poll() is None:
                return
            ended = {"exitCode": process.returncode, "startedAt": begun, "finishedAt": _now(), "reason": "Completed"}
            last_word = container.folder / "termination-log"
            if last_word.exists():
                ended |= {"message": last_word.read_text(), "reason": "Error"}
            self._say(http, pod, "Failed" if process.returncode else "Succeeded", {"terminated": ended})
        finally:
            container.kill()

    def _say(self, http: httpx.Client, pod: dict[str, Any], phase: str, state: dict[str, Any], **more: Any) -> None:
        """Write what a kubelet would write into a pod's status."""
        status = {
            "name": "inference",
            "image": "localhost/stub:1",
            "imageID": "",
            "ready": "running" in state,
            "restartCount": 0,
            "state": state,
        }
        path = f"/api/v1/namespaces/{self.kubectl.namespace}/pods/{pod['metadata']['name']}/status"
        patch = {
            "metadata": {"uid": pod["metadata"]["uid"]},
            "status": {"phase": phase, "containerStatuses": [status], **more},
        }
        answer = http.patch(path, json=patch, headers={"Content-Type": _STRATEGIC})
        if answer.status_code not in {200, 404, 409}:  # gone meanwhile, or another of its name
            self._note(answer.text)

    def _note(self, problem: str) -> None:
        self.problems.append(problem)
        print(f"playing the node failed: {problem}", file=sys.stderr)


@contextmanager
def played_node(kubectl: Kubectl, folder: Path) -> Iterator[PlayedNode]:
    """Run the pods of a namespace until the end of the with statement."""
    node = PlayedNode(kubectl, folder)
    thread = threading.Thread(target=node.run)
    thread.start()
    try:
        yield node
    finally:
        node.stop()
        thread.join()
    assert not node.problems


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
