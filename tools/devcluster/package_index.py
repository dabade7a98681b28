"""How this machine reaches the Python package index, handed to image builds as secrets, so that no image shows it."""

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from devcluster import commands

# Where a build finds the file with the authorities to trust.
CERTIFICATES = "/run/secrets/certificates"
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy")


def pip_settings() -> dict[str, str]:
    """What pip was told in files and in the environment, such as `index-url`; empty where there is no pip."""
    done = commands.attempt([sys.executable, "-m", "pip", "--disable-pip-version-check", "config", "list"])
    return parsed(done.stdout) if done.returncode == 0 else {}


def parsed(listing: str) -> dict[str, str]:
    """The settings that `pip config list` prints, without their sections; the environment's win over the files'.

    Args:
        listing: Lines such as `global.index-url='https://example.org/simple'`.
    """
    lines = [line.partition("=") for line in listing.splitlines() if "=" in line]
    # The environment's have the section `:env:`.
    lines.sort(key=lambda line: line[0].startswith(":env:"))
    return {name.rpartition(".")[2]: value.strip().strip("'\"") for name, _, value in lines}


def secrets(folder: Path, pip: Mapping[str, str], environment: Mapping[str, str] = os.environ) -> dict[str, Path]:
    """Writes the secrets that the Dockerfiles know.

    Args:
        folder: Where the files go; readable for this user only.
        pip: What pip was told.
        environment: Of this process; what uv was told wins over what pip was.

    Returns:
        The file of each secret by its id.
    """
    index = environment.get("UV_DEFAULT_INDEX") or environment.get("UV_INDEX_URL") or pip.get("index-url")
    more = environment.get("UV_INDEX") or environment.get("UV_EXTRA_INDEX_URL") or pip.get("extra-index-url")
    host = environment.get("UV_INSECURE_HOST") or pip.get("trusted-host")
    authorities = environment.get("SSL_CERT_FILE") or pip.get("cert")
    values = {name: environment[name] for name in PROXIES if environment.get(name)}
    for wanted, names in (
        (index, ("UV_DEFAULT_INDEX", "PIP_INDEX_URL")),
        (more, ("UV_INDEX", "PIP_EXTRA_INDEX_URL")),
        (host, ("UV_INSECURE_HOST", "PIP_TRUSTED_HOST")),
        (authorities and CERTIFICATES, ("SSL_CERT_FILE", "PIP_CERT")),
    ):
        values.update(dict.fromkeys(names, wanted) if wanted else {})
    network = folder / "network"
    network.touch(mode=0o600)
    network.write_text("".join(f"export {name}={shlex.quote(value)}\n" for name, value in values.items()))
    return {"network": network, **({"certificates": Path(authorities)} if authorities else {})}
