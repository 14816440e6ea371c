"""Responses of the OpenAPI document: their headers, and the error responses that routes share."""

from http import HTTPStatus
from typing import Any

from referral.web.openapi_examples import LOCATION_EXAMPLES, PATH_EXAMPLES
from referral.web.openapi_schemas import resolve_schema
from referral.web.problem_types import REQUEST_ID_EXAMPLE
from referral.web.problems import PROBLEM_MEDIA_TYPE

Node = dict[str, Any]

BEARER_CHALLENGE = "WWW-Authenticate"
CLIENT_CHALLENGE = "WWW-Authenticate-Basic"

HEADERS: Node = {
    BEARER_CHALLENGE: {
        "description": "How to authenticate (RFC 6750).",
        "required": True,
        "schema": {"type": "string"},
        "example": "Bearer",
    },
    CLIENT_CHALLENGE: {
        "description": "How clients authenticate (RFC 7617).",
        "required": True,
        "schema": {"type": "string"},
        "example": 'Basic realm="referral"',
    },
    "RateLimit": {
        "description": "The remaining requests, and the seconds until more are allowed. Every "
        "response of a rate-limited route has it unless the limit is off.",
        "schema": {"type": "string"},
        "example": '"token";r=9;t=60',
    },
    "RateLimit-Policy": {
        "description": "The requests that are allowed (`q`) in a window of seconds (`w`).",
        "schema": {"type": "string"},
        "example": '"token";q=10;w=60',
    },
    "Retry-After": {
        "description": "Seconds to wait before a retry.",
        "required": True,
        "schema": {"type": "integer", "format": "int32"},
        "example": 2,
    },
    "X-Request-ID": {
        "description": "The request's `X-Request-ID`, or a new id; it is also in the log.",
        "required": True,
        "schema": {"type": "string", "maxLength": 64},
        "example": REQUEST_ID_EXAMPLE,
    },
}
"""The headers that several responses have."""

LIMIT_HEADERS = ("RateLimit", "RateLimit-Policy")
ERROR_HEADERS = {
    "401": (BEARER_CHALLENGE,),
    "429": ("Retry-After", *LIMIT_HEADERS),
    "503": ("Retry-After",),
}
LOCATION: Node = {"required": True, "schema": {"type": "string", "format": "uri-reference"}}

COMMON_CODES = {"idempotency-key-in-use", "idempotency-key-reused", "invalid-request"}
"""Problems that many operations have; others of the same response are better names for it."""

LONG_NAMES = {
    "EmailUndeliverableOrReferralCodeUnusableOrWeakPassword": "InvalidRegistration",
}
"""Shorter names of responses."""

TOKEN_ERROR_NAMES = {"400": "TokenError", "401": "InvalidClient"}
"""Names of the responses that are no problem documents, by status."""


def complete_responses(path: str, operation: Node, components: Node) -> Node:
    """Return the responses of an operation, with references to the shared ones."""
    responses = operation["responses"]
    limit_headers = LIMIT_HEADERS if "429" in responses else ()
    for status, response in responses.items():
        if status >= "400":
            responses[status] = _share_error(path, status, response, components)
        else:
            _describe(status, response, components["schemas"])
            _add_location(status, operation["operationId"], response)
            response["headers"] = response.get("headers", {}) | _headers(
                "X-Request-ID", *limit_headers
            )
    return dict(sorted(responses.items()))


def _share_error(path: str, status: str, response: Node, components: Node) -> Node:
    """Move a response to the components, with its examples, and return the reference."""
    ((media_type, medium),) = response["content"].items()
    examples = medium["examples"]
    for code, example in examples.items():
        if media_type == PROBLEM_MEDIA_TYPE:
            example["value"]["instance"] = path.format_map(PATH_EXAMPLES)
        components["examples"].setdefault(code, example)
        examples[code] = {"$ref": f"#/components/examples/{code}"}
    names = ERROR_HEADERS.get(status, ())
    if media_type == PROBLEM_MEDIA_TYPE:
        name = _name_response(set(examples), components["responses"])
    else:
        name, names = TOKEN_ERROR_NAMES[status], ()
    response["headers"] = _headers("X-Request-ID", *names)
    if name == "InvalidClient":
        response["headers"][BEARER_CHALLENGE] = _reference(CLIENT_CHALLENGE)
    components["responses"].setdefault(name, response)
    return {"$ref": f"#/components/responses/{name}"}


def _name_response(codes: set[str], known: Node) -> str:
    """Return the name of the response with these problems, or a new one."""
    for chosen in (codes - COMMON_CODES or codes, codes):
        name = "Or".join(code.title().replace("-", "") for code in sorted(chosen))
        name = LONG_NAMES.get(name, name)
        if name not in known or _problems_of(known[name]) == codes:
            break
    return name


def _problems_of(response: Node) -> set[str]:
    ((_, medium),) = response["content"].items()
    return set(medium["examples"])


def _describe(status: str, response: Node, schemas: Node) -> None:
    if response["description"] == HTTPStatus(int(status)).description:
        media = response.get("content", {}).values()
        resolved = [resolve_schema(medium["schema"], schemas) for medium in media]
        text = "".join(schema.get("description", "") for schema in resolved)
        response["description"] = text or "Done."


def _add_location(status: str, operation_id: str, response: Node) -> None:
    if operation_id in LOCATION_EXAMPLES and status != "200":
        description = "The landing page." if status == "302" else "The URL of the new resource."
        example = {"description": description, "example": LOCATION_EXAMPLES[operation_id]}
        response["headers"] = {"Location": LOCATION | example}


def _headers(*names: str) -> Node:
    return {name: _reference(name) for name in names}


def _reference(name: str) -> Node:
    return {"$ref": f"#/components/headers/{name}"}
