"""Where a runner's input comes from and its results go to."""

from collections.abc import Mapping
from pathlib import Path

from cryomamba_crds.task import DirectoryStore, S3Store
from cryomamba_inference.storage.directory import DirectoryStorage
from cryomamba_inference.storage.interface import OUTAGE_SECONDS, Storage

__all__ = ["DirectoryStorage", "Storage", "open_storage"]


def open_storage(
    store: DirectoryStore | S3Store, environment: Mapping[str, str], outage_seconds: float = OUTAGE_SECONDS
) -> Storage:
    """Return the storage that a task names.

    Args:
        store: As the task has it.
        environment: Has the credentials of an S3 store, or says in which folder they are; see `cryomamba_crds.task` and
            `cryomamba_crds.pod`.
        outage_seconds: For how long an S3 store that does not answer is waited for.

    Raises:
        FailureError: it has none.
    """
    if isinstance(store, DirectoryStore):
        return DirectoryStorage(Path(store.root))
    # Imported here: a job on a directory has no use for it.
    from cryomamba_inference.storage.s3 import S3Storage  # noqa: PLC0415

    return S3Storage.from_task(store, environment, outage_seconds)
