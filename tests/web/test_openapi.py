"""The OpenAPI document is complete, correct and committed."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import pytest

from tests.tools.openapi_document import OPENAPI_FILE, current_document

Node = dict[str, Any]
PICTURES = {"image/png", "image/svg+xml"}
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> Node:
    """The document that the service serves."""
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: Node = response.json()
    return found


def operations(document: Node) -> Iterator[tuple[str, Node]]:
    """Yield every operation with its name."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield f"{method.upper()} {path}", operation


def bodies(document: Node) -> Iterator[tuple[str, Node]]:
    """Yield the body of every request and response, with its location."""
    for name, operation in operations(document):
        for media_type, medium in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} takes {media_type}", medium
        for status, response in operation["responses"].items():
            for media_type, medium in response.get("content", {}).items():
                if media_type in PICTURES:
                    continue
                yield f"{name} gives {status} {media_type}", medium


async def test_committed_document_is_current() -> None:
    """A change of the API shows in the diff."""
    committed = OPENAPI_FILE.read_text(encoding="utf-8")
    assert committed == await current_document(), "Stale. Run 'make openapi'."


async def test_every_operation_is_described(document: Node) -> None:
    """Each has a summary, a description, one known tag and a readable operation id."""
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    names = []
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        assert len(operation["tags"]) == 1, name
        assert tags[operation["tags"][0]], name
        names.append(operation["operationId"])
    assert all(re.fullmatch(r"[a-z]+(_[a-z]+)*", name) for name in names), names
    assert len(set(names)) == len(names)


async def test_every_parameter_is_described(document: Node) -> None:
    """Each has a description and a type."""
    for name, operation in operations(document):
        undescribed = set(re.findall(r"{(\w+)}", name))
        for parameter in operation.get("parameters", []):
            assert parameter["description"].endswith("."), name
            assert parameter["schema"].keys() & {"type", "$ref"}, name
            undescribed.discard(parameter["name"])
        assert not undescribed, name


async def test_every_body_has_a_valid_example(document: Node) -> None:
    """Execute in Swagger UI sends a valid body."""
    for location, medium in bodies(document):
        if medium["schema"] == {"type": "string"}:
            continue  # a picture
        entries = medium.get("examples", {}).values()
        examples = [entry["value"] for entry in entries] or [medium["example"]]
        schema = medium["schema"] | {"components": document["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for example in examples:
            assert [str(error) for error in validator.iter_errors(example)] == [], location


OAUTH = {f"POST /api/v1/auth/{name}" for name in ("token", "revoke", "introspect")}


async def test_every_error_is_a_problem_document(document: Node) -> None:
    """The only exceptions are the 400 and 401 of RFC 6749."""
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            media_types = set(response.get("content", {}))
            if status >= "400" and not (name in OAUTH and status in {"400", "401"}):
                assert media_types == {"application/problem+json"}, (name, status)
                problem = response["content"]["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
                assert all(
                    entry["value"]["status"] == int(status)
                    for entry in problem["examples"].values()
                )
            else:
                metrics = {"text/plain"} if name == "GET /metrics" else set()
                assert media_types <= {"application/json"} | PICTURES | metrics, (name, status)


async def test_common_errors_are_documented(document: Node) -> None:
    """Common errors and their headers are in every operation that has them."""
    for name, operation in operations(document):
        responses = operation["responses"]
        assert "Request fulfilled" not in responses.get("200", {}).get("description", ""), name
        assert ("401" in responses) == bool(operation.get("security")), name
        if "requestBody" in operation:
            assert {"400", "408", "413"} <= responses.keys(), name
        if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
            assert "422" in responses, name
        for status, header in [
            ("201", "Location"),
            ("401", "WWW-Authenticate"),
            ("503", "Retry-After"),
        ]:
            if status in responses:
                assert header in responses[status]["headers"], (name, status)


async def test_every_request_body_is_documented(document: Node) -> None:
    """Operations without a body are listed here; forms have an example of each use."""
    without = {
        name
        for name, operation in operations(document)
        if name.partition(" ")[0] in {"POST", "PUT", "PATCH"} and "requestBody" not in operation
    }
    assert without == {
        "POST /api/v1/auth/email/verification",
        "POST /api/v1/me/codes/active/email",
        "POST /api/v1/me/codes/{code_id}/activate",
        "POST /api/v1/me/codes/{code_id}/deactivate",
    }
    for name, needed in (("token", "grant_type"), ("revoke", "token"), ("introspect", "token")):
        content = document["paths"][f"/api/v1/auth/{name}"]["post"]["requestBody"]["content"]
        (form,) = content.values()
        assert [*content] == ["application/x-www-form-urlencoded"]
        assert form["schema"]["required"] == [needed]
        assert form["examples"]


async def test_success_statuses_follow_their_kind(document: Node) -> None:
    """Creation is 201, no content 204, an e-mail 202, a share link 302, all else 200."""
    special = {
        "POST /api/v1/auth/register": "201",
        "POST /api/v1/me/codes": "201",
        "DELETE /api/v1/me/codes/{code_id}": "204",
        "GET /r/{code}": "302",
        "DELETE /api/v1/me": "204",
        "PUT /api/v1/me/password": "204",
        "POST /api/v1/auth/email/confirm": "204",
        "POST /api/v1/auth/email/disown": "204",
        "POST /api/v1/auth/email/verification": "202",
        "POST /api/v1/auth/password/forgot": "202",
        "POST /api/v1/auth/password/reset": "204",
        "POST /api/v1/me/codes/active/email": "202",
    }
    for name, operation in operations(document):
        success = [status for status in operation["responses"] if status < "400"]
        assert success == [special.get(name, "200")], name


async def test_html_pages_are_not_in_the_document(document: Node) -> None:
    """Docs and problem pages are not part of the API."""
    assert all(
        path.startswith(("/api/v1/", "/.well-known/", "/health/", "/metrics", "/r/"))
        for path in document["paths"]
    )


async def test_security_schemes_support_swagger_ui(document: Node) -> None:
    """The Authorize dialog supports password and bearer token."""
    schemes = document["components"]["securitySchemes"]
    assert schemes["password"]["flows"]["password"]["tokenUrl"] == "/api/v1/auth/token"
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


async def test_unknown_fields_are_documented_as_invalid(document: Node) -> None:
    """Every request body has `additionalProperties: false`."""
    for location, medium in bodies(document):
        if " takes application/json" in location:
            name = medium["schema"]["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][name]["additionalProperties"] is False, (
                location
            )
