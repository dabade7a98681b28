"""What the operator itself ends or refuses: running time, disruptions, attempts, names that are taken, bad requests."""

from cryomamba_crds.failures import FailureCode
from cryomamba_crds.ids import Key
from cryomamba_operator.diagnose.finding import Finding, Patience, finding

NAME_IN_USE = frozenset({"JobNameTaken", "WaitingForCleanup"})
"""Reasons for which a record has no Job although it may be its turn; the watch does not show the Job in its way."""


def too_long(seconds: int, attempt: int) -> Finding:
    """An attempt has run for as long as it may."""
    return finding(
        "DeadlineExceeded",
        FailureCode.INFERENCE_ERROR,
        f"Attempt {attempt} ran for the {seconds} seconds that spec.activeDeadlineSeconds allows and was stopped.",
        "Submit the job again with a longer deadline, a larger tile step, fewer folds or without mirroring.",
        Patience.NONE,
    )


def too_many_disruptions(disruptions: int, last: str) -> Finding:
    """The cluster has taken the pod away more often than is put up with."""
    return finding(
        "DisruptedTooOften",
        FailureCode.SERVICE_UNAVAILABLE,
        f"The cluster took the job's pod away {disruptions} times. The last time: {last}",
        "Submit it again when the cluster is quieter, or with a priority class that is not preempted.",
        Patience.NONE,
    )


def job_deleted(attempts: int) -> Finding:
    """Somebody has deleted the Job, and there is no attempt left."""
    return finding(
        "JobDeleted",
        FailureCode.SERVICE_UNAVAILABLE,
        f"Somebody deleted the Kubernetes Job, and all {attempts} attempts are used up.",
        "Submit the job again; to stop one, set spec.desiredState to Cancelled.",
        Patience.NONE,
    )


def name_taken(key: Key) -> Finding:
    """A Job of this name exists and is not ours."""
    return finding(
        "JobNameTaken",
        FailureCode.CONFLICT,
        f"A Kubernetes Job named {key.name} that is not CryoMamba's exists in namespace {key.namespace}.",
        "It is left alone. Submit the job under another name, or remove the other Job.",
        Patience.ENDLESS,
    )


def left_over(key: Key) -> Finding:
    """The Job of a deleted record of the same name is still being collected."""
    return finding(
        "WaitingForCleanup",
        FailureCode.CONFLICT,
        f"The Kubernetes Job of an earlier SegmentationJob named {key.name} is still being removed.",
        "The job starts by itself as soon as it is gone.",
        Patience.ENDLESS,
    )


def invalid_job(words: str) -> Finding:
    """The API server finds the Job that we make malformed."""
    return finding(
        "JobInvalid",
        FailureCode.VALIDATION_ERROR,
        f"Kubernetes finds the Job malformed: {words}",
        "Correct spec.resources and submit it again; where the message names another field, whoever runs the cluster "
        "can correct the operator's pod template.",
        Patience.NONE,
    )
