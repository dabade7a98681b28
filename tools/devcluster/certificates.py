"""The cluster's own certificate authority, what it signs, and kubeconfigs, through the openssl program."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path

from devcluster import commands

# A test cluster lives for hours; nothing renews its certificates.
DAYS = "30"
EC_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")


@dataclass(frozen=True)
class Identity:
    """Whom a certificate names, in Kubernetes' reading: the common name is the user, the organisation its group."""

    file: str
    user: str
    group: str = ""


# The API server's own certificate towards etcd and kubelet.
API_SERVER = Identity("kube-apiserver", "kube-apiserver", "system:masters")
ADMINISTRATOR = Identity("admin", "admin", "system:masters")
CONTROLLER_MANAGER = Identity("kube-controller-manager", "system:kube-controller-manager")
SCHEDULER = Identity("kube-scheduler", "system:kube-scheduler")
KUBELET = Identity("kubelet", "system:node:node1", "system:nodes")
PROXY = Identity("kube-proxy", "system:kube-proxy")
DNS = Identity("coredns", "cryomamba:coredns")
CLIENTS = (API_SERVER, ADMINISTRATOR, CONTROLLER_MANAGER, SCHEDULER, KUBELET, PROXY, DNS)


def make_all(folder: Path, addresses: list[str], names: list[str]) -> None:
    """Makes the authority, the servers' certificate, every client's, and the key that signs service account tokens.

    Args:
        folder: Where they go; made, readable to its owner only.
        addresses: IP addresses under which the servers answer.
        names: Host names under which they answer.
    """
    folder.mkdir(mode=0o700)
    _write_request(folder / "ca.cnf", Identity("ca", "cryomamba-test-ca"), ["basicConstraints = critical, CA:TRUE"])
    _sign(folder, "ca", [])
    subject = ",".join([f"IP:{address}" for address in addresses] + [f"DNS:{name}" for name in names])
    for identity, extensions in (
        # etcd's server calls itself with its own certificate.
        (Identity("server", "server"), [f"subjectAltName = {subject}", "extendedKeyUsage = serverAuth, clientAuth"]),
        *((client, ["extendedKeyUsage = clientAuth"]) for client in CLIENTS),
    ):
        _write_request(
            folder / f"{identity.file}.cnf", identity, ["basicConstraints = critical, CA:FALSE", *extensions]
        )
        _sign(folder, identity.file, ["-CA", str(folder / "ca.crt"), "-CAkey", str(folder / "ca.key")])
    commands.run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", folder / "accounts.key"])


def _write_request(file: Path, identity: Identity, extensions: list[str]) -> None:
    names = [f"CN = {identity.user}", *([f"O = {identity.group}"] if identity.group else [])]
    head = ["[req]", "prompt = no", "distinguished_name = names", "x509_extensions = extensions"]
    file.write_text("\n".join([*head, "[names]", *names, "[extensions]", *extensions, ""]))


def _sign(folder: Path, name: str, authority: list[str]) -> None:
    request = folder / f"{name}.cnf"
    files = ["-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.crt")]
    commands.run(["openssl", "req", "-x509", *EC_KEY, "-days", DAYS, "-config", str(request), *files, *authority])
    request.unlink()


def kubeconfig(folder: Path, identity: Identity, server: str) -> str:
    """A kubeconfig that carries its certificates in itself, as JSON, which is YAML too."""

    def embedded(name: str) -> str:
        return base64.b64encode((folder / name).read_bytes()).decode()

    user = {
        "client-certificate-data": embedded(f"{identity.file}.crt"),
        "client-key-data": embedded(f"{identity.file}.key"),
    }
    name = "cryomamba-test"
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": name, "cluster": {"server": server, "certificate-authority-data": embedded("ca.crt")}}
            ],
            "users": [{"name": name, "user": user}],
            "contexts": [{"name": name, "context": {"cluster": name, "user": name}}],
            "current-context": name,
        },
        indent=1,
    )
