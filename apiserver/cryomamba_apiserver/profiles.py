"""What differs between a workstation and a cluster: where jobs are, what runs them, which GPUs there are."""

import contextlib
import os
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from cryomamba_apiserver.adapters.cluster_jobs import ClusterJobReferences, ClusterJobStore, JobDefaults, KubernetesApi
from cryomamba_apiserver.adapters.job_references import LocalJobReferences
from cryomamba_apiserver.adapters.local_jobs import LocalJobStore, LocalProfile
from cryomamba_apiserver.adapters.opening import object_store, open_object_store, runner_store
from cryomamba_apiserver.gpus.agents import cluster_gpus
from cryomamba_apiserver.gpus.census import GpuSource
from cryomamba_apiserver.gpus.reading import PatientReader, local_gpus
from cryomamba_apiserver.gpus.service import GpuInventory, usable_gpus
from cryomamba_apiserver.operations.readiness import Check
from cryomamba_apiserver.ports.job_references import JobReferences
from cryomamba_apiserver.ports.job_store import JobStore, JobsUnavailableError
from cryomamba_apiserver.ports.object_store import ObjectStore, StoreUnavailableError
from cryomamba_apiserver.settings import Settings
from cryomamba_crds.resource import Resources

# A driver that nobody keeps open takes seconds for each GPU.
_FIRST_LOOK_SECONDS = 60.0
_DRIVER_SECONDS = 10.0


@dataclass(frozen=True)
class Profile:
    """One of the two shapes of a server."""

    objects: ObjectStore
    jobs: JobStore
    work: Callable[[], Coroutine[None, None, None]]
    """What goes on for as long as the server lives."""
    references: JobReferences
    gpus: GpuSource
    checks: Mapping[str, Check]
    """What must answer for jobs to be served."""
    data_dir: Path | None = None
    """None: nothing is kept on this machine."""
    waits_for_store: bool = False
    """Whether the server starts though the store does not answer yet, and says so in `/readyz`."""
    telling: tuple[type[Exception], ...] = field(default=())
    """Errors whose own words `/readyz` may show."""


@contextlib.asynccontextmanager
async def local_profile(
    settings: Settings,
    now: Callable[[], datetime],
    gpus_of_this_machine: Callable[[], GpuInventory],
    runner: Sequence[str],
) -> AsyncIterator[Profile]:
    """One workstation: jobs in SQLite, a process each."""
    async with object_store(settings) as objects:
        there = await PatientReader(gpus_of_this_machine, _FIRST_LOOK_SECONDS)()
        local = LocalProfile(
            data_dir=settings.data_dir,
            store=runner_store(settings),
            gpus=usable_gpus(there, os.environ.get("CUDA_VISIBLE_DEVICES")),
            max_queued_jobs=settings.max_queued_jobs,
            runner=runner,
        )
        jobs = LocalJobStore(local, objects, now)
        yield Profile(
            objects=objects,
            jobs=jobs,
            work=jobs.run,
            references=LocalJobReferences(settings.data_dir / "jobs.sqlite"),
            gpus=local_gpus(gpus_of_this_machine, _DRIVER_SECONDS),
            checks={"job_store": lambda: jobs.list_jobs(None, None, limit=1, offset=0)},
            data_dir=settings.data_dir,
        )


@contextlib.asynccontextmanager
async def cluster_profile(settings: Settings, now: Callable[[], datetime]) -> AsyncIterator[Profile]:
    """A cluster: each job a SegmentationJob in the namespace that is set."""
    namespace = settings.kubernetes_namespace
    if namespace is None:
        raise ValueError("no namespace is set")
    async with contextlib.AsyncExitStack() as opened:
        objects = open_object_store(settings)
        opened.push_async_callback(objects.close)
        kubernetes = await opened.enter_async_context(KubernetesApi.connect(namespace, settings.kubeconfig))
        jobs = ClusterJobStore(kubernetes, objects, job_defaults(settings), settings.max_queued_jobs, now)
        yield Profile(
            objects=objects,
            jobs=jobs,
            work=jobs.run,
            references=ClusterJobReferences(kubernetes, objects),
            gpus=cluster_gpus(kubernetes.pods, settings),
            checks={"kubernetes": jobs.check},
            waits_for_store=True,
            telling=(JobsUnavailableError, StoreUnavailableError),
        )


async def check_credentials(settings: Settings) -> None:
    """Raise FailureError where there are no credentials for the cluster that is set; nothing is asked of it."""
    if settings.kubernetes_namespace is not None:
        async with KubernetesApi.connect(settings.kubernetes_namespace, settings.kubeconfig):
            pass


@contextlib.asynccontextmanager
async def job_references(settings: Settings, objects: ObjectStore) -> AsyncIterator[JobReferences]:
    """What the jobs that the settings mean need of the store, without a server."""
    if settings.kubernetes_namespace is None:
        yield LocalJobReferences(settings.data_dir / "jobs.sqlite")
        return
    async with KubernetesApi.connect(settings.kubernetes_namespace, settings.kubeconfig) as kubernetes:
        yield ClusterJobReferences(kubernetes, objects)


def job_defaults(settings: Settings) -> JobDefaults:
    """Return what the settings say about every job."""
    return JobDefaults(
        resources=Resources(gpus=settings.job_gpus, memory=settings.job_memory, cpu=settings.job_cpu),
        max_attempts=settings.job_max_attempts,
        ttl_seconds=settings.job_ttl_seconds,
        deadline_seconds=settings.job_deadline_seconds,
        priority_class=settings.job_priority_class,
        queue=settings.job_queue,
    )
