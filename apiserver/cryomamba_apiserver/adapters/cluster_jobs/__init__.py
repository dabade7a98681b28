"""Jobs on a Kubernetes cluster: each is a SegmentationJob, which the operator turns into a pod."""

from cryomamba_apiserver.adapters.cluster_jobs.client import KubernetesApi
from cryomamba_apiserver.adapters.cluster_jobs.creation import JobDefaults
from cryomamba_apiserver.adapters.cluster_jobs.references import ClusterJobReferences
from cryomamba_apiserver.adapters.cluster_jobs.store import ClusterJobStore

__all__ = ["ClusterJobReferences", "ClusterJobStore", "JobDefaults", "KubernetesApi"]
