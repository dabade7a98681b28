"""Fetches small JSON documents, within limits of time and size."""

import json
from http import HTTPStatus

import aiohttp

_SECONDS = 5.0
_LARGEST = 512 << 10  # bytes


class DocumentError(Exception):
    """A document can't be had; the message says which and why."""


async def fetch_json(url: str, seconds: float = _SECONDS) -> object:
    """Return the JSON document at a URL, had within some seconds; redirects are not followed.

    Raises:
        DocumentError: Nothing answers in time, or not with a JSON document of at most 512 KiB.
    """
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, allow_redirects=False) as answer:
            if answer.status != HTTPStatus.OK:
                raise DocumentError(f"{url} answers {answer.status}")
            body = bytearray()
            async for chunk in answer.content.iter_any():
                body += chunk
                if len(body) > _LARGEST:
                    raise DocumentError(f"{url} is longer than {_LARGEST} bytes")
    except TimeoutError:
        raise DocumentError(f"{url} does not answer within {seconds:g} seconds") from None
    except (aiohttp.ClientError, OSError, ValueError) as error:
        raise DocumentError(f"{url} can't be read: {error}") from error
    try:
        document: object = json.loads(body)
    except (ValueError, RecursionError):
        raise DocumentError(f"{url} is no JSON") from None
    return document
