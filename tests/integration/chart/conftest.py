import json

import pytest

from support.helm import TRIAL, Manifest
from support.kube_schemas import LOCATION, write_schemas

OWN_STORE: Manifest = {
    "s3": {"endpoint": "https://s3.example.org", "existingSecret": {"name": "s3"}, "ca": {"configMap": "ca"}},
    "imagePullSecrets": [{"name": "registry"}],
    "auth": {"oidc": {"issuer": "https://login.example.org/realms/lab"}, "deniedTokens": ["a", "b"]},
    "rateLimits": {"existingSecret": "redis"},
    "jobs": {"ttlSeconds": 86400, "priorityClassName": "normal", "queueName": "gpus"},
    "apiServer": {
        "autoscaling": {"enabled": True},
        "trustedProxies": ["10.0.0.0/8"],
        "corsOrigins": ["https://viewer.example.org"],
        "settings": {"max_upload_size": 21474836480, "hsts_seconds": 31536000},
        "extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example.org:3128"}],
        "podAnnotations": {"example.org/team": "imaging"},
    },
    "operator": {"maxActiveJobs": 4, "settings": {"log_level": "info"}},
    "runner": {
        "device": "cuda",
        "podTemplate": {"spec": {"nodeSelector": {"gpu": "a100"}}},
        "modelCache": {"enabled": True, "storageClassName": "nfs"},
    },
    "gpuAgent": {"runtimeClassName": "nvidia"},
    "sweep": {"keepFilesDays": 30, "keepJobsDays": 365},
    "ingress": {"enabled": True, "className": "nginx", "hosts": ["cryo.example.org"], "tlsSecretName": "tls"},
    "httpRoute": {"enabled": True, "parentRefs": [{"name": "public", "namespace": "gateways"}]},
    "networkPolicy": {"storeTo": [{"ipBlock": {"cidr": "192.0.2.0/24"}}]},
    "monitoring": {
        "serviceMonitor": {"enabled": True},
        "alerts": {"enabled": True},
        "dashboard": {"enabled": True},
    },
}
"""As much as can be asked for at once."""
SHARED: Manifest = {
    "s3": {
        "endpoint": "http://store.example.org:9000",
        "accessKey": "key",
        "secretKey": "secret",
        "jobCredentials": {"mode": "shared", "existingSecret": "of-jobs"},
    },
    "gpuAgent": {"enabled": False},
    "sweep": {"enabled": False},
    "crds": {"keep": False},
}
VALUES = {"trial": TRIAL, "everything": OWN_STORE, "shared": SHARED}


@pytest.fixture(params=VALUES)
def values(request) -> Manifest:
    """Each of the sets of values in turn."""
    return json.loads(json.dumps(VALUES[request.param]))


@pytest.fixture(scope="session")
def schemas(control_plane, tmp_path_factory) -> str:
    """Where kubeconform finds the schemas of all kinds."""
    folder = tmp_path_factory.mktemp("schemas")
    write_schemas(control_plane, folder)
    return f"{folder}/{LOCATION}"
