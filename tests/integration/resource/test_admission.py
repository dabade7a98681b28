"""What the API server itself makes of SegmentationJobs, by the schema and the rules of the CRD."""

import json

import pytest

from cryomamba_crds.crd import structural_schema
from cryomamba_crds.resource import SegmentationJobSpec
from support.kubernetes import RefusedError
from support.segmentation_jobs import FILE, segmentation_job

OTHER_FILE = "file_abc123xyz789"
DIGEST = f"sha256:{'0' * 64}"
LONGEST_NAME = "n" * 57

# Field, value, and a part of what the API server says about it.
OUT_OF_BOUNDS = [
    ("input", None, "Required value"),
    ("input", {}, "exactly one of fileId and object"),
    ("input", {"fileId": FILE, "object": "tomogram.mrc"}, "exactly one of fileId and object"),
    ("input.fileId", "file_short", "should match"),
    ("input.fileId", "upl_xyz789abc123", "should match"),
    ("input", {"object": ""}, "at least 1 chars"),
    ("input", {"object": "/tomogram.mrc"}, "should match"),
    ("input", {"object": "o" * 513}, "may not be more than 512"),
    ("model", None, "Required value"),
    ("model", "", "should match"),
    ("model", "Membranes", "should match"),
    ("model", "a/b", "should match"),
    ("model", "m" * 64, "may not be more than 63"),
    ("modelDigest", "", "should match"),
    ("modelDigest", "0" * 64, "should match"),
    ("modelDigest", DIGEST.upper(), "should match"),
    ("modelDigest", DIGEST + "0", "may not be more than 71"),
    ("inference.folds", [], "at least 1 items"),
    ("inference.folds", ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9", "10"], "at most 10 items"),
    ("inference.folds", ["-1"], "should match"),
    ("inference.folds", ["100"], "should match"),
    ("inference.folds", ["00"], "should match"),
    ("inference.folds", ["any"], "should match"),
    ("inference.folds", ["0", "0"], "Duplicate value"),
    ("inference.folds", [0], "must be of type string"),
    ("inference.folds", "all", "must be of type array"),
    ("inference.tileStepPercent", 9, "greater than or equal to 10"),
    ("inference.tileStepPercent", 101, "less than or equal to 100"),
    ("inference.tileStepPercent", 50.5, "must be of type integer"),
    ("inference.tileStepPercent", "50", "must be of type integer"),
    ("inference.mirroring", "yes", "must be of type boolean"),
    ("inference.saveProbabilities", 1, "must be of type boolean"),
    ("inference.objectTable", 1, "must be of type boolean"),
    ("inference.spacingPolicy", "pm", "Unsupported value"),
    ("inference.voxelSizeNm", ["1.3", "1.3"], "at least 3 items"),
    ("inference.voxelSizeNm", ["1.3", "1.3", "1.3", "1.3"], "at most 3 items"),
    ("inference.voxelSizeNm", ["1.3", "1.3", "0.0"], "longer than 0 nm"),
    ("inference.voxelSizeNm", ["1.3", "1.3", "-1"], "should match"),
    ("inference.voxelSizeNm", ["1.3", "1.3", "1e3"], "should match"),
    ("inference.voxelSizeNm", [1.3, 1.3, 1.3], "must be of type string"),
    ("inference.invert", "no", "must be of type boolean"),
    ("preview.enabled", "no", "must be of type boolean"),
    ("preview.intervalSeconds", 0, "greater than or equal to 1"),
    ("preview.intervalSeconds", 3601, "less than or equal to 3600"),
    ("preview.downsampleFactor", 0, "greater than or equal to 1"),
    ("preview.downsampleFactor", 65, "less than or equal to 64"),
    ("resources.gpus", -1, "greater than or equal to 0"),
    ("resources.gpus", 17, "less than or equal to 16"),
    ("resources.memory", "0", "between 1Mi and 16Ti"),
    ("resources.memory", "16", "write its unit"),
    ("resources.memory", "17Ti", "between 1Mi and 16Ti"),
    ("resources.memory", "-16Gi", "should match"),
    ("resources.memory", "16GB", "should match"),
    ("resources.memory", "16gi", "should match"),
    ("resources.memory", "16000m", "should match"),
    ("resources.memory", "1e9", "should match"),
    ("resources.memory", "plenty", "should match"),
    ("resources.memory", 16, "must be of type string"),
    ("resources.cpu", "0", "between 1m and 1024"),
    ("resources.cpu", "0m", "between 1m and 1024"),
    ("resources.cpu", "1025", "between 1m and 1024"),
    ("resources.cpu", "0.0001", "should match"),
    ("resources.cpu", "2Gi", "should match"),
    ("resources.cpu", "two", "should match"),
    ("maxAttempts", 0, "greater than or equal to 1"),
    ("maxAttempts", 11, "less than or equal to 10"),
    ("activeDeadlineSeconds", 59, "greater than or equal to 60"),
    ("activeDeadlineSeconds", 604801, "less than or equal to 604800"),
    ("ttlSecondsAfterFinished", -1, "greater than or equal to 0"),
    ("ttlSecondsAfterFinished", 31536001, "less than or equal to 31536000"),
    ("priorityClassName", "", "at least 1 chars"),
    ("priorityClassName", "Very Urgent", "should match"),
    ("priorityClassName", "p" * 254, "may not be more than 253"),
    ("queueName", "", "at least 1 chars"),
    ("queueName", "team_a", "should match"),
    ("queueName", "q" * 64, "may not be more than 63"),
    ("desiredState", "Paused", "Unsupported value"),
]

WITHIN_BOUNDS = [
    ("input", {"object": "incoming/2026/Tomogram_17.mrc"}),
    ("input", {"object": "o" * 512}),
    ("model", "m" * 63),
    ("modelDigest", DIGEST),
    ("inference.folds", ["all"]),
    ("inference.folds", ["0", "1", "2", "3", "4", "5", "6", "7", "8", "99"]),
    ("inference.tileStepPercent", 10),
    ("inference.tileStepPercent", 100),
    ("inference.spacingPolicy", "angstrom"),
    ("inference.voxelSizeNm", ["1.348", "1.348", "0.000000001"]),
    ("preview.intervalSeconds", 3600),
    ("preview.downsampleFactor", 64),
    ("resources.gpus", 0),
    ("resources.gpus", 16),
    ("resources.memory", "1Mi"),
    ("resources.memory", "1.5Gi"),
    ("resources.memory", "16Ti"),
    ("resources.cpu", "1m"),
    ("resources.cpu", "0.5"),
    ("resources.cpu", "1024"),
    ("maxAttempts", 1),
    ("maxAttempts", 10),
    ("activeDeadlineSeconds", 60),
    ("activeDeadlineSeconds", 604800),
    ("ttlSecondsAfterFinished", 0),
    ("ttlSecondsAfterFinished", 31536000),
    ("priorityClassName", "system-cluster-critical"),
    ("queueName", "team-a"),
    ("desiredState", "Cancelled"),
]

# Field, what it was, and what it is changed to; None is a field that is not there.
UNCHANGEABLE = [
    ("input", {"fileId": FILE}, {"object": "tomogram.mrc"}),
    ("input", {"fileId": FILE}, {"fileId": FILE, "object": "tomogram.mrc"}),
    ("input.fileId", FILE, OTHER_FILE),
    ("input", {"object": "tomogram.mrc"}, {"object": "other.mrc"}),
    ("input", {"object": "tomogram.mrc"}, {"fileId": FILE}),
    ("model", "demo", "membranes"),
    ("modelDigest", None, DIGEST),
    ("modelDigest", DIGEST, None),
    ("modelDigest", DIGEST, DIGEST.replace("0", "1")),
    ("inference.folds", None, ["0"]),
    ("inference.folds", ["0"], ["1"]),
    ("inference.folds", ["0", "1"], ["0"]),
    ("inference.folds", ["0"], None),
    ("inference.tileStepPercent", None, 60),
    ("inference.tileStepPercent", 60, 70),
    ("inference.tileStepPercent", 60, None),
    ("inference.mirroring", None, False),
    ("inference.mirroring", False, None),
    ("inference.saveProbabilities", None, True),
    ("inference.saveProbabilities", True, None),
    ("inference.objectTable", None, True),
    ("inference.objectTable", True, None),
    ("inference.spacingPolicy", None, "nm"),
    ("inference.spacingPolicy", "nm", "ignore"),
    ("inference.spacingPolicy", "nm", None),
    ("inference.voxelSizeNm", None, ["1", "1", "1"]),
    ("inference.voxelSizeNm", ["1", "1", "1"], ["1", "1", "2"]),
    ("inference.voxelSizeNm", ["1", "1", "1"], None),
    ("inference.invert", None, True),
    ("inference.invert", True, None),
    ("inference", {"folds": ["0"], "mirroring": False}, None),
    ("preview.enabled", None, False),
    ("preview.enabled", False, None),
    ("preview.intervalSeconds", None, 6),
    ("preview.intervalSeconds", 6, 7),
    ("preview.intervalSeconds", 6, None),
    ("preview.downsampleFactor", None, 2),
    ("preview.downsampleFactor", 2, 1),
    ("preview.downsampleFactor", 2, None),
    ("preview", {"enabled": False}, None),
    ("resources.gpus", None, 2),
    ("resources.gpus", 2, 0),
    ("resources.gpus", 2, None),
    ("resources.memory", None, "8Gi"),
    ("resources.memory", "8Gi", "9Gi"),
    ("resources.memory", "8Gi", None),
    ("resources.cpu", None, "1"),
    ("resources.cpu", "1", "3"),
    ("resources.cpu", "1", None),
    ("resources", {"gpus": 2}, None),
    ("maxAttempts", None, 4),
    ("maxAttempts", 4, 5),
    ("maxAttempts", 4, None),
    ("activeDeadlineSeconds", None, 60),
    ("activeDeadlineSeconds", 60, 61),
    ("activeDeadlineSeconds", 60, None),
    ("priorityClassName", None, "urgent"),
    ("priorityClassName", "urgent", "idle"),
    ("priorityClassName", "urgent", None),
    ("queueName", None, "team-a"),
    ("queueName", "team-a", "team-b"),
    ("queueName", "team-a", None),
]

CHANGEABLE = [
    ("desiredState", "Run", "Cancelled"),
    ("desiredState", None, "Cancelled"),
    ("desiredState", "Run", None),
    ("ttlSecondsAfterFinished", None, 60),
    ("ttlSecondsAfterFinished", 60, 61),
    ("ttlSecondsAfterFinished", 60, None),
]

UNKNOWN_FIELDS = {
    "in the manifest": {"status2": {}},
    "in the spec": {"spec": {**segmentation_job()["spec"], "gpu": 1}},
    "in the input": {"spec": {"input": {"fileId": FILE, "url": "https://example.org"}, "model": "demo"}},
    "in the inference": {"spec": {**segmentation_job()["spec"], "inference": {"fold": "0"}}},
}


def job_with(field, value):
    manifest = segmentation_job()
    *path, last = field.split(".")
    node = manifest["spec"]
    for name in path:
        node = node.setdefault(name, {})
    if value is None:
        node.pop(last, None)
    else:
        node[last] = value
    return manifest


def value_of(job, field):
    node = job["spec"]
    for name in field.split("."):
        node = node.get(name)
    return node


def create_nothing(kubectl, manifest):
    """Have the API server look at a manifest as if it were to keep it."""
    return json.loads(kubectl("create", "--dry-run=server", "--output=json", "--filename", "-", manifest=manifest))


def named(value):
    return str(value)[:40] if value is not None else "absent"


def leaves(schema, path=()):
    for name, field in schema["properties"].items():
        if "properties" in field:
            yield from leaves(field, (*path, name))
        else:
            yield ".".join((*path, name))


def test_a_plain_job_is_taken_and_its_defaults_are_filled_in(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())

    assert control_plane_namespace.get("segjob", "tomogram")["spec"] == {
        "input": {"fileId": FILE},
        "model": "demo",
        "inference": {
            "tileStepPercent": 50,
            "mirroring": True,
            "saveProbabilities": False,
            "objectTable": False,
            "invert": False,
        },
        "preview": {"enabled": True, "intervalSeconds": 5, "downsampleFactor": 4},
        "resources": {"gpus": 1, "memory": "16Gi", "cpu": "2"},
        "maxAttempts": 3,
        "activeDeadlineSeconds": 86400,
        "desiredState": "Run",
    }


@pytest.mark.parametrize(("field", "value", "said"), OUT_OF_BOUNDS, ids=named)
def test_a_value_out_of_bounds_is_refused(control_plane, field, value, said):
    with pytest.raises(RefusedError, match=rf"spec\.{field}.*{said}"):
        create_nothing(control_plane, job_with(field, value))


@pytest.mark.parametrize(("field", "value"), WITHIN_BOUNDS, ids=named)
def test_a_value_at_its_bound_is_taken(control_plane, field, value):
    job = create_nothing(control_plane, job_with(field, value))

    assert value_of(job, field) == value


@pytest.mark.parametrize(("field", "before", "after"), UNCHANGEABLE, ids=named)
def test_an_immutable_field_is_not_changed_added_or_removed(control_plane_namespace, field, before, after):
    control_plane_namespace.apply(job_with(field, before))

    with pytest.raises(RefusedError, match=r"cannot be (changed|added or removed); create a new SegmentationJob"):
        control_plane_namespace.apply(job_with(field, after))


def test_the_two_tables_know_every_field_of_the_spec():
    known = {field for field, _, _ in UNCHANGEABLE + CHANGEABLE} | {"input.object"}

    assert set(leaves(structural_schema(SegmentationJobSpec))) <= known


@pytest.mark.parametrize(
    ("way", "patch"),
    [
        ("merge", '{"spec": {"inference": null}}'),
        ("json", '[{"op": "remove", "path": "/spec/inference/folds"}]'),
        ("json", '[{"op": "replace", "path": "/spec/inference/folds/0", "value": "1"}]'),
        ("json", '[{"op": "add", "path": "/spec/inference/folds/-", "value": "1"}]'),
        ("json", '[{"op": "move", "from": "/spec/inference/folds", "path": "/spec/folds"}]'),
    ],
)
def test_no_way_of_patching_gets_around_that(control_plane_namespace, way, patch):
    control_plane_namespace.apply(segmentation_job(inference={"folds": ["0"]}))

    with pytest.raises(RefusedError, match="cannot be changed"):
        control_plane_namespace("patch", "segjob", "tomogram", f"--type={way}", f"--patch={patch}")


def test_nor_does_server_side_apply(control_plane_namespace):
    control_plane_namespace.apply(segmentation_job())

    with pytest.raises(RefusedError, match="cannot be changed"):
        control_plane_namespace(
            "apply", "--server-side", "--force-conflicts", "--filename", "-", manifest=segmentation_job(model="other")
        )


@pytest.mark.parametrize(("field", "before", "after"), CHANGEABLE, ids=named)
def test_a_wish_to_stop_and_the_time_to_live_may_change(control_plane_namespace, field, before, after):
    control_plane_namespace.apply(job_with(field, before))

    control_plane_namespace.apply(job_with(field, after))

    expected = "Run" if (field, after) == ("desiredState", None) else after
    assert value_of(control_plane_namespace.get("segjob", "tomogram"), field) == expected


@pytest.mark.parametrize("patch", ['{"spec": {"desiredState": "Run"}}', '{"spec": {"desiredState": null}}'])
def test_a_cancelled_job_stays_cancelled(control_plane_namespace, patch):
    control_plane_namespace.apply(segmentation_job(desiredState="Cancelled"))

    with pytest.raises(RefusedError, match="a cancelled job stays cancelled; create a new SegmentationJob"):
        control_plane_namespace("patch", "segjob", "tomogram", "--type=merge", f"--patch={patch}")


@pytest.mark.parametrize("more", UNKNOWN_FIELDS.values(), ids=UNKNOWN_FIELDS)
def test_an_unknown_field_is_refused_under_strict_validation(control_plane_namespace, more):
    with pytest.raises(RefusedError, match="unknown field"):
        control_plane_namespace("apply", "--validate=strict", "--filename", "-", manifest=segmentation_job() | more)

    assert control_plane_namespace.get("segjob")["items"] == []


def test_an_unknown_field_is_dropped_without(control_plane_namespace):
    manifest = segmentation_job(gpu=1)

    control_plane_namespace("apply", "--validate=ignore", "--filename", "-", manifest=manifest)

    assert "gpu" not in control_plane_namespace.get("segjob", "tomogram")["spec"]


@pytest.mark.parametrize("name", ["tomogram.mrc", f"{LONGEST_NAME}n"])
def test_a_name_that_no_pod_could_have_is_refused(control_plane, name):
    with pytest.raises(RefusedError, match="a name has at most 57 characters and no dots"):
        create_nothing(control_plane, segmentation_job(name))


@pytest.mark.parametrize("name", [LONGEST_NAME, "17-tomogram"])
def test_any_other_name_is_taken(control_plane, name):
    assert create_nothing(control_plane, segmentation_job(name))["metadata"]["name"] == name


def test_the_api_server_makes_up_a_name_where_it_is_asked_to(control_plane_namespace):
    manifest = segmentation_job() | {"metadata": {"generateName": "tomogram-"}}

    control_plane_namespace("create", "--filename", "-", manifest=manifest)

    (job,) = control_plane_namespace.get("segjob")["items"]
    assert job["metadata"]["name"].startswith("tomogram-")
