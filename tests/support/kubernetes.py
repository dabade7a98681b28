"""The test cluster, as tests use it: `kubectl`, and starting and stopping components."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

TOOL = Path(__file__).parents[2] / "tools" / "cluster.py"
CRD = Path(__file__).parents[2] / "crds" / "segmentationjobs.yaml"
STARTED_SECONDS = 110


def tool(*words: str | Path) -> str:
    """Run a command of the cluster's tool and return what it prints."""
    done = subprocess.run(
        [sys.executable, TOOL, *words], stdout=subprocess.PIPE, text=True, timeout=STARTED_SECONDS, check=True
    )
    return done.stdout.strip()


def is_running() -> bool:
    """Whether somebody has started the cluster already."""
    return subprocess.run([sys.executable, TOOL, "kubeconfig"], capture_output=True, check=False).returncode == 0


class RefusedError(Exception):
    """kubectl or the API server said no; the text is what was said."""


@dataclass(frozen=True)
class Kubectl:
    """`kubectl` with a kubeconfig and, where given, a namespace."""

    binary: Path
    kubeconfig: Path
    namespace: str | None = None

    def __call__(self, *words: str, manifest: Any = None, timeout: float = 60) -> str:
        """Run a command and return what it prints; `manifest` goes to its stdin as JSON.

        Raises:
            RefusedError: It failed.
        """
        where = ["--namespace", self.namespace] if self.namespace else []
        done = subprocess.run(
            [self.binary, "--kubeconfig", self.kubeconfig, *where, *words],
            input=None if manifest is None else json.dumps(manifest),
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if done.returncode:
            raise RefusedError(done.stderr.strip())
        return done.stdout

    def get(self, *words: str) -> Any:
        """Return objects as the API server has them."""
        return json.loads(self("get", *words, "--output", "json"))

    def apply(self, manifest: Any) -> str:
        """Apply a manifest."""
        return self("apply", "--filename", "-", manifest=manifest)


def restart_watchers(kubectl: Kubectl) -> None:
    """Restart what watches the API server: after an outage its watches stay deaf for up to half a minute."""
    of_the_node = ["kube-scheduler", "kubelet"] if kubectl.get("nodes")["items"] else []
    for name in ["kube-controller-manager", *of_the_node]:
        tool("stop-component", name)
        tool("start-component", name)
