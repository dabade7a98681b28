"""What an S3 store refuses, in the words of the port; neither keys nor signed URLs are in them."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from xml.etree import ElementTree as ET

import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError
from urllib3.exceptions import HTTPError, MaxRetryError, SSLError

from cryomamba_apiserver.ports.object_store import (
    ObjectExistsError,
    ObjectMissingError,
    PartConflictError,
    StorageFullError,
    StoreUnavailableError,
)

_INSUFFICIENT_STORAGE = 507
_MISSING = {"NoSuchKey", "NoSuchUpload"}
_FULL = {"XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded", "InsufficientStorage"}
_CREDENTIALS = {
    "AccessDenied",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidToken",
    "InvalidTokenId",
    "SignatureDoesNotMatch",
}
_REGION = {"AuthorizationHeaderMalformed", "AuthorizationQueryParametersError", "PermanentRedirect"}
_PARTS = {"InvalidPart", "InvalidPartOrder"}


@dataclass(frozen=True)
class Place:
    """What errors name."""

    endpoint: str
    bucket: str

    def refusal(self, code: str | None, status: int, name: str) -> Exception:  # noqa: PLR0911 - a table of codes
        """Return the port's error for the code and HTTP status that a call about `name` was answered with."""
        if code in _MISSING:
            return ObjectMissingError(name)
        if code in _FULL or status == _INSUFFICIENT_STORAGE:
            return StorageFullError(f"the store at {self.endpoint} has no room left in the bucket {self.bucket}")
        if code == "PreconditionFailed":
            return ObjectExistsError(name)
        if code in _PARTS:
            return PartConflictError(f"the parts of {name} are not those that the store holds")
        if code == "NoSuchBucket":
            return StoreUnavailableError(f"there is no bucket {self.bucket} at {self.endpoint}")
        if code in _CREDENTIALS:
            return StoreUnavailableError(
                f"the store at {self.endpoint} refuses our credentials for the bucket {self.bucket} ({code})"
            )
        if code in _REGION:
            return StoreUnavailableError(
                f"the bucket {self.bucket} at {self.endpoint} is not in the region that is set ({code})"
            )
        if code == "RequestTimeTooSkewed":
            return StoreUnavailableError(f"the clocks of this machine and of the store at {self.endpoint} differ")
        return StoreUnavailableError(f"the store at {self.endpoint} answers {code or 'without a code'} ({status})")

    def silence(self, reason: BaseException) -> StoreUnavailableError:
        """Return the error for a store that does not answer; of the reason only its kind is told."""
        return StoreUnavailableError(f"the store at {self.endpoint} does not answer ({type(reason).__name__})")

    def untrusted(self) -> StoreUnavailableError:
        """Return the error for a certificate that is not signed by whom we trust."""
        return StoreUnavailableError(f"the TLS certificate of the store at {self.endpoint} is not trusted")

    @contextlib.contextmanager
    def errors_about(self, name: str) -> Iterator[None]:
        """Turn what minio-py and urllib3 raise in a call about `name` into the port's errors."""
        try:
            yield
        except S3Error as error:
            raise self.refusal(error.code, error.response.status, name) from None
        except ServerError as error:
            raise self.refusal(None, error.status_code, name) from None
        except InvalidResponseError as error:
            status = int(str(error).partition("Response code: ")[2].partition(",")[0] or 0)
            raise self.refusal(None, status, name) from None
        except MaxRetryError as error:
            if isinstance(error.reason, SSLError):
                raise self.untrusted() from None
            raise self.silence(error.reason or error) from None
        except HTTPError as error:
            raise self.silence(error) from None
        except ET.ParseError:
            raise StoreUnavailableError(f"what answers at {self.endpoint} is not an S3 store") from None


def code_of(body: bytes) -> str | None:
    """Return the code in the XML of a refusal."""
    try:
        return ET.fromstring(body).findtext("Code")  # noqa: S314 - the store is ours, and expat limits expansion
    except ET.ParseError:
        return None


def interrupted(error: BaseException) -> bool:
    """Return whether a download broke off, as opposed to being refused."""
    return isinstance(error, urllib3.exceptions.ProtocolError | urllib3.exceptions.TimeoutError)
