"""The `cryomamba-apiserver` command: what whoever runs a server does beside it."""

import typer

from cryomamba_apiserver.commands.gpu_agent import gpu_agent
from cryomamba_apiserver.commands.sweep import sweep

app = typer.Typer(help="Look after a CryoMamba server.", no_args_is_help=True, pretty_exceptions_enable=False)
app.command()(sweep)
app.command()(gpu_agent)


@app.callback()
def apiserver() -> None:
    """Look after a CryoMamba server."""


def main() -> None:
    """Run the command line."""
    app(prog_name="cryomamba-apiserver")


if __name__ == "__main__":
    main()
