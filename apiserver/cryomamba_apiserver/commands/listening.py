"""The socket that a command's server listens on."""

import contextlib
import socket
from collections.abc import Iterator

import typer


@contextlib.contextmanager
def listening(host: str, port: int) -> Iterator[socket.socket]:
    """Hold a socket that is bound to this address; end the command with what to do where that is not possible."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    with listener:
        try:
            listener.bind((host, port))
        except OSError as error:
            typer.echo(f"Can't listen on {host}:{port}: {error.strerror}.\nChoose another host or port.", err=True)
            raise typer.Exit(1) from None
        yield listener


def url_of(listener: socket.socket) -> str:
    """Return where a socket listens."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
