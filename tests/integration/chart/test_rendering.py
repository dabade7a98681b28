import json
import re
from pathlib import Path

import pytest
import yaml
from prometheus_client import generate_latest

from cryomamba_apiserver.operations.metrics import Backlog
from cryomamba_apiserver.operations.metrics import Metrics as ServerMetrics
from cryomamba_apiserver.settings import read_settings
from cryomamba_operator.metrics import Metrics as OperatorMetrics
from cryomamba_operator.settings import PREFIX as OPERATOR_PREFIX
from cryomamba_operator.settings import Settings as OperatorSettings
from support.helm import CHART, KUBERNETES, TRIAL, HelmError, pod_specs, run, template

ROOT = CHART.parents[1]


def test_helm_finds_nothing_to_complain_about(values):
    run("helm", "lint", "--strict", CHART, "--kube-version", KUBERNETES, "--values", "-", stdin=json.dumps(values))


def test_the_charts_own_tests_pass():
    run("helm-unittest", "--strict", CHART)


def test_every_object_is_what_kubernetes_takes(values, schemas, tmp_path):
    file = tmp_path / "release.yaml"
    file.write_text(yaml.safe_dump_all(template(values)))

    report = run("kubeconform", "-strict", "-output", "json", "-summary", "-schema-location", schemas, file)

    assert json.loads(report)["summary"]["skipped"] == 0


@pytest.mark.parametrize("name", ["segmentationjob", "segmentationjob-everything"])
def test_the_examples_are_what_the_definition_describes(name, schemas):
    run("kubeconform", "-strict", "-schema-location", schemas, ROOT / "examples" / f"{name}.yaml")


def test_a_misspelt_field_of_a_job_is_found(schemas, tmp_path):
    job = yaml.safe_load((ROOT / "examples" / "segmentationjob.yaml").read_text())
    job["spec"]["modle"] = job["spec"].pop("model")
    (tmp_path / "job.yaml").write_text(yaml.safe_dump(job))

    with pytest.raises(HelmError, match="modle"):
        run("kubeconform", "-strict", "-schema-location", schemas, tmp_path / "job.yaml")


def _environment(values, component, mounted: Path) -> dict[str, str]:
    """Return a component's variables, with the files that they name where this test can put some."""
    (config,) = (
        item
        for item in template(values)
        if (item["kind"], item["metadata"]["name"]) == ("ConfigMap", f"cryomamba-{component}")
    )
    certificate = "-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"
    environment = {}
    for name, value in config["data"].items():
        environment[name] = value
        if value.startswith(("/var/run/secrets/", "/etc/cryomamba/")):
            file = mounted / value.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(certificate if value.endswith(".crt") else "x" * 64)
            environment[name] = str(file)
    return environment


def test_the_server_knows_every_setting_that_it_is_given(values, tmp_path):
    read_settings(_environment(values, "apiserver", tmp_path))


def test_the_operator_knows_every_setting_that_it_is_given(values, tmp_path, monkeypatch):
    values.get("operator", {}).pop("settings", None)
    environment = _environment(values, "operator", tmp_path)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)

    OperatorSettings()

    assert {name.removeprefix(OPERATOR_PREFIX).lower() for name in environment} <= set(OperatorSettings.model_fields)


def test_every_container_is_as_restricted_as_it_can_be(values):
    for name, spec in pod_specs(template(values)).items():
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["enableServiceLinks"] is False, name
        for container in [*spec["containers"], *spec.get("initContainers", [])]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }, name
            assert container["resources"]["limits"]["memory"], name


def test_nobody_has_a_right_to_everything(values):
    rules = [rule for item in template(values) if item["kind"].endswith("Role") for rule in item["rules"]]

    assert rules
    for rule in rules:
        assert "*" not in [*rule["apiGroups"], *rule["resources"], *rule["verbs"]]


def test_no_secret_is_in_a_config_map_or_an_argument():
    values = {"s3": {"endpoint": "https://s3.example.org", "accessKey": "AKIAKEY", "secretKey": "SECRETKEY"}}
    objects = [item for item in template(values) if item["kind"] != "Secret"]

    assert not re.search("AKIAKEY|SECRETKEY", json.dumps(objects))


def test_a_change_of_settings_or_keys_starts_new_pods_and_nothing_else_does():
    s3 = {"endpoint": "https://s3.example.org", "accessKey": "a", "secretKey": "b"}

    def annotations(**changes):
        objects = template({"s3": s3, **changes})
        pods = [item["spec"]["template"]["metadata"] for item in objects if item["kind"] == "Deployment"]
        return json.dumps([pod.get("annotations") for pod in pods], sort_keys=True)

    before = annotations()

    assert annotations(ingress={"maxBodySize": "200m"}) == before
    assert annotations(jobs={"memory": "64Gi"}) != before
    assert annotations(s3={**s3, "secretKey": "c"}) != before


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"apiserver": {"replicas": 2}}, "apiserver"),
        ({"apiServer": {"replicas": 0}}, "replicas"),
        ({"s3": {"endpoint": "s3.example.org"}}, "endpoint"),
        ({"s3": {"endpoint": "https://s3.example.org/bucket"}}, "endpoint"),
        ({"image": {"server": {"digest": "abc"}}}, "digest"),
        ({"jobs": {"memory": "lots"}}, "memory"),
        ({"runner": {"device": "tpu"}}, "device"),
        ({"apiServer": {"settings": {"limits_url": "redis://:secret@host"}}}, "limits_url"),
        ({"apiServer": {"settings": {"Max-Upload": 1}}}, "Max-Upload"),
        ({"ingress": {"controller": "apache"}}, "controller"),
    ],
)
def test_a_value_that_nobody_could_mean_is_refused_by_name(wrong, named):
    with pytest.raises(HelmError, match=named):
        template({**TRIAL, **wrong})


def test_the_chart_is_of_the_same_version_as_the_code():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())

    assert f'version = "{chart["appVersion"]}"' in (ROOT / "pyproject.toml").read_text()


class _Nothing:
    """What the operator's gauges look at, with nothing in it."""

    held = waiting = oldest_seconds = 0

    def records(self):
        return []

    def __len__(self):
        return 0


def _exported() -> set[str]:
    server, operator = ServerMetrics(), OperatorMetrics()
    server.answered("GET", "/v1/healthz", 200, 0.1, 1, 1)
    operator.watch(_Nothing(), _Nothing(), _Nothing())
    operator.resyncs.labels("success").inc()
    operator.credentials.labels("error").inc()
    with operator.reconcile():
        pass
    text = server.exposition(Backlog(0, 0)) + generate_latest(operator.registry)
    return set(re.findall(r"^([a-z_]+)[{ ]", text.decode(), re.MULTILINE))


@pytest.mark.parametrize("file", ["alerts.yaml", "dashboard.json"])
def test_alerts_and_dashboard_ask_for_metrics_that_there_are(file):
    text = (CHART / "monitoring" / file).read_text()
    queries = re.findall(r"\b(cryomamba_[a-z_]+|process_[a-z_]+)\b(?=[\[{])", text.replace("\\", ""))

    assert queries
    assert set(queries) <= _exported()
