"""Names that the operator gives and looks for: keys, labels, the runner's container."""

from typing import NamedTuple

MANAGED_BY_LABEL = "app.kubernetes.io/managed-by"
MANAGED_BY = "cryomamba"
JOB_LABEL = "cryomamba.io/job"
"""On Jobs and Pods: the name of the SegmentationJob they belong to."""
QUEUE_LABEL = "kueue.x-k8s.io/queue-name"
RUNNER_CONTAINER = "inference"
GPU_RESOURCE = "nvidia.com/gpu"
SELECTOR = f"{MANAGED_BY_LABEL}={MANAGED_BY}"
"""Label selector of everything that this operator makes."""


class Key(NamedTuple):
    """Which SegmentationJob; its Job has the same name."""

    namespace: str
    name: str

    def __str__(self) -> str:
        """As kubectl and logs write it."""
        return f"{self.namespace}/{self.name}"
