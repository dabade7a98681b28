"""A fake Kubernetes API server in memory, fast enough not to be what is measured; prints its port and serves.

It knows SegmentationJobs, Jobs, Pods, Events, nodes and priority classes, lists and watches them, and with `--pods`
plays the Job controller and a kubelet: each Job gets a pod that is placed, runs and succeeds. Objects have the size
that real ones have, managed fields included. `POST /benchmark/submit?count=N` creates N SegmentationJobs, and
`GET /benchmark/state` returns the counts of requests and objects.
"""

import argparse
import asyncio
import itertools
import json
from collections import Counter
from typing import Any

from aiohttp import web

Raw = dict[str, Any]

GROUP = "/apis/cryomamba.io/v1alpha1"
CREATED = "2026-03-01T12:00:00Z"
PLURALS = {"segmentationjobs": "SegmentationJob", "jobs": "Job", "pods": "Pod", "events": "Event"}
API_VERSIONS = {"segmentationjobs": "cryomamba.io/v1alpha1", "jobs": "batch/v1", "pods": "v1", "events": "v1"}


def managed_fields(paths: int) -> list[Raw]:
    """Return what the API server adds to every object about who wrote which field."""
    fields = {f"f:field{number:03d}": {"f:name": {}, "f:value": {}} for number in range(paths)}
    return [{"manager": "fake", "operation": "Update", "apiVersion": "v1", "time": CREATED, "fieldsV1": fields}]


def merge(target: Raw, patch: Raw) -> Raw:
    """Return the target with a JSON merge patch (RFC 7396) applied."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            result[name] = merge(result.get(name) or {}, value)
        else:
            result[name] = value
    return result


class ApiServer:
    """All objects, who watches them, and how often what was asked."""

    def __init__(self, *, pods: bool) -> None:
        self.objects: dict[str, dict[str, Raw]] = {plural: {} for plural in PLURALS}
        self.watchers: dict[str, list[asyncio.Queue[bytes]]] = {plural: [] for plural in PLURALS}
        self.requests: Counter[str] = Counter()
        self.transitions = 0
        self._pods = pods
        self._version = itertools.count(1000)
        self._last = 1000

    def put(self, plural: str, raw: Raw, event: str) -> Raw:
        """Store a new state of an object and tell who watches."""
        self._last = next(self._version)
        raw["metadata"]["resourceVersion"] = str(self._last)
        self.objects[plural][raw["metadata"]["name"]] = raw
        line = json.dumps({"type": event, "object": raw}).encode() + b"\n"
        for watcher in self.watchers[plural]:
            watcher.put_nowait(line)
        return raw

    def submit(self, count: int) -> None:
        """Create SegmentationJobs as an API server returns them, defaults filled in."""
        for number in range(count):
            name = f"tomogram-{number:05d}"
            spec = {
                "input": {"fileId": "file_abc123def456"},
                "model": "membranes",
                "inference": {
                    "tileStepPercent": 50,
                    "mirroring": True,
                    "saveProbabilities": False,
                    "objectTable": False,
                    "invert": False,
                },
                "preview": {"enabled": True, "intervalSeconds": 5, "downsampleFactor": 4},
                "resources": {"gpus": 1, "memory": "16Gi", "cpu": "2"},
                "maxAttempts": 3,
                "activeDeadlineSeconds": 86400,
                "desiredState": "Run",
            }
            self.transitions += 1
            self.put(
                "segmentationjobs",
                {
                    "apiVersion": "cryomamba.io/v1alpha1",
                    "kind": "SegmentationJob",
                    "metadata": {
                        "name": name,
                        "namespace": "lab",
                        "uid": f"uid-{name}",
                        "generation": 1,
                        "creationTimestamp": CREATED,
                        "labels": {"cryomamba.io/owner": f"owner-{number % 7}"},
                        "managedFields": managed_fields(20),
                    },
                    "spec": spec,
                },
                "ADDED",
            )

    def create_job(self, manifest: Raw) -> Raw:
        """Create a Job and, where pods are played, its pod's way."""
        name = manifest["metadata"]["name"]
        manifest["metadata"] |= {
            "uid": f"uid-job-{name}",
            "creationTimestamp": CREATED,
            "generation": 1,
            "managedFields": managed_fields(30),
        }
        manifest["status"] = {}
        self.put("jobs", manifest, "ADDED")
        if self._pods:
            asyncio.get_running_loop().call_later(0.2, self._advance, name, 0)
        return manifest

    def _advance(self, name: str, step: int) -> None:
        job = self.objects["jobs"][name]
        self.transitions += 1
        if step == len(POD_STATUSES):
            done = [{"type": "Complete", "status": "True", "reason": "CompletionsReached", "message": ""}]
            self.put(
                "jobs", {**job, "status": {"conditions": done, "completionTime": CREATED, "succeeded": 1}}, "MODIFIED"
            )
            return
        template = job["spec"]["template"]
        pod = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": f"{name}-abcde",
                "namespace": "lab",
                "uid": f"uid-pod-{name}",
                "creationTimestamp": CREATED,
                "labels": template["metadata"]["labels"],
                "ownerReferences": [
                    {
                        "apiVersion": "batch/v1",
                        "kind": "Job",
                        "name": name,
                        "uid": job["metadata"]["uid"],
                        "controller": True,
                    }
                ],
                "managedFields": managed_fields(60),
            },
            "spec": {**template["spec"], **({"nodeName": "gpu-1"} if step else {})},
            "status": POD_STATUSES[step],
        }
        self.put("pods", pod, "MODIFIED" if step else "ADDED")
        asyncio.get_running_loop().call_later(0.2, self._advance, name, step + 1)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        path = [part for part in request.path.split("/") if part]
        plural = next((part for part in path if part in PLURALS), "")
        subresource = path[-1] if path[-1] == "status" else ""
        watching = "watch" if request.query.get("watch") else ""
        self.requests[" ".join(filter(None, (request.method, plural, subresource, watching)))] += 1
        if watching:
            return await self._watch(request, plural)
        status, answer = self._answer(request, path, plural, await request.read())
        return web.json_response(answer, status=status)

    def _answer(self, request: web.Request, path: list[str], plural: str, body: bytes) -> tuple[int, Raw]:
        if request.path in DISCOVERY:
            return 200, DISCOVERY[request.path]
        if request.method == "POST":
            new = json.loads(body)
            if plural == "jobs" and new["metadata"]["name"] in self.objects["jobs"]:
                return 409, {"kind": "Status", "message": "already exists"}
            return 201, self.create_job(new) if plural == "jobs" else new
        if request.method == "PATCH":
            known = self.objects[plural][path[-2]]
            status = merge(known.get("status", {}), json.loads(body)["status"])
            return 200, self.put(plural, {**known, "metadata": dict(known["metadata"]), "status": status}, "MODIFIED")
        if plural and path[-1] != plural:
            found = self.objects[plural].get(path[-1])
            return (200, found) if found else (404, {"kind": "Status", "message": "not found"})
        return 200, self._listing(plural, path[-1])

    def _listing(self, plural: str, last: str) -> Raw:
        items: list[Raw] = list(self.objects[plural].values()) if plural else []
        if last == "nodes":
            items = [{"metadata": {"name": "gpu-1"}, "status": {"allocatable": {"nvidia.com/gpu": "8"}}}]
        kind = f"{PLURALS.get(plural, '')}List"
        metadata = {"resourceVersion": str(self._last)}
        return {"kind": kind, "apiVersion": API_VERSIONS.get(plural, "v1"), "metadata": metadata, "items": items}

    async def _watch(self, request: web.Request, plural: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        queue: asyncio.Queue[bytes] = asyncio.Queue()
        self.watchers[plural].append(queue)
        try:
            while True:
                lines = [await queue.get()]
                while not queue.empty():
                    lines.append(queue.get_nowait())
                await response.write(b"".join(lines))
        finally:
            self.watchers[plural].remove(queue)


def _pod_status(phase: str, state: Raw | None, *, placed: bool) -> Raw:
    scheduled = {"type": "PodScheduled", "status": "True" if placed else "False", "lastTransitionTime": CREATED}
    containers = [{"name": "inference", "state": state, "image": "runner:1", "restartCount": 0}] if state else []
    return {"phase": phase, "conditions": [scheduled], "containerStatuses": containers}


POD_STATUSES = [
    _pod_status("Pending", None, placed=False),
    _pod_status("Pending", {"waiting": {"reason": "ContainerCreating"}}, placed=True),
    _pod_status("Running", {"running": {"startedAt": CREATED}}, placed=True),
]


def _resource(name: str, kind: str) -> Raw:
    verbs = ["create", "delete", "get", "list", "patch", "watch"]
    return {"name": name, "kind": kind, "singularName": kind.lower(), "namespaced": True, "verbs": verbs}


def _group(name: str, version: str) -> Raw:
    known = {"groupVersion": f"{name}/{version}", "version": version}
    return {"name": name, "versions": [known], "preferredVersion": known}


DISCOVERY: dict[str, Raw] = {
    "/version": {"major": "1", "minor": "34", "gitVersion": "v1.34.4"},
    "/api": {"versions": ["v1"]},
    "/apis": {"groups": [_group("cryomamba.io", "v1alpha1"), _group("batch", "v1")]},
    # kopf watches nothing before it has found namespaces, though it never lists them.
    "/api/v1": {"resources": [_resource("pods", "Pod"), _resource("namespaces", "Namespace")]},
    "/apis/batch/v1": {"resources": [_resource("jobs", "Job")]},
    GROUP: {
        "resources": [
            _resource("segmentationjobs", "SegmentationJob"),
            _resource("segmentationjobs/status", "SegmentationJob"),
        ]
    },
}


async def serve(*, pods: bool) -> None:
    """Serve until killed."""
    server = ApiServer(pods=pods)

    async def submit(request: web.Request) -> web.Response:
        server.submit(int(request.query["count"]))
        return web.json_response({})

    async def state(_: web.Request) -> web.Response:
        watched = sorted(plural for plural, watchers in server.watchers.items() if watchers)
        counts = {plural: len(objects) for plural, objects in server.objects.items()}
        return web.json_response(
            {"requests": server.requests, "objects": counts, "watched": watched, "transitions": server.transitions}
        )

    app = web.Application(client_max_size=1 << 26)
    app.router.add_post("/benchmark/submit", submit)
    app.router.add_get("/benchmark/state", state)
    app.router.add_route("*", "/{path:.*}", server.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pods", action="store_true", help="play the Job controller and a kubelet")
    asyncio.run(serve(pods=parser.parse_args().pods))
