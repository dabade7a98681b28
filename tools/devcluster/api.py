"""As much of an HTTPS client as starting a cluster needs; proxies from the environment do not come between."""

import http.client
import json
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SECONDS = 5.0
OK = range(200, 300)


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    body: bytes

    @property
    def ok(self) -> bool:
        """Whether it is a success."""
        return self.status in OK

    def json(self) -> Any:  # noqa: ANN401 - whatever the server sent
        """The body's content."""
        return json.loads(self.body)


class Api:
    """Speaks with the cluster's servers as its administrator.

    Args:
        address: Where they listen.
        certificates: Folder of the authority and the administrator's certificate.
    """

    def __init__(self, address: str, certificates: Path) -> None:
        self._address = address
        self._tls = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
        self._tls.load_cert_chain(certificates / "admin.crt", certificates / "admin.key")

    def request(
        self,
        port: int,
        path: str,
        method: str = "GET",
        body: object = None,
        content_type: str = "application/json",
    ) -> Answer:
        """Sends one request.

        Raises:
            OSError: Nobody answers.
        """
        connection = http.client.HTTPSConnection(self._address, port, timeout=SECONDS, context=self._tls)
        return _send(connection, method, path, body, content_type)


def plain(address: str, port: int, path: str) -> Answer:
    """GETs without TLS.

    Raises:
        OSError: Nobody answers.
    """
    return _send(http.client.HTTPConnection(address, port, timeout=SECONDS), "GET", path, None, "")


def _send(connection: http.client.HTTPConnection, method: str, path: str, body: object, content_type: str) -> Answer:
    try:
        content = None if body is None else json.dumps(body)
        connection.request(method, path, content, {"Content-Type": content_type} if body is not None else {})
        response = connection.getresponse()
        return Answer(response.status, response.read())
    except http.client.HTTPException as error:
        raise OSError(f"{type(error).__name__}: {error}") from error
    finally:
        connection.close()
