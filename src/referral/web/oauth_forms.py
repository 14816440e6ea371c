"""Forms of the token service, and its refusals in the shape of RFC 6749."""

from base64 import b64decode
from binascii import Error as BadBase64
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, unquote_plus

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Reference,
    RequestBody,
    Schema,
)
from msgspec import Struct

from referral.core.errors import InvalidClient, InvalidGrant, InvalidScope
from referral.core.use_cases.clients import ClientCredentials

FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"
NO_STORE_HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache"}
MAX_FORM_FIELDS = 20

MAX_CREDENTIALS_CHARACTERS = 1024
"""Characters of a client's credentials in Base64; those that this service makes have 108."""

EMPTY_CREDENTIALS = ":"
"""An empty id and an empty secret, which Swagger UI sends along when no client is filled in."""


class TokenErrorResponse(Struct):
    """A refusal (RFC 6749, section 5.2)."""

    error: str
    error_description: str


class TokenRequestError(HTTPException):
    """A token request out of shape; `detail` is the description, `error` the code of the RFC."""

    status_code = 400

    def __init__(self, error: str, description: str) -> None:
        """Take one of the RFC's codes and a sentence."""
        super().__init__(description)
        self.error = error


INVALID_CLIENT_DESCRIPTION = f"{InvalidClient.default_detail} Authenticate by HTTP Basic."

TOKEN_ERROR_SPEC = ResponseSpec(
    TokenErrorResponse, generate_examples=False, description="The refusals of RFC 6749, 5.2."
)
INVALID_CLIENT_SPEC = ResponseSpec(
    TokenErrorResponse,
    generate_examples=False,
    description="`invalid_client`: who are you?",
    examples=[
        Example(value={"error": "invalid_client", "error_description": INVALID_CLIENT_DESCRIPTION})
    ],
)


def check_content_type(request: Request[Any, Any, Any], *, optional: bool = False) -> None:
    """Raise `BadTokenRequest` for a body that is no form."""
    kind = request.content_type[0]
    if kind != FORM_MEDIA_TYPE and not (optional and not kind):
        raise TokenRequestError("invalid_request", f"Send a form: Content-Type {FORM_MEDIA_TYPE}.")


async def read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return the form's fields, each sent once; raises `BadTokenRequest`."""
    check_content_type(request)
    try:
        text = (await request.body()).decode()
        pairs = parse_qsl(
            text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise TokenRequestError("invalid_request", "The form cannot be read.") from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise TokenRequestError("invalid_request", "A parameter was sent twice.")
    return {name: value for name, value in fields.items() if value}


def require_field(form: dict[str, str], name: str) -> str:
    """Return a field of the form, or raise `BadTokenRequest`."""
    if name not in form:
        raise TokenRequestError("invalid_request", f"The parameter '{name}' is missing.")
    return form[name]


def handle_token_request_error(
    _: Request[Any, Any, Any], error: TokenRequestError
) -> Response[TokenErrorResponse]:
    """Answer in the form of RFC 6749."""
    return Response(
        TokenErrorResponse(error.error, error.detail), status_code=400, headers=NO_STORE_HEADERS
    )


def handle_invalid_grant(
    _: Request[Any, Any, Any], error: InvalidGrant
) -> Response[TokenErrorResponse]:
    """Answer that the credentials are not valid."""
    return Response(
        TokenErrorResponse("invalid_grant", error.detail), status_code=400, headers=NO_STORE_HEADERS
    )


def handle_invalid_client(
    _: Request[Any, Any, Any], __: InvalidClient
) -> Response[TokenErrorResponse]:
    """Answer that the client is not known."""
    headers = NO_STORE_HEADERS | {"WWW-Authenticate": 'Basic realm="referral"'}
    return Response(
        TokenErrorResponse("invalid_client", INVALID_CLIENT_DESCRIPTION),
        status_code=401,
        headers=headers,
    )


def handle_invalid_scope(
    _: Request[Any, Any, Any], error: InvalidScope
) -> Response[TokenErrorResponse]:
    """Answer that the scope is more than there is to give."""
    return Response(
        TokenErrorResponse("invalid_scope", error.detail), status_code=400, headers=NO_STORE_HEADERS
    )


TOKEN_ERROR_HANDLERS: dict[int | type[Exception], Any] = {
    TokenRequestError: handle_token_request_error,
    InvalidClient: handle_invalid_client,
    InvalidGrant: handle_invalid_grant,
    InvalidScope: handle_invalid_scope,
}


def find_client_credentials(request: Request[Any, Any, Any]) -> ClientCredentials | None:
    """Return what a client sent by HTTP Basic, None where it sent nothing; raises `InvalidClient`
    for what cannot be read.
    """
    values = request.headers.getall("authorization", [])
    if not any(_is_basic(value) for value in values):
        return None
    encoded = values[0].partition(" ")[2].strip()
    if len(values) > 1 or len(encoded) > MAX_CREDENTIALS_CHARACTERS:
        raise InvalidClient
    try:
        sent = b64decode(encoded, validate=True).decode()
    except (BadBase64, ValueError) as error:
        raise InvalidClient from error
    client_id, _, secret = sent.partition(":")
    # RFC 6749, 2.3.1: both are form-encoded before they are put together.
    return (
        None
        if sent == EMPTY_CREDENTIALS
        else ClientCredentials(unquote_plus(client_id), unquote_plus(secret))
    )


def require_client_credentials(request: Request[Any, Any, Any]) -> ClientCredentials:
    """Return what a client sent by HTTP Basic, or raise `InvalidClient`."""
    credentials = find_client_credentials(request)
    if credentials is None:
        raise InvalidClient
    return credentials


def _is_basic(value: str) -> bool:
    return value.partition(" ")[0].lower() == "basic"


def describe_form(
    fields: dict[str, str], required: list[str], examples: dict[str, Example | Reference]
) -> RequestBody:
    """Describe a form of texts for the OpenAPI document."""
    properties: dict[str, Reference | Schema] = {
        name: Schema(type=OpenAPIType.STRING, description=description)
        for name, description in fields.items()
    }
    form = Schema(type=OpenAPIType.OBJECT, properties=properties, required=required)
    return RequestBody({FORM_MEDIA_TYPE: OpenAPIMediaType(form, examples=examples)}, required=True)


@dataclass
class TokenFormOperation(Operation):
    """An operation on the one token that its form holds."""

    def __post_init__(self) -> None:
        """Describe the form."""
        fields = {
            "token": "The token, of either kind.",
            "token_type_hint": "`access_token` or `refresh_token`; the token tells by itself.",
        }
        example = Example(summary="A token", value={"token": "mF_9.B5f-4.1JqM-h3xJ0Qk2Zr8uYw6Tt7"})
        self.request_body = describe_form(fields, ["token"], {"token": example})
