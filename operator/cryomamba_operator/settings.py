"""Settings of the operator, from the environment (`CRYOMAMBA_OPERATOR_…`), as the chart writes them."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

PREFIX = "CRYOMAMBA_OPERATOR_"
_QUANTITY = r"^[0-9]+(Mi|Gi|Ti)$"
_Words = Annotated[tuple[str, ...], NoDecode]
"""Given as one string, separated by commas."""


_Origin = Annotated[str, Field(pattern=r"^https?://[^/?#@]+/?$")]


class Settings(BaseSettings):
    """Only the image and the bucket, with the credentials for it, have no default."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="ignore")

    image: Annotated[str, Field(min_length=1)]
    """Of the runner."""
    image_pull_policy: Annotated[str, Field(pattern="^(IfNotPresent|Always|Never)$")] = "IfNotPresent"
    image_pull_secrets: _Words = ()
    namespaces: _Words = ()
    """Where to look for SegmentationJobs; none: everywhere."""
    service_account: str = "cryomamba-runner"
    """Of the pods; all that it may do is report their own progress."""
    device: Literal["auto", "cpu", "cuda"] | None = None
    """What runners compute on; None: a GPU where the job asks for one, else the CPU."""
    model_cache_claim: str | None = None
    """PersistentVolumeClaim in the jobs' namespaces where pods share unpacked models; None: each unpacks its own."""

    s3_endpoint: _Origin
    """URL of the object store as pods reach it."""
    s3_bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    s3_region: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_-]*$")] = "us-east-1"
    s3_path_style: bool = True
    """Whether the bucket is the first part of the path, or of the host's name."""
    s3_ca_file: Path | None = None
    """Certificates to trust in place of the system's; pods find the same under `ca.crt` of their Secret."""
    s3_credentials: Literal["sts", "shared"] = "sts"
    """`sts`: each job has temporary ones of its own; `shared`: all have those of one Secret, for stores without STS."""
    s3_access_key_file: Path | None = None
    s3_secret_key_file: Path | None = None
    """The operator's own, with which it asks for those of jobs; read anew each time. For `sts` only."""
    s3_sts_endpoint: _Origin | None = None
    """Where to ask; None: the object store itself."""
    s3_role_arn: str | None = None
    """Of the role that jobs assume; AWS wants one, MinIO does not."""
    s3_credentials_seconds: Annotated[int, Field(ge=900, le=604800)] = 43200
    """For how long a job's credentials are good; they are renewed at half of it."""
    shared_secret: str | None = None
    """Name of the Secret in the jobs' namespaces, with `access_key`, `secret_key` and what else
    `cryomamba_crds.pod` names. For `shared` only."""
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

    @field_validator("s3_endpoint", "s3_sts_endpoint")
    @classmethod
    def _without_slash(cls, value: str | None) -> str | None:
        return value.rstrip("/") if value else value

    @model_validator(mode="after")
    def _has_credentials(self) -> Self:
        needed = {
            "sts": ("s3_access_key_file", "s3_secret_key_file"),
            "shared": ("shared_secret",),
        }[self.s3_credentials]
        for name in needed:
            if getattr(self, name) is None:
                raise ValueError(
                    f"{variable(name)} is needed where {variable('s3_credentials')} is {self.s3_credentials}"
                )
        return self


def variable(setting: str) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + setting.upper()


def told(error: ValidationError) -> str:
    """Return what is wrong with the settings, by the names of their variables and without their values."""
    return "; ".join(
        f"{variable('.'.join(map(str, item['loc'])))}: {item['msg']}" if item["loc"] else item["msg"]
        for item in error.errors(include_input=False, include_url=False)
    )


def read_file_setting(setting: str, path: Path) -> str:
    """Return the text of a file that a setting names, without white space around it.

    Raises:
        ValueError: It cannot be read or is empty; the text names the setting.
    """
    try:
        text = path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{variable(setting)}: {path} cannot be read ({type(error).__name__})") from None
    if not text:
        raise ValueError(f"{variable(setting)}: {path} is empty")
    return text


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
