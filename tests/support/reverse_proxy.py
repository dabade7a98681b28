"""A real nginx in front of a server, set as the chart's Ingress has ingress-nginx set its own."""

import os
import random
import socket
import ssl
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from devcluster import network, packages
from support.helm import TRIAL, template
from support.waiting import until

_ANNOTATION = "nginx.ingress.kubernetes.io/"
_VALUES = TRIAL | {
    "ingress": {"enabled": True, "controller": "ingress-nginx", "hosts": ["localhost"], "tlsSecretName": "tls"}
}
# What each annotation becomes in ingress-nginx's configuration; one that is not here is an error of this table.
_DIRECTIVES = {
    "proxy-body-size": "client_max_body_size {};",
    "proxy-buffering": "proxy_buffering {};",
    "proxy-http-version": "proxy_http_version {};",
    "proxy-read-timeout": "proxy_read_timeout {}s;",
    "proxy-request-buffering": "proxy_request_buffering {};",
    "proxy-send-timeout": "proxy_send_timeout {}s;",
}
# The rest is ingress-nginx's template, as far as it matters for a request on its way.
_CONFIGURATION = """
daemon off;
worker_processes 1;
{user}
pid {folder}/pid;
error_log {folder}/error.log info;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    {temporary}
    map $http_upgrade $connection_upgrade {{ default upgrade; '' ''; }}
    upstream apiserver {{ server {backend}; keepalive 32; }}
    server {{
        listen 127.0.0.1:{port} ssl http2;
        ssl_certificate {folder}/proxy.crt;
        ssl_certificate_key {folder}/proxy.key;
        location / {{
            {directives}
            proxy_set_header Host $http_host;
            proxy_set_header Upgrade $http_upgrade;
            proxy_set_header Connection $connection_upgrade;
            proxy_set_header X-Real-IP $remote_addr;
            proxy_set_header X-Forwarded-For $remote_addr;
            proxy_set_header X-Forwarded-Host $http_host;
            proxy_set_header X-Forwarded-Port $server_port;
            proxy_set_header X-Forwarded-Proto $scheme;
            proxy_connect_timeout 5s;
            proxy_pass http://apiserver;
        }}
    }}
}}
"""
_TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True)
class Proxy:
    url: str
    log: Path
    trust: ssl.SSLContext
    """Trusts its certificate."""


def ingress_annotations() -> dict[str, str]:
    """Return what the chart tells ingress-nginx."""
    (ingress,) = template(_VALUES, "--show-only", "templates/ingress.yaml")
    annotations: dict[str, str] = ingress["metadata"]["annotations"]
    return annotations


def directives(annotations: Mapping[str, str]) -> list[str]:
    """Return what ingress-nginx makes of its annotations."""
    return [
        _DIRECTIVES[name.removeprefix(_ANNOTATION)].format(value)
        for name, value in annotations.items()
        if name.startswith(_ANNOTATION)
    ]


@contextmanager
def proxying(folder: Path, backend: str, annotations: Mapping[str, str]) -> Iterator[Proxy]:
    """Run nginx in front of a server at a URL until the end of the with statement."""
    program = packages.find("nginx")
    assert program, "there is no nginx: install the Debian package nginx-light, or run tools/cluster.py packages"
    trust = _certificate(folder)
    port = network.free_port("127.0.0.1", random.SystemRandom())
    configuration = folder / "nginx.conf"
    configuration.write_text(
        _CONFIGURATION.format(
            folder=folder,
            port=port,
            backend=urlsplit(backend).netloc,
            directives="\n            ".join(directives(annotations)),
            # Workers of root's would be somebody who may not enter the test's folder.
            user="user root;" if os.geteuid() == 0 else "",
            temporary="\n    ".join(f"{name}_temp_path {folder}/{name};" for name in _TEMPORARY),
        )
    )
    log = folder / "error.log"
    process = subprocess.Popen([program, "-c", configuration, "-e", log])
    try:
        until(lambda: _listens(process, port, log))
        yield Proxy(f"https://127.0.0.1:{port}", log, trust)
    finally:
        process.terminate()
        process.wait(20)


def _certificate(folder: Path) -> ssl.SSLContext:
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"]
    files = ["-keyout", folder / "proxy.key", "-out", folder / "proxy.crt"]
    subprocess.run(["openssl", "req", "-x509", *curve, *names, *files], check=True, capture_output=True)
    return ssl.create_default_context(cafile=folder / "proxy.crt")


def _listens(process: subprocess.Popen[bytes], port: int, log: Path) -> bool:
    assert process.poll() is None, log.read_text()
    with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port), timeout=5):
        return True
    return False
