"""The OpenAPI 3.1 document: Litestar's, made complete.

The framework's schemas lose bounds and formats of optional fields, so msgspec, which decodes the
bodies, describes them. Examples are put together from the fields, so that none is forgotten.
"""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.handlers.http_handlers import HTTPRouteHandler
from litestar.types import Method

Node = dict[str, Any]

PACKAGE = __name__.rpartition(".")[0]
SCHEMA_REF_PREFIX = "#/components/schemas/"

EXAMPLE_ID = "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41"
FIELD_EXAMPLES: Node = {
    "active": True,
    "aud": "http://127.0.0.1:8000",
    "blocked_at": None,
    "client_id": "first-party",
    "enabled": True,
    "exp": 1_796_116_800,
    "exported_at": "2026-12-03T08:00:00Z",
    "iat": 1_796_116_200,
    "iss": "http://127.0.0.1:8000",
    "jti": "5f1d7a84-2b0c-4e57-9f0a-6c1d3e8b7a92",
    "referrer_id": EXAMPLE_ID,
    "sub": EXAMPLE_ID,
    "username": "ann@example.com",
    "access_token": "eyJhbGciOiJSUzI1NiIsInR5cCI6ImF0K2p3dCJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "avatar_url": "https://example.com/ann.png",
    "code": "ANN-2026",
    "company": "Example Ltd",
    "country": "GB",
    "created_at": "2026-12-01T09:30:00Z",
    "domain": "example.com",
    "email": "ann@example.com",
    "email_key": "ann@example.com",
    "email_verified": True,
    "error": "invalid_grant",
    "error_description": "The e-mail address or the password is wrong.",
    "expires_at": "2026-12-31T23:59:59Z",
    "expires_in": 600,
    "id": EXAMPLE_ID,
    "joined_at": "2026-12-02T17:05:00Z",
    "max_uses": 100,
    "name": "Ann Example",
    "next_cursor": None,
    "notify_on_referral": True,
    "referral_count": 1,
    "refresh_token": "mF_9.B5f-4.1JqM-h3xJ0Qk2Zr8uYw6Tt7Ls1Vb4Nc5Xd",
    "role": "member",
    "scope": "account",
    "title": "Engineer",
    "token_type": "Bearer",
    "url": "http://127.0.0.1:8000/r/ANN-2026",
    "uses": 1,
    "valid": True,
}
"""What a field looks like, wherever it appears. A field may have an example of its own."""

SCHEMA_EXAMPLES: Node = {
    "CreateCodeRequest": {"lifetime_minutes": 10_080, "code": "ANN-2026", "max_uses": 100},
    "RenewCodeRequest": {"expires_at": FIELD_EXAMPLES["expires_at"]},
    "AuthorizationServerMetadata": {
        "issuer": "http://127.0.0.1:8000",
        "token_endpoint": "http://127.0.0.1:8000/api/v1/auth/token",
        "revocation_endpoint": "http://127.0.0.1:8000/api/v1/auth/revoke",
        "introspection_endpoint": "http://127.0.0.1:8000/api/v1/auth/introspect",
        "jwks_uri": "http://127.0.0.1:8000/.well-known/jwks.json",
        "grant_types_supported": ["password", "refresh_token", "client_credentials"],
        "response_types_supported": [],
        "scopes_supported": ["account", "codes:read", "referrals:read", "users:read"],
        "token_endpoint_auth_methods_supported": ["none", "client_secret_basic"],
        "revocation_endpoint_auth_methods_supported": ["none"],
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        "service_documentation": "http://127.0.0.1:8000/docs",
    },
    "JsonWebKey": {
        "kty": "RSA",
        "kid": "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs",
        "use": "sig",
        "alg": "RS256",
        "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1R",
        "e": "AQAB",
    },
}
"""Bodies that say more as a whole than field by field."""

CODE_ID_PARAMETER = {"code_id": "$response.body#/id"}
CODE_OPERATIONS = (
    *("show_a_code", "renew_a_code", "delete_a_code", "activate_a_code", "deactivate_a_code"),
    *("show_a_qr_code_as_svg", "show_a_qr_code_as_png"),
)
OPERATION_LINKS: Node = {
    **{
        operation: [*((name, CODE_ID_PARAMETER) for name in CODE_OPERATIONS if name != operation)]
        for operation in (
            "create_a_code",
            "show_my_active_code",
            *CODE_OPERATIONS[:2],
            *CODE_OPERATIONS[3:5],
        )
    },
    "register": [("list_a_users_referrals", {"user_id": "$response.body#/id"})],
    **{
        name: [(name, {"cursor": "$response.body#/next_cursor"})]
        for name in ("list_my_codes", "list_my_referrals")
    },
}
"""Which operations an answer leads to, and where their parameters come from."""

RESPONSE_HEADERS: Node = {
    "201": ("Location", "Where the new resource is.", "/api/v1/me"),
    "401": ("WWW-Authenticate", "How to authenticate (RFC 6750).", "Bearer"),
    "429": ("Retry-After", "After how many seconds there is room again.", "1800"),
    "503": ("Retry-After", "After how many seconds to try again.", "2"),
}
"""The header that comes with every answer of a status."""

CLIENT_CHALLENGE = (
    "WWW-Authenticate",
    "How clients authenticate (RFC 7617).",
    'Basic realm="referral"',
)
"""The same for a refusal of the token service, which is no problem document."""

UNSENT_RESPONSES = {"Validation Exception"}
"""The framework documents a form of 400 that this service never sends."""


def operation_id(handler: HTTPRouteHandler, _: Method, __: list[Any]) -> str:
    """Name an operation after its summary: "List my codes" is `list_my_codes`."""
    words = (handler.summary or handler.handler_name).lower().replace("'", "")
    return re.sub(r"\W+", "_", words).strip("_")


def complete_document(document: Node) -> Node:
    """Fill what is missing into the document that Litestar made."""
    schemas = document["components"]["schemas"]
    schemas.update(_schemas(set(schemas)))
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["paths"] = dict(sorted(document["paths"].items()))
    for item in document["paths"].values():
        for operation in item.values():
            _complete_operation(operation, schemas)
    return document


def _schemas(names: set[str]) -> Node:
    kinds = [kind for kind in _structs() if kind.__name__ in names]
    found = msgspec.json.schema_components(kinds, ref_template=SCHEMA_REF_PREFIX + "{name}")[1]
    return {name: {"type": "string"} | schema for name, schema in found.items()}


def _structs() -> Iterator[type[msgspec.Struct]]:
    waiting = msgspec.Struct.__subclasses__()
    while waiting:
        kind = waiting.pop()
        waiting += kind.__subclasses__()
        if kind.__module__.startswith(PACKAGE):
            yield kind


def _complete_operation(operation: Node, schemas: Node) -> None:
    for parameter in operation.get("parameters", ()):
        parameter["schema"] = _without_null(parameter["schema"])
    for medium in operation.get("requestBody", {}).get("content", {}).values():
        _complete_medium(medium, schemas)
    responses = operation["responses"]
    for status, response in list(responses.items()):
        media = response.get("content", {}).values()
        if any(medium["schema"].get("description") in UNSENT_RESPONSES for medium in media):
            del responses[status]
            continue
        for medium in media:
            _complete_medium(medium, schemas)
        _complete_response(status, response, schemas)
    operation["responses"] = dict(sorted(responses.items()))
    _add_links(operation)


def _add_links(operation: Node) -> None:
    for name, parameters in OPERATION_LINKS.get(operation["operationId"], ()):
        answer = next(iter(operation["responses"].values()))
        link = {"operationId": name, "parameters": parameters}
        answer.setdefault("links", {})[name] = link


def _complete_response(status: str, response: Node, schemas: Node) -> None:
    if response["description"] == HTTPStatus(int(status)).description:
        named = [_resolve(m["schema"], schemas) for m in response.get("content", {}).values()]
        text = "".join(schema.get("description", "") for schema in named)
        response["description"] = text or response["description"]
    if status in RESPONSE_HEADERS:
        is_of_tokens = status == "401" and "application/json" in response.get("content", {})
        name, description, example = CLIENT_CHALLENGE if is_of_tokens else RESPONSE_HEADERS[status]
        headers = response.setdefault("headers", {})
        headers.setdefault(name, {"schema": {"type": "string"}})
        headers[name] |= {"description": description, "required": True, "example": example}


def _complete_medium(medium: Node, schemas: Node) -> None:
    for example in medium.get("examples", {}).values():
        example.pop("id", None)
    picture = medium["schema"].get("type") == "string"
    if not picture and not {"example", "examples"} & medium.keys():
        medium["example"] = _example(medium["schema"], schemas)


def _example(schema: Node, schemas: Node) -> Any:  # noqa: ANN401 - any JSON value
    schema = _resolve(schema, schemas)
    if "examples" in schema:
        return schema["examples"][0]
    if schema.get("title") in SCHEMA_EXAMPLES:
        return SCHEMA_EXAMPLES[schema["title"]]
    if "enum" in schema:
        return schema["enum"][0]
    if schema["type"] == "array":
        return [_example(schema["items"], schemas)]
    return {name: _field(name, field, schemas) for name, field in schema["properties"].items()}


def _field(name: str, schema: Node, schemas: Node) -> Any:  # noqa: ANN401
    if name in FIELD_EXAMPLES:
        return FIELD_EXAMPLES[name]
    if "examples" not in schema and schema.get("default") is not None:
        return schema["default"]
    return _example(_without_null(schema), schemas)


def _resolve(schema: Node, schemas: Node) -> Node:
    name = schema.get("$ref")
    return dict(schemas[name.removeprefix(SCHEMA_REF_PREFIX)]) if name else schema


def _without_null(schema: Node) -> Node:
    """Return what a value looks like that is there."""
    choices = schema.get("anyOf") or schema.get("oneOf") or ()
    real: list[Node] = [choice for choice in choices if choice != {"type": "null"}]
    if len(real) != 1:
        return schema
    kept = {name: value for name, value in schema.items() if name not in {"anyOf", "oneOf"}}
    return real[0] | kept
