"""How a failure is told to the person at the terminal."""

import sys
from collections.abc import Mapping

_EXTRAS = {"cryomamba_apiserver": "apiserver", "cryomamba_inference": "inference", "cryomamba_operator": "operator"}


def describe(error: Exception) -> str | None:
    """Return message and hint as lines for stderr, or None where the error is not one that a person can act on."""
    from cryomamba.errors import ApiError, CryoMambaError  # noqa: PLC0415 - these two cost a third of the start-up time
    from cryomamba_crds.failures import FailureError  # noqa: PLC0415

    if isinstance(error, CryoMambaError):
        details = error.details if isinstance(error, ApiError) else {}
        return lines(error.message + _field(details), error.hint)
    if isinstance(error, FailureError):
        return lines(error.failure.message + _field(error.failure.details), error.failure.hint)
    if isinstance(error, ModuleNotFoundError) and error.name is not None:
        return lines(f"{error.name} is not installed", install_hint(_asking_module(error)))
    if isinstance(error, OSError):
        return lines(f"{error.filename or 'input or output'}: {error.strerror or error}", "")
    return None


def _field(details: Mapping[str, object]) -> str:
    """What of a header or a request is wrong, where that is known."""
    field = details.get("field")
    return f" (field: {field})" if isinstance(field, str) else ""


def lines(message: str, hint: str) -> str:
    """Return the form that all failures have."""
    return f"Error: {message}\n" + (f"Hint: {hint}\n" if hint else "")


def install_hint(module: str) -> str:
    """Return how to install what a module of ours needs."""
    return f"pip install 'cryomamba[{_EXTRAS.get(module.partition('.')[0], 'client')}]'"


def _asking_module(error: ModuleNotFoundError) -> str:
    """The last module of ours on the way to the import that failed."""
    asking, trace = "", error.__traceback__
    while trace is not None:
        name = str(trace.tb_frame.f_globals.get("__name__", ""))
        if name.partition(".")[0] in (*_EXTRAS, "cryomamba"):
            asking = name
        trace = trace.tb_next
    return asking or sys.argv[0]
