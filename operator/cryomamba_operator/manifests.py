"""Turns a SegmentationJob into the Kubernetes Job that runs it. Pure: no clock, no cluster.

What the runner's container is handed is named in `cryomamba_crds.pod`: which job it runs, the bucket, and files with
the credentials for it; and a token of the pods' service account, whose one right is to patch the status of its own
resource.

The number of the attempt is not among it, because all pods of a Job share one template: it is `status.attempt`, which
the API server returns with the first report that it accepts. The last word is the termination message: a `Failure` as
JSON.
"""

from pathlib import PurePosixPath
from typing import Any

from cryomamba_crds import pod
from cryomamba_crds.failures import ExitCode
from cryomamba_crds.owners import OWNER_LABEL
from cryomamba_crds.resource import SegmentationJob
from cryomamba_crds.task import S3Store
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

_MODEL_CACHE = "/model-cache"
_CREDENTIALS_VOLUME, _CERTIFICATES_VOLUME, _MODELS_VOLUME = "s3-credentials", "s3-certificates", "model-cache"
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
        "volumes": _volumes(record, settings),
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
    return {
        "name": RUNNER_CONTAINER,
        "image": settings.image,
        "imagePullPolicy": settings.image_pull_policy,
        "env": _environment(record, settings),
        "resources": {"requests": {"cpu": resources.cpu, "memory": resources.memory}, "limits": limits},
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        },
        # Where the runner dies without a word, the end of its log says more than an exit code.
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": _mounts(settings),
    }


def credentials_secret(job_name: str) -> str:
    """Return the name of the Secret with a job's own credentials."""
    return f"{job_name}-s3"


def _volumes(record: SegmentationJob, settings: Settings) -> list[Manifest]:
    secret = settings.shared_secret if settings.s3_credentials == "shared" else credentials_secret(record.metadata.name)
    volumes: list[Manifest] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": settings.scratch_size}},
        {"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": settings.shared_memory_size}},
        {"name": _CREDENTIALS_VOLUME, "secret": {"secretName": secret}},
    ]
    if settings.s3_ca_file:
        key = PurePosixPath(pod.CERTIFICATES).name
        volumes.append(
            {"name": _CERTIFICATES_VOLUME, "secret": {"secretName": secret, "items": [{"key": key, "path": key}]}}
        )
    if settings.model_cache_claim:
        volumes.append({"name": _MODELS_VOLUME, "persistentVolumeClaim": {"claimName": settings.model_cache_claim}})
    return volumes


def _mounts(settings: Settings) -> list[Manifest]:
    mounts: list[Manifest] = [
        {"name": "scratch", "mountPath": pod.SCRATCH},
        {"name": "shared-memory", "mountPath": "/dev/shm"},  # noqa: S108 - a mount point, not a file of ours
        {"name": _CREDENTIALS_VOLUME, "mountPath": pod.CREDENTIALS, "readOnly": True},
    ]
    if settings.s3_ca_file:
        folder = str(PurePosixPath(pod.CERTIFICATES).parent)
        mounts.append({"name": _CERTIFICATES_VOLUME, "mountPath": folder, "readOnly": True})
    if settings.model_cache_claim:
        mounts.append({"name": _MODELS_VOLUME, "mountPath": _MODEL_CACHE})
    return mounts


def _environment(record: SegmentationJob, settings: Settings) -> list[Manifest]:
    store = S3Store(
        endpoint=settings.s3_endpoint,
        bucket=settings.s3_bucket,
        region=settings.s3_region,
        path_style=settings.s3_path_style,
        ca_file=pod.CERTIFICATES if settings.s3_ca_file else None,
    )
    values = {
        pod.JOB_NAME: record.metadata.name,
        pod.JOB_NAMESPACE: record.metadata.namespace or "",
        pod.JOB_UID: record.metadata.uid or "",
        pod.JOB_SPEC: record.spec.model_dump_json(by_alias=True, exclude_none=True),
        pod.STORE: store.model_dump_json(exclude_none=True),
        pod.CREDENTIALS_VARIABLE: pod.CREDENTIALS,
        pod.SCRATCH_VARIABLE: pod.SCRATCH,
        pod.MODEL_CACHE_VARIABLE: _MODEL_CACHE if settings.model_cache_claim else f"{pod.SCRATCH}/models",
        "HOME": pod.SCRATCH,
        "TMPDIR": pod.SCRATCH,
    }
    if settings.device:
        values[pod.DEVICE] = settings.device
    return [
        # Kubernetes expands $(NAME) in values, and a user's words are among these.
        *({"name": name, "value": value.replace("$", "$$")} for name, value in values.items()),
        {"name": pod.POD_UID, "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
    ]
