"""Measures the operator against a fake API server on the same machine (run with `python -P`, as `make bench` does).

Prints lines ``name ours peer ratio``:

- ``operator-jobs-a-second``: SegmentationJobs that become Jobs with a written status, a second; the peer is a bare
  loop that sends the same two requests and decides nothing.
- ``operator-status-writes-a-transition``: PATCHes of a status for each change that there is to tell (submitted, pod
  made, placed, running, Job complete); the peer is the bound, 1.
- ``operator-memory-mb``: what the operator has held at most with 5,000 SegmentationJobs, their Jobs and Pods; the peer
  is the bound, 300.
"""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from time import perf_counter
from typing import Any

import aiohttp

from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.manifests import job_manifest
from cryomamba_operator.settings import Settings

FAKE = Path(__file__).parent / "fakes" / "kubernetes_api.py"
STORE: dict[str, Any] = {
    "s3_endpoint": "http://store.invalid",
    "s3_bucket": "none",
    "s3_credentials": "shared",
    "shared_secret": "bucket",
}
"""Jobs have no credentials of their own: an object store's pace is not what is measured."""
JOBS = 3000
RESOURCES = 5000
MEMORY_BOUND = 300
DEADLINE = 120.0


class Api:
    """The fake API server, as the measurement talks to it."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def submit(self, count: int) -> None:
        """Create SegmentationJobs."""
        async with self.session.post(f"{self.url}/benchmark/submit", params={"count": count}) as response:
            response.raise_for_status()

    async def state(self) -> dict[str, Any]:
        """Counts of requests, objects, watches and transitions."""
        async with self.session.get(f"{self.url}/benchmark/state") as response:
            state: dict[str, Any] = await response.json()
            return state

    async def until(self, what: str, done: Any) -> dict[str, Any]:  # noqa: ANN401 - a predicate over JSON
        """Return the state once it is so."""
        end = perf_counter() + DEADLINE
        while perf_counter() < end:
            state = await self.state()
            if done(state):
                return state
            await asyncio.sleep(0.05)
        raise TimeoutError(f"{what} did not happen within {DEADLINE:.0f} s: {state}")


@contextlib.asynccontextmanager
async def fake_api(*options: str) -> AsyncIterator[Api]:
    """A fake API server in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-P", str(FAKE), *options, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL
    )
    try:
        port = int(await process.stdout.readline()) if process.stdout else 0
        async with aiohttp.ClientSession() as session:
            yield Api(session, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        await process.wait()


@contextlib.contextmanager
def operator(url: str) -> Iterator[int]:
    """The operator as it runs in a pod; yields its process id."""
    with tempfile.TemporaryDirectory() as folder:
        kubeconfig = Path(folder) / "kubeconfig"
        context = {"name": "fake", "context": {"cluster": "fake", "user": "fake"}}
        kubeconfig.write_text(
            json.dumps(
                {
                    "clusters": [{"name": "fake", "cluster": {"server": url}}],
                    "users": [{"name": "fake", "user": {"token": "none"}}],
                    "contexts": [context],
                    "current-context": "fake",
                }
            )
        )
        settings = {
            "IMAGE": "runner:1",
            **{name.upper(): value for name, value in STORE.items()},
            "KUBECONFIG": str(kubeconfig),
            "NAMESPACES": "lab",
            "MAX_ACTIVE_JOBS": "1000000",
            "HEALTH_PORT": "0",
            "METRICS_PORT": "0",
        }
        environment = {**os.environ, **{f"CRYOMAMBA_OPERATOR_{name}": value for name, value in settings.items()}}
        process = subprocess.Popen([sys.executable, "-m", "cryomamba_operator"], env=environment)
        try:
            yield process.pid
        finally:
            process.terminate()
            process.wait()


def peak_megabytes(process: int) -> float:
    """The most memory that a process has held."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1000 for line in lines if line.startswith("VmHWM"))


def watching(state: dict[str, Any]) -> bool:
    """Whether the operator has its three watches."""
    return {"jobs", "pods", "segmentationjobs"} <= set(state["watched"])


async def ours() -> float:
    """Jobs a second, by the operator."""
    async with fake_api() as api:
        with operator(api.url):
            await api.until("watching", watching)
            start = perf_counter()
            await api.submit(JOBS)
            await api.until(
                "a Job and a status for each",
                lambda state: (
                    state["objects"]["jobs"] == JOBS
                    and state["requests"].get("PATCH segmentationjobs status", 0) >= JOBS
                ),
            )
            return JOBS / (perf_counter() - start)


async def peer() -> float:
    """Jobs a second, by a loop that sends the same requests, as many at a time as the operator."""
    settings = Settings(image="runner:1", **STORE)
    async with fake_api() as api:
        await api.submit(JOBS)
        names = [f"tomogram-{number:05d}" for number in range(JOBS)]
        record = SegmentationJob.model_validate(
            {
                "metadata": {"name": "any", "namespace": "lab", "uid": "any"},
                "spec": {"input": {"fileId": "file_abc123def456"}, "model": "membranes"},
            }
        )
        manifest = job_manifest(record, settings, {}, attempts=3)
        conditions = [
            {"type": name, "status": "False", "reason": "Pending", "lastTransitionTime": "2026-03-01T12:00:00Z"}
            for name in ("Scheduled", "Running", "Succeeded", "Finished")
        ]

        async def loop() -> None:
            while names:
                name = names.pop()
                job = {**manifest, "metadata": {**manifest["metadata"], "name": name}}
                async with api.session.post(f"{api.url}/apis/batch/v1/namespaces/lab/jobs", json=job) as response:
                    await response.json()
                path = f"/apis/cryomamba.io/v1alpha1/namespaces/lab/segmentationjobs/{name}/status"
                patch = {"status": {"jobName": name, "conditions": conditions}}
                async with api.session.patch(f"{api.url}{path}", json=patch) as response:
                    await response.json()

        start = perf_counter()
        await asyncio.gather(*(loop() for _ in range(settings.workers)))
        return JOBS / (perf_counter() - start)


async def writes_and_memory() -> tuple[float, float]:
    """PATCHes a transition, and the operator's memory in MB, with everything that 5,000 resources have."""
    async with fake_api("--pods") as api:
        with operator(api.url) as process:
            await api.until("watching", watching)
            await api.submit(RESOURCES)
            transitions = 5 * RESOURCES
            await api.until("all transitions", lambda state: state["transitions"] == transitions)
            before = -1
            while (state := await api.state())["requests"]["PATCH segmentationjobs status"] != before:
                before = state["requests"]["PATCH segmentationjobs status"]
                await asyncio.sleep(2)
            return before / transitions, peak_megabytes(process)


async def main() -> None:
    """Prints the lines."""
    mine, theirs = await ours(), await peer()
    print(f"operator-jobs-a-second {mine:.0f} {theirs:.0f} {mine / theirs:.2f}")
    writes, memory = await writes_and_memory()
    print(f"operator-status-writes-a-transition {writes:.2f} 1 {writes:.2f}")
    print(f"operator-memory-mb {memory:.0f} {MEMORY_BOUND} {memory / MEMORY_BOUND:.2f}")


if __name__ == "__main__":
    asyncio.run(main())
