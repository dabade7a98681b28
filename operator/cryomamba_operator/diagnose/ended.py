"""Why a pod that ran, or was about to, has ended without success."""

from datetime import datetime, timedelta

from pydantic import ValidationError

from cryomamba_crds.failures import ExitCode, Failure, FailureCode
from cryomamba_operator.diagnose.finding import Finding, Patience, finding, shortened
from cryomamba_operator.observe import Ended, JobFacts, PodFacts

LOST_AFTER = timedelta(seconds=30)
"""So long after a pod's own grace period nobody but a dead kubelet keeps it from ending."""
_KILLED, _TERMINATED, _NOT_STARTED = 137, 143, {126, 127, 128}
_LOG = 400


def last_word(ended: Ended) -> Failure | None:
    """Return the failure that the runner wrote as its termination message; None where it wrote none.

    What a pod writes is never trusted to be well-formed: Kubernetes cuts it at 4 KiB, and anybody's image may run.
    """
    try:
        return Failure.model_validate_json(ended.message)
    except ValidationError:
        return None


def attempt_failed(pod: PodFacts, memory: str) -> Finding:
    """Return why a pod ended without success.

    Args:
        pod: A pod that has failed, or that is being deleted.
        memory: `spec.resources.memory`, to name it where it was not enough.
    """
    if pod.disruption is not None:
        return _disrupted(pod.disruption.reason, pod.disruption.message)
    if pod.ended is not None and (word := last_word(pod.ended)) is not None:
        reason = word.code.replace("_", " ").title().replace(" ", "")
        return finding(reason, word.code, word.message, word.hint, Patience.ENDLESS, retryable=word.retryable)
    if pod.reason:
        return _ended_by_kubelet(pod)
    if pod.ended is not None and pod.ended.reason == "OOMKilled":
        return finding(
            "OutOfMemory",
            FailureCode.OUT_OF_MEMORY,
            f"The job used more than its {memory} of memory and was stopped.",
            "Submit it again with more in spec.resources.memory, or without saveProbabilities.",
            Patience.NONE,
        )
    if pod.deleting is not None:
        return finding(
            "PodDeleted",
            FailureCode.SERVICE_UNAVAILABLE,
            f"Somebody deleted the job's pod {pod.name} while it ran.",
            "Another attempt starts by itself as long as spec.maxAttempts allows one.",
            Patience.ENDLESS,
        )
    return _ended_by_itself(pod)


def lost(pod: PodFacts, now: datetime) -> Finding | None:
    """Return that a pod is on a node that answers no more, where its deletion is long overdue."""
    if pod.deleting is None or pod.over or now - pod.deleting < LOST_AFTER:
        return None
    return finding(
        "NodeLost",
        FailureCode.SERVICE_UNAVAILABLE,
        f"Node {pod.node} does not answer, and whether pod {pod.name} still runs there is unknown.",
        "Whoever runs the cluster can bring the node back, or, once it is certainly off, free the job with "
        f"`kubectl taint node {pod.node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute`.",
        Patience.ENDLESS,
    )


def job_failed(job: JobFacts) -> Finding:
    """Return what a failed Job says of itself, where none of its pods is left to ask."""
    return finding(
        "JobFailed",
        FailureCode.INTERNAL_ERROR,
        f"The job's attempts failed, and no pod is left that says why ({job.failure}).",
        "Submit it again; whoever runs the cluster may find more in the node's logs.",
        Patience.NONE,
    )


def _disrupted(reason: str, message: str) -> Finding:
    return finding(
        "Disrupted",
        FailureCode.SERVICE_UNAVAILABLE,
        f"The cluster took the job's pod away ({reason}): {message}",
        "Another attempt starts by itself; it does not count against spec.maxAttempts.",
        Patience.ENDLESS,
    )


def _ended_by_kubelet(pod: PodFacts) -> Finding:
    words = f"({pod.reason}): {pod.message}"
    if pod.reason == "Evicted":
        if any(what in pod.message for what in ("emptyDir", "EmptyDir", "ephemeral")):
            return finding(
                "ScratchFull",
                FailureCode.INSUFFICIENT_STORAGE,
                f"The job used more scratch space than it may {words}",
                "Segment a smaller volume or do without saveProbabilities; whoever runs the cluster can raise the "
                "operator's scratch size.",
                Patience.NONE,
            )
        return finding(
            "Evicted",
            FailureCode.SERVICE_UNAVAILABLE,
            f"Node {pod.node} ran short of something and evicted the job {words}",
            "Another attempt starts by itself as long as spec.maxAttempts allows one.",
            Patience.ENDLESS,
        )
    if pod.reason == "UnexpectedAdmissionError" or pod.reason.startswith("OutOf"):
        return finding(
            "NodeRefused",
            FailureCode.GPU_ERROR,
            f"Node {pod.node} could not give the job what the scheduler promised {words}",
            "Another attempt starts by itself; if it happens again, the node's GPU device plugin needs attention.",
            Patience.ENDLESS,
        )
    return finding(
        "EndedByNode",
        FailureCode.SERVICE_UNAVAILABLE,
        f"Node {pod.node} ended the job {words}",
        "Another attempt starts by itself as long as spec.maxAttempts allows one.",
        Patience.ENDLESS,
    )


def _ended_by_itself(pod: PodFacts) -> Finding:
    ended = pod.ended
    if ended is None:
        return finding(
            "NoTrace",
            FailureCode.INTERNAL_ERROR,
            f"Pod {pod.name} failed, and Kubernetes says neither how nor why.",
            "Submit the job again; if it happens again, ask whoever runs the cluster.",
            Patience.ENDLESS,
        )
    log = f" Its last words: {shortened(ended.message.strip(), _LOG)}" if ended.message.strip() else ""
    if ended.exit_code in _NOT_STARTED:
        return finding(
            "RunnerNotFound",
            FailureCode.INTERNAL_ERROR,
            f"The runner's image has nothing that could be started (exit code {ended.exit_code}).{log}",
            "Whoever runs the cluster can correct the image in the chart's values.",
            Patience.NONE,
        )
    if ended.exit_code in {_KILLED, _TERMINATED, ExitCode.RETRYABLE}:
        return finding(
            "Interrupted",
            FailureCode.SERVICE_UNAVAILABLE,
            f"The runner was interrupted (exit code {ended.exit_code}).{log}",
            "Another attempt starts by itself as long as spec.maxAttempts allows one.",
            Patience.ENDLESS,
        )
    return finding(
        "RunnerFailed",
        FailureCode.INTERNAL_ERROR,
        f"The runner ended with exit code {ended.exit_code} and said no reason.{log}",
        "Submit the job again; if it fails again, send the job's id to whoever runs the cluster.",
        Patience.ENDLESS,
    )
