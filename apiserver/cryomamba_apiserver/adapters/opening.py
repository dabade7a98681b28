"""Which object store the settings mean, for the server and for the runners that it starts."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from cryomamba_apiserver.adapters.directory_store import DirectoryObjectStore
from cryomamba_apiserver.adapters.s3_store import S3Connection, S3ObjectStore
from cryomamba_apiserver.ports.object_store import ObjectStore, StoreUnavailableError
from cryomamba_apiserver.settings import Settings
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import ACCESS_KEY_VARIABLE, SECRET_KEY_VARIABLE, SESSION_TOKEN_VARIABLE, S3Store, Store
from cryomamba_crds.task import DirectoryStore as TaskDirectory


@dataclass(frozen=True)
class RunnerStore:
    """What a runner is told of the store: in its task, and, what is secret, in its environment."""

    store: Store
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)


def open_object_store(settings: Settings) -> ObjectStore:
    """Return the S3 store that is set, else the one in the data directory; nothing is asked of it yet."""
    connection = s3_connection(settings)
    return S3ObjectStore(connection) if connection else _directory(settings)


@asynccontextmanager
async def object_store(settings: Settings) -> AsyncIterator[ObjectStore]:
    """Open the store, and close it at the end; raise StoreUnavailableError where it cannot be used."""
    objects = open_object_store(settings)
    try:
        await objects.check()
        yield objects
    finally:
        await objects.close()


def runner_store(settings: Settings) -> RunnerStore:
    """Return how a runner finds the same store."""
    connection = s3_connection(settings)
    if connection is None:
        return RunnerStore(TaskDirectory(root=str(_directory(settings).root)))
    secrets = {
        ACCESS_KEY_VARIABLE: connection.access_key,
        SECRET_KEY_VARIABLE: connection.secret_key,
        SESSION_TOKEN_VARIABLE: connection.session_token,
    }
    store = S3Store(
        endpoint=connection.endpoint,
        bucket=connection.bucket,
        region=connection.region,
        path_style=connection.path_style,
        ca_file=None if connection.ca_file is None else str(connection.ca_file),
    )
    return RunnerStore(store, {name: value for name, value in secrets.items() if value is not None})


def _directory(settings: Settings) -> DirectoryObjectStore:
    return DirectoryObjectStore(settings.data_dir / "store", settings.storage_reserve)


def s3_connection(settings: Settings) -> S3Connection | None:
    """Return the connection that is set; None where a directory is to be used."""
    if settings.s3_endpoint is None or settings.s3_bucket is None:
        return None
    token = settings.s3_session_token
    return S3Connection(
        endpoint=settings.s3_endpoint,
        bucket=settings.s3_bucket,
        access_key=settings.s3_key("access"),
        secret_key=settings.s3_key("secret"),
        session_token=token.get_secret_value() if token else None,
        region=settings.s3_region,
        path_style=settings.s3_path_style,
        ca_file=settings.s3_ca_file,
        public_endpoint=settings.s3_public_endpoint,
    )


def store_failure(error: StoreUnavailableError) -> FailureError:
    """Return what a command tells where the store cannot be used."""
    return FailureError(
        FailureCode.SERVICE_UNAVAILABLE,
        f"The object store cannot be used: {error}.",
        hint="Check the store and the settings CRYOMAMBA_S3_…",
    )
