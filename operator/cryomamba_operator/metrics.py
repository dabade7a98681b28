"""What Prometheus is told. No label carries a job's name: there are as many of those as there are jobs."""

from collections import Counter as Tally
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from cryomamba_operator.admission import Admission
from cryomamba_operator.mirror import Mirror
from cryomamba_operator.observe import Raw
from cryomamba_operator.queue import WorkQueue

STATES = ("queued", "pending", "running", "succeeded", "failed", "cancelled")


class Metrics:
    """The operator's own; each instance has a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.status_writes = Counter(
            "cryomamba_operator_status_writes", "PATCHes of a SegmentationJob's status.", registry=self.registry
        )
        self.resyncs = Counter(
            "cryomamba_operator_resyncs", "Lists of everything, by result.", ["result"], registry=self.registry
        )
        self.credentials = Counter(
            "cryomamba_operator_credentials",
            "Temporary credentials asked for, for new jobs and in place of old ones, by result.",
            ["result"],
            registry=self.registry,
        )
        self._reconciles = Counter(
            "cryomamba_operator_reconciles", "Reconciles by result.", ["result"], registry=self.registry
        )
        self._seconds = Histogram(
            "cryomamba_operator_reconcile_seconds",
            "How long a reconcile takes.",
            buckets=(0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 15),
            registry=self.registry,
        )

    @contextmanager
    def reconcile(self) -> Iterator[None]:
        """Count a reconcile and its time."""
        with self._seconds.time():
            try:
                yield
            except Exception:
                self._reconciles.labels("error").inc()
                raise
        self._reconciles.labels("success").inc()

    def watch(self, mirror: Mirror, queue: WorkQueue, admission: Admission) -> None:
        """Report the state of these whenever somebody asks."""
        self.registry.register(_States(mirror))
        for name, text, value in (
            ("queue_depth", "SegmentationJobs that wait for a reconcile.", lambda: len(queue)),
            ("queue_oldest_seconds", "How long the oldest of them has waited.", lambda: queue.oldest_seconds),
            ("places_held", "Kubernetes Jobs that exist and have not ended.", lambda: admission.held),
            ("places_wanted", "SegmentationJobs that wait for their turn.", lambda: admission.waiting),
        ):
            Gauge(f"cryomamba_operator_{name}", text, registry=self.registry).set_function(value)


class _States(Collector):
    def __init__(self, mirror: Mirror) -> None:
        self._mirror = mirror

    def collect(self) -> Iterable[GaugeMetricFamily]:
        family = GaugeMetricFamily("cryomamba_jobs", "SegmentationJobs by state.", labels=["state"])
        tally = Tally(state_of(record) for record in self._mirror.records())
        for state in STATES:
            family.add_metric([state], tally[state])
        yield family


def state_of(record: Raw) -> str:
    """Return one word for the state of a record."""
    conditions = {item["type"]: item for item in record["status"].get("conditions", [])}
    succeeded, running, scheduled = (conditions.get(name, {}) for name in ("Succeeded", "Running", "Scheduled"))
    if succeeded.get("status") == "True":
        return "succeeded"
    if succeeded.get("status") == "False":
        return "cancelled" if succeeded["reason"] == "Cancelled" else "failed"
    if running.get("status") == "True":
        return "running"
    return "queued" if scheduled.get("reason", "Queued") == "Queued" else "pending"
