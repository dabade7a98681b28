"""The words that all parts share."""

import json
import re
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from cryomamba_crds import ids, keys
from cryomamba_crds.crd import custom_resource_definition, structural_schema
from cryomamba_crds.failures import FailureCode, FailureError
from cryomamba_crds.report import Progress, Report
from cryomamba_crds.resource import SegmentationJob, SegmentationJobSpec
from cryomamba_crds.task import InferenceParams, Task

CRDS = Path(__file__).parents[3] / "crds"

# Code, HTTP status and "Retryable" as the API reference lists them; "Maybe" is no by default.
REFERENCE = {
    "VALIDATION_ERROR": (400, False),
    "AUTHENTICATION_REQUIRED": (401, False),
    "FORBIDDEN": (403, False),
    "NOT_FOUND": (404, False),
    "CONFLICT": (409, False),
    "PAYLOAD_TOO_LARGE": (413, False),
    "RATE_LIMIT_EXCEEDED": (429, True),
    "INTERNAL_ERROR": (500, True),
    "SERVICE_UNAVAILABLE": (503, True),
    "INSUFFICIENT_STORAGE": (507, False),
    "GPU_ERROR": (500, True),
    "INFERENCE_ERROR": (500, False),
    "OUT_OF_MEMORY": (500, False),
}


def test_the_failure_codes_are_those_of_the_reference():
    assert {code.value: (code.http_status, code.retryable) for code in FailureCode} == REFERENCE


def test_a_failure_survives_a_long_message():
    failure = FailureError(FailureCode.INTERNAL_ERROR, "x" * 10_000, hint="y" * 10_000).failure

    assert (len(failure.message), len(failure.hint), failure.retryable) == (2048, 1024, True)


def test_ids_have_the_form_of_the_reference_and_are_never_the_same():
    made = {ids.new_job_id() for _ in range(1000)}

    assert len(made) == 1000
    assert all(re.fullmatch(r"job_[a-z0-9]{12}", job_id) for job_id in made)
    assert ids.is_upload_id(ids.new_upload_id())
    assert ids.is_file_id(ids.new_file_id())


def test_a_generated_id_and_its_resources_name_map_both_ways():
    assert ids.resource_name("job_mno345pqr678") == "job-mno345pqr678"
    assert ids.job_id("job-mno345pqr678") == "job_mno345pqr678"


@given(st.from_regex(r"[a-z]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True))
def test_a_name_given_with_kubectl_survives_the_round_trip(name):
    assert ids.resource_name(ids.job_id(name)) == name


@pytest.mark.parametrize("text", ["", "upl_", "upl_abc", "UPL_abc123def456", "upl_abc123def456\n", "upl_../../etc/pa"])
def test_what_is_no_id_never_becomes_part_of_a_key(text):
    assert not ids.is_upload_id(text)
    assert not ids.is_file_id(text.replace("upl", "file"))


def test_keys_are_those_of_the_design():
    assert keys.upload_session("upl_a") == "uploads/upl_a/session.json"
    assert keys.file_volume("file_a") == "files/file_a/volume"
    assert keys.file_record("file_a") == "files/file_a/file.json"
    assert keys.attempt_prefix("uid", 2) == "jobs/uid/2/"
    assert keys.job_manifest("uid") == "jobs/uid/manifest.json"
    assert keys.model_archive("demo", "sha256:" + "0" * 64) == f"models/demo/{'0' * 64}.zip"
    assert keys.model_card("demo") == "models/demo/model.json"


def test_a_report_says_exactly_one_thing():
    progress = Progress(current_step=1, percentage=0, message="Fetching input…")

    assert Report.model_validate_json(Report(progress=progress).model_dump_json()).progress == progress
    with pytest.raises(ValidationError, match="exactly one"):
        Report()


@pytest.mark.parametrize("fields", [{"step_size": 0.05}, {"step_size": 1.1}, {"folds": ["x"]}, {"surprise": 1}])
def test_wrong_parameters_are_no_task(fields):
    with pytest.raises(ValidationError):
        InferenceParams(**fields)


def test_a_task_carries_no_secret():
    text = json.dumps(Task.model_json_schema()).lower()

    assert not [word for word in ("secret", "password", "access_key", "token") if word in text]


def test_the_resource_is_what_the_models_say():
    written = yaml.safe_load((CRDS / "segmentationjobs.yaml").read_text())

    assert written == custom_resource_definition()


def test_a_resource_round_trips_through_the_models():
    manifest = {
        "apiVersion": "cryomamba.io/v1alpha1",
        "kind": "SegmentationJob",
        "metadata": {"name": "job-mno345pqr678"},
        "spec": {
            "input": {"fileId": "file_xyz789abc123"},
            "model": "demo",
            "inference": {"folds": ["0", "1"], "tileStepPercent": 50},
            "desiredState": "Run",
        },
    }

    job = SegmentationJob.model_validate(manifest)

    assert job.spec.input.file_id == "file_xyz789abc123"
    assert job.model_dump(by_alias=True, exclude_unset=True, mode="json") == manifest


def schemas(node):
    """Every schema in a schema."""
    if isinstance(node, dict):
        if "type" in node and isinstance(node["type"], str):
            yield node
        for value in node.values():
            yield from schemas(value)
    elif isinstance(node, list):
        for value in node:
            yield from schemas(value)


def test_the_schema_is_structural():
    text = json.dumps(custom_resource_definition())

    assert not [word for word in ("$ref", "$defs", "anyOf", '"const"', '"title"') if word in text]


def test_every_string_list_and_number_of_the_spec_is_bounded():
    spec = structural_schema(SegmentationJobSpec)

    for schema in schemas(spec):
        if schema["type"] == "string":
            assert "maxLength" in schema or "enum" in schema, schema
        if schema["type"] == "array":
            assert "maxItems" in schema, schema
            assert "x-kubernetes-list-type" in schema, schema
        if schema["type"] == "integer":
            assert {"minimum", "maximum"} <= set(schema), schema
        assert schema["type"] != "number", "floats do not survive round trips"


def test_everything_but_two_fields_of_the_spec_is_immutable():
    spec = structural_schema(SegmentationJobSpec)
    rules = {
        name: [rule["rule"] for rule in field.get("x-kubernetes-validations", [])]
        for name, field in spec["properties"].items()
    }

    mutable = {name for name, texts in rules.items() if "self == oldSelf" not in texts}

    assert mutable == {"desiredState", "ttlSecondsAfterFinished"}
    assert rules["desiredState"] == ["oldSelf == self || self == 'Cancelled'"]
    assert spec["properties"]["desiredState"]["default"] == "Run"
