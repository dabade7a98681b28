"""Which place in the line a job has, by the order in which the operator gives places. Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping

from cryomamba_apiserver.adapters.cluster_jobs.mapping import Entry
from cryomamba_apiserver.ports.job_store import JobStatus
from cryomamba_crds.ids import Key
from cryomamba_crds.order import Candidate, choose


def place_in_line(newcomer: Candidate, jobs: Iterable[Entry], priorities: Mapping[str | None, int]) -> int:
    """Return how many jobs run before this one does, itself included, of those that do not run yet.

    Args:
        newcomer: The job, which may be among the others.
        jobs: All that there are.
        priorities: Values of the priority classes; None stands for jobs that name none.
    """
    placed_and_waiting = 0
    held: Counter[str] = Counter()
    waiting = [newcomer]
    for job in jobs:
        if job.placed:
            held[job.owner_label] += 1
            placed_and_waiting += job.status is JobStatus.QUEUED
        elif job.waits and job.name != newcomer.key.name:
            waiting.append(_candidate(job, newcomer.key.namespace, priorities))
    chosen = choose(waiting, held, len(waiting))
    return placed_and_waiting + 1 + chosen.index(newcomer)


def _candidate(job: Entry, namespace: str, priorities: Mapping[str | None, int]) -> Candidate:
    priority = priorities.get(job.priority_class, 0)
    return Candidate(Key(namespace, job.name), job.owner_label, priority, job.created)
