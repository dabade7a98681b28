"""`cryomamba token`: tokens for people and programs."""

import os
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
    """Print a token and nothing else; its id, by which it can be revoked, goes to standard error."""
    # Imported here: `cryomamba --help` loads this module.
    from cryomamba_apiserver.app import utc_now  # noqa: PLC0415
    from cryomamba_apiserver.auth import Scope  # noqa: PLC0415
    from cryomamba_apiserver.settings import default_data_dir, read_settings  # noqa: PLC0415
    from cryomamba_apiserver.tokens.claims import LONGEST_SUBJECT, is_subject  # noqa: PLC0415
    from cryomamba_apiserver.tokens.opening import own_authority  # noqa: PLC0415
    from cryomamba_apiserver.tokens.secret import token_id  # noqa: PLC0415
    from cryomamba_crds.failures import FailureError  # noqa: PLC0415

    names = {name.strip() for name in scope.split(",")}
    unknown = names - set(Scope)
    if unknown:
        raise typer.BadParameter(f"unknown scope {', '.join(sorted(unknown))}; choose from {', '.join(Scope)}")
    if not is_subject(subject):
        raise typer.BadParameter(
            f"a subject has 1 to {LONGEST_SUBJECT} characters, no control characters, and no space at its ends"
        )
    lifetime = parse_duration(ttl)
    try:
        settings = read_settings(os.environ, data_dir=data_dir or default_data_dir())
        authority = own_authority(settings, utc_now)
    except FailureError as error:
        typer.echo(f"{error.failure.message}\n{error.failure.hint}", err=True)
        raise typer.Exit(1) from None
    issued = authority.issue(subject, frozenset(Scope(name) for name in names), lifetime)
    typer.echo(issued)
    typer.echo(f"Its id, for CRYOMAMBA_DENIED_JTIS: {token_id(issued)}", err=True)
