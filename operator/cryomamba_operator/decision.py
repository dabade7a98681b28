"""What is known about a record and what is to be done about it: the words in which `decide` and `attempt` speak."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal

from cryomamba_crds.failures import FailureCode
from cryomamba_crds.ids import Key
from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.diagnose import Finding, Patience
from cryomamba_operator.observe import EventFacts, JobFacts, PodFacts, current_pod
from cryomamba_operator.status import Aspect, Situation, since


@dataclass(frozen=True, slots=True)
class Bounds:
    """The operator's own limits."""

    max_disruptions: int
    configuration_grace: timedelta
    placement_grace: timedelta


@dataclass(frozen=True, slots=True)
class View:
    """All that is known about one record at one moment."""

    record: SegmentationJob
    job: JobFacts | None
    """The Job of the record's name, whoever made it."""
    pods: Sequence[PodFacts]
    events: Sequence[EventFacts]
    """Warnings about the object that `observe.unexplained` names."""
    taints: Sequence[str]
    """The keys of the nodes' taints, where the scheduler says that taints are in the way."""
    now: datetime
    granted: bool
    """Whether it is the record's turn to have a Job."""
    blocked_until: datetime | None
    """Set while a record that cannot have a Job has to wait before it asks again."""
    bounds: Bounds

    @property
    def key(self) -> Key:
        """Which record."""
        return Key(self.record.metadata.namespace or "", self.record.metadata.name)

    @property
    def pod(self) -> PodFacts | None:
        """The pod of the current attempt."""
        return current_pod(self.job, self.pods) if self.job else None

    @property
    def failed_attempts(self) -> int:
        """How many attempts are used up; disrupted ones are not."""
        status = self.record.status
        return ((status.attempt or 0) - (status.disruptions or 0)) if status else 0


@dataclass(frozen=True, slots=True)
class Decision:
    """What is to be done: at most one create or delete, and what the status is to say.

    A Job is made before the status says so (it is found again if the status cannot be written), and deleted after the
    status says why (whoever comes next deletes it if this one cannot).
    """

    situation: Situation | None = None
    create_with_attempts: int | None = None
    delete_job: bool = False
    delete_record: bool = False
    blocked: bool = False
    """The record cannot have a Job now, and its turn goes to another."""
    come_back: datetime | None = None


def wait_or_fail(
    view: View, situation: Situation, condition: Literal["Scheduled", "Running"], finding: Finding
) -> Decision:
    """Say what keeps a condition from being true; fail with it once that has lasted longer than it is put up with."""
    grace = {
        Patience.NONE: timedelta(0),
        Patience.CONFIGURATION: view.bounds.configuration_grace,
        Patience.PLACEMENT: view.bounds.placement_grace,
        Patience.ENDLESS: None,
    }[finding.patience]
    busy = finding.failure.code is FailureCode.SERVICE_UNAVAILABLE and grace is None
    blocked = Aspect("False", finding.reason, finding.text, "Normal" if busy else "Warning")
    waiting = replace(
        situation,
        scheduled=blocked if condition == "Scheduled" else situation.scheduled,
        running=blocked if condition == "Running" else situation.running,
        succeeded=Aspect("Unknown", finding.reason),
    )
    if grace is None:
        return Decision(waiting)
    until = since(view.record, condition, finding.reason, view.now) + grace
    return failed(view, situation, finding) if view.now >= until else Decision(waiting, come_back=until)


def failed(view: View, situation: Situation, finding: Finding) -> Decision:
    """End the record with a finding, and its Job where that has not ended by itself."""
    return Decision(
        replace(
            situation,
            running=Aspect("False", finding.reason),
            succeeded=Aspect("False", finding.reason, finding.text, "Warning"),
            finished=Aspect("True", "Failed"),
            completed_at=view.now,
            failure=finding.failure,
        ),
        delete_job=view.job is not None and still_runs(view.job),
    )


def sooner(decision: Decision, time: datetime | None) -> Decision:
    """Let a record be looked at again at a time, or when the decision says so if that is before."""
    times = [moment for moment in (decision.come_back, time) if moment is not None]
    return replace(decision, come_back=min(times, default=None))


def still_runs(job: JobFacts) -> bool:
    """Return whether a Job would go on if it were left alone."""
    return not (job.ended or job.succeeded or job.failure or job.deleting)
