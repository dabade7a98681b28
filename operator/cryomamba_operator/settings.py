"""Settings of the operator, from the environment (`CRYOMAMBA_OPERATOR_…`), as the chart writes them."""

from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import Field, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

_QUANTITY = r"^[0-9]+(Mi|Gi|Ti)$"
_Words = Annotated[tuple[str, ...], NoDecode]
"""Given as one string, separated by commas."""


class Settings(BaseSettings):
    """Only the image has no default."""

    model_config = SettingsConfigDict(env_prefix="CRYOMAMBA_OPERATOR_", frozen=True, extra="ignore")

    image: Annotated[str, Field(min_length=1)]
    """Of the runner."""
    image_pull_policy: Annotated[str, Field(pattern="^(IfNotPresent|Always|Never)$")] = "IfNotPresent"
    image_pull_secrets: _Words = ()
    namespaces: _Words = ()
    """Where to look for SegmentationJobs; none: everywhere."""
    service_account: str = "cryomamba-runner"
    """Of the pods; all that it may do is report their own progress."""
    bucket_secret: str | None = None
    """Name of a Secret in the job's namespace; its keys become environment variables of the runner."""
    scratch_size: Annotated[str, Field(pattern=_QUANTITY)] = "50Gi"
    shared_memory_size: Annotated[str, Field(pattern=_QUANTITY)] = "2Gi"
    """Of /dev/shm; what is used of it counts as the pod's memory."""
    stop_seconds: Annotated[int, Field(ge=1)] = 60
    """How long a runner has to save what it did after SIGTERM."""
    pod_template: Path | None = None
    """YAML file with parts of a pod template that are merged over the operator's own."""

    max_active_jobs: Annotated[int | None, Field(ge=1)] = None
    """How many Kubernetes Jobs exist at once; None: as many as the cluster has GPUs. Where Kueue queues, raise it."""
    max_disruptions: Annotated[int, Field(ge=0)] = 10
    configuration_grace_seconds: Annotated[int, Field(ge=0)] = 300
    """How long a wrong image, secret or quota is put up with."""
    placement_grace_seconds: Annotated[int, Field(ge=0)] = 1800
    """How long a job that no node could take is kept, for a node that may be on its way."""

    kubeconfig: Path | None = None
    """None: the service account of the operator's own pod."""
    workers: Annotated[int, Field(ge=1)] = 16
    """Reconciles at a time."""
    resync_seconds: Annotated[float, Field(gt=0)] = 300
    request_seconds: Annotated[float, Field(gt=0)] = 15
    """How long a request to the API server may take."""
    health_port: Annotated[int, Field(ge=0, le=65535)] = 8080
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 9090
    liveness_seconds: Annotated[float, Field(gt=0)] = 600
    """A key that has waited longer for a worker makes the operator unhealthy."""

    @field_validator("image_pull_secrets", "namespaces", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return tuple(filter(None, (word.strip() for word in value.split(",")))) if isinstance(value, str) else value


def read_pod_template(path: Path | None) -> dict[str, Any]:
    """Return the parts of a pod template that an administrator has set; none without a file.

    Raises:
        ValueError: The file is not YAML, or has more than the two parts that a pod template has.
    """
    if path is None:
        return {}
    try:
        template = yaml.safe_load(path.read_text()) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"the pod template {path} is not YAML: {error}") from error
    if not isinstance(template, dict) or not set(template) <= {"metadata", "spec"}:
        raise ValueError(f"the pod template {path} may have `metadata` and `spec`, nothing else")
    return template
