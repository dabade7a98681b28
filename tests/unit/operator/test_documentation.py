"""docs/operator.md against the code: what a person looks up there has to be there."""

import ast
import re
from pathlib import Path

from cryomamba_operator import diagnose
from cryomamba_operator.settings import Settings

PAGE = (Path(__file__).parents[3] / "docs" / "operator.md").read_text()
DIAGNOSES = [path for folder in diagnose.__path__ for path in Path(folder).glob("*.py")]
COMPUTED = {"SandboxNotMade", "VolumeNotMounted", "GpuBusy", "ClusterBusy"}
"""Reasons that are chosen where a finding is made, so that they are no literal first argument."""


def reasons_in(source: str) -> set[str]:
    """Return the first words of findings and of rows of the tables that findings are made from."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "finding":
            found |= {item.value for item in node.args[:1] if isinstance(item, ast.Constant)}
        if isinstance(node, ast.Tuple) and len(node.elts) == 4 and isinstance(node.elts[1], ast.Constant):
            found.add(node.elts[1].value)
    return {reason for reason in found if isinstance(reason, str)}


def test_the_table_of_reasons_has_every_reason_and_no_other() -> None:
    table = PAGE.partition("## Reasons")[2].partition("## Settings")[0]
    rows = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    documented = {reason for row in rows for reason in re.findall(r"`([A-Za-z]+)`", row)}
    made = set().union(*(reasons_in(path.read_text()) for path in DIAGNOSES)) | COMPUTED

    assert documented == made


def test_the_table_of_settings_has_every_setting_with_its_default() -> None:
    found = re.findall(r"^\| ((?:`[A-Z0-9_]+`(?:, )?)+) \| ([^|]*) \|", PAGE, re.MULTILINE)
    rows = {name: default for names, default in found for name in re.findall("[A-Z0-9_]+", names)}

    assert set(rows) == {name.upper() for name in Settings.model_fields}
    for name, field in Settings.model_fields.items():
        if isinstance(field.default, int | float | str):
            default = field.default
            assert rows[name.upper()] == f"`{default:g}`" if isinstance(default, float) else f"`{default}`", name
