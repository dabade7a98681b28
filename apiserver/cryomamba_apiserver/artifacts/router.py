"""HTTP for downloads."""

import re
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Depends, Query, Request, Response
from fastapi.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from cryomamba_apiserver.artifacts.conditions import Representation, Span, Unsent, wanted
from cryomamba_apiserver.artifacts.service import Download, Link, no_artifact
from cryomamba_apiserver.context import AppContext
from cryomamba_apiserver.errors import RangeError
from cryomamba_apiserver.openapi import BINARY, header, refusals
from cryomamba_apiserver.ports.object_store import ObjectMissingError, ObjectStore

router = APIRouter(prefix="/v1/files", tags=["artifacts"])

_PLAIN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_PRIVATE = {"Cache-Control": "private"}


_REFUSALS = {403: "The link is not valid, or has expired.", 404: "The link is good, and there is no such artifact."}
_NOT_MODIFIED: dict[int | str, dict[str, Any]] = {
    304: {"description": "It has not changed since the client last had it."}
}
_CONDITIONS = {
    "parameters": [
        {"name": name, "in": "header", "required": False, "description": text, "schema": {"type": "string"}}
        for name, text in {
            "Range": "Bytes that are wanted, as `bytes=0-1023`; more than one range is answered with all of it.",
            "If-Range": "`ETag` or `Last-Modified` for which alone the range is good.",
            "If-None-Match": "`ETag` of what the client has; 304 where it is still so.",
            "If-Modified-Since": "`Last-Modified` of what the client has; 304 where it is still so.",
        }.items()
    ]
}


async def _download(
    job_id: str,
    artifact_name: str,
    context: AppContext,
    token: Annotated[str, Query(description="Signed download token")] = "",
    expires: Annotated[
        str,
        Query(
            description="Token expiry timestamp: Unix time in seconds",
            json_schema_extra={"type": "integer", "default": 0},
        ),
    ] = "",
) -> Download:
    """Return what a link stands for. All that is wrong with a link is 403: it is taken as a whole, as it was made."""
    return await context.downloads.find(Link(job_id, artifact_name, token, expires))


@router.get(
    "/{job_id}/{artifact_name}",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "The artifact.",
            "content": {"application/octet-stream": BINARY},
            **header("Content-Disposition", 'Under which name to save it: `attachment; filename="segmentation.mrc"`.'),
        },
        206: {
            "description": "The bytes that were asked for.",
            "content": {"application/octet-stream": BINARY},
            **header("Content-Range", "Which bytes these are, of how many."),
        },
        307: {"description": "The store has it.", **header("Location", "Where, for as long as the link would work.")},
        **_NOT_MODIFIED,
        **refusals({**_REFUSALS, 416: "None of the bytes that were asked for are there."}),
    },
    openapi_extra=_CONDITIONS,
)
async def download(
    request: Request, download: Annotated[Download, Depends(_download)], context: AppContext
) -> Response:
    """Download job artifact (segmentation mask, statistics, etc.).

    One range of bytes may be asked for. Where the store can be reached by clients, the answer is a redirect to it.
    """
    held = download.held
    span = wanted("GET", request.headers, held)
    if isinstance(span, Unsent):
        return _unsent(span, held)
    address = context.objects.presigned_get(download.key, download.link_ends_in, download.name)
    if address is not None:
        if await context.objects.stat(download.key) is None:
            raise no_artifact()
        return Response(status_code=307, headers={**_PRIVATE, "Location": address})
    headers = {**_headers(download), "Content-Length": str(span.stop - span.start)}
    if span.partial:
        headers["Content-Range"] = f"bytes {span.start}-{span.stop - 1}/{held.size}"
    blocks = await _opened(context.objects, download.key, span)
    return _Streamed(blocks, status_code=206 if span.partial else 200, headers=headers)


@router.head(
    "/{job_id}/{artifact_name}",
    response_class=Response,
    responses={**_NOT_MODIFIED, **refusals(_REFUSALS)},
    openapi_extra=_CONDITIONS,
)
async def look_at_download(
    request: Request, download: Annotated[Download, Depends(_download)], context: AppContext
) -> Response:
    """Tell what a download would be answered with.

    A link to download is one to look, too.
    """
    span = wanted("HEAD", request.headers, download.held)
    if isinstance(span, Unsent):
        return _unsent(span, download.held)
    if await context.objects.stat(download.key) is None:
        raise no_artifact()
    return Response(headers={**_headers(download), "Content-Length": str(download.held.size)})


class _Streamed(StreamingResponse):
    """Closes its source whatever happens: a client that goes away must not leave a file open."""

    media_type = "application/octet-stream"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            if isinstance(self.body_iterator, AsyncGenerator):
                await self.body_iterator.aclose()


async def _opened(objects: ObjectStore, key: str, span: Span) -> AsyncIterator[bytes]:
    """Return the blocks of an object, once its first is there: what is missing is still answered with 404."""
    blocks = objects.stream(key, span.start, span.stop)
    try:
        first = await anext(blocks, b"")
    except ObjectMissingError:
        raise no_artifact() from None
    return _chained(first, blocks)


async def _chained(first: bytes, blocks: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    try:
        yield first
        async for block in blocks:
            yield block
    finally:
        if isinstance(blocks, AsyncGenerator):
            await blocks.aclose()


def _unsent(why: Unsent, held: Representation) -> Response:
    if why is Unsent.NOT_MODIFIED:
        return Response(status_code=304, headers={**_PRIVATE, "ETag": held.etag, "Last-Modified": held.last_modified})
    raise RangeError(
        f"The range begins beyond the end of the {held.size} bytes.",
        hint="Ask for a range within the file, or for all of it.",
        details={"field": "header.Range", "size": held.size},
        headers={"Content-Range": f"bytes */{held.size}"},
    )


def _headers(download: Download) -> dict[str, str]:
    held = download.held
    return {
        **_PRIVATE,
        "Content-Type": "application/octet-stream",
        "Content-Disposition": _disposition(download.name),
        "Accept-Ranges": "bytes",
        "ETag": held.etag,
        "Last-Modified": held.last_modified,
    }


def _disposition(name: str) -> str:
    """Return under which name to save (RFC 6266); one that is not plain is encoded, and so never more than a name."""
    if _PLAIN_NAME.fullmatch(name):
        return f'attachment; filename="{name}"'
    return f"attachment; filename*=UTF-8''{quote(name, safe='')}"
