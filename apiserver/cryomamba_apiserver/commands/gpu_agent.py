"""`cryomamba-apiserver gpu-agent`: tells the API server of the GPUs of the node it runs on."""

import os
import socket
from typing import TYPE_CHECKING

import typer

from cryomamba_apiserver.commands.listening import listening, url_of

if TYPE_CHECKING:
    from cryomamba_apiserver.settings import Settings

_OF_THE_DEADLINE = 0.75
"""What the driver may take of the time that the API server waits: the rest is for saying that it took too long."""
_NODE = "NODE_NAME"


def gpu_agent() -> None:
    """Tell the API server of this node's GPUs: GET /v1/node, without a token; run by the chart, one a node.

    The environment variable NODE_NAME is the node's name (none: the host's). Settings: CRYOMAMBA_GPU_AGENT_…, see
    docs/settings.md.
    """
    from cryomamba_apiserver.operations.logs import configure_logs  # noqa: PLC0415 - --help does without
    from cryomamba_apiserver.settings import SettingsError, read_settings  # noqa: PLC0415

    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        typer.echo(f"Error: {error}\nHint: {error.failure.hint}", err=True)
        raise typer.Exit(2) from None
    configure_logs(settings.log_format, settings.log_level)
    with listening(settings.gpu_agent_host, settings.gpu_agent_port) as listener:
        _run(settings, listener)


def _run(settings: "Settings", listener: socket.socket) -> None:
    from cryomamba_apiserver.gpus.agent import agent_app  # noqa: PLC0415 - see above
    from cryomamba_apiserver.gpus.reading import PatientReader  # noqa: PLC0415
    from cryomamba_apiserver.gpus.service import read_gpus  # noqa: PLC0415
    from cryomamba_apiserver.operations.metrics import Metrics  # noqa: PLC0415
    from cryomamba_apiserver.operations.serving import ApiServer, server_config  # noqa: PLC0415

    node = os.environ.get(_NODE) or socket.gethostname()
    reader = PatientReader(read_gpus, settings.gpu_agent_seconds * _OF_THE_DEADLINE)

    async def no_sockets() -> None:
        """There are no WebSockets to close."""

    ApiServer(
        server_config(agent_app(node, reader), settings, Metrics()),
        announce=lambda: typer.echo(f"GPUs of {node}: {url_of(listener)}/v1/node"),
        close_sockets=no_sockets,
        beside=None,
    ).run(sockets=[listener])
