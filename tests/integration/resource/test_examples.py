"""The manifests in examples/ are what the API server takes."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).parents[3] / "examples"
EXAMPLES = [path for path in sorted(FOLDER.glob("*.yaml")) if "kind: SegmentationJob" in path.read_text()]
PATCH = FOLDER / "segmentationjob-cancel.yaml"


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_taken_as_it_stands(control_plane_namespace, example):
    said = control_plane_namespace(
        "create", "--dry-run=server", "--validate=strict", "--filename", str(example), "--output", "name"
    )

    assert said.startswith("segmentationjob.cryomamba.io/")


def test_the_patch_that_cancels_is_taken(control_plane_namespace):
    control_plane_namespace("create", "--filename", str(FOLDER / "segmentationjob.yaml"))

    control_plane_namespace("patch", "segjob", "tomogram-17", "--type=merge", "--patch-file", str(PATCH))

    assert control_plane_namespace.get("segjob", "tomogram-17")["spec"]["desiredState"] == "Cancelled"
