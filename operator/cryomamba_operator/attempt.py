"""Decides what to do about a record whose Job is there and neither succeeded nor to be cancelled. Pure."""

from dataclasses import replace
from datetime import datetime, timedelta

from cryomamba_operator.decision import Decision, View, failed, sooner, wait_or_fail
from cryomamba_operator.diagnose import Finding, Patience
from cryomamba_operator.diagnose.bounds import too_long, too_many_disruptions
from cryomamba_operator.diagnose.ended import LOST_AFTER, attempt_failed, job_failed, lost
from cryomamba_operator.diagnose.placement import unplaced
from cryomamba_operator.diagnose.refused import pod_refused
from cryomamba_operator.diagnose.starting import not_starting
from cryomamba_operator.observe import JobFacts, PodFacts, look_again
from cryomamba_operator.status import Aspect, Situation, situation_of

_AWAY = frozenset({"Disrupted", "NodeLost"})
"""Reasons of the condition Running under which the current pod's disruption has been counted."""


def with_job(view: View, job: JobFacts) -> Decision:
    """Return what to do about a record whose own Job goes on, has failed or is being deleted by somebody."""
    pod = view.pod
    situation = replace(
        with_attempt(unstarted(situation_of(view.record)), pod),
        job_name=job.key.name,
        finished=Aspect("False", "InProgress"),
    )
    if job.failure is not None:
        return failed(view, situation, _last_failure(view, job))
    if job.deleting:
        return Decision(_retrying(situation, "Somebody deleted the Kubernetes Job; another follows when it is gone."))
    if pod is None:
        return _without_pod(view, job, situation)
    if pod.over or pod.deleting is not None:
        return _attempt_ended(view, situation, pod)
    if pod.started is not None:
        return _running(view, situation, pod)
    return _not_started(view, job, situation, pod)


def _last_failure(view: View, job: JobFacts) -> Finding:
    pod = view.pod
    if pod is not None and (pod.phase == "Failed" or pod.deleting is not None):
        return attempt_failed(pod, view.record.spec.resources.memory)
    return job_failed(job)


def _without_pod(view: View, job: JobFacts, situation: Situation) -> Decision:
    if job.suspended:
        scheduled = Aspect("False", "Suspended", "The Kubernetes Job is suspended: its queue has not admitted it yet.")
        return Decision(replace(situation, scheduled=scheduled, succeeded=Aspect("Unknown", "Suspended")))
    if (finding := pod_refused(view.events)) is not None:
        decision = wait_or_fail(view, situation, "Scheduled", finding)
    elif situation.pod_uid is None:
        decision = Decision(_pending(situation))
    else:
        decision = Decision(situation)  # between two attempts; what ended the last one stands
    return _with_another_look(view, job, decision)


def _attempt_ended(view: View, situation: Situation, pod: PodFacts) -> Decision:
    """A pod has ended, or is about to, and its Job has not drawn its conclusion yet."""
    if pod.phase == "Succeeded":
        return Decision(situation)
    if not pod.over and _is_too_long(view, pod):
        return _too_long(view, situation)
    finding = attempt_failed(pod, view.record.spec.resources.memory)
    if pod.disruption is not None and situation.running.reason not in _AWAY:
        situation = replace(situation, disruptions=(situation.disruptions or 0) + 1)
        if (situation.disruptions or 0) > view.bounds.max_disruptions:
            last = finding.failure.message
            return failed(view, situation, too_many_disruptions(situation.disruptions or 0, last))
    if finding.patience is Patience.NONE:
        return failed(view, situation, finding)
    if (unknown := lost(pod, view.now)) is not None:
        running = Aspect("Unknown", unknown.reason, unknown.text, "Warning")
        still = replace(situation, running=running, succeeded=Aspect("Unknown", unknown.reason))
        return Decision(still, come_back=_deadline(view, pod))
    overdue = None if pod.over or pod.deleting is None else pod.deleting + LOST_AFTER
    return Decision(_retrying(situation, finding.text, finding.reason), come_back=overdue)


def _running(view: View, situation: Situation, pod: PodFacts) -> Decision:
    if _is_too_long(view, pod):
        return _too_long(view, situation)
    where = f"on node {pod.node}"
    return Decision(
        replace(
            situation,
            scheduled=Aspect("True", "Scheduled", f"Placed {where}."),
            running=Aspect("True", "Running", f"Attempt {situation.attempt} runs {where}.", "Normal"),
            succeeded=Aspect("Unknown", "Running"),
            started_at=situation.started_at or pod.started,
        ),
        come_back=_deadline(view, pod),
    )


def _not_started(view: View, job: JobFacts, situation: Situation, pod: PodFacts) -> Decision:
    if pod.unschedulable is not None and pod.node is None:
        return wait_or_fail(view, situation, "Scheduled", unplaced(pod.unschedulable, view.taints))
    if pod.node is None:
        return Decision(_pending(situation))
    placed = replace(situation, scheduled=Aspect("True", "Scheduled", f"Placed on node {pod.node}."))
    if (finding := not_starting(pod, view.events)) is not None:
        return wait_or_fail(view, placed, "Running", finding)
    starting = Aspect("False", "Starting", f"Node {pod.node} fetches the runner's image and starts it.")
    decision = Decision(replace(placed, running=starting, succeeded=Aspect("Unknown", "Starting")))
    return _with_another_look(view, job, decision)


def _too_long(view: View, situation: Situation) -> Decision:
    return failed(view, situation, too_long(view.record.spec.active_deadline_seconds, situation.attempt or 1))


def with_attempt(situation: Situation, pod: PodFacts | None) -> Situation:
    """Count a pod that has not been seen before as an attempt, with nothing against it yet."""
    if pod is None or pod.uid == situation.pod_uid:
        return situation
    return replace(
        situation,
        pod_uid=pod.uid,
        attempt=(situation.attempt or 0) + 1,
        running=Aspect("False", "NotStarted"),
    )


def unstarted(situation: Situation) -> Situation:
    """Give a record without a status the first conditions; its Job may be there before it has any."""
    if situation.running.status != "Unknown" or situation.running.reason != "New":
        return situation
    return replace(
        situation,
        scheduled=Aspect("False", "Pending"),
        running=Aspect("False", "NotStarted"),
        finished=Aspect("False", "InProgress"),
    )


def _pending(situation: Situation) -> Situation:
    return replace(
        situation,
        scheduled=Aspect("False", "Pending", "The Kubernetes Job is made and waits for its pod."),
        succeeded=Aspect("Unknown", "Pending"),
    )


def _retrying(situation: Situation, message: str, reason: str = "Retrying") -> Situation:
    return replace(
        situation,
        running=Aspect("False", reason, message, "Warning"),
        succeeded=Aspect("Unknown", "Retrying"),
    )


def _deadline(view: View, pod: PodFacts) -> datetime | None:
    return pod.started + timedelta(seconds=view.record.spec.active_deadline_seconds) if pod.started else None


def _is_too_long(view: View, pod: PodFacts) -> bool:
    deadline = _deadline(view, pod)
    return deadline is not None and view.now >= deadline


def _with_another_look(view: View, job: JobFacts, decision: Decision) -> Decision:
    soon = look_again(job, view.pod)
    if soon is None or (decision.situation is not None and decision.situation.failure is not None):
        return decision
    return sooner(decision, view.now + soon)
