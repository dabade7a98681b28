"""Brings one record a step forward: read what is known, decide, create, write the status, delete."""

import logging
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http import HTTPStatus
from typing import Any

from cryomamba_crds.ids import Key
from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.admission import Admission
from cryomamba_operator.announce import announcements, event_manifest
from cryomamba_operator.credentials import JobCredentials
from cryomamba_operator.decide import decide, refuse, wait_for_credentials
from cryomamba_operator.decision import Bounds, Decision, View, failed, sooner, still_runs
from cryomamba_operator.diagnose.bounds import NAME_IN_USE, invalid_job
from cryomamba_operator.diagnose.credentials import no_credentials, secret_name_taken
from cryomamba_operator.diagnose.placement import asks_for_taints
from cryomamba_operator.diagnose.refused import refusal
from cryomamba_operator.intake import DELETED, Intake
from cryomamba_operator.manifests import credentials_secret, job_manifest
from cryomamba_operator.metrics import Metrics
from cryomamba_operator.mirror import Mirror
from cryomamba_operator.observe import EventFacts, JobFacts, current_pod, is_ours, job_facts, unexplained
from cryomamba_operator.ports import Cluster, ConflictError, GoneError, RefusedError
from cryomamba_operator.queue import WorkQueue
from cryomamba_operator.recorder import Recorder
from cryomamba_operator.settings import Settings
from cryomamba_operator.status import Aspect, Situation, is_finished, situation_of, status_patch
from cryomamba_operator.sts import StsError, TemporaryCredentials

logger = logging.getLogger(__name__)

_MALFORMED = {HTTPStatus.BAD_REQUEST, HTTPStatus.UNPROCESSABLE_ENTITY}
_VANISHED = timedelta(seconds=1)
"""How soon to try again where a Job of the same name was there and is gone a moment later."""
_RENEWAL_PAUSE = timedelta(minutes=1)
"""Between tries to renew the credentials of a Job; those it has are good for hours more."""


@dataclass(frozen=True)
class Reconciler:
    """All that a reconcile needs; it keeps no state of its own."""

    cluster: Cluster
    mirror: Mirror
    intake: Intake
    admission: Admission
    queue: WorkQueue
    recorder: Recorder
    metrics: Metrics
    credentials: JobCredentials
    settings: Settings
    pod_template: Mapping[str, Any]
    clock: Callable[[], datetime]

    async def reconcile(self, key: Key) -> None:
        """Do what there is to be done about a record now, and arrange for it to be looked at again when time asks.

        Raises:
            UnavailableError: The API server cannot be reached.
            RefusedError: It refuses something that is nobody's fault; the queue tries again later.
        """
        with self.metrics.reconcile():
            now = self.clock()
            self.intake.grant(now, working_on=key)
            raw = self.mirror.record(key)
            if raw is None:
                self.queue.cancel_timer(key)
                self.credentials.forget(key)
                return
            record = SegmentationJob.model_validate(raw)
            view = await self._view(key, record, now)
            decision = decide(view)
            if decision.create_with_attempts is not None:
                decision = await self._create(view, decision, decision.create_with_attempts)
            elif view.job is not None and _goes_on(view, view.job, decision):
                decision = await self._renew(view, view.job, decision)
            elif is_finished(record):
                self.credentials.forget(key)
            if await self._write(view, decision):
                await self._delete(view, decision)
                self._arrange(view, decision)

    async def _view(self, key: Key, record: SegmentationJob, now: datetime) -> View:
        job = self.mirror.job(key)
        before = situation_of(record)
        foreign = job is not None and not is_ours(job, record.metadata.uid or "")
        expected = before.job_name is not None or before.scheduled.reason in NAME_IN_USE
        if foreign or (job is None and expected and not is_finished(record)):
            # That a Job is gone, or another one in its place, is not concluded from what a watch has or has not told.
            job = await self._read_job(record)
        pods = self.mirror.pods(key)
        events: list[EventFacts] = []
        taints: list[str] = []
        if job is not None and is_ours(job, record.metadata.uid or "") and not is_finished(record):
            pod = current_pod(job, pods)
            uid = unexplained(job, pod, now)
            events = await self.cluster.warnings_about(key.namespace, uid) if uid else []
            if pod is not None and asks_for_taints(pod.unschedulable or ""):
                taints = await self.cluster.taints()
        return View(
            record=record,
            job=job,
            pods=pods,
            events=events,
            taints=taints,
            now=now,
            granted=self.admission.has_place(key),
            blocked_until=self.admission.blocked_until(key, now),
            bounds=self._bounds(),
        )

    async def _create(self, view: View, decision: Decision, attempts: int) -> Decision:
        """Create the Job and return the decision, or another one where that did not work."""
        manifest = job_manifest(view.record, self.settings, dict(self.pod_template), attempts=attempts)
        try:
            credentials = await self._ask_for_credentials(view)
            made = await self.cluster.create_job(manifest)
        except StsError as error:
            return wait_for_credentials(view, no_credentials(error))
        except ConflictError:
            job = await self._read_job(view.record)
            if job is None:
                return Decision(come_back=view.now + _VANISHED)
            return decide(replace(view, job=job))
        except RefusedError as error:
            if error.status in _MALFORMED:
                return refuse(view, invalid_job(error.message))
            if error.status == HTTPStatus.FORBIDDEN:
                return refuse(view, refusal(error.message))
            raise
        self.intake.wrote_job(made)
        job = job_facts(made)
        return await self._deliver(replace(view, job=job), job, decision, credentials)

    async def _ask_for_credentials(self, view: View) -> TemporaryCredentials | None:
        try:
            credentials = await self.credentials.prepare(view.record)
        except StsError:
            self.metrics.credentials.labels("error").inc()
            raise
        if credentials is not None:
            self.metrics.credentials.labels("success").inc()
        return credentials

    async def _deliver(
        self, view: View, job: JobFacts, decision: Decision, credentials: TemporaryCredentials | None
    ) -> Decision:
        """Hand the pods of a Job their credentials and return the decision, or another one where that did not work."""
        try:
            await self.credentials.deliver(view.record, job.uid, credentials)
        except RefusedError as error:
            if error.status in _MALFORMED:  # its type is another one, which cannot be changed
                return failed(
                    view,
                    decision.situation or situation_of(view.record),
                    secret_name_taken(credentials_secret(view.key.name)),
                )
            raise
        return sooner(decision, self.credentials.due(view.record, job.uid))

    async def _renew(self, view: View, job: JobFacts, decision: Decision) -> Decision:
        """Renew the credentials of a Job that goes on, where it is time."""
        due = self.credentials.due(view.record, job.uid)
        if due is None or due > view.now:
            return sooner(decision, due)
        try:
            credentials = await self._ask_for_credentials(view)
        except StsError as error:
            # No reason to end what runs: what it has may be good for hours, and the runner says when it is not.
            finding = no_credentials(error)
            logger.warning("%s: the credentials cannot be renewed: %s", view.key, finding.text)
            aspect = Aspect("Unknown", finding.reason, finding.text, "Warning")
            self.recorder.record(event_manifest(view.record, aspect, view.now, secrets.token_hex(8)))
            return sooner(decision, view.now + _RENEWAL_PAUSE)
        return await self._deliver(view, job, decision, credentials)

    async def _write(self, view: View, decision: Decision) -> bool:
        """Write the status; return False where the record is no longer what was decided about."""
        patch = status_patch(view.record, decision.situation, view.now) if decision.situation else None
        if not patch or decision.situation is None:
            return True
        try:
            written = await self.cluster.patch_status(view.key, patch)
        except (ConflictError, GoneError):
            await self._refresh(view)
            self.queue.add(view.key)
            return False
        self.metrics.status_writes.inc()
        self.intake.wrote_record(written)
        self._announce(view, decision.situation)
        return True

    async def _delete(self, view: View, decision: Decision) -> None:
        try:
            if decision.delete_job and view.job is not None:
                await self.cluster.delete_job(view.key, view.job.uid)
            if decision.delete_record:
                await self.cluster.delete_record(view.key, view.record.metadata.uid or "")
        except GoneError:
            return  # somebody was faster, and the watch will say so

    def _arrange(self, view: View, decision: Decision) -> None:
        raw = self.mirror.record(view.key)
        if decision.blocked and decision.come_back is not None and raw is not None:
            self.admission.block(self.intake.candidate(raw), decision.come_back)
        if decision.come_back is not None:
            self.queue.add_later(view.key, (decision.come_back - self.clock()).total_seconds())
        else:
            self.queue.cancel_timer(view.key)
        self.intake.grant(view.now)

    async def _read_job(self, record: SegmentationJob) -> JobFacts | None:
        key = Key(record.metadata.namespace or "", record.metadata.name)
        raw = await self.cluster.read_job(key)
        if raw is None:
            if (known := self.mirror.job(key)) is not None:
                self.intake.saw_job(
                    DELETED, {"metadata": {"namespace": key.namespace, "name": key.name, "uid": known.uid}}
                )
            return None
        job = job_facts(raw)
        if is_ours(job, record.metadata.uid or ""):
            self.intake.wrote_job(raw)
        return job

    async def _refresh(self, view: View) -> None:
        raw = await self.cluster.read_record(view.key)
        known = view.record.metadata
        if raw is None or raw["metadata"]["uid"] != known.uid:
            gone = {"namespace": known.namespace, "name": known.name, "uid": known.uid}
            self.intake.lost_record({"metadata": gone})
        if raw is not None:
            self.intake.wrote_record(raw)

    def _announce(self, view: View, situation: Situation) -> None:
        for aspect in announcements(situation_of(view.record), situation):
            self.recorder.record(event_manifest(view.record, aspect, view.now, secrets.token_hex(8)))

    def _bounds(self) -> Bounds:
        return Bounds(
            max_disruptions=self.settings.max_disruptions,
            configuration_grace=timedelta(seconds=self.settings.configuration_grace_seconds),
            placement_grace=timedelta(seconds=self.settings.placement_grace_seconds),
        )


def _goes_on(view: View, job: JobFacts, decision: Decision) -> bool:
    """Return whether a record's own Job is to go on running."""
    ours = is_ours(job, view.record.metadata.uid or "") and view.record.metadata.deletion_timestamp is None
    return ours and still_runs(job) and not decision.delete_job and not is_finished(view.record)
