"""The page of the chart's values, and what is copied into the chart."""

import importlib.util
import json
from types import ModuleType

import pytest
import yaml

from support.helm import CHART

REPLICAS = {"type": "integer", "description": "How many."}


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("chart_generate", CHART.parent / "generate.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _schema(**properties):
    return {"properties": {"server": {"description": "The server.", "properties": properties}}}


def test_a_value_is_told_with_its_default_and_meaning(generate):
    page = generate.page(_schema(replicas=REPLICAS), {"server": {"replicas": 2}})

    assert "## `server`\n\nThe server.\n" in page
    assert "| `server.replicas` | `2` | How many. |" in page


def test_words_that_are_allowed_are_told(generate):
    policy = {"type": "string", "description": "When.", "enum": ["", "Always", "Never"]}

    page = generate.page(_schema(policy=policy), {"server": {"policy": ""}})

    assert "| `server.policy` |  | When. One of `Always`, `Never`. |" in page


def test_what_many_values_share_is_described_where_it_is_used(generate):
    schema = _schema(labels={"$ref": "#/$defs/words", "description": "Of its pods."})
    schema["$defs"] = {"words": {"type": "object", "description": "Names and values."}}

    page = generate.page(schema, {"server": {"labels": {"a": "b"}}})

    assert '| `server.labels` | `{"a": "b"}` | Of its pods. |' in page


@pytest.mark.parametrize(
    ("schema", "values", "named"),
    [
        (_schema(replicas={"type": "integer"}), {"server": {"replicas": 2}}, "server.replicas needs a description"),
        (_schema(replicas=REPLICAS), {"server": {"replicas": 2, "more": 1}}, "differ in server: .'more'"),
        (_schema(replicas=REPLICAS), {"server": {}}, "differ in server: .'replicas'"),
        (_schema(replicas=REPLICAS), {"server": {"replicas": 2}, "other": {}}, "differ in general: .'other'"),
    ],
)
def test_a_value_that_is_not_described_or_not_there_is_named(generate, schema, values, named):
    with pytest.raises(ValueError, match=named):
        generate.page(schema, values)


def test_the_chart_has_the_definition_the_rights_and_the_policy_as_they_are(generate):
    for path, text in generate.files().items():
        assert path.read_text() == text, f"{path} is out of date: make generate"


def test_every_group_of_values_refuses_what_it_does_not_know():
    schema = json.loads((CHART / "values.schema.json").read_text())

    def closed(part, path):
        if "properties" in part:
            assert part["additionalProperties"] is False, path
            for name, item in part["properties"].items():
                closed(item, f"{path}.{name}")

    closed(schema, "values")


def test_the_defaults_alone_have_no_secret_in_them():
    values = yaml.safe_load((CHART / "values.yaml").read_text())

    assert (values["s3"]["accessKey"], values["s3"]["secretKey"]) == ("", "")
