"""An NVML whose GPUs the test makes up: a shared library with the real one's names; see nvml.c for its words."""

import subprocess
from dataclasses import dataclass
from pathlib import Path

_SOURCE = Path(__file__).with_name("nvml.c")
_NAME = "libnvidia-ml.so.1"


def built(folder: Path) -> Path:
    """Compile the library; return the folder that it lies in."""
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", folder / _NAME, _SOURCE], check=True)
    return folder


@dataclass(frozen=True)
class MadeUpGpus:
    """What a process that is started with this environment finds for a driver."""

    library: Path
    control: Path

    def say(self, words: str) -> None:
        """Say what the driver does from now on; at one stroke, since it reads at any time."""
        new = self.control.with_suffix(".new")
        new.write_text(words)
        new.replace(self.control)

    @property
    def environment(self) -> dict[str, str]:
        return {"LD_LIBRARY_PATH": str(self.library), "FAKE_NVML": str(self.control)}
