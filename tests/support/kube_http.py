"""Requests to the API server with a kubeconfig's credentials, for what kubectl does not do or does too slowly."""

import base64
import json
import ssl
import tempfile
from collections.abc import Iterator
from typing import Any

import httpx
import yaml

from support.kubernetes import Kubectl

MERGE = "application/merge-patch+json"


def client(kubectl: Kubectl, *, anonymous: bool = False) -> httpx.Client:
    """Return a client whose base is the API server; an anonymous one is for requests that bring tokens of their own."""
    config = yaml.safe_load(kubectl.kubeconfig.read_text())
    (context,) = config["contexts"]
    (cluster,) = (item["cluster"] for item in config["clusters"] if item["name"] == context["context"]["cluster"])
    (user,) = (item["user"] for item in config["users"] if item["name"] == context["context"]["user"])
    authority = base64.b64decode(cluster.get("certificate-authority-data", "")).decode()
    trust = ssl.create_default_context(cafile=cluster.get("certificate-authority"), cadata=authority or None)
    certificate = user.get("client-certificate-data")
    if certificate and not anonymous:
        with tempfile.NamedTemporaryFile() as pair:  # Python reads certificates from files only
            pair.write(base64.b64decode(certificate) + base64.b64decode(user["client-key-data"]))
            pair.flush()
            trust.load_cert_chain(pair.name)
    headers = {"Authorization": f"Bearer {user['token']}"} if "token" in user and not anonymous else {}
    return httpx.Client(base_url=cluster["server"], verify=trust, headers=headers, trust_env=False, timeout=30)


def segmentation_jobs(kubectl: Kubectl) -> str:
    """Return the path of the SegmentationJobs of the namespace."""
    return f"/apis/cryomamba.io/v1alpha1/namespaces/{kubectl.namespace}/segmentationjobs"


def watch(http: httpx.Client, path: str, **query: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Iterate over type and object of a watch's events, for as long as the server lets it."""
    with http.stream("GET", path, params={"watch": "true", **query}, timeout=None) as response:
        for line in response.iter_lines():
            event = json.loads(line)
            yield event["type"], event["object"]
