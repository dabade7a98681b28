"""An object store that speaks S3."""

from cryomamba_apiserver.adapters.s3_store.client import S3Connection
from cryomamba_apiserver.adapters.s3_store.store import S3ObjectStore

__all__ = ["S3Connection", "S3ObjectStore"]
