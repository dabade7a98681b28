"""The way of a job from its resource to its result, with the operator's own credentials and the pod's own token."""

from collections.abc import Callable
from typing import Any

from cryomamba_crds import keys
from cryomamba_crds.report import Manifest
from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess
from support.pods import Container

Make = Callable[..., Container]


def uid_of(kubectl: Kubectl, name: str) -> str:
    return str(kubectl.get("segjob", name)["metadata"]["uid"])


def on_the_cpu(**spec: Any) -> dict[str, Any]:
    return {"model": "demo", "resources": {"gpus": 0, "memory": "2Gi", "cpu": "10m"}, **spec}


def test_a_job_leaves_its_result_in_the_bucket_and_says_so_in_its_status(
    operator: OperatorProcess, jobs: Jobs, container_of: Make, stocked: Any, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    jobs.submit("tomo", **on_the_cpu())
    container = container_of("tomo")

    code = container.run()

    assert code == 0, container.log
    uid = uid_of(control_plane_namespace, "tomo")
    manifest = Manifest.model_validate_json(stocked.get(keys.job_manifest(uid)))
    assert manifest.attempt == 1
    assert {keys.attempt_prefix(uid, 1) + artifact.name for artifact in manifest.artifacts} <= set(
        stocked.keys(keys.job_prefix(uid))
    )
    status = jobs.status("tomo")
    assert (status["progress"]["percentage"], status["progress"]["message"]) == (100, "Done")
    assert [item["name"] for item in status["artifacts"]] == [item.name for item in manifest.artifacts]
    assert status["preview"]["sequence"] >= 1
    assert keys.live_preview(keys.attempt_prefix(uid, 1)) in stocked.keys(keys.job_prefix(uid))
    assert not (container.folder / "termination-log").exists()
