import base64
import json
import ssl
import subprocess
from pathlib import Path

import pytest

from devcluster import certificates


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("certificates") / "pki"
    certificates.make_all(folder, ["198.19.0.1"], ["kubernetes.default.svc"])
    return folder


def openssl(*arguments: str) -> str:
    return subprocess.run(["openssl", *arguments], check=True, capture_output=True, text=True).stdout


@pytest.mark.parametrize("name", ["server", *(client.file for client in certificates.CLIENTS)])
def test_the_authority_vouches_for_every_certificate(pki: Path, name: str) -> None:
    assert openssl("verify", "-CAfile", f"{pki}/ca.crt", f"{pki}/{name}.crt").endswith("OK\n")


def test_the_server_answers_to_its_addresses_and_names(pki: Path) -> None:
    text = openssl("x509", "-in", f"{pki}/server.crt", "-noout", "-ext", "subjectAltName")

    assert "IP Address:198.19.0.1" in text
    assert "DNS:kubernetes.default.svc" in text


def test_a_client_is_the_user_and_group_of_its_identity(pki: Path) -> None:
    text = openssl("x509", "-in", f"{pki}/kubelet.crt", "-noout", "-subject", "-nameopt", "multiline")

    assert "commonName                = system:node:node1" in text
    assert "organizationName          = system:nodes" in text


def test_a_client_cannot_act_as_a_server_or_an_authority(pki: Path) -> None:
    text = openssl("x509", "-in", f"{pki}/admin.crt", "-noout", "-ext", "extendedKeyUsage,basicConstraints")

    assert "TLS Web Server Authentication" not in text
    assert "CA:FALSE" in text


def test_nobody_else_reads_the_keys(pki: Path) -> None:
    assert pki.stat().st_mode & 0o077 == 0


def test_two_clusters_have_different_keys(pki: Path, tmp_path: Path) -> None:
    certificates.make_all(tmp_path / "pki", ["127.0.0.1"], [])

    for name in ("ca.key", "admin.key", "accounts.key"):
        assert (tmp_path / "pki" / name).read_text() != (pki / name).read_text()


def test_a_kubeconfig_needs_no_other_file(pki: Path) -> None:
    config = json.loads(certificates.kubeconfig(pki, certificates.ADMINISTRATOR, "https://198.19.0.1:20001"))

    cluster, user = config["clusters"][0]["cluster"], config["users"][0]["user"]
    assert cluster["server"] == "https://198.19.0.1:20001"
    assert base64.b64decode(user["client-certificate-data"]) == (pki / "admin.crt").read_bytes()
    assert base64.b64decode(user["client-key-data"]) == (pki / "admin.key").read_bytes()
    ssl.create_default_context(cadata=base64.b64decode(cluster["certificate-authority-data"]).decode())
    assert str(pki) not in json.dumps(config)
