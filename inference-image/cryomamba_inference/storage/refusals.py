"""What a store's refusals mean, for whoever has to mend it. Pure; no key and no signature is in any text."""

from minio.credentials.credentials import Credentials
from minio.error import MinioException, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError

from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.task import S3Store
from cryomamba_inference.storage.interface import missing

STALE = {"ExpiredToken", "ExpiredTokenException", "InvalidAccessKeyId", "InvalidToken", "InvalidTokenId"}
"""What stores say of temporary credentials that have expired, and of wrong ones."""
_WRONG_KEYS = (
    "The object store does not accept the credentials for the bucket {bucket}",
    "Whoever runs the server can correct the credentials of runners, or, where they have expired, see who renews them.",
)
_MEANINGS = {
    **dict.fromkeys((*sorted(STALE), "SignatureDoesNotMatch"), _WRONG_KEYS),
    "NoSuchBucket": (
        "The object store has no bucket {bucket}",
        "Whoever runs the server can make the bucket, or correct its name in the settings.",
    ),
    "AccessDenied": (
        "The object store does not let the job write {key} into the bucket {bucket}",
        "Whoever runs the server can give the credentials of runners the right to.",
    ),
    "RequestTimeTooSkewed": (
        "The clocks of this machine and of the object store with the bucket {bucket} differ by too much",
        "Whoever runs the machines can set their clocks.",
    ),
}
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}
_INSUFFICIENT_STORAGE = 507
_SERVER_ERROR = 500


def failure_about(error: MinioException | HTTPError, key: str, store: S3Store, *, reading: bool) -> FailureError:
    """Return the failure that an error of the client is.

    Args:
        error: What was raised.
        key: Of the object that was asked for.
        store: Which was asked.
        reading: Whether the object was to be read. One that is not there is answered with AccessDenied where nothing
            may be listed, as a job's own credentials have it.
    """
    if isinstance(error, S3Error):
        return _refused(str(error.code), error.response.status, key, store, reading=reading)
    if isinstance(error, ServerError):
        return _other("no code", error.status_code, store)
    cause = error.reason if isinstance(error, MaxRetryError) and error.reason else error
    return FailureError(
        FailureCode.SERVICE_UNAVAILABLE,
        f"The object store at {store.endpoint} does not answer ({type(cause).__name__}).",
        hint="Start the job again when the store is back.",
    )


def may_be_renewed(error: S3Error, used: Credentials) -> bool:
    """Return whether a refusal may mean that temporary credentials have expired, so that new ones are on their way."""
    return error.code in STALE and used.session_token is not None


def _refused(code: str, status: int, key: str, store: S3Store, *, reading: bool) -> FailureError:
    if code == "NoSuchKey":
        return missing(key)
    if code in _FULL or status == _INSUFFICIENT_STORAGE:
        return FailureError(
            FailureCode.INSUFFICIENT_STORAGE,
            f"The object store at {store.endpoint} has no room left in the bucket {store.bucket}.",
            hint="Ask whoever runs the server to free some space, then start the job again.",
        )
    if code == "AccessDenied" and reading:
        return FailureError(
            FailureCode.NOT_FOUND,
            f"The object {key} is not in the bucket {store.bucket}, or this job may not read it.",
            hint="Upload the volume again, or push the model again, whichever is meant.",
        )
    if code in _MEANINGS:
        message, hint = _MEANINGS[code]
        words = f"{message.format(bucket=store.bucket, key=key)} ({store.endpoint}: {code})."
        return FailureError(FailureCode.SERVICE_UNAVAILABLE, words, hint=hint, retryable=False)
    return _other(code, status, store)


def _other(code: str, status: int, store: S3Store) -> FailureError:
    return FailureError(
        FailureCode.SERVICE_UNAVAILABLE,
        f"The object store at {store.endpoint} refused a request to the bucket {store.bucket}: {code}.",
        hint="Check the bucket's name and region, and the credentials that runners are started with.",
        retryable=status >= _SERVER_ERROR,
    )
