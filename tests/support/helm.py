"""Helm and what checks charts, as tests use them."""

import json
import os
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from support.kubernetes import Kubectl, tool

CHART = Path(__file__).parents[2] / "charts" / "cryomamba"
KUBERNETES = "1.34.4"  # a Helm that is built from its module takes itself for one of 1.20
TRIAL = {"minio": {"enabled": True, "persistence": {"enabled": False}}}
"""Values that suffice; nothing is to be brought along."""

Manifest = dict[str, Any]


class HelmError(Exception):
    """Helm refused; the text is what it said."""


@cache
def binary(name: str) -> Path:
    """Return where a program is, built if it has to be."""
    return Path(tool("build", name)) / name


def run(program: str, *words: str | Path, stdin: str | None = None, **environment: str) -> str:
    """Run `helm` or another program and return what it prints.

    Raises:
        HelmError: It failed.
    """
    done = subprocess.run(
        [binary(program), *words],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
        env={**os.environ, **environment},
    )
    if done.returncode:
        raise HelmError(done.stdout + done.stderr)
    return done.stdout


def template(values: Manifest, *words: str, name: str = "cryomamba", namespace: str = "lab") -> list[Manifest]:
    """Return the objects that a release with these values has."""
    text = run(
        "helm",
        *("template", name, CHART, "--namespace", namespace, "--kube-version", KUBERNETES, "--values", "-", *words),
        stdin=json.dumps(values),
    )
    return [manifest for manifest in yaml.safe_load_all(text) if manifest]


def release(kubectl: Kubectl, command: str, name: str, *words: str, values: Manifest | None = None) -> str:
    """Run `helm COMMAND NAME` in a namespace of a cluster."""
    where = ["--namespace", str(kubectl.namespace), "--kubeconfig", str(kubectl.kubeconfig)]
    given = [] if values is None else ["--values", "-"]
    chart = [CHART] if command in {"install", "upgrade"} else []
    return run("helm", command, name, *chart, *where, *given, *words, stdin=json.dumps(values) if values else None)


def pod_specs(manifests: list[Manifest]) -> dict[str, Manifest]:
    """Return the pod spec of each workload, by kind and name."""
    found = {}
    for manifest in manifests:
        spec = manifest.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        if "template" in spec:
            found[f"{manifest['kind']} {manifest['metadata']['name']}"] = spec["template"]["spec"]
    return found
