"""Pods of the product's images on a namespace that admits nothing but what Pod Security calls restricted."""

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import pytest

from support.kubernetes import Kubectl
from support.waiting import until

# The first start of a big image reads it from the disk.
SECONDS = 100
RESTRICTED = {"pod-security.kubernetes.io/enforce": "restricted"}


@dataclass(frozen=True)
class Ending:
    """How a container ended, and what it printed."""

    exit_code: int
    printed: str

    @property
    def last_line(self) -> Any:
        """The last line, which is JSON."""
        return json.loads(self.printed.splitlines()[-1])


Run = Callable[[str, dict[str, Sequence[str] | None]], dict[str, Ending]]


def pod(image: str, commands: dict[str, Sequence[str] | None]) -> dict[str, Any]:
    """A pod with a container for each command, with the rights and the folders that our charts give."""
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": f"probe-{secrets.token_hex(4)}"},
        "spec": {
            "restartPolicy": "Never",
            "enableServiceLinks": False,
            "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "volumes": [{"name": "scratch", "emptyDir": {}}],
            "containers": [
                {
                    "name": name,
                    "image": image,
                    "imagePullPolicy": "Never",
                    **({"command": list(command)} if command else {}),
                    "env": [{"name": "TMPDIR", "value": "/scratch"}, {"name": "HOME", "value": "/scratch"}],
                    "securityContext": {
                        "allowPrivilegeEscalation": False,
                        "readOnlyRootFilesystem": True,
                        "capabilities": {"drop": ["ALL"]},
                    },
                    "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}],
                }
                for name, command in commands.items()
            ],
        },
    }


@pytest.fixture
def run(namespace: Kubectl) -> Run:
    """Runs commands in an image, or its own where there is none, and returns how each ended."""
    assert namespace.namespace is not None
    namespace("label", "namespace", namespace.namespace, *(f"{key}={value}" for key, value in RESTRICTED.items()))

    def run(image: str, commands: dict[str, Sequence[str] | None]) -> dict[str, Ending]:
        manifest = pod(image, commands)
        name = manifest["metadata"]["name"]
        namespace.apply(manifest)

        def exit_codes() -> dict[str, int]:
            containers = namespace.get("pod", name)["status"].get("containerStatuses", [])
            ended = [one for one in containers if "terminated" in one["state"]]
            return {one["name"]: one["state"]["terminated"]["exitCode"] for one in ended}

        until(lambda: len(exit_codes()) == len(commands), SECONDS)
        return {
            container: Ending(code, namespace("logs", name, "--container", container))
            for container, code in exit_codes().items()
        }

    return run
