"""Decides what to do about one record. Pure: from the record, its Job, its Pods, Events and the time to a decision."""

from dataclasses import replace
from datetime import timedelta

from cryomamba_crds.resource import DesiredState
from cryomamba_operator.attempt import unstarted, with_attempt, with_job
from cryomamba_operator.decision import Decision, View, failed, sooner, still_runs, wait_or_fail
from cryomamba_operator.diagnose import Finding
from cryomamba_operator.diagnose.bounds import NAME_IN_USE, job_deleted, left_over, name_taken
from cryomamba_operator.observe import JobFacts, is_left_over, is_ours
from cryomamba_operator.status import Aspect, is_finished, situation_of

_BEFORE_A_TRY = frozenset({"New", "Pending", "Queued"}) | NAME_IN_USE
"""Reasons of the condition Scheduled that do not come from a Job that was refused."""
_BLOCKED = timedelta(seconds=5)
"""How soon is looked again at what no watch tells of: a Job that is not ours, an object store."""


def decide(view: View) -> Decision:
    """Return what to do about a record."""
    if view.record.metadata.deletion_timestamp is not None:
        return Decision()  # garbage collection takes its Job
    if is_finished(view.record):
        return _after_the_end(view)
    if view.job is not None and not is_ours(view.job, view.record.metadata.uid or ""):
        return _name_in_use(view, view.job)
    if view.record.spec.desired_state is DesiredState.CANCELLED:
        return _cancelled(view)  # also where the Job has succeeded and nobody has been told: what was asked for holds
    if view.job is not None and view.job.succeeded:
        return _succeeded(view, view.job)
    return with_job(view, view.job) if view.job is not None else _without_job(view)


def refuse(view: View, finding: Finding) -> Decision:
    """Return what to do where the API server has refused the Job itself."""
    decision = wait_or_fail(view, unstarted(situation_of(view.record)), "Scheduled", finding)
    if decision.situation is not None and decision.situation.failure is not None:
        return decision
    return replace(decision, blocked=True, come_back=view.now + _BLOCKED)


def wait_for_credentials(view: View, finding: Finding) -> Decision:
    """Return what to do where there are no credentials for a job: what keeps it waiting keeps all others, too.

    It keeps its turn, so that a store that is away or a wrong key does not fail the whole queue one after the other.
    """
    decision = wait_or_fail(view, unstarted(situation_of(view.record)), "Scheduled", finding)
    if decision.situation is not None and decision.situation.failure is not None:
        return decision
    return sooner(decision, view.now + _BLOCKED)


def _after_the_end(view: View) -> Decision:
    job, record = view.job, view.record
    situation = situation_of(record)  # what changes is observedGeneration
    if job is not None and is_ours(job, record.metadata.uid or "") and still_runs(job):
        return Decision(situation, delete_job=True)
    time_to_live, completed = record.spec.ttl_seconds_after_finished, situation.completed_at
    if time_to_live is None or completed is None:
        return Decision(situation)
    expires = completed + timedelta(seconds=time_to_live)
    if view.now >= expires:
        return Decision(delete_record=True)
    return Decision(situation, come_back=expires)


def _name_in_use(view: View, job: JobFacts) -> Decision:
    uid = view.record.metadata.uid or ""
    if view.record.spec.desired_state is DesiredState.CANCELLED:
        return _cancelled(replace(view, job=None))
    finding = left_over(view.key) if is_left_over(job, uid) else name_taken(view.key)
    decision = wait_or_fail(view, unstarted(situation_of(view.record)), "Scheduled", finding)
    return replace(decision, blocked=True, come_back=view.now + _BLOCKED)


def _succeeded(view: View, job: JobFacts) -> Decision:
    situation = with_attempt(situation_of(view.record), view.pod)
    attempts = f"Attempt {situation.attempt} succeeded." if situation.attempt else "The job succeeded."
    return Decision(
        replace(
            situation,
            job_name=job.key.name,
            scheduled=Aspect("True", "Scheduled", situation.scheduled.message),
            running=Aspect("False", "Succeeded"),
            succeeded=Aspect("True", "Succeeded", attempts, "Normal"),
            finished=Aspect("True", "Succeeded"),
            started_at=situation.started_at or (view.pod.started if view.pod else None),
            completed_at=job.completed or view.now,
        )
    )


def _cancelled(view: View) -> Decision:
    situation = unstarted(situation_of(view.record))
    return Decision(
        replace(
            situation,
            running=Aspect("False", "Cancelled"),
            succeeded=Aspect("False", "Cancelled", "spec.desiredState asked for it.", "Normal"),
            finished=Aspect("True", "Cancelled"),
            completed_at=view.now,
        ),
        delete_job=view.job is not None and still_runs(view.job),
    )


def _without_job(view: View) -> Decision:
    spec, situation = view.record.spec, situation_of(view.record)
    if situation.job_name is not None and view.failed_attempts >= spec.max_attempts:
        return failed(view, situation, job_deleted(view.failed_attempts))
    if view.blocked_until is not None:
        return Decision(situation, come_back=view.blocked_until)
    if not view.granted:
        if situation.job_name is None and situation.scheduled.reason not in _BEFORE_A_TRY:
            return Decision(situation)  # why it has no Job stands, and since when, until it is tried again
        return Decision(
            replace(
                situation,
                scheduled=Aspect("False", "Queued", "Waits for its turn; other jobs come first."),
                running=Aspect("False", "NotStarted"),
                succeeded=Aspect("Unknown", "Queued"),
                finished=Aspect("False", "InProgress"),
            )
        )
    again = situation.job_name is not None
    return Decision(
        replace(
            situation,
            job_name=view.key.name,
            scheduled=Aspect("False", "Pending", "The Kubernetes Job is made and waits for its pod."),
            running=Aspect("False", "Retrying", "The Kubernetes Job had been deleted and was made again.", "Warning")
            if again
            else Aspect("False", "NotStarted"),
            succeeded=Aspect("Unknown", "Retrying" if again else "Pending"),
            finished=Aspect("False", "InProgress"),
        ),
        create_with_attempts=spec.max_attempts - view.failed_attempts,
    )
