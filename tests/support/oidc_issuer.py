"""An OpenID Connect issuer on this machine: it publishes keys over HTTP and signs tokens with them."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

CONFIGURATION = "/.well-known/openid-configuration"


class Issuer:
    """What is served, and how often it was asked for; a test changes `answers` as it likes."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.answers: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.asked: Counter[str] = Counter()
        self.rsa = {"rsa-1": rsa.generate_private_key(65537, 2048)}
        self.elliptic = {"ec-1": ec.generate_private_key(ec.SECP256R1())}
        self.document(CONFIGURATION, {"issuer": url, "jwks_uri": f"{url}/keys"})
        self.publish()

    def document(self, path: str, content: object) -> None:
        self.answers[path] = (200, json.dumps(content).encode(), {})

    def publish(self) -> None:
        """Serve the public part of the keys."""
        keys = [{**json.loads(RSAAlgorithm.to_jwk(key.public_key())), "kid": kid} for kid, key in self.rsa.items()]
        keys += [{**json.loads(ECAlgorithm.to_jwk(key.public_key())), "kid": kid} for kid, key in self.elliptic.items()]
        self.document("/keys", {"keys": keys})

    def rotate(self) -> str:
        """Publish a new RSA key in place of the others; return its id."""
        kid = f"rsa-{len(self.rsa) + 1}"
        self.rsa = {**self.rsa, kid: rsa.generate_private_key(65537, 2048)}
        self.document("/keys", {"keys": [{**json.loads(RSAAlgorithm.to_jwk(self.rsa[kid].public_key())), "kid": kid}]})
        return kid

    def claims(self, **changes: Any) -> dict[str, Any]:
        base = {
            "iss": self.url,
            "aud": "cryomamba",
            "sub": "ada",
            "scope": "openid read write",
            "exp": datetime.now(UTC) + timedelta(hours=1),
        }
        return {name: value for name, value in {**base, **changes}.items() if value is not None}

    def token(self, kid: str = "rsa-1", headers: dict[str, Any] | None = None, **changes: Any) -> str:
        key, algorithm = (self.rsa[kid], "RS256") if kid in self.rsa else (self.elliptic[kid], "ES256")
        return jwt.encode(self.claims(**changes), key, algorithm, headers={"kid": kid, **(headers or {})})


@contextmanager
def issuing() -> Iterator[Issuer]:
    """Serve an issuer on a free port until the end of the with statement."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            issuer.asked[self.path] += 1
            status, body, headers = issuer.answers.get(self.path, (404, b"", {}))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        issuer = Issuer(f"http://127.0.0.1:{server.server_port}")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield issuer
        finally:
            server.shutdown()
            thread.join()
