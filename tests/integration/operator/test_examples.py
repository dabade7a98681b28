"""The manifests of examples/, applied as a user applies them."""

from pathlib import Path

from support.kubernetes import Kubectl
from support.operators import Jobs, OperatorProcess

EXAMPLES = Path(__file__).parents[3] / "examples"


def test_the_examples_are_taken_and_become_jobs(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start(max_active_jobs=2)
    for name in ("segmentationjob", "segmentationjob-everything"):
        control_plane_namespace("apply", "--validate=strict", "--filename", str(EXAMPLES / f"{name}.yaml"))

    jobs.wait("tomogram-17", "Scheduled", "False", "Pending")
    jobs.wait("tomogram-18", "Scheduled", "False", "NoPriorityClass")

    job = control_plane_namespace.get("job", "tomogram-18")
    assert job["spec"]["backoffLimit"] == 4
    assert job["spec"]["template"]["metadata"]["labels"]["cryomamba.io/owner"] == "ada"


def test_the_example_of_cancelling_cancels(
    operator: OperatorProcess, jobs: Jobs, control_plane_namespace: Kubectl
) -> None:
    operator.start()
    control_plane_namespace("apply", "--filename", str(EXAMPLES / "segmentationjob.yaml"))
    jobs.wait("tomogram-17", "Scheduled", "False", "Pending")

    patch = str(EXAMPLES / "segmentationjob-cancel.yaml")
    control_plane_namespace("patch", "segjob", "tomogram-17", "--type=merge", "--patch-file", patch)

    jobs.wait("tomogram-17", "Finished", "True", "Cancelled")
