"""The OpenAPI document is complete, true, and the one in the repository."""

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
    """The document, as the service shows it."""
    answer = await client.get("/openapi.json")
    assert answer.headers["content-type"] == "application/json"
    found: Node = answer.json()
    return found


def operations(document: Node) -> Iterator[tuple[str, Node]]:
    """Return every operation with its name."""
    for path, item in document["paths"].items():
        for method, operation in item.items():
            assert method in METHODS
            yield f"{method.upper()} {path}", operation


def media(document: Node) -> Iterator[tuple[str, Node]]:
    """Return every body, of requests and of answers, with its place."""
    for name, operation in operations(document):
        for kind, medium in operation.get("requestBody", {}).get("content", {}).items():
            yield f"{name} takes {kind}", medium
        for status, response in operation["responses"].items():
            for kind, medium in response.get("content", {}).items():
                if kind in PICTURES:
                    continue
                yield f"{name} gives {status} {kind}", medium


async def test_the_committed_document_is_the_one_that_the_service_shows() -> None:
    """Whoever changes the API sees in the diff what clients will see."""
    committed = OPENAPI_FILE.read_text(encoding="utf-8")
    assert committed == await current_document(), "Stale. Run 'make openapi'."


async def test_every_operation_says_what_it_is(document: Node) -> None:
    """Each has a summary, a description, one known tag and a name that reads well."""
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
    """A reader learns what to put into each parameter, and what type it has."""
    for name, operation in operations(document):
        wanted = set(re.findall(r"{(\w+)}", name))
        for parameter in operation.get("parameters", []):
            assert parameter["description"].endswith("."), name
            assert parameter["schema"].keys() & {"type", "$ref"}, name
            wanted.discard(parameter["name"])
        assert not wanted, name


async def test_every_body_has_an_example_that_fits_its_schema(document: Node) -> None:
    """One can press Execute in Swagger UI and get further than a refusal of the body."""
    for place, medium in media(document):
        if medium["schema"] == {"type": "string"}:
            continue  # a picture
        named = medium.get("examples", {}).values()
        examples = [entry["value"] for entry in named] or [medium["example"]]
        schema = medium["schema"] | {"components": document["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for example in examples:
            assert [str(error) for error in validator.iter_errors(example)] == [], place


OAUTH = {f"POST /api/v1/auth/{name}" for name in ("token", "revoke", "introspect")}


async def test_every_refusal_is_a_problem_document(document: Node) -> None:
    """The exceptions are the 400s and 401s of RFC 6749, pictures and figures."""
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            kinds = set(response.get("content", {}))
            if status >= "400" and not (name in OAUTH and status in {"400", "401"}):
                assert kinds == {"application/problem+json"}, (name, status)
                problem = response["content"]["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
                assert all(
                    entry["value"]["status"] == int(status)
                    for entry in problem["examples"].values()
                )
            else:
                figures = {"text/plain"} if name == "GET /metrics" else set()
                assert kinds <= {"application/json"} | PICTURES | figures, (name, status)


async def test_what_answers_have_in_common_is_documented(document: Node) -> None:
    """Whoever may be turned away finds it, with the headers that tell what to do."""
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


async def test_every_body_is_documented(document: Node) -> None:
    """What takes none is named here; the token service takes forms, with an example of each use."""
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


async def test_each_answer_has_the_status_of_its_kind(document: Node) -> None:
    """Creating is 201, what has no answer 204, a mail 202, a share link 302, all else 200."""
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
        good = [status for status in operation["responses"] if status < "400"]
        assert good == [special.get(name, "200")], name


async def test_pages_for_people_are_not_in_the_document(document: Node) -> None:
    """Docs and problem pages are no part of the API."""
    assert all(
        path.startswith(("/api/v1/", "/.well-known/", "/health/", "/metrics", "/r/"))
        for path in document["paths"]
    )


async def test_one_can_authorize_with_a_password_or_a_token(document: Node) -> None:
    """The schemes are those that the Authorize button of Swagger UI works with."""
    schemes = document["components"]["securitySchemes"]
    assert schemes["password"]["flows"]["password"]["tokenUrl"] == "/api/v1/auth/token"
    assert schemes["bearer"] == {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


async def test_names_that_no_field_may_have_are_documented(document: Node) -> None:
    """Every request body refuses fields that it does not know."""
    for place, medium in media(document):
        if " takes application/json" in place:
            name = medium["schema"]["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][name]["additionalProperties"] is False, place
