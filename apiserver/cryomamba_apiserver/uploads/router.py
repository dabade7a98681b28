"""HTTP for uploads."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Path, Request, status

from cryomamba_apiserver.auth import Writer
from cryomamba_apiserver.context import Uploads
from cryomamba_apiserver.errors import TimedOutError
from cryomamba_apiserver.routes import AuthenticatedRoute
from cryomamba_apiserver.uploads.schemas import (
    CompleteUpload,
    FileCreated,
    InitUpload,
    PartReceived,
    UploadCreated,
)

router = APIRouter(prefix="/v1/uploads", tags=["uploads"], route_class=AuthenticatedRoute)

_SILENCE_SECONDS = 60
_CLOSE = {"Connection": "close"}

UploadId = Annotated[str, Path(description="Upload session ID from init")]


@router.post("/init", status_code=status.HTTP_201_CREATED)
async def init_upload(request: InitUpload, principal: Writer, uploads: Uploads) -> UploadCreated:
    """Initialize a chunked upload session."""
    session = await uploads.begin(principal.subject, request)
    return UploadCreated(
        upload_id=session.upload_id,
        chunk_urls=[f"/v1/uploads/{session.upload_id}/part/{number}" for number in range(session.part_count)],
        expires_at=session.expires_at,
    )


@router.put("/{upload_id}/part/{part_number}")
async def put_part(
    upload_id: UploadId, part_number: int, request: Request, principal: Writer, uploads: Uploads
) -> PartReceived:
    """Upload a file chunk."""
    length = request.headers.get("content-length", "")
    declared = int(length) if length.isascii() and length.isdigit() else None
    part = await uploads.put_part(principal, upload_id, part_number, declared, _body(request))
    return PartReceived(upload_id=upload_id, part_number=part_number, received_bytes=part.size, etag=part.etag)


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


@router.post("/{upload_id}/complete")
async def complete_upload(
    upload_id: UploadId, request: CompleteUpload, principal: Writer, uploads: Uploads
) -> FileCreated:
    """Complete upload and assemble file."""
    return await uploads.complete(principal, upload_id, request)
