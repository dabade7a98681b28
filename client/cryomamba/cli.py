"""Entry point of the `cryomamba` command."""

import sys
from collections.abc import Sequence
from typing import NoReturn


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and leave with its exit code: 0 done, 1 failed, 2 wrong usage, 130 stopped with Ctrl-C."""
    try:
        from cryomamba.commands import run  # noqa: PLC0415 - the core distribution comes without typer
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("cryomamba"):
            raise
        sys.stderr.write(
            f"Error: the command line needs {error.name}, which is not installed.\n"
            "Hint: pip install 'cryomamba[client]'\n"
        )
        sys.exit(1)
    sys.exit(run(sys.argv[1:] if arguments is None else arguments))
