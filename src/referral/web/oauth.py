"""OAuth 2.0 requests: forms, client authentication and error responses (RFC 6749)."""

from base64 import b64decode
from binascii import Error as BadBase64
from dataclasses import dataclass
from typing import Annotated, Any
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
from msgspec import Meta, Struct

from referral.core.entities.clients import Client
from referral.core.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    InvalidSubjectToken,
    UnauthorizedClient,
)
from referral.core.policies.password_login import LOGIN_FAILED_DETAIL
from referral.core.use_cases.clients import AuthenticateClient, ClientCredentials

FORM_MEDIA_TYPE = "application/x-www-form-urlencoded"
NO_STORE_HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache"}
MAX_FORM_FIELDS = 20

MAX_CREDENTIALS_CHARACTERS = 1024
"""The maximum length of client credentials in Base64; those of this service have 108 characters."""

EMPTY_CREDENTIALS = ":"
"""An empty id and secret, which Swagger UI sends if the user entered no client."""


TokenErrorCode = Annotated[
    str,
    Meta(
        extra_json_schema={
            "enum": [
                *("invalid_client", "invalid_grant", "invalid_request", "invalid_scope"),
                "invalid_target",
                *("unauthorized_client", "unsupported_grant_type"),
            ]
        }
    ),
]


class TokenErrorResponse(Struct):
    """An error response (RFC 6749, section 5.2)."""

    error: TokenErrorCode
    error_description: str


class TokenRequestError(HTTPException):
    """The token request is invalid; `error` is a code of RFC 6749, `detail` the description."""

    status_code = 400

    def __init__(self, error: str, description: str) -> None:
        """Take an error code of RFC 6749 and a description."""
        super().__init__(description)
        self.error = error


INVALID_CLIENT_DESCRIPTION = (
    f"{InvalidClient.default_detail} Authenticate by HTTP Basic, or send 'client_id' and "
    "'client_secret'."
)
TWO_CLIENT_IDS = "Send one client id: that of HTTP Basic and 'client_id' differ."
TWO_AUTHENTICATION_METHODS = "Send the client's secret once: by HTTP Basic or in the form."

TOKEN_ERROR_SPEC = ResponseSpec(
    TokenErrorResponse,
    generate_examples=False,
    description="An error of RFC 6749, section 5.2.",
    examples=[
        Example(
            id="invalid_request",
            summary="A parameter is missing",
            value={
                "error": "invalid_request",
                "error_description": "Send the parameter 'grant_type'.",
            },
        ),
        Example(
            id="invalid_grant",
            summary="The password is wrong",
            value={"error": "invalid_grant", "error_description": LOGIN_FAILED_DETAIL},
        ),
    ],
)
INVALID_CLIENT_SPEC = ResponseSpec(
    TokenErrorResponse,
    generate_examples=False,
    description="`invalid_client`: client authentication failed.",
    examples=[
        Example(
            id="invalid_client",
            summary="The client is unknown",
            value={"error": "invalid_client", "error_description": INVALID_CLIENT_DESCRIPTION},
        )
    ],
)


async def read_form(request: Request[Any, Any, Any]) -> dict[str, str]:
    """Return the non-empty fields of the form; raises `TokenRequestError`.

    A request without a body and a media type is an empty form.
    """
    media_type, body = request.content_type[0], await request.body()
    if media_type != FORM_MEDIA_TYPE and (media_type or body):
        raise TokenRequestError("invalid_request", f"Send a form: Content-Type {FORM_MEDIA_TYPE}.")
    try:
        text = body.decode()
        pairs = parse_qsl(
            text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS, errors="strict"
        )
    except ValueError as error:
        raise TokenRequestError(
            "invalid_request", f"Send a valid form in UTF-8, with at most {MAX_FORM_FIELDS} fields."
        ) from error
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise TokenRequestError("invalid_request", "Send each parameter once.")
    return {name: value for name, value in fields.items() if value}


async def read_client_form(
    request: Request[Any, Any, Any],
    authenticate: AuthenticateClient,
    *,
    client_required: bool = False,
) -> tuple[Client | None, dict[str, str]]:
    """Return the client that sent the form, or None without credentials, and the form.

    Raises `InvalidClient` before `TokenRequestError`: only a client learns what its form lacks.
    """
    form: dict[str, str] = {}
    form_error = None
    try:
        form = await read_form(request)
    except TokenRequestError as error:
        form_error = error
    client = await authenticate(find_client_credentials(request, form))
    if client_required:
        require_client(client)
    if form_error is not None:
        raise form_error
    return client, form


def require_client(client: Client | None) -> Client:
    """Return the client; raises `InvalidClient` if there is none."""
    if client is None:
        raise InvalidClient
    return client


def require_field(form: dict[str, str], name: str) -> str:
    """Return a field of the form; raises `TokenRequestError`."""
    if name not in form:
        raise TokenRequestError("invalid_request", f"Send the parameter '{name}'.")
    return form[name]


def handle_token_request_error(
    _: Request[Any, Any, Any], error: TokenRequestError
) -> Response[TokenErrorResponse]:
    """Respond to an invalid token request."""
    return Response(
        TokenErrorResponse(error.error, error.detail), status_code=400, headers=NO_STORE_HEADERS
    )


def handle_invalid_grant(
    _: Request[Any, Any, Any], error: InvalidGrant
) -> Response[TokenErrorResponse]:
    """Respond to invalid credentials or tokens."""
    return Response(
        TokenErrorResponse("invalid_grant", error.detail), status_code=400, headers=NO_STORE_HEADERS
    )


def handle_invalid_client(
    _: Request[Any, Any, Any], __: InvalidClient
) -> Response[TokenErrorResponse]:
    """Respond to failed client authentication."""
    headers = NO_STORE_HEADERS | {"WWW-Authenticate": 'Basic realm="referral"'}
    return Response(
        TokenErrorResponse("invalid_client", INVALID_CLIENT_DESCRIPTION),
        status_code=401,
        headers=headers,
    )


def handle_invalid_scope(
    _: Request[Any, Any, Any], error: InvalidScope
) -> Response[TokenErrorResponse]:
    """Respond to a scope that cannot be granted."""
    return Response(
        TokenErrorResponse("invalid_scope", error.detail), status_code=400, headers=NO_STORE_HEADERS
    )


def handle_invalid_subject_token(
    _: Request[Any, Any, Any], error: InvalidSubjectToken
) -> Response[TokenErrorResponse]:
    """Respond to an invalid subject token (RFC 8693, section 2.2.2)."""
    return Response(
        TokenErrorResponse("invalid_request", error.detail),
        status_code=400,
        headers=NO_STORE_HEADERS,
    )


def handle_unauthorized_client(
    _: Request[Any, Any, Any], error: UnauthorizedClient
) -> Response[TokenErrorResponse]:
    """Respond to a client that may not use a grant."""
    return Response(
        TokenErrorResponse("unauthorized_client", error.detail),
        status_code=400,
        headers=NO_STORE_HEADERS,
    )


TOKEN_ERROR_HANDLERS: dict[int | type[Exception], Any] = {
    TokenRequestError: handle_token_request_error,
    InvalidClient: handle_invalid_client,
    InvalidGrant: handle_invalid_grant,
    InvalidScope: handle_invalid_scope,
    InvalidSubjectToken: handle_invalid_subject_token,
    UnauthorizedClient: handle_unauthorized_client,
}


def find_client_credentials(
    request: Request[Any, Any, Any], form: dict[str, str]
) -> ClientCredentials | None:
    """Return the credentials of HTTP Basic or of the form, or None without a secret.

    Raises `InvalidClient` if they are malformed, `TokenRequestError` if there are two secrets or
    two ids (RFC 6749, section 2.3).
    """
    basic = _find_basic_credentials(request)
    if basic is not None and form.get("client_id", basic.client_id) != basic.client_id:
        raise TokenRequestError("invalid_request", TWO_CLIENT_IDS)
    if "client_secret" not in form:
        return basic
    if basic is not None:
        raise TokenRequestError("invalid_request", TWO_AUTHENTICATION_METHODS)
    return ClientCredentials(require_field(form, "client_id"), form["client_secret"])


def _find_basic_credentials(request: Request[Any, Any, Any]) -> ClientCredentials | None:
    values = request.headers.getall("authorization", [])
    if not any(_is_basic(value) for value in values):
        return None
    encoded = values[0].partition(" ")[2].strip()
    if len(values) > 1 or len(encoded) > MAX_CREDENTIALS_CHARACTERS:
        raise InvalidClient
    try:
        decoded = b64decode(encoded, validate=True).decode()
    except (BadBase64, ValueError) as error:
        raise InvalidClient from error
    client_id, _, secret = decoded.partition(":")
    if decoded == EMPTY_CREDENTIALS:
        return None
    # RFC 6749, section 2.3.1: id and secret are form-encoded before they are joined.
    return ClientCredentials(unquote_plus(client_id), unquote_plus(secret))


def _is_basic(value: str) -> bool:
    return value.partition(" ")[0].lower() == "basic"


def text_schema(description: str, example: str = "") -> Schema:
    """Return the schema of a text field.

    Swagger UI would send "string" for a field without an example, and omits an empty one.
    """
    return Schema(type=OpenAPIType.STRING, description=description, examples=[example])


TOKEN_EXAMPLE = "mF_9.B5f-4.1JqM-h3xJ0Qk2Zr8uYw6Tt7"  # noqa: S105 - made up
CLIENT_FIELDS = {
    "client_id": text_schema("The client's id, unless it is sent by HTTP Basic."),
    "client_secret": text_schema("The client's secret, unless it is sent by HTTP Basic."),
}
"""The fields of client authentication in a form."""


def describe_form(
    fields: dict[str, Schema], required: list[str], examples: dict[str, Example | Reference]
) -> RequestBody:
    """Describe a form, with the fields of client authentication, for the OpenAPI document."""
    form = Schema(
        type=OpenAPIType.OBJECT, properties={**fields, **CLIENT_FIELDS}, required=required
    )
    return RequestBody({FORM_MEDIA_TYPE: OpenAPIMediaType(form, examples=examples)}, required=True)


@dataclass
class TokenFormOperation(Operation):
    """The OpenAPI operation of a route that takes a token in a form."""

    def __post_init__(self) -> None:
        """Add the form."""
        fields = {
            "token": text_schema("An access token or a refresh token.", TOKEN_EXAMPLE),
            "token_type_hint": text_schema(
                "`access_token` or `refresh_token`. The service ignores it."
            ),
        }
        example = Example(summary="A token", value={"token": TOKEN_EXAMPLE})
        self.request_body = describe_form(fields, ["token"], {"token": example})
