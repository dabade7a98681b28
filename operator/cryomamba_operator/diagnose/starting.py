"""Why a placed pod's container does not start: image, configuration, volumes."""

import re
from collections.abc import Iterable

from cryomamba_crds.failures import FailureCode
from cryomamba_operator.diagnose.finding import Finding, Patience, finding
from cryomamba_operator.observe import EventFacts, PodFacts, Waiting
from cryomamba_operator.settings import variable

_PULLING = {"ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull", "RegistryUnavailable", "SignatureValidationFailed"}
_NAMES = {"InvalidImageName", "ImageInspectError"}
_CONFIGURATION = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError", "PreCreateHookError"}
_NO_SECRET = re.compile(r'secret "[^"]+" not found|references non-existent secret key: \S+')
_SETTING_UP = {"FailedMount", "FailedAttachVolume", "FailedCreatePodSandBox", "FailedCreatePodContainer"}


def not_starting(pod: PodFacts, events: Iterable[EventFacts]) -> Finding | None:
    """Return what keeps a placed pod from starting, or None where it is merely on its way (pulling 6 GB takes time).

    Args:
        pod: The job's pod.
        events: Warnings about it; needed only where it has no word of its own (`observe.unexplained`).
    """
    if pod.waiting is not None:
        return _waiting(pod.waiting)
    trouble = [event for event in events if event.reason in _SETTING_UP]
    if not trouble:
        return None
    latest = max(trouble, key=lambda event: event.last_seen.timestamp() if event.last_seen else 0.0)
    if (secret := _NO_SECRET.search(latest.message)) is not None:
        return finding(
            "SecretMissing",
            FailureCode.INTERNAL_ERROR,
            f"The pod mounts a Secret that is not there, or lacks a key: {secret.group()}.",
            "Whoever runs the cluster can make it in the job's namespace; the name of the one with the object store's "
            f"credentials is {variable('shared_secret')}, where the operator does not make one for each job.",
            Patience.CONFIGURATION,
        )
    return finding(
        "VolumeNotMounted" if "Mount" in latest.reason or "Attach" in latest.reason else "SandboxNotMade",
        FailureCode.INTERNAL_ERROR,
        f"The job's pod cannot be set up on node {pod.node}: {latest.message}",
        "Whoever runs the cluster can look at the node's kubelet; where the volume is one of the operator's pod "
        "template, at its name.",
        Patience.CONFIGURATION,
    )


def _waiting(waiting: Waiting) -> Finding:
    if waiting.reason in _PULLING:
        return finding(
            "ImagePull",
            FailureCode.INTERNAL_ERROR,
            f"The runner's image cannot be fetched ({waiting.reason}): {waiting.message}",
            "Whoever runs the cluster can check the image's name, the registry and its pull secret.",
            Patience.CONFIGURATION,
        )
    if waiting.reason in _NAMES:
        return finding(
            "ImageName",
            FailureCode.INTERNAL_ERROR,
            f"The name of the runner's image is no valid one ({waiting.reason}): {waiting.message}",
            "Whoever runs the cluster can correct the image in the chart's values.",
            Patience.CONFIGURATION,
        )
    if waiting.reason in _CONFIGURATION:
        return finding(
            "PodConfiguration",
            FailureCode.INTERNAL_ERROR,
            f"The runner's container cannot be made ({waiting.reason}): {waiting.message}",
            "Whoever runs the cluster can check the operator's pod template, and the Secrets and ConfigMaps it names.",
            Patience.CONFIGURATION,
        )
    return finding(
        "NotStarting",
        FailureCode.INTERNAL_ERROR,
        f"The runner's container does not start ({waiting.reason}): {waiting.message}",
        "Ask whoever runs the cluster.",
        Patience.CONFIGURATION,
    )
