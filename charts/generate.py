"""Write what the chart and its page take from elsewhere; with --check only say whether the files are up to date.

Helm reads nothing outside a chart's folder: the resource's definition, and the rights of operator and runners, which
have their places beside the code that needs them, are copied into it. `docs/values.md` is the chart's values with the
descriptions of their schema.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[1]
CHART = ROOT / "charts" / "cryomamba"
MANIFESTS = ROOT / "operator" / "manifests"
_HEADER = "# Copied from {source} by `make generate`; changes made here are lost.\n"
_PAGE = """<!-- Generated from charts/cryomamba by `make generate`; changes made here are lost. -->

# Values of the chart

`helm show values charts/cryomamba` prints them as a file to start from. A value that is not in these tables is refused
by name, and so is one of the wrong kind. [install.md](install.md) says which ones a first installation needs.
"""
_COLUMNS = "| value | default | meaning |\n|---|---|---|\n"

Schema = dict[str, Any]


def files() -> dict[Path, str]:
    """Return every generated file and what is to be in it."""
    operator, runner = (_objects(MANIFESTS / f"{name}.yaml") for name in ("operator", "runner"))
    schema = json.loads((CHART / "values.schema.json").read_text())
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    return {
        CHART / "files" / "crd.yaml": _copy(
            "crds/segmentationjobs.yaml", yaml.safe_load((ROOT / "crds" / "segmentationjobs.yaml").read_text())
        ),
        CHART / "files" / "operator-rules.yaml": _copy(
            "operator/manifests/operator.yaml", {kind: operator[kind]["rules"] for kind in ("Role", "ClusterRole")}
        ),
        CHART / "files" / "runner-rules.yaml": _copy(
            "operator/manifests/runner.yaml", {"Role": runner["Role"]["rules"]}
        ),
        CHART / "files" / "runner-policy.yaml": _copy(
            "operator/manifests/runner.yaml", runner["ValidatingAdmissionPolicy"]["spec"]
        ),
        ROOT / "docs" / "values.md": page(schema, values),
    }


def _objects(path: Path) -> dict[str, Any]:
    return {item["kind"]: item for item in yaml.safe_load_all(path.read_text())}


def _copy(source: str, content: object) -> str:
    return _HEADER.format(source=source) + yaml.safe_dump(content, sort_keys=False, width=120)


def page(schema: Schema, values: dict[str, Any]) -> str:
    """Return `docs/values.md`: a section for each group, and one for what is in none.

    Raises:
        ValueError: A value has no description, or schema and values do not have the same ones.
    """
    general, groups = [], []
    for name, given in _same_names("", schema["properties"], values):
        part = resolved(given, schema)
        if "properties" in part:
            text = part.get("description")
            if not text:
                raise ValueError(f"{name} needs a description")
            rows = "".join(_rows(name, part, values[name], schema))
            groups.append(f"\n## `{name}`\n\n{text}\n\n{_COLUMNS}{rows}")
        else:
            general.append(_row(name, part, values[name]))
    return _PAGE + f"\n## General\n\n{_COLUMNS}{''.join(general)}" + "".join(groups)


def _rows(path: str, part: Schema, values: dict[str, Any], schema: Schema) -> Iterator[str]:
    for name, given in _same_names(path, part["properties"], values):
        item, below = resolved(given, schema), f"{path}.{name}"
        if "properties" in item:
            yield from _rows(below, item, values[name], schema)
        else:
            yield _row(below, item, values[name])


def resolved(part: Schema, schema: Schema) -> Schema:
    """Return a part of the schema with what it refers to; its own words come first."""
    reference = part.get("$ref")
    if reference is None:
        return part
    return {**schema["$defs"][reference.removeprefix("#/$defs/")], **part}


def _same_names(path: str, properties: dict[str, Schema], values: dict[str, Any]) -> Iterator[tuple[str, Schema]]:
    described = {name for name in properties if path or name != "global"}  # Helm's own
    if different := described.symmetric_difference(values):
        raise ValueError(f"values.yaml and values.schema.json differ in {path or 'general'}: {sorted(different)}")
    return ((name, properties[name]) for name in values)


def _row(name: str, part: Schema, default: object) -> str:
    text = part.get("description")
    if not text:
        raise ValueError(f"{name} needs a description")
    # YAML's own words for what is empty say less than nothing.
    shown = "" if default in (None, "", [], {}) else f"`{json.dumps(default)}`"
    words = f"{text} One of {', '.join(f'`{word}`' for word in part['enum'] if word)}." if "enum" in part else text
    return f"| `{name}` | {shown} | {words.replace('|', '&#124;')} |\n"


def main() -> int:
    """Return 1 where a file differs from what it is made from."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail on a difference")
    check = parser.parse_args().check
    stale = [path for path, text in files().items() if not path.exists() or path.read_text() != text]
    if not check:
        for path, text in files().items():
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        return 0
    for path in stale:
        print(f"{path.relative_to(ROOT)} is out of date; run `make generate` and commit the result", file=sys.stderr)
    return bool(stale)


if __name__ == "__main__":
    sys.exit(main())
