"""Turns a SegmentationJob into the Kubernetes Job that runs it. Pure: no clock, no cluster.

What the runner's container is handed:

- `CRYOMAMBA_JOB_NAME`, `CRYOMAMBA_JOB_NAMESPACE`, `CRYOMAMBA_JOB_UID`: the resource whose status it reports to;
- `CRYOMAMBA_JOB_SPEC`: the resource's spec as JSON;
- `CRYOMAMBA_POD_UID`: its own, which `status.podUid` must show before a report is accepted;
- `CRYOMAMBA_SCRATCH`: an empty folder, the only one besides /dev/shm that it may write to (also HOME and TMPDIR);
- the keys of the Secret that `bucket_secret` names;
- a token of the pods' service account, whose one right is to patch the status of its own resource.

The number of the attempt is not among it, because all pods of a Job share one template: it is `status.attempt`, which
the API server returns with the first report that it accepts. The last word is the termination message: a `Failure` as
JSON.
"""

from typing import Any

from cryomamba_crds.failures import ExitCode
from cryomamba_crds.owners import OWNER_LABEL
from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.names import (
    GPU_RESOURCE,
    JOB_LABEL,
    MANAGED_BY,
    MANAGED_BY_LABEL,
    QUEUE_LABEL,
    RUNNER_CONTAINER,
)
from cryomamba_operator.settings import Settings

Manifest = dict[str, Any]

SCRATCH = "/scratch"
_USER = 65532  # any but root; the same everywhere, so that files on a shared model cache have one owner


def job_manifest(record: SegmentationJob, settings: Settings, template: Manifest, *, attempts: int) -> Manifest:
    """Return the Job of a record.

    Args:
        record: As the API server gave it; its uid goes into the owner reference.
        settings: What all jobs of the installation share.
        template: Parts of a pod template that are merged over the operator's own (see `merged`).
        attempts: How many attempts may fail before the Job does; at least 1.
    """
    metadata, spec = record.metadata, record.spec
    labels = {MANAGED_BY_LABEL: MANAGED_BY, JOB_LABEL: metadata.name}
    if owner := metadata.labels.get(OWNER_LABEL):
        labels[OWNER_LABEL] = owner
    queue = {QUEUE_LABEL: spec.queue_name} if spec.queue_name else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": metadata.name,
            "namespace": metadata.namespace,
            "labels": {**labels, **queue},
            "ownerReferences": [
                {
                    "apiVersion": record.api_version,
                    "kind": record.kind,
                    "name": metadata.name,
                    "uid": metadata.uid,
                    "controller": True,
                },
            ],
        },
        "spec": {
            "backoffLimit": attempts - 1,
            # A pod that may still be running on a node that does not answer is not given a rival.
            "podReplacementPolicy": "Failed",
            "podFailurePolicy": {
                "rules": [
                    # The first rule that matches wins, and a disrupted runner may end with any code.
                    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
                    {
                        "action": "FailJob",
                        "onExitCodes": {
                            "containerName": RUNNER_CONTAINER,
                            "operator": "In",
                            "values": [int(ExitCode.FAILED)],
                        },
                    },
                ],
            },
            "template": merged({"metadata": {"labels": labels}, "spec": _pod_spec(record, settings)}, template),
        },
    }


def merged(base: Manifest, override: Manifest) -> Manifest:
    """Return `base` with an override laid over it.

    Maps are merged key by key, lists whose items all have a name (containers, volumes, env) item by item; any other
    list or value is replaced.
    """
    result = dict(base)
    for key, value in override.items():
        mine = result.get(key)
        if isinstance(mine, dict) and isinstance(value, dict):
            result[key] = merged(mine, value)
        elif _named(mine) and _named(value):
            items = {item["name"]: item for item in mine or []}
            for item in value:
                items[item["name"]] = merged(items.get(item["name"], {}), item)
            result[key] = list(items.values())
        else:
            result[key] = value
    return result


def _named(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, dict) and "name" in item for item in value)


def _pod_spec(record: SegmentationJob, settings: Settings) -> Manifest:
    spec: Manifest = {
        "restartPolicy": "Never",
        "serviceAccountName": settings.service_account,
        "automountServiceAccountToken": True,
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": settings.stop_seconds,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "runAsGroup": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [_runner(record, settings)],
        "volumes": [
            {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch_size}},
            {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory_size}},
        ],
    }
    if settings.image_pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in settings.image_pull_secrets]
    if record.spec.priority_class_name:
        spec["priorityClassName"] = record.spec.priority_class_name
    if record.spec.resources.gpus:
        spec["tolerations"] = [{"key": GPU_RESOURCE, "operator": "Exists", "effect": "NoSchedule"}]
    return spec


def _runner(record: SegmentationJob, settings: Settings) -> Manifest:
    resources = record.spec.resources
    limits: Manifest = {"memory": resources.memory}
    if resources.gpus:
        limits[GPU_RESOURCE] = str(resources.gpus)
    container: Manifest = {
        "name": RUNNER_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": _environment(record),
        "resources": {"requests": {"cpu": resources.cpu, "memory": resources.memory}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Where the runner dies without a word, the end of its log says more than an exit code.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "scratch", "mountPath": SCRATCH},
            {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - a mount point, not a file of ours
        ],
    }
    if settings.bucket_secret:
        container["envFrom"] = [{"secretRef": {"name": settings.bucket_secret}}]
    return container


def _environment(record: SegmentationJob) -> list[Manifest]:
    values = {
        "CRYOMAMBA_JOB_NAME": record.metadata.name,
        "CRYOMAMBA_JOB_NAMESPACE": record.metadata.namespace,
        "CRYOMAMBA_JOB_UID": record.metadata.uid,
        # Kubernetes expands $(NAME) in values, and a user's words are among these.
        "CRYOMAMBA_JOB_SPEC": record.spec.model_dump_json(by_alias=True, exclude_none=True).replace("$", "$$"),
        "CRYOMAMBA_SCRATCH": SCRATCH,
        "HOME": SCRATCH,
        "TMPDIR": SCRATCH,
    }
    return [
        *({"name": name, "value": value} for name, value in values.items()),
        {"name": "CRYOMAMBA_POD_UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]
