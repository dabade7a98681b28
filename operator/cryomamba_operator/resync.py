"""Lists everything from time to time: how the operator starts, and what repairs what a lost watch has missed."""

from collections.abc import AsyncIterator, Callable, Collection

from cryomamba_operator.admission import Admission
from cryomamba_operator.intake import Intake
from cryomamba_operator.mirror import Mirror
from cryomamba_operator.observe import Raw
from cryomamba_operator.ports import Cluster, Page
from cryomamba_operator.settings import Settings


async def resync(cluster: Cluster, mirror: Mirror, intake: Intake, admission: Admission, settings: Settings) -> int:
    """Take in all records, Jobs and Pods, the priority classes and the number of GPUs; let all keys be looked at.

    Returns:
        How many Jobs may exist at once.

    Raises:
        GoneError: The CustomResourceDefinition is not installed.
        UnavailableError: The API server cannot be reached, or denies the operator a right.
    """
    await _take(cluster.list_records(), mirror.put_record, mirror.retain_records)
    await _take(cluster.list_jobs(), mirror.put_job, mirror.retain_jobs)
    await _take(cluster.list_pods(), mirror.put_pod, mirror.retain_pods)
    intake.set_priorities(await cluster.priorities())
    # Without a GPU in sight jobs go one at a time: nodes may be on their way, and jobs may run on CPUs.
    places = settings.max_active_jobs or max(await cluster.count_gpus(), 1)
    admission.resize(places)
    intake.stir_all()
    return places


async def _take(
    pages: AsyncIterator[Page], put: Callable[[Raw], bool], retain: Callable[[Collection[str], int], None]
) -> None:
    seen: set[str] = set()
    version = 0
    async for page in pages:
        version = page.resource_version if not version else min(version, page.resource_version)
        for raw in page.items:
            put(raw)
            seen.add(raw["metadata"]["uid"])
    retain(seen, version)
