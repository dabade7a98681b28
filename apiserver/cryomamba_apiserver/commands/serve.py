"""`cryomamba serve`: the API server on one workstation."""

import asyncio
import contextlib
import errno
import fcntl
import getpass
import os
import socket
import sys
import tempfile
from collections.abc import Awaitable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cryomamba_apiserver.commands.listening import listening, url_of
from cryomamba_apiserver.commands.options import DataDir

if TYPE_CHECKING:
    from fastapi import FastAPI

    from cryomamba_apiserver.operations.metrics import Backlog
    from cryomamba_apiserver.settings import Settings

_START_BYTES = 1 << 20

app = typer.Typer(help="Run the server on this machine.")


@app.callback(invoke_without_command=True)
def serve(
    host: Annotated[
        str | None, typer.Option(help="Address to listen on. [default: 127.0.0.1]", show_default=False)
    ] = None,
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port to listen on; 0 takes a free one. [default: 8000]", show_default=False
        ),
    ] = None,
    data_dir: DataDir = None,
) -> None:
    """Run the server on this machine: jobs in SQLite, files in a directory, one process a job.

    With CRYOMAMBA_KUBERNETES_NAMESPACE, jobs are SegmentationJobs of a cluster, and nothing is kept on this machine.
    Settings: environment variables CRYOMAMBA_…, see docs/settings.md.
    """
    # Imported here: `cryomamba --help` loads this module.
    from cryomamba_apiserver.app import create_app  # noqa: PLC0415
    from cryomamba_apiserver.operations.logs import configure_logs  # noqa: PLC0415
    from cryomamba_apiserver.profiles import check_credentials  # noqa: PLC0415
    from cryomamba_apiserver.settings import read_settings  # noqa: PLC0415
    from cryomamba_apiserver.tokens.opening import check_token_settings  # noqa: PLC0415

    given = {"listen_host": host, "listen_port": port, "data_dir": data_dir}
    settings = read_settings(os.environ, **{name: value for name, value in given.items() if value is not None})
    configure_logs(settings.log_format, settings.log_level)
    with contextlib.ExitStack() as held:
        if settings.kubernetes_namespace is None:
            settings.data_dir.mkdir(parents=True, exist_ok=True)
            held.enter_context(_alone(settings.data_dir))
            _check_room(settings.data_dir)
        check_token_settings(settings)
        asyncio.run(check_credentials(settings))
        listener = held.enter_context(listening(settings.listen_host, settings.listen_port))
        metrics_listener = (
            None
            if settings.metrics_port is None
            else held.enter_context(listening(settings.metrics_host, settings.metrics_port))
        )
        application = create_app(settings)
        _run(application, settings, listener, metrics_listener)
        if application.state.failed:
            raise typer.Exit(1)


def _run(
    application: "FastAPI", settings: "Settings", listener: socket.socket, metrics_listener: socket.socket | None
) -> None:
    from cryomamba_apiserver.operations.backlog import read_backlog  # noqa: PLC0415 - see above
    from cryomamba_apiserver.operations.metrics import metrics_app  # noqa: PLC0415 - see above
    from cryomamba_apiserver.operations.probes import Ready, readyz  # noqa: PLC0415 - see above
    from cryomamba_apiserver.operations.serving import (  # noqa: PLC0415 - see above
        ApiServer,
        MetricsServer,
        server_config,
    )

    metrics, beside = application.state.metrics, None
    if metrics_listener is not None:

        def backlog() -> "Awaitable[Backlog | None]":
            return read_backlog(application.state.context.job_store, settings.probe_seconds)

        def ready() -> "Awaitable[Ready]":
            return readyz(application.state.context)

        beside = MetricsServer(server_config(metrics_app(metrics, backlog, ready), settings, metrics), metrics_listener)

    async def close_sockets() -> None:
        await application.state.context.live.close()  # made when the app starts

    ApiServer(
        server_config(application, settings, metrics),
        announce=lambda: _announce(settings, listener, metrics_listener),
        close_sockets=close_sockets,
        beside=beside,
    ).run(sockets=[listener])


def _announce(settings: "Settings", listener: socket.socket, metrics_listener: socket.socket | None) -> None:
    from cryomamba_apiserver.app import utc_now  # noqa: PLC0415 - see above
    from cryomamba_apiserver.auth import Scope  # noqa: PLC0415
    from cryomamba_apiserver.tokens.opening import own_authority  # noqa: PLC0415

    typer.echo(f"CryoMamba listens on {url_of(listener)}")
    if metrics_listener is not None:
        typer.echo(f"Metrics: {url_of(metrics_listener)}/metrics")
    if settings.kubernetes_namespace is None:
        typer.echo(f"Data: {settings.data_dir}")
    else:
        typer.echo(f"Jobs: SegmentationJobs in the namespace {settings.kubernetes_namespace}")
    if settings.oidc_issuer is not None:
        typer.echo(f"Tokens: those of {settings.oidc_issuer}")
        return
    if not sys.stdout.isatty():  # what is printed ends up in a log, where no token may be
        typer.echo("Tokens: `cryomamba token create --subject NAME` makes one")
        return
    user = getpass.getuser()
    token = own_authority(settings, utc_now).issue(user, frozenset({Scope.READ, Scope.WRITE}), timedelta(hours=24))
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


def _check_room(data_dir: Path) -> None:
    """End with what to do where the disk is full: the table of jobs could not be opened."""
    try:
        with tempfile.TemporaryFile(dir=data_dir) as probe:
            os.posix_fallocate(probe.fileno(), 0, _START_BYTES)
    except OSError as error:
        if error.errno not in {errno.ENOSPC, errno.EDQUOT}:
            raise
        typer.echo(
            f"The disk of {data_dir} is full.\n"
            "Free some space on it; `cryomamba-apiserver sweep` removes what the server does not need any more.",
            err=True,
        )
        raise typer.Exit(1) from None
