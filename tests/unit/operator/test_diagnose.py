"""Every way a pod can fail, from what Kubernetes 1.34 writes about it to a reason and a failure."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cryomamba_operator.diagnose import Patience
from cryomamba_operator.diagnose.ended import attempt_failed, last_word, lost
from cryomamba_operator.diagnose.placement import unplaced
from cryomamba_operator.diagnose.refused import pod_refused, refusal
from cryomamba_operator.diagnose.starting import not_starting
from cryomamba_operator.observe import Ended, EventFacts, PodFacts, pod_facts

Raw = dict[str, Any]
Make = Callable[..., Raw]

ENDED = {
    "runner's own word": (
        {
            "state": {
                "terminated": {
                    "exitCode": 70,
                    "reason": "Error",
                    "message": json.dumps(
                        {
                            "code": "NOT_FOUND",
                            "message": "The model membranes is not in the store.",
                            "hint": "Push it with `cryomamba models push`.",
                            "retryable": False,
                            "details": {"key": "models/membranes/model.zip"},
                        }
                    ),
                }
            }
        },
        ("NotFound", "NOT_FOUND", Patience.ENDLESS, "The model membranes is not in the store."),
    ),
    "last word of a runner whose child was killed": (
        {
            "state": {
                "terminated": {
                    "exitCode": 75,
                    "reason": "OOMKilled",
                    "message": '{"code":"OUT_OF_MEMORY","message":"A worker died.","hint":"More.","retryable":true}',
                }
            }
        },
        ("OutOfMemory", "OUT_OF_MEMORY", Patience.ENDLESS, "A worker died."),
    ),
    "out of memory, first process killed": (
        {"state": {"terminated": {"exitCode": 137, "reason": "OOMKilled"}}},
        ("OutOfMemory", "OUT_OF_MEMORY", Patience.NONE, "more than its 16Gi of memory"),
    ),
    "out of memory, only a child killed": (
        {"state": {"terminated": {"exitCode": 1, "reason": "OOMKilled"}}},
        ("OutOfMemory", "OUT_OF_MEMORY", Patience.NONE, "more than its 16Gi of memory"),
    ),
    "scratch over its limit, which is no disruption": (
        {"reason": "Evicted", "message": 'Usage of EmptyDir volume "scratch" exceeds the limit "50Gi". '},
        ("ScratchFull", "INSUFFICIENT_STORAGE", Patience.NONE, 'volume "scratch" exceeds the limit'),
    ),
    "evicted by a node short of memory": (
        {
            "reason": "Evicted",
            "message": "The node was low on resource: memory. Threshold quantity: 100Mi, available: 80Mi.",
            "conditions": [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "TerminationByKubelet",
                    "message": "The node was low on resource: memory.",
                }
            ],
        },
        ("Disrupted", "SERVICE_UNAVAILABLE", Patience.ENDLESS, "TerminationByKubelet"),
    ),
    "preempted": (
        {
            "conditions": [
                {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "PreemptionByScheduler",
                    "message": "default-scheduler: preempting to accommodate a higher priority pod",
                }
            ],
            "state": {"terminated": {"exitCode": 70, "reason": "Error"}},
        },
        ("Disrupted", "SERVICE_UNAVAILABLE", Patience.ENDLESS, "PreemptionByScheduler"),
    ),
    "GPU gone between scheduling and start": (
        {
            "reason": "UnexpectedAdmissionError",
            "message": "Allocate failed due to no healthy devices present; cannot allocate unhealthy devices",
        },
        ("NodeRefused", "GPU_ERROR", Patience.ENDLESS, "no healthy devices"),
    ),
    "kubelet had fewer GPUs than the scheduler believed": (
        {"reason": "OutOfnvidia.com/gpu", "message": "Node didn't have enough resource: nvidia.com/gpu"},
        ("NodeRefused", "GPU_ERROR", Patience.ENDLESS, "enough resource: nvidia.com/gpu"),
    ),
    "node shut down": (
        {"reason": "Terminated", "message": "Pod was terminated in response to imminent node shutdown."},
        ("EndedByNode", "SERVICE_UNAVAILABLE", Patience.ENDLESS, "imminent node shutdown"),
    ),
    "deleted by hand": (
        {
            "metadata": {"deletionTimestamp": "2026-03-01T11:59:00Z"},
            "state": {"terminated": {"exitCode": 143, "reason": "Error"}},
        },
        ("PodDeleted", "SERVICE_UNAVAILABLE", Patience.ENDLESS, "Somebody deleted"),
    ),
    "no such command in the image": (
        {
            "state": {
                "terminated": {
                    "exitCode": 128,
                    "reason": "StartError",
                    "message": 'exec: "cryomamba-runner": executable file not found in $PATH',
                }
            }
        },
        ("RunnerNotFound", "INTERNAL_ERROR", Patience.NONE, "executable file not found"),
    ),
    "told to stop, by a signal": (
        {"state": {"terminated": {"exitCode": 75, "reason": "Error"}}},
        ("Interrupted", "SERVICE_UNAVAILABLE", Patience.ENDLESS, "exit code 75"),
    ),
    "killed from outside": (
        {"state": {"terminated": {"exitCode": 137, "reason": "Error"}}},
        ("Interrupted", "SERVICE_UNAVAILABLE", Patience.ENDLESS, "exit code 137"),
    ),
    "exit without a word": (
        {"state": {"terminated": {"exitCode": 1, "reason": "Error"}}},
        ("RunnerFailed", "INTERNAL_ERROR", Patience.ENDLESS, "ended with exit code 1 and said no reason."),
    ),
    "exit with a traceback as its last log lines": (
        {"state": {"terminated": {"exitCode": 1, "reason": "Error", "message": "Traceback ...\nKeyError: 'plans'\n"}}},
        ("RunnerFailed", "INTERNAL_ERROR", Patience.ENDLESS, "KeyError: 'plans'"),
    ),
    "failure with no container status at all": (
        {},
        ("NoTrace", "INTERNAL_ERROR", Patience.ENDLESS, "neither how nor why"),
    ),
}


@pytest.mark.parametrize(("pod", "expected"), ENDED.values(), ids=ENDED.keys())
def test_a_pod_that_ended_is_diagnosed(raw_pod: Make, pod: Raw, expected: tuple[str, str, Patience, str]) -> None:
    facts = pod_facts(raw_pod(phase="Failed", node="gpu-1", **pod))

    found = attempt_failed(facts, memory="16Gi")

    assert (found.reason, found.failure.code, found.patience) == expected[:3]
    assert expected[3] in found.failure.message
    assert found.failure.hint


@pytest.mark.parametrize(
    "message",
    ["", "Killed", "{", '{"code": "NO_SUCH_CODE"}', "null", "[]", '{"code":"NOT_FOUND","message":"cut at four kibi'],
)
def test_what_is_no_failure_as_json_is_no_last_word(message: str) -> None:
    assert last_word(Ended(exit_code=70, reason="Error", message=message)) is None


def test_a_long_message_is_cut_in_the_middle(raw_pod: Make) -> None:
    log = "first line " + "x" * 4000 + " last line"
    pod = pod_facts(raw_pod(phase="Failed", state={"terminated": {"exitCode": 1, "message": log}}))

    message = attempt_failed(pod, memory="16Gi").failure.message

    assert "first line" in message
    assert message.endswith("last line")
    assert len(message) < 600


def at(node: str) -> str:
    return f"0/2 nodes are available: {node}"


PLACEMENT = {
    "busy GPU": (
        at("2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 No preemption victims found for ")
        + "incoming pod.",
        [],
        ("GpuBusy", Patience.ENDLESS),
    ),
    "busy GPU beside a node without one": (
        at("2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 1 No preemption victims found for ")
        + "incoming pod, 1 Preemption is not helpful for scheduling.",
        [],
        ("GpuBusy", Patience.ENDLESS),
    ),
    "busy memory": (
        at(
            "2 Insufficient memory. preemption: 0/2 nodes are available: 2 No preemption victims found for incoming pod"
        ),
        [],
        ("ClusterBusy", Patience.ENDLESS),
    ),
    "more GPUs than any node has": (
        at("2 Insufficient nvidia.com/gpu. preemption: 0/2 nodes are available: 2 Preemption is not helpful for ")
        + "scheduling.",
        [],
        ("TooBig", Patience.PLACEMENT),
    ),
    "a taint nobody tolerates": (
        at("2 node(s) had untolerated taint(s). preemption: 0/2 nodes are available: 2 Preemption is not helpful."),
        ["dedicated", "node-role.kubernetes.io/control-plane"],
        ("UntoleratedTaint", Patience.PLACEMENT),
    ),
    "a GPU node behind a taint, beside a node without GPUs": (
        at(
            "1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s). preemption: 2 Preemption is not helpful"
        ),
        ["dedicated"],
        ("UntoleratedTaint", Patience.PLACEMENT),
    ),
    "a control plane and nothing else": (
        at("1 node(s) had untolerated taint(s). preemption: 1 Preemption is not helpful for scheduling."),
        ["node-role.kubernetes.io/control-plane"],
        ("UntoleratedTaint", Patience.PLACEMENT),
    ),
    "a node that has just been opened again": (
        at("1 node(s) had untolerated taint(s). preemption: 1 Preemption is not helpful for scheduling."),
        [],
        ("NodesUnavailable", Patience.ENDLESS),
    ),
    "too big for the workers, beside a control plane": (
        at(
            "1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s). preemption: 2 Preemption is not helpful"
        ),
        ["node-role.kubernetes.io/control-plane", "nvidia.com/gpu"],
        ("TooBig", Patience.PLACEMENT),
    ),
    "a GPU node that is not ready, beside a node without GPUs": (
        at(
            "1 Insufficient nvidia.com/gpu, 1 node(s) had untolerated taint(s). preemption: 2 Preemption is not helpful"
        ),
        ["node.kubernetes.io/unreachable", "dedicated"],
        ("NodesUnavailable", Patience.ENDLESS),
    ),
    "a node that is not ready": (
        at("1 node(s) had untolerated taint(s), 1 node(s) were unschedulable. preemption: 2 Preemption is not helpful"),
        ["node.kubernetes.io/not-ready"],
        ("NodesUnavailable", Patience.ENDLESS),
    ),
    "closed for maintenance": (
        at("2 node(s) were unschedulable. preemption: 0/2 nodes are available: 2 Preemption is not helpful for ")
        + "scheduling.",
        [],
        ("NodesUnavailable", Patience.ENDLESS),
    ),
    "no nodes at all": ("no nodes available to schedule pods", [], ("NodesUnavailable", Patience.ENDLESS)),
    "a selector that fits no node": (
        at("2 node(s) didn't match Pod's node affinity/selector. preemption: 0/2 nodes are available: 2 Preemption is ")
        + "not helpful for scheduling.",
        [],
        ("NoNodeMatches", Patience.PLACEMENT),
    ),
    "a missing volume claim": (
        at('persistentvolumeclaim "model-cache" not found. preemption: not eligible'),
        [],
        ("Unschedulable", Patience.PLACEMENT),
    ),
}


@pytest.mark.parametrize(("words", "taints", "expected"), PLACEMENT.values(), ids=PLACEMENT.keys())
def test_the_schedulers_words_are_understood(words: str, taints: list[str], expected: tuple[str, Patience]) -> None:
    found = unplaced(words, taints)

    assert (found.reason, found.patience) == expected


def test_what_a_node_lacks_is_named() -> None:
    words = at("2 Insufficient cpu, 2 Insufficient nvidia.com/gpu. preemption: 2 Preemption is not helpful")

    assert "as much cpu and nvidia.com/gpu as the job asks for" in unplaced(words, []).failure.message


REFUSALS = {
    "quota used up": (
        (
            'Error creating: pods "tomo-1-abcde" is forbidden: exceeded quota: gpus, requested: '
            "requests.nvidia.com/gpu=1, used: requests.nvidia.com/gpu=2, limited: requests.nvidia.com/gpu=2"
        ),
        ("QuotaExceeded", Patience.ENDLESS, "quota gpus"),
    ),
    "quota that is smaller than the request": (
        (
            'Error creating: pods "tomo-1-abcde" is forbidden: exceeded quota: gpus, requested: '
            "limits.memory=16Gi,requests.nvidia.com/gpu=4, used: limits.memory=0,requests.nvidia.com/gpu=0, limited: "
            "limits.memory=64Gi,requests.nvidia.com/gpu=2"
        ),
        ("LargerThanQuota", Patience.CONFIGURATION, "requests.nvidia.com/gpu 4 of at most 2."),
    ),
    "quota that wants limits": (
        'Error creating: pods "tomo-1-abcde" is forbidden: failed quota: q: must specify limits.cpu for: inference',
        ("QuotaNeedsLimits", Patience.CONFIGURATION, "limits.cpu for: inference"),
    ),
    "no service account": (
        (
            'Error creating: pods "tomo-1-" is forbidden: error looking up service account lab/cryomamba-runner: '
            'serviceaccount "cryomamba-runner" not found'
        ),
        ("NoServiceAccount", Patience.CONFIGURATION, "cryomamba-runner"),
    ),
    "no priority class": (
        'Error creating: pods "tomo-1-" is forbidden: no PriorityClass with name urgent was found',
        ("NoPriorityClass", Patience.CONFIGURATION, "priority class urgent."),
    ),
    "pod security": (
        (
            'Error creating: pods "tomo-1-abcde" is forbidden: violates PodSecurity "restricted:latest": privileged '
            '(container "inference" must not set securityContext.privileged=true)'
        ),
        ("PodSecurity", Patience.CONFIGURATION, "must not set securityContext.privileged=true"),
    ),
    "limit range": (
        'Error creating: pods "tomo-1-a" is forbidden: maximum memory usage per Container is 8Gi, but limit is 16Gi',
        ("LimitRange", Patience.CONFIGURATION, "bounds memory at 8Gi"),
    ),
    "somebody's webhook": (
        'Error creating: admission webhook "images.example" denied the request: unsigned image',
        ("PodRefused", Patience.CONFIGURATION, "unsigned image"),
    ),
}


@pytest.mark.parametrize(("words", "expected"), REFUSALS.values(), ids=REFUSALS.keys())
def test_a_refused_pod_is_diagnosed_from_the_event(words: str, expected: tuple[str, Patience, str]) -> None:
    events = [EventFacts("FailedCreate", words, datetime(2026, 3, 1, tzinfo=UTC))]

    found = pod_refused(events)

    assert found is not None
    assert (found.reason, found.patience) == expected[:2]
    assert expected[2] in found.failure.message
    assert refusal(words) == found


def test_the_latest_refusal_counts() -> None:
    noon = datetime(2026, 3, 1, 12, tzinfo=UTC)
    events = [
        EventFacts("FailedCreate", "no PriorityClass with name urgent was found", noon),
        EventFacts("FailedCreate", 'serviceaccount "a" not found', noon - timedelta(minutes=5)),
        EventFacts("BackoffLimitExceeded", "something else", noon + timedelta(minutes=5)),
    ]

    found = pod_refused(events)

    assert found is not None
    assert found.reason == "NoPriorityClass"


WAITING = {
    "ErrImagePull": "ImagePull",
    "ImagePullBackOff": "ImagePull",
    "ErrImageNeverPull": "ImagePull",
    "InvalidImageName": "ImageName",
    "CreateContainerConfigError": "PodConfiguration",
    "CreateContainerError": "PodConfiguration",
    "RunContainerError": "PodConfiguration",
    "SomethingNew": "NotStarting",
}


@pytest.mark.parametrize(("reason", "expected"), WAITING.items())
def test_a_container_that_cannot_start_is_diagnosed(raw_pod: Make, reason: str, expected: str) -> None:
    pod = pod_facts(raw_pod(node="gpu-1", state={"waiting": {"reason": reason, "message": "the cluster's words"}}))

    found = not_starting(pod, [])

    assert found is not None
    assert (found.reason, found.patience) == (expected, Patience.CONFIGURATION)
    assert "the cluster's words" in found.failure.message


def test_an_init_container_of_the_pod_template_is_looked_at_too(raw_pod: Make) -> None:
    pod = pod_facts(
        raw_pod(
            node="gpu-1",
            state={"waiting": {"reason": "PodInitializing"}},
            initContainerStatuses=[{"name": "warm", "state": {"waiting": {"reason": "ImagePullBackOff"}}}],
        )
    )

    found = not_starting(pod, [])

    assert found is not None
    assert found.reason == "ImagePull"


def test_a_pod_that_is_being_made_is_given_time(raw_pod: Make) -> None:
    pod = pod_facts(raw_pod(node="gpu-1", state={"waiting": {"reason": "ContainerCreating"}}))

    assert not_starting(pod, [EventFacts("Pulling", "Pulling image", None)]) is None


@pytest.mark.parametrize(
    "words",
    [
        'MountVolume.SetUp failed for volume "s3-credentials" : secret "bucket" not found',
        'MountVolume.SetUp failed for volume "s3-certificates" : references non-existent secret key: ca.crt',
    ],
)
def test_a_secret_that_is_missing_is_named_with_the_setting(raw_pod: Make, words: str) -> None:
    pod = pod_facts(raw_pod(node="gpu-1", state={"waiting": {"reason": "ContainerCreating"}}))

    found = not_starting(pod, [EventFacts("FailedMount", words, None)])

    assert found is not None
    assert (found.reason, found.patience) == ("SecretMissing", Patience.CONFIGURATION)
    assert words.rpartition(" : ")[2] in found.failure.message
    assert "CRYOMAMBA_OPERATOR_SHARED_SECRET" in found.failure.hint


def test_a_volume_that_cannot_be_mounted_is_named_from_the_events(raw_pod: Make) -> None:
    pod = pod_facts(raw_pod(node="gpu-1", state={"waiting": {"reason": "ContainerCreating"}}))

    found = not_starting(pod, [EventFacts("FailedMount", 'configmap "palette" not found', None)])

    assert found is not None
    assert found.reason == "VolumeNotMounted"
    assert 'configmap "palette" not found' in found.failure.message


@pytest.mark.parametrize(("overdue", "expected"), [(29, None), (30, "NodeLost")])
def test_a_node_is_lost_when_a_pods_deletion_is_long_overdue(
    raw_pod: Make, now: datetime, overdue: int, expected: str | None
) -> None:
    due = (now - timedelta(seconds=overdue)).isoformat()
    pod = pod_facts(raw_pod(phase="Running", node="gpu-1", metadata={"deletionTimestamp": due}))

    found = lost(pod, now)

    assert (found.reason if found else None) == expected
    if found:
        assert "kubectl taint node gpu-1 node.kubernetes.io/out-of-service=nodeshutdown:NoExecute" in found.failure.hint


def test_a_pod_that_has_ended_is_not_on_a_lost_node(raw_pod: Make, now: datetime) -> None:
    pod: PodFacts = pod_facts(
        raw_pod(phase="Failed", node="gpu-1", metadata={"deletionTimestamp": "2026-03-01T10:00:00Z"})
    )

    assert lost(pod, now) is None
