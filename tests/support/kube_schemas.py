"""Schemas for kubeconform: what an API server says of its own kinds, made strict; ours; those of `tests/data`."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

from support.kubernetes import CRD, Kubectl

OTHERS = Path(__file__).parents[1] / "data" / "schemas"
LOCATION = "{{ .ResourceKind }}_{{ .Group }}_{{ .ResourceAPIVersion }}.json"
"""The name of a file, as kubeconform is told it."""
_REFERENCE = re.compile(r'"#/definitions/([^"]+)"')
# The API server describes these two as strings and takes numbers as well.
_NUMBERS_TOO = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}

Schema = dict[str, Any]


def write_schemas(kubectl: Kubectl, folder: Path) -> None:
    """Put a file for each kind into a folder."""
    for path in OTHERS.glob("*.json"):
        (folder / path.name).write_text(json.dumps(strict(json.loads(path.read_text()))))
    definition = yaml.safe_load(CRD.read_text())
    names = definition["spec"]["names"]["kind"].lower(), definition["spec"]["group"]
    for version in definition["spec"]["versions"]:
        schema = strict(version["schema"]["openAPIV3Schema"])
        (folder / f"{names[0]}_{names[1]}_{version['name']}.json").write_text(json.dumps(schema))
    definitions = json.loads(kubectl("get", "--raw", "/openapi/v2"))["definitions"]
    definitions = {name: _NUMBERS_TOO.get(name, schema) for name, schema in definitions.items()}
    needs = {name: set(_REFERENCE.findall(json.dumps(schema))) for name, schema in definitions.items()}
    for name, schema in definitions.items():
        kinds = schema.get("x-kubernetes-group-version-kind", [])
        # Some, such as DeleteOptions, are of every group.
        if len(kinds) != 1 or name.endswith("List"):
            continue
        (kind,) = kinds
        # The core group has no name; kubeconform takes its version for one.
        file = folder / f"{kind['kind'].lower()}_{kind['group'] or kind['version']}_{kind['version']}.json"
        if not file.exists():
            below = {each: strict(definitions[each]) for each in _closure(name, needs)}
            file.write_text(json.dumps({"$ref": f"#/definitions/{name}", "definitions": below}))


def _closure(name: str, needs: dict[str, set[str]]) -> set[str]:
    found, waiting = {name}, [name]
    while waiting:
        new = needs[waiting.pop()] - found
        found |= new
        waiting += new
    return found


def strict(schema: Any) -> Any:
    """Return a schema that allows no property it does not name, and takes nothing but what JSON schema knows."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("x-kubernetes-int-or-string"):
        return {"type": ["string", "integer"]}
    result = {
        key: value for key, value in schema.items() if not key.startswith("x-") and key not in {"format", "default"}
    }
    for key, value in result.items():
        if key == "properties":
            result[key] = {name: strict(item) for name, item in value.items()}
        elif key in {"items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"}:
            result[key] = strict(value)
    open_ended = "additionalProperties" in schema or schema.get("x-kubernetes-preserve-unknown-fields")
    # A bare `metadata: {type: object}` of a definition is Kubernetes' own, with everything in it.
    if result.get("properties") and not open_ended:
        result["additionalProperties"] = False
    return result
