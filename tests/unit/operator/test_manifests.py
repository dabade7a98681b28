"""A record in, a Job out: golden/<case>/{segmentationjob,settings,pod-template,job}.yaml."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cryomamba_crds.resource import SegmentationJob
from cryomamba_operator.manifests import job_manifest, merged
from cryomamba_operator.settings import Settings, read_pod_template

GOLDEN = Path(__file__).parent / "golden"
BARE = {
    "image": "registry.example/cryomamba-inference:1.0.0",
    "s3_endpoint": "http://minio.store:9000",
    "s3_bucket": "cryomamba",
    "s3_access_key_file": "/keys/access_key",
    "s3_secret_key_file": "/keys/secret_key",
}
"""What has no default."""


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = yaml.safe_load(path.read_text()) if path.exists() else {}
    return loaded


@pytest.mark.parametrize("case", sorted(path.name for path in GOLDEN.iterdir()))
def test_a_record_becomes_this_job(case: str) -> None:
    folder = GOLDEN / case
    record = SegmentationJob.model_validate(load(folder / "segmentationjob.yaml"))
    options = load(folder / "settings.yaml")
    attempts = options.pop("attempts", record.spec.max_attempts)
    settings = Settings(**{**BARE, **options})

    job = job_manifest(record, settings, load(folder / "pod-template.yaml"), attempts=attempts)

    assert job == load(folder / "job.yaml")


def test_the_runner_is_handed_the_whole_spec(record: Callable[..., SegmentationJob], settings: Settings) -> None:
    asked = record(inference={"tileStepPercent": 30, "folds": ["0", "1"]}, resources={"gpus": 2})

    job = job_manifest(asked, settings, {}, attempts=3)

    env = {item["name"]: item.get("value") for item in job["spec"]["template"]["spec"]["containers"][0]["env"]}
    handed = json.loads(env["CRYOMAMBA_JOB_SPEC"])
    assert asked.model_copy(update={"spec": type(asked.spec).model_validate(handed)}) == asked


def test_named_items_are_merged_and_other_lists_replaced() -> None:
    base = {"env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}], "drop": ["ALL"], "kept": True}
    override = {"env": [{"name": "B", "value": "3"}, {"name": "C", "value": "4"}], "drop": ["NET_RAW"]}

    assert merged(base, override) == {
        "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "3"}, {"name": "C", "value": "4"}],
        "drop": ["NET_RAW"],
        "kept": True,
    }


def test_merging_changes_neither_side() -> None:
    base, override = {"a": {"b": 1}}, {"a": {"c": 2}}

    merged(base, override)

    assert (base, override) == ({"a": {"b": 1}}, {"a": {"c": 2}})


@pytest.mark.parametrize("text", ["- a list", "spec: [", "metadata: {}\nstatus: {}"])
def test_a_pod_template_that_is_none_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "pod-template.yaml"
    path.write_text(text)

    with pytest.raises(ValueError, match=r"pod-template\.yaml"):
        read_pod_template(path)


def test_lists_of_names_are_given_with_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in BARE.items():
        monkeypatch.setenv(f"CRYOMAMBA_OPERATOR_{name.upper()}", value)
    monkeypatch.setenv("CRYOMAMBA_OPERATOR_NAMESPACES", "lab, clinic,")

    assert Settings().namespaces == ("lab", "clinic")
