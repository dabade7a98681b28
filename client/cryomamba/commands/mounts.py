"""Commands that other packages add under the entry-point group `cryomamba.commands`."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import typer

from cryomamba.commands.failures import install_hint, lines


@dataclass(frozen=True)
class Mount:
    """A command of another package: its name, the module it is in, and how to load it."""

    name: str
    module: str
    load: Callable[[], object]


def wanted(mounts: Sequence[Mount], arguments: Sequence[str], own: Collection[str]) -> list[Mount]:
    """Return what has to be loaded for a command line: nothing for our own commands, everything for help.

    Loading a server package takes time that `cryomamba volume` should not take.
    """
    command = next((argument for argument in arguments if not argument.startswith("-")), None)
    if command in own:
        return []
    named = [mount for mount in mounts if mount.name == command]
    return sorted(named or mounts, key=lambda mount: mount.name)


def mount(app: typer.Typer, added: Mount) -> None:
    """Add a command; where what it needs is not installed, one that says so takes its place.

    As in Typer itself, an app of a single command and no callback is that command; any other is a group.
    """
    try:
        loaded = added.load()
    except ImportError as error:
        _mount_missing(app, added, error)
        return
    if not isinstance(loaded, typer.Typer):
        raise TypeError(f"the entry point {added.name!r} of {added.module} is no typer.Typer but {loaded!r}")
    single = len(loaded.registered_commands) == 1 and not loaded.registered_groups
    if single and loaded.registered_callback is None:
        [command] = loaded.registered_commands
        command.name = added.name
        app.registered_commands.append(command)
    else:
        app.add_typer(loaded, name=added.name)


def _mount_missing(app: typer.Typer, added: Mount, error: ImportError) -> None:
    hint = install_hint(added.module)

    def missing() -> None:
        message = f"`cryomamba {added.name}` needs {error.name or added.module}, which is not installed"
        typer.echo(lines(message, hint), err=True, nl=False)
        raise typer.Exit(1)

    app.command(
        added.name,
        help=f"Not installed: {hint}",
        context_settings={"ignore_unknown_options": True, "allow_extra_args": True},
    )(missing)
