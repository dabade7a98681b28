"""What the operator has handed this pod, read from its environment. Pure."""

import ipaddress
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import TypeAdapter, ValidationError

from cryomamba_crds import pod
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.resource import SegmentationJobSpec
from cryomamba_crds.task import CheckpointParams, S3Store, Store
from cryomamba_inference.engine import Tuning
from cryomamba_inference.tuning import read_tuning

TERMINATION_LOG_VARIABLE = "CRYOMAMBA_TERMINATION_LOG"
TERMINATION_LOG = "/dev/termination-log"
"""Where Kubernetes looks for a container's last word."""
SERVICE_ACCOUNT_VARIABLE = "CRYOMAMBA_SERVICE_ACCOUNT"
SERVICE_ACCOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"
"""Where kubelet puts the pod's token and the API server's certificate."""

_Value = TypeVar("_Value")
_Device = Literal["auto", "cpu", "cuda"]
_STORE: TypeAdapter[Store] = TypeAdapter(Store)
_DEVICE: TypeAdapter[_Device] = TypeAdapter(_Device)


@dataclass(frozen=True)
class PodEnvironment:
    """All that the pod is told before it asks anybody."""

    job_name: str
    job_namespace: str
    job_uid: str
    pod_uid: str
    spec: SegmentationJobSpec
    store: Store
    device: _Device
    checkpoint: CheckpointParams
    scratch: Path
    model_cache: Path
    api_server: str
    """URL without a path."""
    service_account: Path
    tuning: Tuning


def read_environment(environment: Mapping[str, str]) -> PodEnvironment:
    """Return what the operator has handed over.

    Raises:
        FailureError: A variable is missing or wrong; the message names it.
    """
    spec = _parsed(pod.JOB_SPEC, environment, SegmentationJobSpec.model_validate_json)
    scratch = Path(_given(pod.SCRATCH_VARIABLE, environment))
    device: _Device = "cuda" if spec.resources.gpus else "cpu"
    if environment.get(pod.DEVICE):
        device = _parsed(pod.DEVICE, environment, _DEVICE.validate_python)
    checkpoint = CheckpointParams()
    if environment.get(pod.CHECKPOINT):
        checkpoint = _parsed(pod.CHECKPOINT, environment, CheckpointParams.model_validate_json)
    store = _parsed(pod.STORE, environment, _STORE.validate_json)
    if isinstance(store, S3Store):
        _given(pod.CREDENTIALS_VARIABLE, environment)
    return PodEnvironment(
        job_name=_given(pod.JOB_NAME, environment),
        job_namespace=_given(pod.JOB_NAMESPACE, environment),
        job_uid=_given(pod.JOB_UID, environment),
        pod_uid=_given(pod.POD_UID, environment),
        spec=spec,
        store=store,
        device=device,
        checkpoint=checkpoint,
        scratch=scratch,
        model_cache=Path(environment.get(pod.MODEL_CACHE_VARIABLE) or scratch / "models"),
        api_server=_api_server(environment),
        service_account=Path(environment.get(SERVICE_ACCOUNT_VARIABLE) or SERVICE_ACCOUNT),
        tuning=read_tuning(environment),
    )


def termination_log(environment: Mapping[str, str]) -> Path:
    """Return where the last word goes."""
    return Path(environment.get(TERMINATION_LOG_VARIABLE) or TERMINATION_LOG)


def _api_server(environment: Mapping[str, str]) -> str:
    host = _given("KUBERNETES_SERVICE_HOST", environment)
    port = environment.get("KUBERNETES_SERVICE_PORT_HTTPS") or _given("KUBERNETES_SERVICE_PORT", environment)
    try:
        bracketed = f"[{host}]" if ipaddress.ip_address(host).version == 6 else host  # noqa: PLR2004 - IPv6
    except ValueError:
        bracketed = host
    return f"https://{bracketed}:{port}"


def _given(name: str, environment: Mapping[str, str]) -> str:
    if not (value := environment.get(name)):
        raise _wrong(name, "is missing")
    return value


def _parsed(name: str, environment: Mapping[str, str], parse: Callable[[str], _Value]) -> _Value:
    try:
        return parse(_given(name, environment))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise _wrong(name, f"is not valid: {where + ': ' if where else ''}{first['msg']}") from None


def _wrong(name: str, what: str) -> FailureError:
    return FailureError(
        FailureCode.VALIDATION_ERROR,
        f"The pod's environment variable {name} {what}.",
        hint="The operator sets it; operator and runner's image must be of one version, and a pod template of the "
        "administrator's must not take it away.",
    )
