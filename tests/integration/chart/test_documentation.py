"""What the pages for administrators say, held against chart, cluster and code."""

import json
import re
import subprocess

import pytest
import yaml

from cryomamba_crds.failures import FailureCode
from support.helm import CHART, TRIAL, template

DOCS = CHART.parents[1] / "docs"
PAGES = ("install", "upgrade", "backup", "troubleshooting")
TEXTS = {name: (DOCS / f"{name}.md").read_text() for name in PAGES}
SCHEMA = json.loads((CHART / "values.schema.json").read_text())


def _blocks(language: str, page: str) -> list[str]:
    fenced = re.findall(r"^```(\w*)\n(.*?)^```$", TEXTS[page], re.DOTALL | re.MULTILINE)
    return [text for kind, text in fenced if kind == language]


def _here_documents(page: str) -> list[str]:
    return re.findall(r"<<'?END'?\n(.*?)^END$", TEXTS[page], re.DOTALL | re.MULTILINE)


def test_every_failure_code_is_explained():
    assert [code for code in FailureCode if f"`{code}`" not in TEXTS["troubleshooting"]] == []


@pytest.mark.parametrize("block", _blocks("yaml", "install"))
def test_every_piece_of_values_is_taken_by_the_chart(block):
    values = yaml.safe_load(block)

    assert template({**TRIAL, **values})


@pytest.mark.parametrize("text", [text for text in _here_documents("install") if text.startswith("image:")])
def test_every_file_of_values_is_taken_by_the_chart(text):
    filled = (
        text.replace("$REGION", "eu-central-1").replace("$BUCKET", "cryomamba-x").replace("$ACCOUNT", "012345678901")
    )

    assert template(yaml.safe_load(filled))


def test_the_policy_of_the_bucket_is_json():
    (policy,) = [text for text in _here_documents("install") if text.startswith("{")]

    assert json.loads(policy)["Version"] == "2012-10-17"


@pytest.mark.parametrize("page", PAGES)
def test_every_command_is_one_that_a_shell_takes(page):
    for block in _blocks("", page):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True, capture_output=True)


def test_the_job_is_one_that_kubernetes_takes(control_plane_namespace):
    (job,) = [text for text in _here_documents("install") if "kind: SegmentationJob" in text]

    control_plane_namespace(
        "create", "--dry-run=server", "--filename", "-", manifest=yaml.safe_load(job.replace("$USER", "ada"))
    )


def _exists(path: list[str]) -> bool:
    part = SCHEMA
    for name in path:
        if "$ref" in part:
            part = SCHEMA["$defs"][part["$ref"].removeprefix("#/$defs/")]
        properties = part.get("properties", {})
        if name not in properties:
            # Below a map of names, anything goes.
            return "properties" not in part
        part = properties[name]
    return True


@pytest.mark.parametrize("page", PAGES)
def test_every_value_that_is_named_exists(page):
    groups = "|".join(name for name in SCHEMA["properties"] if name != "global")
    named = set(re.findall(rf"(?<![\w/.-])(?:{groups})(?:\.(?!md\b)[A-Za-z]+)+(?![\w(])", TEXTS[page]))

    assert [name for name in sorted(named) if not _exists(name.split("."))] == []


@pytest.mark.parametrize("page", [*PAGES, "values"])
def test_every_link_leads_somewhere(page):
    text = (DOCS / f"{page}.md").read_text()
    targets = re.findall(r"\]\((?!https?:)([^)#]+)", text)

    assert [target for target in targets if not (DOCS / target).exists()] == []
