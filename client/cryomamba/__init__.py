"""CryoMamba's Python SDK and command line."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryomamba.client import Client
    from cryomamba.errors import ApiError, ConnectionFailedError, CryoMambaError, UnexpectedAnswerError
    from cryomamba.models import JobParams, PreviewConfig

__all__ = [
    "ApiError",
    "Client",
    "ConnectionFailedError",
    "CryoMambaError",
    "JobParams",
    "PreviewConfig",
    "UnexpectedAnswerError",
]


def __getattr__(name: str) -> object:
    """Import the SDK's names when they are first used: the command line starts without the HTTP library."""
    from importlib import import_module  # noqa: PLC0415 - only when a name is asked for

    for module in ("errors", "models", "client") if name in __all__ else ():
        found = getattr(import_module(f"cryomamba.{module}"), name, None)
        if found is not None:
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
