"""Errors of OAuth 2.0 requests, in the form of RFC 6749, section 5.2."""

from typing import Annotated, Any

from litestar import Request, Response
from litestar.exceptions import HTTPException
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.spec import Example
from msgspec import Meta, Struct

from referral.core.errors import (
    InvalidClient,
    InvalidGrant,
    InvalidScope,
    InvalidSubjectToken,
    ReferralError,
    UnauthorizedClient,
)
from referral.core.policies.password_login import LOGIN_FAILED_DETAIL

NO_STORE_HEADERS = {"Cache-Control": "no-store", "Pragma": "no-cache"}

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

ERROR_CODES: dict[type[ReferralError], str] = {
    InvalidGrant: "invalid_grant",
    InvalidScope: "invalid_scope",
    InvalidSubjectToken: "invalid_request",
    UnauthorizedClient: "unauthorized_client",
}
"""The code of each error of the core; that of a subject token is by RFC 8693, section 2.2.2."""


def handle_token_request_error(
    _: Request[Any, Any, Any], error: TokenRequestError
) -> Response[TokenErrorResponse]:
    """Respond to an invalid token request."""
    return _respond(error.error, error.detail)


def handle_refused_grant(
    _: Request[Any, Any, Any], error: ReferralError
) -> Response[TokenErrorResponse]:
    """Respond to a valid request for a token that is not issued."""
    return _respond(ERROR_CODES[type(error)], error.detail)


def handle_invalid_client(
    _: Request[Any, Any, Any], __: InvalidClient
) -> Response[TokenErrorResponse]:
    """Respond to failed client authentication."""
    response = _respond("invalid_client", INVALID_CLIENT_DESCRIPTION, status=401)
    response.headers["WWW-Authenticate"] = 'Basic realm="referral"'
    return response


TOKEN_ERROR_HANDLERS: dict[int | type[Exception], Any] = {
    TokenRequestError: handle_token_request_error,
    InvalidClient: handle_invalid_client,
    **dict.fromkeys(ERROR_CODES, handle_refused_grant),
}


def _respond(error: str, description: str, *, status: int = 400) -> Response[TokenErrorResponse]:
    return Response(
        TokenErrorResponse(error, description), status_code=status, headers=NO_STORE_HEADERS
    )
