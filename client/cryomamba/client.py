"""The SDK: a synchronous client of the CryoMamba API."""

import random
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar
from urllib.parse import urljoin, urlsplit

import httpx
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from cryomamba import calls, watching
from cryomamba.errors import ConnectionFailedError, CryoMambaError, UnexpectedAnswerError
from cryomamba.models import (
    Artifact,
    Cancellation,
    GpuStatus,
    JobPage,
    JobParams,
    JobRecord,
    JobStatus,
    PreviewConfig,
    ServerInfo,
    UploadedFile,
    UploadedPart,
)
from cryomamba.retry import RetryPolicy
from cryomamba.sending import Sending, Telling
from cryomamba.uploading import ProgressCallback, Source, UploadStoppedError, chunk_size_for

Wait = Callable[[threading.Event, float], object]
"""Wait that many seconds, or less if the event is set meanwhile."""

Result = TypeVar("Result")

_WATCHING_ATTEMPTS = 12
"""About three minutes: a job goes on while its server is restarted."""
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class Client:
    """A connection to one CryoMamba server.

    Calls that fail for a passing reason (the server says so, or the connection broke) are repeated with exponential
    backoff; Retry-After is honoured. All methods raise `ApiError` when the server refuses, `ConnectionFailedError` when
    it cannot be reached and `UnexpectedAnswerError` when something else answers; all three are `CryoMambaError`.

    Args:
        url: Where the server is, such as ``http://localhost:8000``; a path in front of ``/v1`` may follow.
        token: Bearer token; sent in headers only, and to this server only.
        transport: What carries the requests instead of the network, for tests.
        retry: How often and how patiently failed calls are repeated.
        parallel_parts: Parts of an upload that are under way at once. Each holds 256 KiB in memory.
        wait: How pauses are spent.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        transport: httpx.BaseTransport | None = None,
        retry: RetryPolicy | None = None,
        parallel_parts: int = 3,
        wait: Wait = threading.Event.wait,
    ) -> None:
        self.url = checked_url(url)
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        self._proxied = urlsplit(self.url).hostname not in _LOOPBACK
        # No proxy stands between a client and the server on the same machine, whatever the environment says.
        self._http = httpx.Client(
            transport=transport,
            timeout=_timeout(calls.READ_SECONDS),
            trust_env=self._proxied,
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=parallel_parts + 1),
        )
        self._retry = retry or RetryPolicy()
        self._parallel_parts = parallel_parts
        self._wait = wait
        self._never = threading.Event()
        self._reached = False

    def __repr__(self) -> str:
        """Name the server; the token stays out of it."""
        return f"Client({self.url!r})"

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connections."""
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def server_info(self) -> ServerInfo:
        """Return what the server is and which models it has."""
        return self.call(calls.server_info())

    def gpu_status(self) -> GpuStatus:
        """Return what the server's GPUs are doing."""
        return self.call(calls.gpu_status())

    def create_job(
        self,
        file_id: str,
        model: str,
        params: JobParams | None = None,
        preview: PreviewConfig | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> JobRecord:
        """Ask for the segmentation of an uploaded file.

        Args:
            file_id: From `upload`.
            model: One of `server_info().available_models`.
            params: How the network is run; the server's defaults where None.
            preview: Pictures on the way; the server's defaults where None.
            idempotency_key: Sent along, for a server that recognises repeated requests by it; a fresh one where None.

        Raises:
            ApiError: Among others ``CONFLICT`` with ``details["job_id"]`` where the same job is alive already.
        """
        key = idempotency_key or uuid.uuid4().hex
        return self.call(calls.create_job(file_id, model, params or JobParams(), preview, key))

    def job(self, job_id: str) -> JobRecord:
        """Return one job."""
        return self.call(calls.job(job_id))

    def jobs(self, status: JobStatus | None = None, *, limit: int = 50, offset: int = 0) -> JobPage:
        """Return a page of the list of jobs, at most 100 a page."""
        return self.call(calls.jobs(status, limit, offset))

    def cancel(self, job_id: str) -> Cancellation:
        """Stop a job; ``CONFLICT`` where it has ended already."""
        return self.call(calls.cancel(job_id))

    def upload(
        self,
        path: str | Path,
        *,
        metadata: Mapping[str, Any] | None = None,
        resume: str | None = None,
        on_progress: ProgressCallback | None = None,
        on_session: Callable[[str], None] | None = None,
        on_news: Callable[[str], None] | None = None,
    ) -> UploadedFile:
        """Send a volume in parts, several at once, straight from disk.

        Where it breaks off (connection lost, server restarted or busy) the server is asked which parts it holds, and
        the rest is sent, for about three minutes without a part that gets through.

        Args:
            path: An MRC or NIfTI file.
            metadata: Anything worth keeping with the file, such as microscope and date.
            resume: Id of an earlier upload of the same file, of which only what is missing is sent.
            on_progress: Told the bytes sent and the bytes in all; see `ProgressCallback`.
            on_session: Told the upload's id, for `resume`.
            on_news: Told in words when the upload breaks off and goes on.

        Raises:
            ApiError: ``VALIDATION_ERROR`` (422) where the file is no usable volume.
            CryoMambaError: The file cannot be read, is empty, or changed on the way.
        """
        telling = Telling(on_progress, on_session, on_news)
        with Source(Path(path)) as source:
            if source.size == 0:
                raise CryoMambaError(f"{path} is empty", hint="Check that the file was written or copied completely.")
            sending = Sending(self, self._retry, self._parallel_parts, telling)
            if resume is not None:
                return sending.go_on(source, resume)
            return sending.begin(source, chunk_size_for(source.size), metadata)

    def watch(self, job_id: str) -> Iterator[watching.AnyMessage]:
        """Yield a job's messages until it has ended; the last is a `CompletedMessage` or an `ErrorMessage`.

        A connection that breaks is opened again; meanwhile, and where WebSockets do not get through at all, the job's
        record is asked for instead.

        Raises:
            ApiError: The token or the job's id is refused.
        """
        patience = replace(self._retry, attempts=max(_WATCHING_ATTEMPTS, self._retry.attempts))
        failures = 0
        while True:
            try:
                for message in self._messages(job_id):
                    failures = 0
                    yield message
                    if watching.is_last(message):
                        return
            except (OSError, WebSocketException) as error:
                if refused := watching.refusal(error, f"{self.url}/ws/jobs/{job_id}"):
                    raise refused from error
            failures += 1
            instead = watching.message_of(self.call(calls.job(job_id), patience), datetime.now(UTC))
            if instead is not None:
                yield instead
                if watching.is_last(instead):
                    return
            self._wait(self._never, self._retry.backoff(failures, random.random()))  # noqa: S311 - spreads load

    def download(self, artifact: Artifact, folder: str | Path, *, on_progress: ProgressCallback | None = None) -> Path:
        """Save an artifact in a folder, under its own name, replacing what is there.

        The bytes go to ``NAME.part`` first, so that a file of the final name is always whole.

        Raises:
            CryoMambaError: The name is no plain file name, or the bytes are not as many as announced.
            OSError: The folder cannot be written to.
        """
        if artifact.name != Path(artifact.name).name or artifact.name in ("", ".", ".."):
            raise UnexpectedAnswerError(
                f"the server offers a file with the name {artifact.name!r}",
                hint="A name with a path in it is not saved; report this to whoever runs the server.",
            )
        target = Path(folder) / artifact.name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(f"{target.name}.part")
        try:
            self.repeat(lambda: self._download_once(artifact, partial, on_progress), self._never)
            partial.replace(target)
        finally:
            partial.unlink(missing_ok=True)
        return target

    def _download_once(self, artifact: Artifact, partial: Path, on_progress: ProgressCallback | None) -> None:
        """The URL is signed and may lead to another host: it is asked for without the token."""
        url = artifact.url if urlsplit(artifact.url).scheme else self._address(artifact.url)
        received = 0
        try:
            with self._http.stream("GET", url, follow_redirects=True) as response, partial.open("wb") as file:
                if not response.is_success:
                    response.read()
                    raise calls.error_of(response)
                for block in response.iter_bytes():
                    file.write(block)
                    received += len(block)
                    if on_progress is not None:
                        on_progress(received, artifact.size)
        except httpx.HTTPError as error:
            raise self._failed_connection(error) from error
        if received != artifact.size:
            raise CryoMambaError(
                f"{artifact.name} arrived with {received:,} of {artifact.size:,} bytes",
                hint="Download it again.",
                retryable=True,
            )

    def _messages(self, job_id: str) -> Iterator[watching.AnyMessage]:
        with connect(
            watching.socket_url(self.url, job_id),
            additional_headers=self._headers,
            compression=None,
            max_size=watching.LARGEST_MESSAGE,
            proxy=True if self._proxied else None,
            close_timeout=2,
        ) as socket:
            for text in socket:
                if message := watching.parsed(text):
                    yield message

    def put_part(self, url: str, length: int, content: Iterator[bytes]) -> UploadedPart:
        """Send one part of an upload, once; `upload` does it all."""
        headers = {"Content-Type": "application/octet-stream", "Content-Length": str(length)}
        request = self._http.build_request("PUT", self._address(url), headers=self._headers | headers, content=content)
        return calls.answer_of(self._send(request), UploadedPart)

    def pause(self, seconds: float) -> None:
        """Wait as this client waits."""
        self._wait(self._never, seconds)

    def call(self, call: calls.Call[calls.Answer], policy: RetryPolicy | None = None) -> calls.Answer:
        """Make one of the calls of `cryomamba.calls`, and again while its failures are passing."""

        def send() -> calls.Answer:
            request = self._http.build_request(
                call.method,
                self._address(call.path),
                params=dict(call.query) or None,
                json=call.body,
                headers=self._headers | dict(call.headers),
                timeout=_timeout(call.read_seconds),
            )
            return calls.answer_of(self._send(request), call.answer)

        return self.repeat(send, self._never, policy)

    def _send(self, request: httpx.Request) -> httpx.Response:
        try:
            response = self._http.send(request)
        except httpx.HTTPError as error:
            raise self._failed_connection(error) from error
        self._reached = True
        return response

    def repeat(
        self, attempt: Callable[[], Result], stopped: threading.Event, policy: RetryPolicy | None = None
    ) -> Result:
        """Do something, and again while its failures are passing; raise UploadStoppedError once `stopped` is set."""
        failures = 0
        while True:
            try:
                return attempt()
            except CryoMambaError as error:
                failures += 1
                pause = (policy or self._retry).pause(error, failures, random.random())  # noqa: S311 - spreads load
                if pause is None:
                    raise
            self._wait(stopped, pause)
            if stopped.is_set():
                raise UploadStoppedError

    def _failed_connection(self, error: httpx.HTTPError) -> ConnectionFailedError:
        """A server that was there a moment ago may be restarting; one that never answered is more likely not there."""
        if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout):
            return ConnectionFailedError(
                f"no CryoMamba server answers at {self.url} ({error or 'no connection'})",
                hint="Start one with `cryomamba serve`, or give the right address with --url or CRYOMAMBA_URL.",
                retryable=self._reached,
            )
        return ConnectionFailedError(
            f"the connection to {self.url} broke ({error or type(error).__name__})",
            hint="Try again; if it keeps happening, look at the server's log and the network between.",
            retryable=isinstance(error, httpx.TransportError),
        )

    def _address(self, path: str) -> str:
        return self.url + urljoin("/", path)


def _timeout(read_seconds: float) -> httpx.Timeout:
    return httpx.Timeout(connect=10.0, read=read_seconds, write=60.0, pool=None)


def checked_url(url: str) -> str:
    """Return a server's URL without a trailing slash.

    Raises:
        CryoMambaError: It is no http or https URL.
    """
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise CryoMambaError(f"{url!r} is not the URL of a server", hint="Give one such as http://localhost:8000.")
    return url.rstrip("/")
