"""`cryomamba token`: tokens for people and programs."""

from typing import Annotated

import typer

from cryomamba_apiserver.commands.options import DataDir, parse_duration

app = typer.Typer(help="Make tokens for the server of this machine.", no_args_is_help=True)


@app.callback()
def token() -> None:
    """Make tokens for the server of this machine."""


@app.command()
def create(
    subject: Annotated[str, typer.Option(help="Whose token it is.")],
    data_dir: DataDir = None,
    scope: Annotated[str, typer.Option(help="What it allows: read, write, admin; separated by commas.")] = "read,write",
    ttl: Annotated[str, typer.Option(help="How long it works: 90s, 15m, 24h, 7d.")] = "24h",
) -> None:
    """Print a token and nothing else."""
    # Imported here: `cryomamba --help` loads this module.
    from cryomamba_apiserver.app import token_authority, utc_now  # noqa: PLC0415
    from cryomamba_apiserver.auth import Scope  # noqa: PLC0415
    from cryomamba_apiserver.settings import Settings, default_data_dir  # noqa: PLC0415

    names = {name.strip() for name in scope.split(",")}
    unknown = names - set(Scope)
    if unknown:
        raise typer.BadParameter(f"unknown scope {', '.join(sorted(unknown))}; choose from {', '.join(Scope)}")
    if not subject.strip():
        raise typer.BadParameter("a token needs a subject")
    lifetime = parse_duration(ttl)
    settings = Settings(data_dir=data_dir or default_data_dir())
    authority = token_authority(settings, utc_now)
    typer.echo(authority.issue(subject, frozenset(Scope(name) for name in names), lifetime))
