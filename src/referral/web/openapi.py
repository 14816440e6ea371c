"""Completion of the OpenAPI 3.1 document that Litestar generates.

Litestar's schemas lack bounds and formats of optional fields, so the schemas are replaced by those
of msgspec, which decodes the bodies. Examples of bodies are composed of examples of fields.
"""

import re
from collections.abc import Iterator
from http import HTTPStatus
from typing import Any

import msgspec
from litestar.handlers.http_handlers import HTTPRouteHandler
from litestar.types import Method

from referral.web.openapi_examples import FIELD_EXAMPLES, SCHEMA_EXAMPLES

Node = dict[str, Any]

WEB_PACKAGE = __name__.rpartition(".")[0]
SCHEMA_REF_PREFIX = "#/components/schemas/"

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
"""OpenAPI links: for an operation id, each target operation and its parameters."""

RESPONSE_HEADERS: Node = {
    "201": ("Location", "The URL of the new resource.", "/api/v1/me"),
    "401": ("WWW-Authenticate", "How to authenticate (RFC 6750).", "Bearer"),
    "429": ("Retry-After", "Seconds until the rate limit allows a request.", "1800"),
    "503": ("Retry-After", "Seconds to wait before a retry.", "2"),
}
"""The header of every response with a status."""

CLIENT_CHALLENGE = (
    "WWW-Authenticate",
    "How clients authenticate (RFC 7617).",
    'Basic realm="referral"',
)
"""The header of a 401 response of the token service, which has no problem details."""

UNSENT_RESPONSES = {"Validation Exception"}
"""Descriptions of responses that Litestar documents and the service never sends."""


def operation_id(handler: HTTPRouteHandler, _: Method, __: list[Any]) -> str:
    """Return the operation id, made of the summary: "List my codes" is `list_my_codes`."""
    words = (handler.summary or handler.handler_name).lower().replace("'", "")
    return re.sub(r"\W+", "_", words).strip("_")


def complete_document(document: Node) -> Node:
    """Complete the document that Litestar generated."""
    schemas = document["components"]["schemas"]
    schemas.update(_schemas(set(schemas)))
    document["components"]["schemas"] = dict(sorted(schemas.items()))
    document["paths"] = dict(sorted(document["paths"].items()))
    for item in document["paths"].values():
        for operation in item.values():
            _complete_operation(operation, schemas)
    return document


def _schemas(names: set[str]) -> Node:
    structs = [struct for struct in _structs() if struct.__name__ in names]
    schemas = msgspec.json.schema_components(structs, ref_template=SCHEMA_REF_PREFIX + "{name}")[1]
    return {name: {"type": "string"} | schema for name, schema in schemas.items()}


def _structs() -> Iterator[type[msgspec.Struct]]:
    pending = msgspec.Struct.__subclasses__()
    while pending:
        struct = pending.pop()
        pending += struct.__subclasses__()
        if struct.__module__.startswith(WEB_PACKAGE):
            yield struct


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
        response = next(iter(operation["responses"].values()))
        link = {"operationId": name, "parameters": parameters}
        response.setdefault("links", {})[name] = link


def _complete_response(status: str, response: Node, schemas: Node) -> None:
    if response["description"] == HTTPStatus(int(status)).description:
        resolved = [_resolve(m["schema"], schemas) for m in response.get("content", {}).values()]
        text = "".join(schema.get("description", "") for schema in resolved)
        response["description"] = text or response["description"]
    if status in RESPONSE_HEADERS:
        is_token_error = status == "401" and "application/json" in response.get("content", {})
        name, description, example = (
            CLIENT_CHALLENGE if is_token_error else RESPONSE_HEADERS[status]
        )
        headers = response.setdefault("headers", {})
        headers.setdefault(name, {"schema": {"type": "string"}})
        headers[name] |= {"description": description, "required": True, "example": example}


def _complete_medium(medium: Node, schemas: Node) -> None:
    for example in medium.get("examples", {}).values():
        example.pop("id", None)
    is_image = medium["schema"].get("type") == "string"
    if not is_image and not {"example", "examples"} & medium.keys():
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
    """Return the schema without its null alternative."""
    choices = schema.get("anyOf") or schema.get("oneOf") or ()
    non_null: list[Node] = [choice for choice in choices if choice != {"type": "null"}]
    if len(non_null) != 1:
        return schema
    rest = {name: value for name, value in schema.items() if name not in {"anyOf", "oneOf"}}
    return non_null[0] | rest
