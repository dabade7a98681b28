"""Why the scheduler has not placed a pod. Its words: kubernetes/pkg/scheduler/framework/types.go, FitError.Error."""

import re
from collections.abc import Collection

from cryomamba_crds.failures import FailureCode
from cryomamba_operator.diagnose.finding import Finding, Patience, finding
from cryomamba_operator.names import GPU_RESOURCE

_INSUFFICIENT = re.compile(r"Insufficient ([A-Za-z0-9./-]*[A-Za-z0-9])")
_PASSING = "node.kubernetes.io/"
"""Kubernetes itself sets these taints while a node is not ready, under pressure or closed for maintenance."""
_NEVER_OURS = ("node-role.kubernetes.io/", GPU_RESOURCE)
"""Taints of control planes, whose nodes are not for jobs, and that of GPU nodes, which every job tolerates."""


def asks_for_taints(words: str) -> bool:
    """Return whether taints are in the way: the scheduler says so without naming them."""
    return "untolerated taint" in words


def unplaced(words: str, taints: Collection[str]) -> Finding:
    """Return why no node takes a pod.

    Args:
        words: The message of the pod's condition PodScheduled.
        taints: The keys of the nodes' taints, where `asks_for_taints`.
    """
    blockers, _, preemption = words.partition("preemption:")
    lacking = sorted(set(_INSUFFICIENT.findall(blockers)))
    # Where every node that lacks something would lack it even if it were empty, the scheduler does not look for
    # victims at all ("Preemption is not helpful"); where it looked for some, a node is big enough and busy.
    if lacking and ("not helpful" not in preemption or "No preemption victims" in preemption):
        return _busy(lacking)
    tainted = asks_for_taints(blockers)
    # Where there is no taint any more, a node has just come back.
    passing = tainted and (not taints or any(taint.startswith(_PASSING) for taint in taints))
    if passing or "were unschedulable" in blockers or "no nodes available" in blockers:
        return finding(
            "NodesUnavailable",
            FailureCode.SERVICE_UNAVAILABLE,
            "No node takes jobs at the moment: they are not ready or closed for maintenance.",
            "The job starts by itself as soon as one is back.",
            Patience.ENDLESS,
        )
    reserved = [taint for taint in taints if not taint.startswith(_NEVER_OURS)]
    if tainted and (names := sorted(reserved if lacking else reserved or taints)):
        return finding(
            "UntoleratedTaint",
            FailureCode.SERVICE_UNAVAILABLE,
            f"The nodes are reserved by a taint that the job does not tolerate: {', '.join(names)}.",
            "Whoever runs the cluster can add a toleration to the operator's pod template.",
            Patience.PLACEMENT,
        )
    if lacking:
        return _too_big(lacking, words)
    if "node affinity" in blockers or "node selector" in blockers:
        return finding(
            "NoNodeMatches",
            FailureCode.SERVICE_UNAVAILABLE,
            "No node has the labels that the operator's pod template asks for.",
            "Whoever runs the cluster can label a GPU node or correct the template.",
            Patience.PLACEMENT,
        )
    return finding(
        "Unschedulable",
        FailureCode.SERVICE_UNAVAILABLE,
        f"The cluster cannot place the job: {words}",
        "Ask whoever runs the cluster.",
        Patience.PLACEMENT,
    )


def _busy(lacking: list[str]) -> Finding:
    gpu = GPU_RESOURCE in lacking
    what = "GPUs are" if gpu else f"nodes' {' and '.join(lacking)} is"
    return finding(
        "GpuBusy" if gpu else "ClusterBusy",
        FailureCode.SERVICE_UNAVAILABLE,
        f"All {what} in use.",
        "The job starts by itself as soon as there is room.",
        Patience.ENDLESS,
    )


def _too_big(lacking: list[str], words: str) -> Finding:
    return finding(
        "TooBig",
        FailureCode.VALIDATION_ERROR,
        f"No node of the cluster has as much {' and '.join(lacking)} as the job asks for ({words.partition('.')[0]}).",
        "Ask for less in spec.resources, or for a node that has it.",
        Patience.PLACEMENT,
    )
