"""Where a cluster keeps what, and the record from which a later run knows what to stop and to restore."""

import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from devcluster.errors import ClusterError
from devcluster.processes import Process

# sun_path of unix(7) holds 107 bytes and a zero; the longest socket of a node is kubelet/pod-resources/kubelet.sock.
LONGEST_FOLDER = 72


@dataclass(frozen=True)
class Layout:
    """The files of one cluster, all in one folder."""

    folder: Path

    @classmethod
    def at(cls, folder: Path) -> Self:
        """The layout in a folder, which need not exist."""
        return cls(folder.resolve())

    def require_sockets(self) -> None:
        """Makes sure that a node's sockets can be in the folder.

        Raises:
            ClusterError: Its path is too long.
        """
        if len(os.fsencode(self.folder)) > LONGEST_FOLDER:
            raise ClusterError(
                f"The path of the cluster's folder exceeds {LONGEST_FOLDER} bytes, too long for sockets: {self.folder}",
                "Name a shorter one with --state.",
            )

    @property
    def record(self) -> Path:
        """What `Record` holds."""
        return self.folder / "record.json"

    @property
    def kubeconfig(self) -> Path:
        """The administrator's; it needs no other file."""
        return self.folder / "kubeconfig"

    @property
    def certificates(self) -> Path:
        """Keys, certificates and the components' kubeconfigs."""
        return self.folder / "pki"

    @property
    def configuration(self) -> Path:
        """The components' configuration files."""
        return self.folder / "config"

    @property
    def logs(self) -> Path:
        """One file a component; what stays when the cluster goes."""
        return self.folder / "logs"

    @property
    def containerd_socket(self) -> Path:
        """Where containerd listens."""
        return self.folder / "containerd.sock"

    def log(self, component: str) -> Path:
        """The log of one component."""
        return self.logs / f"{component}.log"


@dataclass
class Record:
    """What a later run has to know; on disk before the deed wherever the deed has to be undone.

    Attributes:
        backend: `local` or `kind`.
        with_node: Whether it was to run pods.
        address: Where the API server listens.
        ports: TCP port of each listener by its name.
        binaries: Folder of each built tool by its name.
        processes: Component by name.
        sysctls: Kernel settings before the node changed them, by their path below /proc/sys.
        images: containerd's root folder, which outlives the cluster; empty without a node.
        absent: Paths outside the cluster's folder that were not there before the node.
    """

    backend: str
    with_node: bool = False
    address: str = ""
    ports: dict[str, int] = field(default_factory=dict)
    binaries: dict[str, str] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    sysctls: dict[str, str] = field(default_factory=dict)
    images: str = ""
    absent: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, file: Path) -> Self | None:
        """The record on disk; None without one."""
        try:
            fields: dict[str, Any] = json.loads(file.read_text())
        except FileNotFoundError:
            return None
        processes = {name: Process(**process) for name, process in fields.pop("processes").items()}
        return cls(**fields, processes=processes)

    def write(self, file: Path) -> None:
        """Puts the record on disk in one step."""
        unfinished = file.with_suffix(".unfinished")
        unfinished.write_text(json.dumps(asdict(self), indent=1))
        unfinished.rename(file)
