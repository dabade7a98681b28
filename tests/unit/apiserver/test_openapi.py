"""The OpenAPI document is complete, and says what the routes do."""

import pytest
from fastapi.routing import APIRoute
from pydantic import BaseModel

from cryomamba_apiserver.app import create_app
from cryomamba_apiserver.artifacts.router import router as artifacts
from cryomamba_apiserver.errors import ErrorEnvelope
from cryomamba_apiserver.gpus.router import router as gpus
from cryomamba_apiserver.jobs.router import polled
from cryomamba_apiserver.jobs.router import router as jobs
from cryomamba_apiserver.openapi_examples import EXAMPLES
from cryomamba_apiserver.openapi_fields import FIELDS
from cryomamba_apiserver.operations.probes import router as probes
from cryomamba_apiserver.settings import Settings
from cryomamba_apiserver.system.router import authenticated
from cryomamba_apiserver.system.router import router as system
from cryomamba_apiserver.uploads.router import router as uploads

ROUTES = [
    route
    for router in (artifacts, gpus, polled, jobs, probes, authenticated, system, uploads)
    for route in router.routes
    if isinstance(route, APIRoute)
]
PUBLIC = {"healthz", "livez", "readyz", "download", "look_at_download"}
LIMIT_HEADERS = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset", "X-Request-ID"}


@pytest.fixture(scope="module")
def document(tmp_path_factory):
    return create_app(Settings(data_dir=tmp_path_factory.mktemp("data"))).openapi()


@pytest.fixture(scope="module")
def operations(document):
    return {operation["operationId"]: operation for path in document["paths"].values() for operation in path.values()}


def models(of=BaseModel):
    """Every model that is imported, by name."""
    return {model.__name__: model for sub in of.__subclasses__() for model in (sub, *models(sub).values())}


def test_the_document_has_the_routes_of_the_app_and_no_other(document):
    documented = {(path, method.upper()) for path, methods in document["paths"].items() for method in methods}

    assert documented == {(route.path, method) for route in ROUTES for method in route.methods}


def test_every_operation_has_a_name_of_its_own_a_summary_and_a_description(document, operations):
    assert len(operations) == sum(len(methods) for methods in document["paths"].values())
    for name, operation in operations.items():
        assert name.isidentifier()
        assert 0 < len(operation["summary"]) < 80
        assert len(operation["description"]) > 10


def test_every_operation_but_the_public_ones_asks_for_a_bearer_token(document, operations):
    (scheme,) = document["components"]["securitySchemes"].values()

    assert (scheme["type"], scheme["scheme"], scheme["bearerFormat"]) == ("http", "bearer", "JWT")
    assert {name for name, operation in operations.items() if not operation.get("security")} == PUBLIC


def test_every_refusal_has_the_envelope_and_an_example_of_it(document):
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if int(status) >= 400 and method != "head":
                    content = response["content"]["application/json"]
                    assert content["schema"] == {"$ref": "#/components/schemas/ErrorEnvelope"}, (path, status)
                    failure = ErrorEnvelope.model_validate(content["example"]).error
                    assert failure.retryable is (failure.code.retryable or status == "408")


def test_every_operation_tells_the_refusals_that_all_share(operations):
    for name, operation in operations.items():
        assert {"400", "500", "503"} <= set(operation["responses"])
        assert ("401" in operation["responses"]) is (name not in PUBLIC)


def test_every_answer_tells_the_headers_that_all_share(operations):
    for operation in operations.values():
        for status, response in operation["responses"].items():
            assert set(response["headers"]) >= LIMIT_HEADERS
            assert ("Retry-After" in response["headers"]) is (status in {"429", "503"})


def test_every_field_is_described(document):
    for name, schema in document["components"]["schemas"].items():
        for field, described in schema.get("properties", {}).items():
            assert described.get("description"), f"{name}.{field}"


def test_every_parameter_is_described(operations):
    for name, operation in operations.items():
        for parameter in operation.get("parameters", []):
            assert parameter.get("description"), f"{name}: {parameter['name']}"


def test_fields_that_are_measured_tell_their_unit(document):
    schemas = document["components"]["schemas"]
    units = {
        "Health.uptime_seconds": "seconds",
        "GpuInfo.memory_total": "bytes",
        "GpuStatus.memory_total": "MiB",
        "GpuStatus.temperature": "°C",
        "GpuStatus.power_usage": "W",
        "GpuStats.utilization": "percent",
        "InitUpload.total_size": "bytes",
        "InitUpload.chunk_size": "bytes",
        "PartReceived.received_bytes": "bytes",
        "FileCreated.size": "bytes",
        "VolumeMetadata.voxel_size": "nm",
        "VolumeMetadata.shape": "[X, Y, Z]",
        "ArtifactLink.size": "bytes",
        "Progress.percentage": "percent",
        "Progress.eta_seconds": "seconds",
        "PreviewParams.interval_seconds": "seconds",
        "Statistics.physical_volume_nm3": "nm³",
        "Statistics.surface_area_nm2": "nm²",
    }

    for field, unit in units.items():
        model, name = field.split(".")
        assert unit.lower() in schemas[model]["properties"][name]["description"].lower(), field


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_what_its_model_takes_or_gives(name):
    model = models()[name]

    model.model_validate(EXAMPLES[name], extra="forbid")


def test_every_model_that_an_operation_takes_or_gives_has_an_example(document, operations):
    for operation in operations.values():
        bodies = [operation.get("requestBody", {}), *operation["responses"].values()]
        for body in bodies:
            schema = body.get("content", {}).get("application/json", {}).get("schema", {})
            if "$ref" in schema:
                assert document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]["examples"]


def test_the_words_for_fields_are_all_in_use(document, operations):
    parameters = {
        parameter["name"] for operation in operations.values() for parameter in operation.get("parameters", [])
    }
    named = parameters | {
        word
        for model, schema in document["components"]["schemas"].items()
        for field in schema.get("properties", {})
        for word in (field, f"{model}.{field}")
    }

    assert set(FIELDS) <= named


def test_the_websocket_is_told_with_all_its_messages(document):
    (socket,) = document["x-websockets"].values()

    messages = {reference["$ref"].rpartition("/")[2] for reference in socket["serverMessages"]}
    assert messages == {"ProgressMessage", "PreviewMessage", "CompletedMessage", "ErrorMessage", "PongMessage"}
    assert messages <= set(document["components"]["schemas"])
