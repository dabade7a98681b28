"""Asks an object store for temporary credentials: AssumeRole, narrowed by a policy, as AWS and MinIO have it."""

import hashlib
import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from http import HTTPStatus
from typing import Protocol
from urllib.parse import urlencode, urlsplit
from xml.etree import ElementTree as ET

import aiohttp
from minio.credentials.credentials import Credentials as Keys
from minio.signer import sign_v4_sts

from cryomamba_operator.settings import Settings, read_file_setting

_TIMEOUT = aiohttp.ClientTimeout(total=10, sock_connect=3)
"""In seconds."""
_WORDS = 300
_DENIED = {
    "AccessDenied",
    "AccessDeniedException",
    "ExpiredToken",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}
_NO_STS = {HTTPStatus.NOT_FOUND, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED}


@dataclass(frozen=True, slots=True)
class TemporaryCredentials:
    """Keys of a job's pod."""

    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    session_token: str = field(repr=False)
    expires: datetime


class Trouble(StrEnum):
    """Why there are no credentials."""

    UNREACHABLE = "unreachable"
    KEYS = "keys"
    """The operator's own are not to be read."""
    DENIED = "denied"
    """The operator's own are wrong, or may not do this."""
    ABSENT = "absent"
    """The store has no STS, or something else answers at its address."""
    REFUSED = "refused"
    """It understood and said no to what was asked."""


class StsError(Exception):
    """There are no credentials; the text is the store's own, and no secret."""

    def __init__(self, trouble: Trouble, words: str) -> None:
        super().__init__(words)
        self.trouble = trouble


class TokenService(Protocol):
    """Gives temporary credentials."""

    async def assume(self, policy: str, session: str) -> TemporaryCredentials:
        """Return credentials that may do what a policy allows; `session` is their name in the store's log.

        Raises:
            StsError: There are none.
        """


class SecurityTokenService:
    """The store's own.

    Args:
        settings: Of the installation; the files with the operator's keys are read anew for each request.

    Raises:
        OSError: The file with the certificates cannot be read (ssl.SSLError where it holds none).
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._url = settings.s3_sts_endpoint or settings.s3_endpoint
        secure = self._url.startswith("https:")
        self._trust = ssl.create_default_context(cafile=settings.s3_ca_file) if secure else True

    async def assume(self, policy: str, session: str) -> TemporaryCredentials:
        """See `TokenService`."""
        keys = operators_keys(self._settings)
        role = {"RoleArn": self._settings.s3_role_arn} if self._settings.s3_role_arn else {}
        body = urlencode(
            {
                "Action": "AssumeRole",
                "Version": "2011-06-15",
                "DurationSeconds": str(self._settings.s3_credentials_seconds),
                "RoleSessionName": session,
                "Policy": policy,
                **role,
            }
        )
        try:
            async with (
                aiohttp.ClientSession(timeout=_TIMEOUT) as http,
                http.post(self._url + "/", data=body, headers=self._signed(body, keys), ssl=self._trust) as answer,
            ):
                return _read(answer.status, await answer.text(errors="replace"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise StsError(Trouble.UNREACHABLE, f"{self._url}: {error or type(error).__name__}") from None

    def _signed(self, body: str, keys: Keys) -> dict[str, str]:
        url, now = urlsplit(self._url + "/"), datetime.now(UTC)
        headers = sign_v4_sts(
            method="POST",
            url=url,
            region=self._settings.s3_region,
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Host": url.netloc,
                "X-Amz-Date": now.strftime("%Y%m%dT%H%M%SZ"),
            },
            credentials=keys,
            content_sha256=hashlib.sha256(body.encode()).hexdigest(),
            date=now,
        )
        return {name: str(value) for name, value in headers.items()}


def operators_keys(settings: Settings) -> Keys:
    """Return the operator's own keys from their files.

    Raises:
        StsError: A file cannot be read or is empty.
    """
    try:
        access, secret = (
            read_file_setting(name, path)
            for name, path in (
                ("s3_access_key_file", settings.s3_access_key_file),
                ("s3_secret_key_file", settings.s3_secret_key_file),
            )
            if path is not None
        )
    except ValueError as error:
        raise StsError(Trouble.KEYS, str(error)) from None
    return Keys(access, secret)


def _read(status: int, text: str) -> TemporaryCredentials:
    try:
        # The store of one's own installation is not out to exhaust the parser, and its answer is short.
        texts = {node.tag.rpartition("}")[2]: node.text or "" for node in ET.fromstring(text).iter()}  # noqa: S314
    except ET.ParseError:
        texts = {}
    if status == HTTPStatus.OK and "SessionToken" in texts:
        return TemporaryCredentials(
            access_key=texts["AccessKeyId"],
            secret_key=texts["SecretAccessKey"],
            session_token=texts["SessionToken"],
            expires=datetime.fromisoformat(texts["Expiration"]),
        )
    code = texts.get("Code", "")
    words = f"{code}: {texts.get('Message', '')}"[:_WORDS] if code else f"HTTP status {status}"
    if code in _DENIED:
        raise StsError(Trouble.DENIED, words)
    if status >= HTTPStatus.INTERNAL_SERVER_ERROR and status not in _NO_STS:
        raise StsError(Trouble.UNREACHABLE, words)
    if not code or status in _NO_STS:
        raise StsError(Trouble.ABSENT, words)
    raise StsError(Trouble.REFUSED, words)
