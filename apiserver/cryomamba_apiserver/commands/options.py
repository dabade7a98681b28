"""Options that the server's commands share."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer

DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        envvar="CRYOMAMBA_DATA_DIR",
        help="Where the server keeps everything. [default: ~/.local/share/cryomamba]",
        show_default=False,
        file_okay=False,
    ),
]

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(text: str) -> timedelta:
    """Return the duration that `90s`, `15m`, `24h` or `7d` stands for; raise typer.BadParameter."""
    number, unit = text[:-1], text[-1:]
    if unit not in _UNITS or not (number.isascii() and number.isdigit()) or not 0 < int(number) < 10**6:
        raise typer.BadParameter(f"'{text}' is not a duration; write it like 90s, 15m, 24h or 7d")
    return timedelta(**{_UNITS[unit]: int(number)})
