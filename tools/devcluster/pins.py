"""What is built from source and at which version: `tools/pins.toml` and the go.mod files beside it."""

import hashlib
import platform
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from devcluster.errors import ClusterError

TOOLS = Path(__file__).resolve().parent.parent
KEY_CHARACTERS = 16


@dataclass(frozen=True)
class Tool:
    """One build: a set of binaries from one pinned source.

    Attributes:
        name: Its table in the pins file.
        version: Git tag or Go pseudo-version.
        binaries: File names that the build leaves.
        key: Changes whenever the pins change; names the cache folder.
        install: Arguments of `go install`.
        folder: Where `go install` runs: the folder of the tool's own go.mod; None: anywhere.
    """

    name: str
    version: str
    binaries: tuple[str, ...]
    key: str
    install: tuple[str, ...]
    folder: Path | None


def read_pins(tools: Path = TOOLS) -> dict[str, Tool]:
    """Every tool by its name.

    Raises:
        ClusterError: A tool's go.mod does not require the module that is to give the version.
    """
    tables = tomllib.loads((tools / "pins.toml").read_text())
    return {name: _tool(name, table, tools) for name, table in tables.items()}


def _tool(name: str, table: dict[str, str | list[str]], tools: Path) -> Tool:
    # The machine is part of the key because home folders are shared between machines.
    content = [repr(sorted(table.items())).encode(), platform.machine().encode()]
    linker = "-s -w"
    folder = None
    if "module" in table:
        folder = tools / str(table["module"])
        content += [(folder / file).read_bytes() for file in ("go.mod", "go.sum")]
        version = required_version((folder / "go.mod").read_text(), str(table["version_of"]))
        linker += f" -X {table['version_variable']}={version}"
        target = "tool"
    else:
        version = str(table["version"])
        target = f"{table['package']}@{version}"
    return Tool(
        name=name,
        version=version,
        binaries=tuple(table["binaries"]),
        key=hashlib.sha256(b"\0".join(content)).hexdigest()[:KEY_CHARACTERS],
        install=("-ldflags", linker, target),
        folder=folder,
    )


def required_version(go_mod: str, module: str) -> str:
    """The version at which a go.mod requires a module.

    Raises:
        ClusterError: It does not.
    """
    found = re.search(rf"^(?:require)?\s+{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    if found is None:
        raise ClusterError(f"go.mod does not require {module}.")
    return found.group(1)
