"""`cryomamba serve`: the API server on one workstation."""

import contextlib
import fcntl
import getpass
import socket
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryomamba_apiserver.commands.options import DataDir

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cryomamba_apiserver.settings import Settings

app = typer.Typer(help="Run the server on this machine.")

_SHUTDOWN_SECONDS = 5


@app.callback(invoke_without_command=True)
def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 8000,
    data_dir: DataDir = None,
) -> None:
    """Run the server on this machine: jobs in SQLite, files in a directory, one process a job."""
    # Imported here: `cryomamba --help` loads this module.
    from cryomamba_apiserver.app import create_app  # noqa: PLC0415
    from cryomamba_apiserver.settings import Settings, default_data_dir  # noqa: PLC0415

    settings = Settings(data_dir=data_dir or default_data_dir())
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    with _alone(settings.data_dir), _listening(host, port) as listener, contextlib.suppress(KeyboardInterrupt):
        _run(create_app(settings), settings, listener)


def _run(application: "FastAPI", settings: "Settings", listener: socket.socket) -> None:
    import uvicorn  # noqa: PLC0415 - see above

    class Server(uvicorn.Server):
        """Says where it is once it answers, and closes the sockets before it waits for requests to end."""

        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            await application.state.context.live.close()
            await super().shutdown(sockets)

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:
                _announce(settings, listener)

    config = uvicorn.Config(
        application,
        log_level="warning",
        access_log=False,  # its lines would carry tokens and signed links
        server_header=False,
        ws="websockets-sansio",
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    Server(config).run(sockets=[listener])


def _announce(settings: "Settings", listener: socket.socket) -> None:
    from cryomamba_apiserver.app import token_authority, utc_now  # noqa: PLC0415 - see above
    from cryomamba_apiserver.auth import Scope  # noqa: PLC0415

    host, port = listener.getsockname()[:2]
    user = getpass.getuser()
    token = token_authority(settings, utc_now).issue(user, frozenset({Scope.READ, Scope.WRITE}), timedelta(hours=24))
    address = f"[{host}]" if ":" in host else host
    typer.echo(f"CryoMamba listens on http://{address}:{port}")
    typer.echo(f"Data: {settings.data_dir}")
    typer.echo(f"Token of {user}, good for 24 hours:\n{token}")


@contextlib.contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    """Hold the data directory: two servers would run each other's jobs."""
    with (data_dir / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            typer.echo(f"Another server uses {data_dir}.\nStop it, or give this one a --data-dir of its own.", err=True)
            raise typer.Exit(1) from None
        yield


@contextlib.contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind((host, port))
        except OSError as error:
            typer.echo(f"Can't listen on {host}:{port}: {error.strerror}.\nChoose another --host or --port.", err=True)
            raise typer.Exit(1) from None
        yield listener
