"""HTTP for uploads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Request, status

from cryomamba_apiserver.auth import Reader, Writer
from cryomamba_apiserver.context import AppContext, Uploads
from cryomamba_apiserver.errors import TimedOutError
from cryomamba_apiserver.openapi import BINARY, refusals
from cryomamba_apiserver.routes import AuthenticatedRoute
from cryomamba_apiserver.uploads.schemas import (
    CompleteUpload,
    FileCreated,
    InitUpload,
    PartReceived,
    UploadCreated,
    UploadDetails,
)

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=AuthenticatedRoute)

_SILENCE_SECONDS = 60
_CLOSE = {"Connection": "close"}

UploadId = Annotated[str, Path(description="Upload session ID from init")]


_NOT_THERE = {404: "There is no such upload.", 410: "The upload has expired, or was given up."}


@router.post(
    "/init",
    status_code=status.HTTP_201_CREATED,
    responses=refusals(
        {
            413: "The file is longer than the server takes.",
            429: "There are too many requests, or too many open uploads.",
            507: "There is no room for the file.",
        }
    ),
)
async def init_upload(request: InitUpload, principal: Writer, uploads: Uploads) -> UploadCreated:
    """Initialize a chunked upload session.

    `chunk_size` is from 5 to 64 MiB, and there are at most 10,000 parts; a file of one part may be smaller. The last
    part may be shorter, every other has exactly `chunk_size` bytes.
    """
    session = await uploads.begin(principal.subject, request)
    return UploadCreated(
        upload_id=session.upload_id,
        chunk_urls=[f"/v1/uploads/{session.upload_id}/part/{number}" for number in range(session.part_count)],
        expires_at=session.expires_at,
    )


@router.put(
    "/{upload_id}/part/{part_number}",
    responses=refusals(
        {
            **_NOT_THERE,
            408: "The body came too slowly, or not at all.",
            409: "The part is held already, with other bytes, or the upload is complete.",
            413: "The part is longer than any may be.",
            429: "Too many parts are being sent at a time.",
            507: "There is no room for the part.",
        }
    ),
    openapi_extra={"requestBody": {"required": True, "content": {"application/octet-stream": BINARY}}},
)
async def put_part(
    upload_id: UploadId,
    part_number: int,
    request: Request,
    principal: Writer,
    uploads: Uploads,
    context: AppContext,
) -> PartReceived:
    """Upload a file chunk.

    Its length goes into `Content-Length` and must be the part's. Parts come in any order; the same bytes again are
    answered as they were the first time.
    """
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isascii() and length.isdigit() else None
    async with context.limits.upload(principal.subject):
        part = await uploads.put_part(principal, upload_id, part_number, declared, _body(request))
    return PartReceived(upload_id=upload_id, part_number=part_number, received_bytes=part.size, etag=part.etag)


@router.get("/{upload_id}", responses=refusals(_NOT_THERE))
async def get_upload(upload_id: UploadId, principal: Reader, uploads: Uploads) -> UploadDetails:
    """Get an upload's state.

    It names the parts that are held, so that a client that was interrupted sends the others and completes.
    """
    return await uploads.details(principal, upload_id)


@router.delete(
    "/{upload_id}",
    status_code=status.HTTP_204_NO_CONTENT,
    responses=refusals({**_NOT_THERE, 409: "The upload is complete, or is being completed."}),
)
async def abort_upload(upload_id: UploadId, principal: Writer, uploads: Uploads) -> None:
    """Give an upload up.

    What was received is dropped and its storage is free. To give up what was given up is no error.
    """
    await uploads.abort(principal, upload_id)


async def _body(request: Request) -> AsyncIterator[bytes]:
    """Yield the body; a client that has gone to sleep must not keep its part to itself."""
    chunks = aiter(request.stream())
    while True:
        try:
            async with asyncio.timeout(_SILENCE_SECONDS):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise TimedOutError(
                f"Nothing came for {_SILENCE_SECONDS} seconds.", hint="Send the part again.", headers=_CLOSE
            ) from None
        yield chunk


@router.post(
    "/{upload_id}/complete",
    responses=refusals(
        {
            **_NOT_THERE,
            422: "The file is no volume that can be segmented; `details.field` names the field of its header.",
            507: "There is no room for the file.",
        }
    ),
)
async def complete_upload(
    upload_id: UploadId, request: CompleteUpload, principal: Writer, uploads: Uploads, context: AppContext
) -> FileCreated:
    """Complete upload and assemble file.

    All parts must be there and are named with their etags. The whole file is read once, so that this takes a while for
    a large one; the same call again gives the same answer.
    """
    async with context.limits.upload(principal.subject):
        return await uploads.complete(principal, upload_id, request)
