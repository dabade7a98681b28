"""How many jobs wait and run, for the metrics."""

import asyncio
import logging

from cryomamba_apiserver.operations.metrics import Backlog
from cryomamba_apiserver.ports.job_store import JobStatus, JobStore

_log = logging.getLogger(__name__)


async def read_backlog(jobs: JobStore, seconds: float) -> Backlog | None:
    """Return how many jobs have not ended, None where the store does not say so within this time."""
    try:
        async with asyncio.timeout(seconds):
            return Backlog(queued=await _count(jobs, JobStatus.QUEUED), running=await _count(jobs, JobStatus.RUNNING))
    except Exception as error:  # noqa: BLE001 - the other metrics are worth having whatever the store meets
        _log.warning("jobs could not be counted", exc_info=error)
        return None


async def _count(jobs: JobStore, status: JobStatus) -> int:
    return (await jobs.list_jobs(None, status, limit=1, offset=0)).total
