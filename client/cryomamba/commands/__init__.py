"""The `cryomamba` command: its own commands, and those that other packages add."""

import sys
from collections.abc import Sequence
from importlib.metadata import entry_points, version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cryomamba.commands import demo, segment, volume
from cryomamba.commands.failures import describe
from cryomamba.commands.mounts import Mount, mount, wanted

GROUP = "cryomamba.commands"


class ReportingGroup(TyperGroup):
    """Tells a failure as a message and a hint on stderr, with exit code 1; anything else is a bug and shows itself."""

    def invoke(self, ctx: typer.Context) -> Any:  # type: ignore[override]  # noqa: ANN401 - as the base class has it
        """Run the command that was asked for."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            text = describe(error)
            if text is None:
                raise
            sys.stderr.write(text)
            raise typer.Exit(1) from error


def build_app(mounts: Sequence[Mount]) -> typer.Typer:
    """Put the command line together."""
    app = typer.Typer(
        cls=ReportingGroup,
        name="cryomamba",
        help="Segment cryo-EM volumes with nnU-Net v2.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    app.command("segment")(segment.segment)
    app.command("volume")(volume.volume)
    app.command("demo")(demo.demo)
    for added in mounts:
        mount(app, added)
    return app


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    own = {command.name for command in build_app([]).registered_commands if command.name}
    found = [Mount(entry.name, entry.value.partition(":")[0], entry.load) for entry in entry_points(group=GROUP)]
    app = build_app(wanted(found, arguments, own))
    try:
        app(args=list(arguments), prog_name="cryomamba")
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    return 0


def _show_version(wanted: bool) -> None:  # noqa: FBT001 - typer calls it with the option's value
    if wanted:
        typer.echo(f"cryomamba {version('cryomamba')}")
        raise typer.Exit


def _root(
    *,
    _version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass
