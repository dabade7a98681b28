"""SegmentationJobs as somebody with kubectl meets them."""

import json
import re
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.kubernetes import CRD, RefusedError
from support.segmentation_jobs import THEN, condition, segmentation_job
from support.waiting import until

HEADINGS = ["NAME", "MODEL", "STATE", "PROGRESS", "ETA", "AGE"]
PROGRESS = {"sequence": 7, "currentStep": 3, "percentage": 42, "message": "Inferring tile 9/21", "updatedAt": THEN}


def report(kubectl, status):
    patch = json.dumps({"status": status})
    kubectl("patch", "segjob", "tomogram", "--subresource=status", "--type=merge", f"--patch={patch}")


def row(text):
    """The only row of a table of kubectl's, by heading; a cell may be empty."""
    heading, line = text.splitlines()
    starts = [match.start() for match in re.finditer(r"\S+", heading)]
    cells = [line[start:end].strip() for start, end in zip(starts, [*starts[1:], None], strict=True)]
    return dict(zip(heading.split(), cells, strict=True))


def outcome(status, reason, generation=1):
    return [
        condition("Succeeded", status, reason, generation),
        condition("Finished", "True", reason, generation),
    ]


def descriptions(schema, path=""):
    for name, field in schema.get("properties", {}).items():
        yield f"{path}.{name}", field.get("description")
        yield from descriptions(field, f"{path}.{name}")
        yield from descriptions(field.get("items", {}), f"{path}.{name}")


def test_the_resource_can_be_applied_again_and_has_not_changed(control_plane):
    control_plane("apply", "--filename", str(CRD))

    assert control_plane("apply", "--filename", str(CRD)).strip().endswith("unchanged")
    assert control_plane("diff", "--filename", str(CRD)) == ""


def test_a_job_that_nobody_has_looked_at_is_a_row_with_blanks(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())

    cells = row(control_plane_namespace("get", "segmentationjobs"))

    assert list(cells) == HEADINGS
    assert re.fullmatch(r"\d+s", cells.pop("AGE"))
    assert cells == {"NAME": "tomogram", "MODEL": "demo", "STATE": "", "PROGRESS": "", "ETA": ""}


def test_a_running_job_is_a_row_with_its_progress(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())
    report(
        control_plane_namespace,
        {
            "conditions": [condition("Running", "True", "Running"), condition("Succeeded", "Unknown", "Running")],
            "progress": PROGRESS | {"etaSeconds": 125},
        },
    )

    cells = row(control_plane_namespace("get", "segjob"))

    assert (cells["STATE"], cells["PROGRESS"], cells["ETA"]) == ("Running", "42", "125")


def test_a_failed_job_is_a_row_with_the_reason(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())
    report(control_plane_namespace, {"conditions": outcome("False", "OutOfMemory"), "progress": PROGRESS})

    cells = row(control_plane_namespace("get", "segjob"))

    assert (cells["STATE"], cells["PROGRESS"], cells["ETA"]) == ("OutOfMemory", "42", "")


@pytest.mark.parametrize("name", ["segjob", "segmentationjob", "segmentationjobs.cryomamba.io", "cryomamba"])
def test_the_resource_has_a_short_name_and_a_category(control_plane_namespace, name):
    control_plane_namespace.apply(segmentation_job())

    assert control_plane_namespace("get", name, "--output=name") == "segmentationjob.cryomamba.io/tomogram\n"


def test_kubectl_explains_a_field_in_our_words(control_plane_namespace):
    # New descriptions reach kubectl a moment after the CRD.
    until(
        lambda: (
            'Folds ("all" is fold_all); absent: all numbered ones'
            in " ".join(control_plane_namespace("explain", "segmentationjob.spec.inference.folds").split())
        ),
        seconds=20,
    )


def test_kubectl_has_a_word_about_every_field(control_plane):
    (version,) = control_plane.get("crd", "segmentationjobs.cryomamba.io")["spec"]["versions"]
    schema = version["schema"]["openAPIV3Schema"]["properties"]

    found = dict(descriptions({"properties": {part: schema[part] for part in ("spec", "status")}}))

    assert len(found) > 60
    assert [path for path, description in found.items() if not description] == []


@pytest.mark.parametrize(
    ("status", "reason"), [("True", "Succeeded"), ("False", "OutOfMemory"), ("False", "Cancelled")]
)
def test_waiting_for_finished_ends_with_the_job_however_it_ends(control_plane_namespace, status, reason):
    control_plane_namespace.apply(segmentation_job())
    report(control_plane_namespace, {"conditions": [condition("Finished", "False", "InProgress")]})

    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(control_plane_namespace, "wait", "--for=condition=Finished", "segjob/tomogram")
        report(control_plane_namespace, {"observedGeneration": 1, "conditions": outcome(status, reason)})

        assert waiting.result(timeout=30) == "segmentationjob.cryomamba.io/tomogram condition met\n"


def test_waiting_does_not_end_before_the_job(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())
    report(control_plane_namespace, {"conditions": [condition("Finished", "False", "InProgress")]})

    with pytest.raises(RefusedError, match="timed out waiting"):
        control_plane_namespace("wait", "--for=condition=Finished", "segjob/tomogram", "--timeout=1s")


def test_waiting_goes_on_until_the_newest_wish_has_been_seen(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())
    report(control_plane_namespace, {"observedGeneration": 1, "conditions": outcome("True", "Succeeded")})
    control_plane_namespace.apply(segmentation_job(ttlSecondsAfterFinished=3600))

    with pytest.raises(RefusedError, match="timed out waiting"):
        control_plane_namespace("wait", "--for=condition=Finished", "segjob/tomogram", "--timeout=1s")
    report(control_plane_namespace, {"observedGeneration": 2, "conditions": outcome("True", "Succeeded", generation=2)})

    assert "condition met" in control_plane_namespace("wait", "--for=condition=Finished", "segjob/tomogram")
