"""A base image with Debian's Python, made from Debian packages where no image registry need be reached."""

import hashlib
import platform
from pathlib import Path

from devcluster import commands

SUITE = "bookworm"
# libstdc++ is what wheels expect of a Linux beside glibc; `usr-is-merged` instead of `usrmerge`, which would bring all
# of Perl.
PACKAGES = ("python3", "python3-venv", "ca-certificates", "libstdc++6", "usr-is-merged")
LEFT_OUT = ("doc/*", "info/*", "locale/*", "man/*")
OPTIONS = (
    "--variant=essential",
    f"--include={','.join(PACKAGES)}",
    "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
    *(f"--dpkgopt=path-exclude=/usr/share/{path}" for path in LEFT_OUT),
    "--dpkgopt=path-include=/usr/share/doc/*/copyright",
    '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/* "$1"/var/log/*',
)
KEY = hashlib.sha256(repr((SUITE, OPTIONS, platform.machine())).encode()).hexdigest()[:16]


def write_root(archive: Path) -> None:
    """Writes the base's files as a tar archive; takes about a minute.

    Args:
        archive: Its path, which ends in `.tar`.

    Raises:
        ClusterError: mmdebstrap is missing, or no mirror of Debian answers.
    """
    commands.run(["mmdebstrap", "--quiet", *OPTIONS, SUITE, archive])
