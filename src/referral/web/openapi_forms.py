"""The forms of the token, revocation and introspection endpoints in the OpenAPI document."""

from dataclasses import dataclass

from litestar.openapi.spec import (
    Example,
    OpenAPIMediaType,
    OpenAPIType,
    Operation,
    Reference,
    RequestBody,
    Schema,
)

from referral.core.entities.clients import Scope
from referral.core.entities.subject_tokens import (
    ACCESS_TOKEN_TYPE,
    TOKEN_EXCHANGE_GRANT,
    SubjectTokenType,
)
from referral.web.oauth import FORM_MEDIA_TYPE, GRANTS


def text_schema(description: str, example: str = "") -> Schema:
    """Return the schema of a text field.

    Swagger UI would send "string" for a field without an example, and omits an empty one.
    """
    return Schema(type=OpenAPIType.STRING, description=description, examples=[example])


USERNAME, PASSWORD = "ann@example.com", "correct horse battery"
FORM_FIELDS = {
    "grant_type": Schema(
        type=OpenAPIType.STRING,
        description="The operator can switch `password` off; see `grant_types_supported` of the "
        "metadata.",
        enum=GRANTS,
    ),
    "username": text_schema("The e-mail address, for the grant `password`.", USERNAME),
    "password": text_schema("The password, for the grant `password`.", PASSWORD),
    "code": text_schema("The code, for the grant `authorization_code`."),
    "redirect_uri": text_schema("That of the authorization request."),
    "code_verifier": text_schema("The verifier of its `code_challenge` (RFC 7636)."),
    "refresh_token": text_schema("The latest refresh token, for the grant `refresh_token`."),
    "subject_token": text_schema("The user, for the token exchange: a JWT or an id."),
    "subject_token_type": Schema(
        type=OpenAPIType.STRING,
        description="A JWT of a trusted issuer, or the id of a user.",
        enum=[*SubjectTokenType],
    ),
    "requested_token_type": text_schema(f"`{ACCESS_TOKEN_TYPE}`, which is the default."),
    "scope": text_schema(
        f"`{Scope.ACCOUNT}` for users, granted scopes for clients; all of them by default."
    ),
}
FORM_EXAMPLES: dict[str, Example | Reference] = {
    "password": Example(
        summary="Log in",
        value={
            "grant_type": "password",
            "username": USERNAME,
            "password": PASSWORD,
        },
    ),
    "authorization_code": Example(
        summary="Exchange a code of a public client",
        value={
            "grant_type": "authorization_code",
            "code": "kJ3dV8yXo2Qn5Rz7Wb1Tc4Hs6Gm9Fp0La_Ue-iNvYxA",
            "redirect_uri": "https://app.example.com/callback",
            "client_id": "01938f5e-7c1a-7b52-9d3e-5f0c8a6b2e41",
            "code_verifier": "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
        },
    ),
    "refresh_token": Example(
        summary="Refresh the tokens",
        value={
            "grant_type": "refresh_token",
            "refresh_token": "mF_9.B5f-4.1JqM-h3xJ0Qk2Zr8uYw6Tt7Ls1Vb4Nc5Xd",
        },
    ),
    "client_credentials": Example(
        summary="Get a token for a client",
        value={"grant_type": "client_credentials", "scope": "referrals:read"},
    ),
    TOKEN_EXCHANGE_GRANT: Example(
        summary="Get a token for a user of the client",
        value={
            "grant_type": TOKEN_EXCHANGE_GRANT,
            "subject_token": "shop-1234",
            "subject_token_type": SubjectTokenType.EXTERNAL_ID,
        },
    ),
}

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
class GrantFormOperation(Operation):
    """The OpenAPI operation, with a form whose fields depend on the grant."""

    def __post_init__(self) -> None:
        """Add the form."""
        self.request_body = describe_form(FORM_FIELDS, ["grant_type"], FORM_EXAMPLES)


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
