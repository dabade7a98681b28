"""One upload from its first byte to the server's answer, going on by itself after what breaks off."""

import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Protocol

from cryomamba import calls
from cryomamba.errors import CryoMambaError, UnexpectedAnswerError
from cryomamba.models import UploadedFile, UploadedPart, UploadState
from cryomamba.retry import RetryPolicy
from cryomamba.uploading import Part, ProgressCallback, Source, Tracker, parts_of

_ROUNDS = 12
"""How often in a row an upload may break off without a part that got through; with the pauses about three minutes."""


class Connection(Protocol):
    """What sending needs of a client."""

    def call(self, call: calls.Call[calls.Answer], policy: RetryPolicy | None = None) -> calls.Answer:
        """Make a call, and again while its failures are passing."""

    def put_part(self, url: str, length: int, content: Iterator[bytes]) -> UploadedPart:
        """Send one part, once."""

    def repeat(self, attempt: Callable[[], UploadedPart], stopped: threading.Event) -> UploadedPart:
        """Do something, and again while its failures are passing; raise UploadStoppedError once `stopped` is set."""

    def pause(self, seconds: float) -> None:
        """Wait."""


@dataclass(frozen=True)
class Telling:
    """Who is told how an upload goes."""

    progress: ProgressCallback | None = None
    session: Callable[[str], None] | None = None
    """The upload's id, by which it can be gone on with later."""
    news: Callable[[str], None] | None = None
    """A line whenever the upload breaks off and goes on."""


class Sending:
    """Sends a file in parts, several at once.

    Args:
        connection: To the server.
        policy: How often and how patiently what fails is repeated.
        parallel_parts: Parts under way at once.
        telling: Who is told.
    """

    def __init__(self, connection: Connection, policy: RetryPolicy, parallel_parts: int, telling: Telling) -> None:
        self._connection = connection
        self._policy = policy
        self._patience = replace(policy, attempts=max(_ROUNDS, policy.attempts))
        self._parallel_parts = parallel_parts
        self._telling = telling

    def begin(self, source: Source, chunk_size: int, metadata: calls.Metadata) -> UploadedFile:
        """Send a file from its beginning."""
        opened = self._connection.call(calls.start_upload(source.path.name, source.size, chunk_size, metadata))
        parts = parts_of(source.size, chunk_size)
        if len(parts) != len(opened.chunk_urls):
            raise UnexpectedAnswerError(
                f"the server wants {len(opened.chunk_urls)} parts for a file of {len(parts)}",
                hint="Check that client and server have the same version.",
            )
        return self._send(source, opened.upload_id, list(zip(parts, opened.chunk_urls, strict=True)), {})

    def go_on(self, source: Source, upload_id: str) -> UploadedFile:
        """Send what an earlier upload of the same file lacks.

        Raises:
            ApiError: ``NOT_FOUND`` where it has expired or was given up.
            CryoMambaError: It is an upload of another file.
        """
        state = self._connection.call(calls.upload_state(upload_id))
        if state.total_size != source.size:
            raise CryoMambaError(
                f"upload {upload_id} is one of {state.total_size:,} bytes, {source.path} has {source.size:,}",
                hint="Leave --resume away to begin a new upload.",
            )
        if state.status == "expired":
            raise CryoMambaError(f"upload {upload_id} has expired", hint="Leave --resume away to begin a new upload.")
        parts = [
            (part, f"/v1/uploads/{upload_id}/part/{part.number}") for part in parts_of(source.size, state.chunk_size)
        ]
        held = self._verified(source, [part for part, _ in parts], state, {})
        self._tell(f"Going on with upload {upload_id}: {len(held)} of {len(parts)} parts are there.")
        return self._send(source, upload_id, parts, held)

    def _send(
        self, source: Source, upload_id: str, parts: list[tuple[Part, str]], held: dict[int, UploadedPart]
    ) -> UploadedFile:
        """Send what is not held, have it completed; after a failure that may pass, ask what is held and go on."""
        if self._telling.session:
            self._telling.session(upload_id)
        failures = 0
        while True:
            before = len(held)
            try:
                self._send_missing(source, parts, held)
                return self._connection.call(calls.complete_upload(upload_id, list(held.values()), source.size))
            except CryoMambaError as error:
                failures = failures + 1 if len(held) == before else 1
                pause = self._patience.pause(error, failures, random.random())  # noqa: S311 - spreads load
                if pause is None:
                    raise
                self._tell(f"The upload broke off: {error.message}. Going on as soon as the server answers.")
            self._connection.pause(pause)
            state = self._connection.call(calls.upload_state(upload_id), self._patience)
            held = self._verified(source, [part for part, _ in parts], state, held)
            self._tell(f"Going on with upload {upload_id}: {len(held)} of {len(parts)} parts are there.")

    def _send_missing(self, source: Source, parts: list[tuple[Part, str]], held: dict[int, UploadedPart]) -> None:
        tracker = Tracker(source.size, self._telling.progress, [part for part, _ in parts if part.number in held])
        with ThreadPoolExecutor(self._parallel_parts, thread_name_prefix="cryomamba-upload") as executor:
            futures = [
                executor.submit(self._send_part, source, part, url, tracker, held)
                for part, url in parts
                if part.number not in held
            ]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in [future for future in done if future.exception() is not None] or futures:
                    future.result()
            finally:
                tracker.stopped.set()
                executor.shutdown(wait=False, cancel_futures=True)

    def _send_part(self, source: Source, part: Part, url: str, tracker: Tracker, held: dict[int, UploadedPart]) -> None:
        def send() -> UploadedPart:
            tracker.begin(part)
            return self._connection.put_part(url, part.length, source.blocks(part, tracker))

        held[part.number] = self._connection.repeat(send, tracker.stopped)

    def _verified(
        self, source: Source, parts: list[Part], state: UploadState, known: dict[int, UploadedPart]
    ) -> dict[int, UploadedPart]:
        """Return the parts that the server holds as they are on disk; what differs is sent again and judged there."""
        by_number = {part.number: part for part in parts}
        return {
            held.part_number: UploadedPart(part_number=held.part_number, etag=held.etag)
            for held in state.parts
            if (part := by_number.get(held.part_number))
            and (
                known.get(part.number) == UploadedPart(part_number=part.number, etag=held.etag)
                or source.md5(part) == held.etag
            )
        }

    def _tell(self, text: str) -> None:
        if self._telling.news:
            self._telling.news(text)
