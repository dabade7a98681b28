"""Turns the pydantic models of the resource into the CustomResourceDefinition that Kubernetes is given."""

from typing import Any

from pydantic import BaseModel

from cryomamba_crds.resource import GROUP, KIND, PLURAL, VERSION, SegmentationJobSpec, SegmentationJobStatus

_Schema = dict[str, Any]

_NAME_LENGTH = 57  # a pod's name is its Job's, cut to 58 characters, and 5 random ones
_GOES_ON = "!has(oldSelf.conditions) || !oldSelf.conditions.exists(c, c.type == 'Succeeded' && c.status != 'Unknown')"
_ENDED = "a finished job stays as it ended"

_ROOT_RULES = [
    {
        "rule": f"self.metadata.name.size() <= {_NAME_LENGTH} && !self.metadata.name.contains('.')",
        "message": f"a name has at most {_NAME_LENGTH} characters and no dots",
    },
    {
        # A rule on status itself is not evaluated when status is removed as a whole.
        "rule": "!has(oldSelf.status) || has(self.status)",
        "message": "status cannot be removed",
    },
]

_STATUS_RULES = [
    {
        # Messages and observedGeneration stay free: the generation follows what may still change in the spec.
        "rule": (
            f"{_GOES_ON} || (has(self.conditions) && oldSelf.conditions.filter(c, c.type == 'Succeeded' || "
            "(c.type == 'Finished' && c.status == 'True')).all(o, self.conditions.exists(c, "
            "c.type == o.type && c.status == o.status && c.reason == o.reason)))"
        ),
        "message": _ENDED,
    },
    *(
        {
            "rule": (
                f"{_GOES_ON} || (has(self.{name}) == has(oldSelf.{name}) && "
                f"(!has(self.{name}) || self.{name} == oldSelf.{name}))"
            ),
            "message": _ENDED,
        }
        for name in ("failure", "completedAt")
    ),
    {
        "rule": "!has(oldSelf.attempt) || (has(self.attempt) && self.attempt >= oldSelf.attempt)",
        "message": "attempts are counted upwards",
    },
]

_COLUMNS = [
    {"name": "Model", "type": "string", "jsonPath": ".spec.model"},
    {"name": "State", "type": "string", "jsonPath": '.status.conditions[?(@.type=="Succeeded")].reason'},
    {"name": "Progress", "type": "integer", "jsonPath": ".status.progress.percentage", "description": "Percent"},
    {"name": "ETA", "type": "integer", "jsonPath": ".status.progress.etaSeconds", "description": "Seconds"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
]


def custom_resource_definition() -> _Schema:
    """Return the CRD as plain dicts and lists, ready to be written as YAML."""
    schema = {
        "type": "object",
        "description": "One segmentation of one volume by one model.",
        "required": ["spec"],
        "x-kubernetes-validations": _ROOT_RULES,
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"type": "object"},
            "spec": _spec_schema(),
            "status": {**structural_schema(SegmentationJobStatus), "x-kubernetes-validations": _STATUS_RULES},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["segjob"],
                "categories": ["cryomamba"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": _COLUMNS,
                    "schema": {"openAPIV3Schema": schema},
                },
            ],
        },
    }


def structural_schema(model: type[BaseModel]) -> _Schema:
    """Return a model's JSON schema in the form that Kubernetes accepts: no references, no unions with null."""
    schema = model.model_json_schema(by_alias=True)
    structural: _Schema = _structural(schema, schema.get("$defs", {}))
    return structural


def _spec_schema() -> _Schema:
    schema = structural_schema(SegmentationJobSpec)
    # `self == oldSelf` on a field does not see it being added or removed; that is asked of its parent.
    schema["x-kubernetes-validations"] = [
        {
            "rule": f"has(self.{name}) == has(oldSelf.{name})",
            "message": f"{name} cannot be added or removed; create a new SegmentationJob",
        }
        for name, field in sorted(schema["properties"].items())
        if name not in schema["required"] and "default" not in field and "x-kubernetes-validations" in field
    ]
    return schema


def _structural(node: Any, definitions: _Schema) -> Any:  # noqa: ANN401 - walks JSON of any shape
    if isinstance(node, list):
        return [_structural(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    node = dict(node)
    if reference := node.pop("$ref", None):
        node = {**definitions[reference.rsplit("/", 1)[1]], **node}
    if any_of := node.pop("anyOf", None):
        (only,) = (option for option in any_of if option != {"type": "null"})
        return _structural({**only, **node}, definitions)
    if "default" in node and node["default"] is None:
        del node["default"]
    elif isinstance(node.get("default"), dict):
        # The API server drops nulls in defaults when the CRD is created, and refuses them when it is updated.
        node["default"] = {name: value for name, value in node["default"].items() if value is not None}
    if node.get("additionalProperties") is False:
        del node["additionalProperties"]  # the API server prunes or refuses unknown fields itself
    if "const" in node:
        node["enum"] = [node.pop("const")]
    if isinstance(node.get("title"), str):
        del node["title"]
    return {
        key: {name: _structural(field, definitions) for name, field in value.items()}
        if key == "properties"
        else _structural(value, definitions)
        for key, value in node.items()
        if key != "$defs"
    }
