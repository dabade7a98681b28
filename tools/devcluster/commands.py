"""Runs other programs to their end."""

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from devcluster.errors import ClusterError

TAIL_CHARACTERS = 2000


def run(
    argv: Sequence[str | Path],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    standard_input: str | None = None,
) -> str:
    """What the program wrote on standard output.

    Raises:
        ClusterError: It is not installed or its exit status is not 0; with the end of what it said.
    """
    try:
        done = attempt(argv, folder=folder, environment=environment, standard_input=standard_input)
    except FileNotFoundError as error:
        raise ClusterError(f"{argv[0]} is not installed.") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-TAIL_CHARACTERS:]
        raise ClusterError(f"{' '.join(map(str, argv))}: exit status {done.returncode}\n{said}")
    return done.stdout


def attempt(
    argv: Sequence[str | Path],
    *,
    folder: Path | None = None,
    environment: Mapping[str, str] | None = None,
    standard_input: str | None = None,
) -> subprocess.CompletedProcess[str]:
    """The program's exit status and what it said; for programs that may fail.

    Raises:
        FileNotFoundError: It is not installed.
    """
    return subprocess.run(  # noqa: S603 - every argv of this package is a list of its own words and paths, no shell
        [str(word) for word in argv],
        cwd=folder,
        env=environment,
        input=standard_input,
        capture_output=True,
        text=True,
        check=False,
    )
