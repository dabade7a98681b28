"""`cryomamba volume`: what a file's header says."""

from pathlib import Path
from typing import Annotated

import typer


def volume(
    file: Annotated[Path, typer.Argument(help="MRC or NIfTI file.", metavar="FILE", show_default=False)],
) -> None:
    """Show what a volume's header says: size, voxel size, data type, axes, origin, and what is odd about it."""
    from rich.table import Table  # noqa: PLC0415 - `cryomamba --help` does without

    from cryomamba.commands.terminal import results_console  # noqa: PLC0415
    from cryomamba.planes import header_of  # noqa: PLC0415

    header = header_of(file)
    table = Table(title=file.name, show_header=False, title_justify="left")
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, text in header.facts().items():
        table.add_row(name, text)
    for warning in header.warnings:
        table.add_row("warning", warning, style="yellow")
    results_console().print(table)
