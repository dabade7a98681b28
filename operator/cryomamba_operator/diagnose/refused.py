"""Why Kubernetes makes no Job, or no pod for a Job: quota, service account, priority class, admission."""

import re
from collections.abc import Iterable

from cryomamba_crds.failures import FailureCode
from cryomamba_operator.diagnose.finding import Finding, Patience, finding
from cryomamba_operator.observe import EventFacts
from cryomamba_operator.quantities import parse_quantity

_QUOTA = re.compile(
    r"exceeded quota: (?P<name>[^,]+), requested: (?P<requested>.+?), used: (?P<used>.+?), limited: (?P<limited>.+)"
)
_AMOUNT = re.compile(r"([A-Za-z0-9./_-]+)=([0-9][0-9A-Za-z.]*)")


def pod_refused(events: Iterable[EventFacts]) -> Finding | None:
    """Return why a Job has no pod, from the Warning Events about it; there is no condition that says it."""
    creation = [event for event in events if event.reason == "FailedCreate"]
    if not creation:
        return None
    latest = max(creation, key=lambda event: event.last_seen.timestamp() if event.last_seen else 0.0)
    return refusal(latest.message)


def refusal(words: str) -> Finding:
    """Return what an API server's refusal of a pod or Job means, from its message."""
    if quota := _QUOTA.search(words):
        return _over_quota(quota)
    for pattern, reason, message, hint in _REFUSALS:
        if match := re.search(pattern, words):
            return finding(
                reason,
                FailureCode.INTERNAL_ERROR,
                message.format(*match.groups()),
                hint,
                Patience.CONFIGURATION,
            )
    return finding(
        "PodRefused",
        FailureCode.INTERNAL_ERROR,
        f"Kubernetes refuses to make the job's pod: {words}",
        "Ask whoever runs the cluster; the message names the rule that the pod breaks.",
        Patience.CONFIGURATION,
    )


_REFUSALS = [
    (
        r'no PriorityClass with name "?([^ "]+)"? was found',
        "NoPriorityClass",
        "The cluster has no priority class {0}.",
        "Submit the job with a priority class that `kubectl get priorityclasses` lists, or with none.",
    ),
    (
        r'error looking up service account [^ ]+: serviceaccount "([^"]+)" not found',
        "NoServiceAccount",
        "The service account {0} of CryoMamba's pods is missing in this namespace.",
        "Whoever runs the cluster can install CryoMamba's chart in the namespace, or name another one in its values.",
    ),
    (
        r'violates PodSecurity "([^"]+)": (.+)',
        "PodSecurity",
        "The namespace's pod security level {0} refuses the job's pod: {1}",
        "Whoever runs the cluster can correct the operator's pod template; without one the pod meets `restricted`.",
    ),
    (
        r"(?:maximum|minimum) ([a-z./-]+) usage per (?:Container|Pod) is ([^ ,]+)",
        "LimitRange",
        "The namespace's LimitRange bounds {0} at {1}.",
        "Ask for an amount within it in spec.resources.",
    ),
    (
        r"failed quota: ([^:]+): must specify (.+)",
        "QuotaNeedsLimits",
        "The namespace's quota {0} wants every container to state {1}.",
        "Whoever runs the cluster can add it to the operator's pod template.",
    ),
]


def _over_quota(quota: re.Match[str]) -> Finding:
    requested: dict[str, str] = dict(_AMOUNT.findall(quota["requested"]))
    limited: dict[str, str] = dict(_AMOUNT.findall(quota["limited"]))
    never = sorted(
        name for name, amount in requested.items() if parse_quantity(amount) > parse_quantity(limited.get(name, amount))
    )
    if never:
        wanted = ", ".join(f"{name} {requested[name]} of at most {limited[name]}" for name in never)
        return finding(
            "LargerThanQuota",
            FailureCode.VALIDATION_ERROR,
            f"The job asks for more than the quota {quota['name']} of this namespace ever allows: {wanted}.",
            "Ask for less in spec.resources, or ask whoever runs the cluster for a larger quota.",
            Patience.CONFIGURATION,
        )
    return finding(
        "QuotaExceeded",
        FailureCode.SERVICE_UNAVAILABLE,
        f"The quota {quota['name']} of this namespace is used up ({quota['used']} of {quota['limited']}).",
        "The job starts by itself when other jobs have finished.",
        Patience.ENDLESS,
    )
