"""The OpenAPI document is complete, correct and committed."""

import re
from collections.abc import Iterator
from typing import Any

import httpx
import jsonschema_rs
import msgspec
import pytest

from referral.settings import Settings
from referral.web.permissions import REQUIRED_SCOPES
from referral.web.problem_types import all_problem_types
from tests.conftest import ServiceFactory
from tests.support.api_client import API, PASSWORD, join
from tests.tools.openapi_document import OPENAPI_FILE, current_document

Node = dict[str, Any]
PICTURES = {"image/png", "image/svg+xml"}
TEXTS = {"GET /metrics": "text/plain", "GET /api/v1/referrals.csv": "text/csv"}
MAX_DOCUMENT_BYTES = 210_000
METHODS = {"get", "post", "put", "patch", "delete"}


@pytest.fixture
async def document(client: httpx.AsyncClient) -> Node:
    """The document that the service serves."""
    response = await client.get("/openapi.json")
    assert response.headers["content-type"] == "application/json"
    found: Node = response.json()
    return found


def resolve(document: Node, node: Node) -> Node:
    """Return the component that a reference refers to."""
    if "$ref" in node:
        for name in node["$ref"].removeprefix("#/").split("/"):
            document = document[name]
        return document
    return node


def responses_of(document: Node, operation: Node) -> dict[str, Node]:
    """Return the responses by status, with the shared ones in place of references."""
    return {
        status: resolve(document, response) for status, response in operation["responses"].items()
    }


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
        for status, response in responses_of(document, operation).items():
            for media_type, medium in response.get("content", {}).items():
                if media_type in PICTURES:
                    continue
                yield f"{name} gives {status} {media_type}", medium


async def test_committed_document_is_current() -> None:
    """A change of the API shows in the diff."""
    committed = OPENAPI_FILE.read_text(encoding="utf-8")
    assert committed == await current_document(), "Stale. Run 'make openapi'."


async def test_every_operation_is_described(document: Node) -> None:
    """Each has a summary, a description, one known tag, an id for generators, and its security."""
    tags = {tag["name"]: tag["description"] for tag in document["tags"]}
    names = []
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["description"].endswith("."), name
        assert len(operation["tags"]) == 1, name
        assert tags[operation["tags"][0]], name
        names.append(operation["operationId"])
        assert "security" in operation, name
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]+)*", name) for name in names), names
    assert len(set(names)) == len(names)


async def test_every_parameter_is_described(document: Node) -> None:
    """Each has a description and a type."""
    for name, operation in operations(document):
        undescribed = set(re.findall(r"{(\w+)}", name))
        for parameter in operation.get("parameters", []):
            assert parameter["description"].endswith("."), name
            assert parameter["schema"].keys() & {"type", "$ref"}, name
            assert "description" not in parameter["schema"], name
            undescribed.discard(parameter["name"])
        assert not undescribed, name


async def test_every_body_has_a_valid_example(document: Node) -> None:
    """Execute in Swagger UI sends a valid body."""
    for location, medium in bodies(document):
        if medium["schema"] == {"type": "string"}:
            continue  # a picture
        entries = [resolve(document, one) for one in medium.get("examples", {}).values()]
        examples = [entry["value"] for entry in entries] or [medium["example"]]
        schema = medium["schema"] | {"components": document["components"]}
        validator = jsonschema_rs.Draft202012Validator(schema, validate_formats=True)
        for example in examples:
            assert [str(error) for error in validator.iter_errors(example)] == [], location


OAUTH = {f"POST /api/v1/auth/{name}" for name in ("token", "revoke", "introspect")}


async def test_every_error_is_a_problem_document(document: Node) -> None:
    """The only exceptions are the 400 and 401 of RFC 6749."""
    for name, operation in operations(document):
        for status, response in responses_of(document, operation).items():
            media_types = set(response.get("content", {}))
            if status >= "400" and not (name in OAUTH and status in {"400", "401"}):
                assert media_types == {"application/problem+json"}, (name, status)
                problem = response["content"]["application/problem+json"]
                assert problem["schema"] == {"$ref": "#/components/schemas/ProblemDetails"}
                assert all(
                    resolve(document, entry)["value"]["status"] == int(status)
                    for entry in problem["examples"].values()
                )
            else:
                texts = {TEXTS[name]} if name in TEXTS else set()
                assert media_types <= {"application/json"} | PICTURES | texts, (name, status)


async def test_common_errors_are_documented(document: Node) -> None:
    """Common errors and their headers are in every operation that has them."""
    for name, operation in operations(document):
        responses = responses_of(document, operation)
        assert "Request fulfilled" not in responses.get("200", {}).get("description", ""), name
        assert ("401" in responses) == bool(operation.get("security")), name
        if "requestBody" in operation:
            assert {"400", "408", "413"} <= responses.keys(), name
        if any(parameter["in"] == "query" for parameter in operation.get("parameters", [])):
            assert "422" in responses, name
        for status, header in [
            ("201", "Location"),
            ("401", "WWW-Authenticate"),
            ("429", "Retry-After"),
            ("503", "Retry-After"),
        ]:
            if status in responses:
                assert header in responses[status]["headers"], (name, status)
        assert all("X-Request-ID" in response["headers"] for response in responses.values()), name
        success = next(iter(responses.values()))
        assert ("RateLimit" in success["headers"]) == ("429" in responses), name


async def test_every_request_body_is_documented(document: Node) -> None:
    """Operations without a body are listed here; forms have an example of each use."""
    without = {
        name
        for name, operation in operations(document)
        if name.partition(" ")[0] in {"POST", "PUT", "PATCH"} and "requestBody" not in operation
    }
    assert without == {
        "POST /api/v1/auth/email/verification",
        "POST /api/v1/clients/{client_id}/rotate-secret",
        "POST /api/v1/me/codes/active/email",
        "POST /api/v1/me/codes/{code_id}/activate",
        "POST /api/v1/me/codes/{code_id}/deactivate",
        "POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/retry",
        "POST /api/v1/webhooks/{webhook_id}/rotate-secret",
        "POST /api/v1/webhooks/{webhook_id}/test",
    }
    for name, needed in (("token", "grant_type"), ("revoke", "token"), ("introspect", "token")):
        content = document["paths"][f"/api/v1/auth/{name}"]["post"]["requestBody"]["content"]
        (form,) = content.values()
        assert [*content] == ["application/x-www-form-urlencoded"]
        assert form["schema"]["required"] == [needed]
        assert form["examples"]


async def test_success_statuses_follow_their_kind(document: Node) -> None:
    """Creation is 201, no content 204, an e-mail or event 202, a share link 302, all else 200."""
    special = {
        "POST /api/v1/auth/register": "201",
        "POST /api/v1/me/codes": "201",
        "POST /api/v1/clients": "201",
        "DELETE /api/v1/clients/{client_id}": "204",
        "DELETE /api/v1/me/codes/{code_id}": "204",
        "GET /r/{code}": "302",
        "DELETE /api/v1/me": "204",
        "DELETE /api/v1/users/{user_id}": "204",
        "PUT /api/v1/me/password": "204",
        "POST /api/v1/auth/email/confirm": "204",
        "POST /api/v1/auth/email/disown": "204",
        "POST /api/v1/auth/email/verification": "202",
        "POST /api/v1/auth/password/forgot": "202",
        "POST /api/v1/auth/password/reset": "204",
        "POST /api/v1/me/codes/active/email": "202",
        "POST /api/v1/webhooks": "201",
        "DELETE /api/v1/webhooks/{webhook_id}": "204",
        "POST /api/v1/webhooks/{webhook_id}/deliveries/{delivery_id}/retry": "202",
        "POST /api/v1/webhooks/{webhook_id}/replay": "202",
        "POST /api/v1/webhooks/{webhook_id}/test": "202",
    }
    for name, operation in operations(document):
        success = [status for status in operation["responses"] if status < "400"]
        if name == "PUT /api/v1/users/external/{external_id}":
            assert success == ["200", "201"]
        else:
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
    assert list(schemes)[-1] == "password", "The last form of the dialog gets the focus."
    token_url = "http://127.0.0.1:8000/api/v1/auth/token"
    assert schemes["password"]["flows"]["password"]["tokenUrl"] == token_url
    assert schemes["clientCredentials"]["flows"]["clientCredentials"]["tokenUrl"] == token_url
    assert (schemes["bearer"]["type"], schemes["bearer"]["scheme"]) == ("http", "bearer")
    for name, operation in operations(document):
        for requirement in operation["security"]:
            for scheme, scopes in requirement.items():
                flows = schemes[scheme].get("flows", {}).values()
                assert set(scopes) <= {scope for flow in flows for scope in flow["scopes"]}, name


async def test_document_is_small(document: Node) -> None:
    """Shared responses, headers and examples are components."""
    assert len(msgspec.json.encode(document)) <= MAX_DOCUMENT_BYTES
    for name, operation in operations(document):
        for status, response in operation["responses"].items():
            assert (status >= "400") == ("$ref" in response), (name, status)


async def test_document_has_the_public_url(settings: Settings, serve: ServiceFactory) -> None:
    """Generated clients and Swagger UI use absolute URLs."""
    public = "https://referral.example.com"
    async with serve(msgspec.structs.replace(settings, public_url=public)) as client:
        text = (await client.get("/openapi.json")).text
    document = msgspec.json.decode(text)
    assert document["servers"] == [{"url": public}]
    password = document["components"]["securitySchemes"]["password"]
    assert password["flows"]["password"]["tokenUrl"] == f"{public}/api/v1/auth/token"
    assert "127.0.0.1" not in text


def schema_nodes(node: Any) -> Iterator[Node]:
    """Yield every object in the schemas."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from schema_nodes(child)


async def test_schemas_suit_generators_of_clients(document: Node) -> None:
    """Generators take a field with a default as required, and RE2 has no look-ahead."""
    schemas = document["components"]["schemas"]
    for node in schema_nodes(schemas):
        assert "default" not in node, node
        if "pattern" in node:
            assert "(?" not in node["pattern"]
            assert {"minLength", "maxLength"} <= node.keys()
        if "enum" in node:
            assert node["type"] == "string"
        if node.get("type") == "integer":
            assert node["format"] in {"int32", "int64"}
    assert schemas["CreateCodeRequest"]["properties"]["code"]["pattern"] == "^[A-Za-z0-9-]+$"
    introspection = schemas["IntrospectionResponse"]["properties"]
    assert introspection["exp"]["format"] == introspection["iat"]["format"] == "int64"
    assert "errors" not in schemas["ProblemDetails"]["required"]
    assert schemas["ProblemCode"]["enum"] == sorted(all_problem_types())


async def test_passwords_have_their_format(document: Node) -> None:
    """Tools hide them, and generated clients know the bounds."""
    for name, schema in document["components"]["schemas"].items():
        for field, node in schema.get("properties", {}).items():
            if field.endswith("password"):
                is_new = (name, field) == ("RegisterRequest", "password") or field == "new_password"
                assert node["format"] == "password", name
                assert (node["minLength"], node["maxLength"]) == (8 if is_new else 1, 1024), name


async def test_pictures_are_binary(document: Node) -> None:
    """Generated clients return bytes."""
    for _, operation in operations(document):
        for media_type, medium in operation["responses"].get("200", {}).get("content", {}).items():
            if media_type in PICTURES:
                assert medium["schema"] == {"type": "string", "format": "binary"}


async def test_token_form_lists_grants(document: Node, client: httpx.AsyncClient) -> None:
    """The enum has the grants of the metadata, and every form the fields of a client."""
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    for name in ("token", "revoke", "introspect"):
        operation = document["paths"][f"/api/v1/auth/{name}"]["post"]
        (form,) = operation["requestBody"]["content"].values()
        assert {"client_id", "client_secret"} <= form["schema"]["properties"].keys()
        if name == "token":
            grants = form["schema"]["properties"]["grant_type"]["enum"]
            assert grants == metadata["grant_types_supported"] == list(form["examples"])
    example = document["paths"]["/.well-known/oauth-authorization-server"]["get"]["responses"]
    assert example["200"]["content"]["application/json"]["example"] == metadata
    assert example["200"]["headers"].keys() >= {"Cache-Control"}


EXPECTED_STATUSES = {
    **dict.fromkeys(("confirmEmail", "disownEmail", "resetPassword"), 422),  # a token of a mail
    "setMyReferrer": 422,  # nobody has the code
    "introspectToken": 401,  # there is no client
    # for admins and clients
    **dict.fromkeys(REQUIRED_SCOPES, 403),
}


async def test_examples_run_in_the_order_of_the_page(
    settings: Settings, serve: ServiceFactory
) -> None:
    """On a new service each prefilled request succeeds, if it needs nothing but the page."""
    async with serve(settings) as client:
        document = (await client.get("/openapi.json")).json()
        headers: dict[str, str] = {}
        ids: dict[str, str] = {}
        for name, operation in operations(document):
            method, _, path = name.partition(" ")
            unknown_ids = ("{user_id}", "{client_id}", "{referral_id}", "{webhook_id}")
            if operation["operationId"] == "deleteCode" or any(one in path for one in unknown_ids):
                continue  # the look-ups after it show the code; only a client knows these ids
            parameters = operation.get("parameters", ())
            given = {one["name"]: one.get("example") for one in parameters} | ids
            request = example_request(operation)
            expected = EXPECTED_STATUSES.get(operation["operationId"])
            response = await client.request(
                method,
                path.format_map(given),
                params={
                    one["name"]: one["example"]
                    for one in parameters
                    if one["in"] == "query" and one.get("required")
                },
                headers=headers if operation["security"] else {},
                **request,
            )
            success = int(next(iter(operation["responses"])))
            assert response.status_code == (expected or success), (name, response.text)
            if operation["operationId"] == "createCode":
                ids["code_id"] = response.json()["id"]
            if operation["operationId"] == "registerUser":
                token = document["paths"]["/api/v1/auth/token"]["post"]
                tokens = await client.post("/api/v1/auth/token", **example_request(token))
                headers["Authorization"] = f"Bearer {tokens.json()['access_token']}"


def example_request(operation: Node) -> Node:
    """Return the arguments of httpx for the first example of the body."""
    for media_type, medium in operation.get("requestBody", {}).get("content", {}).items():
        named = medium.get("examples", {}).values()
        example = next((one["value"] for one in named), medium.get("example"))
        return {"json" if media_type == "application/json" else "data": example}
    return {}


async def test_problem_examples_are_real_responses(
    document: Node, settings: Settings, serve: ServiceFactory
) -> None:
    """Each is what the service responds, but for the path and the request id."""
    registration = {"email": "ann@example.com", "password": PASSWORD}
    async with serve(settings) as client:
        url = f"{API}/auth/register"
        ann = await join(client)
        taken = {"email": ann.email, "password": PASSWORD}
        code = await ann.issue_code()
        responses = [
            await client.post(url, json=taken),
            await client.post(url, json=registration | {"email": 5}),
            await client.post(url, json=registration | {"referral_code": "EVE-2026"}),
            await client.post(url, json=registration | {"password": "short"}),
            await client.post(url, content=b"{", headers={"Content-Type": "application/json"}),
            await client.post(url, content=b"{}", headers={"Content-Type": "text/plain"}),
            await client.post(url, json={"email": "a" * 70_000}),
            await client.post(f"{API}/auth/email/disown", json={"token": "unknown"}),
            await client.get(f"{API}/me"),
            await client.get(f"{API}/codes/lookup", params={"email": "nobody@example.com"}),
            await client.get(f"{API}/codes/lookup?email={'x' * 9_000}"),
            await ann.request("POST", "/me/codes", json={"lifetime_minutes": 60}),
            await ann.request(
                "POST",
                "/me/codes",
                json={"lifetime_minutes": 60, "code": code["code"], "replace": True},
            ),
            await ann.request("GET", f"/me/codes/{ann.id}"),
            await ann.request("DELETE", "/me", json={"password": "wrong"}),
        ]
    sent = {response.json()["code"]: response.json() for response in responses}
    assert len(sent) == len(responses)
    examples = {code: document["components"]["examples"][code]["value"] for code in sent}
    varying = {"instance": "", "request_id": ""}
    assert {code: problem | varying for code, problem in sent.items()} == {
        code: example | varying for code, example in examples.items()
    }


async def test_unknown_fields_are_documented_as_invalid(document: Node) -> None:
    """Every request body has `additionalProperties: false`."""
    for location, medium in bodies(document):
        if " takes application/json" in location:
            name = medium["schema"]["$ref"].rpartition("/")[2]
            assert document["components"]["schemas"][name]["additionalProperties"] is False, (
                location
            )
