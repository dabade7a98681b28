"""Runs a pod's container as a process of this machine: with the environment, Secret and token that it would have."""

import base64
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from cryomamba_crds import pod as words
from cryomamba_crds.failures import Failure
from support.kubernetes import Kubectl

ACCOUNT = "cryomamba-runner"


@dataclass
class Container:
    """The runner of a pod that no kubelet runs.

    Args:
        kubectl: In the pod's namespace.
        pod: As the API server has it.
        folder: For what a container has in its file system.
        environment: Overrides what the pod says.
    """

    kubectl: Kubectl
    pod: dict[str, Any]
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True)
        for name in ("scratch", "account", "s3"):
            (self.folder / name).mkdir()
        self._mount_account()
        self.mount_credentials()

    @property
    def log(self) -> str:
        """What it has logged."""
        return (self.folder / "log").read_text()

    @property
    def last_word(self) -> Failure:
        """Its termination message."""
        return Failure.model_validate_json((self.folder / "termination-log").read_bytes())

    def mount_credentials(self) -> None:
        """Put the files of the pod's Secret where the runner looks, as kubelet does when the Secret has changed."""
        volumes = {volume["name"]: volume for volume in self.pod["spec"]["volumes"]}
        secret = self.kubectl.get("secret", volumes["s3-credentials"]["secret"]["secretName"])
        for name, value in secret["data"].items():
            (self.folder / "s3" / name).write_bytes(base64.b64decode(value))

    def start(self) -> None:
        """Start it."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cryomamba_inference", "pod"],
                env={**self._environment(), **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    def run(self, seconds: float = 200) -> int:
        """Run it to its end and return its exit code."""
        self.start()
        assert self.process
        try:
            return self.process.wait(seconds)
        finally:
            self.kill()

    def kill(self) -> None:
        """End it without a warning."""
        if self.process:
            self.process.kill()
            self.process.wait()

    def _environment(self) -> dict[str, str]:
        (container,) = self.pod["spec"]["containers"]
        given = {item["name"]: item["value"] for item in container["env"] if "value" in item}
        server = urlsplit(self._cluster()["server"])
        return {
            "PATH": os.environ["PATH"],
            **given,
            words.POD_UID: self.pod["metadata"]["uid"],
            words.SCRATCH_VARIABLE: str(self.folder / "scratch"),
            words.MODEL_CACHE_VARIABLE: str(self.folder / "scratch" / "models"),
            words.CREDENTIALS_VARIABLE: str(self.folder / "s3"),
            "HOME": str(self.folder / "scratch"),
            "TMPDIR": str(self.folder / "scratch"),
            "KUBERNETES_SERVICE_HOST": str(server.hostname),
            "KUBERNETES_SERVICE_PORT": str(server.port),
            "CRYOMAMBA_SERVICE_ACCOUNT": str(self.folder / "account"),
            "CRYOMAMBA_TERMINATION_LOG": str(self.folder / "termination-log"),
        }

    def _mount_account(self) -> None:
        name, uid = self.pod["metadata"]["name"], self.pod["metadata"]["uid"]
        bound = ("--bound-object-kind=Pod", f"--bound-object-name={name}", f"--bound-object-uid={uid}")
        (self.folder / "account" / "token").write_text(self.kubectl("create", "token", ACCOUNT, *bound))
        cluster = self._cluster()
        authority = cluster.get("certificate-authority-data")
        text = base64.b64decode(authority) if authority else Path(cluster["certificate-authority"]).read_bytes()
        (self.folder / "account" / "ca.crt").write_bytes(text)

    def _cluster(self) -> dict[str, Any]:
        config = yaml.safe_load(self.kubectl.kubeconfig.read_text())
        (context,) = config["contexts"]
        (cluster,) = (item["cluster"] for item in config["clusters"] if item["name"] == context["context"]["cluster"])
        return dict(cluster)
