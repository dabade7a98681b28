"""SegmentationJobs as a user or a test writes them."""

from typing import Any

FILE = "file_xyz789abc123"
BUSY = "incoming/busy.mrc"
"""Key of a volume of many tiles: its job is in the middle of them for seconds, and can be disturbed there."""
THEN = "2026-01-02T03:04:05Z"


def segmentation_job(name: str = "tomogram", **spec: Any) -> dict[str, Any]:
    """A manifest; what is not said about the spec is as small as it can be."""
    return {
        "apiVersion": "cryomamba.io/v1alpha1",
        "kind": "SegmentationJob",
        "metadata": {"name": name},
        "spec": {"input": {"fileId": FILE}, "model": "demo", **spec},
    }


def condition(aspect: str, status: str, reason: str, generation: int = 1) -> dict[str, Any]:
    """A condition as the operator writes it."""
    return {
        "type": aspect,
        "status": status,
        "reason": reason,
        "lastTransitionTime": THEN,
        "observedGeneration": generation,
    }
