"""Security schemes of the OpenAPI document."""

from typing import Any

from litestar.openapi.spec import OAuthFlow, OAuthFlows, Reference, SecurityScheme

from referral.core.entities.clients import Scope
from referral.web.problem_types import EXAMPLE_PUBLIC_URL

TOKEN_URL = f"{EXAMPLE_PUBLIC_URL}/api/v1/auth/token"
JWT_USE = "Access tokens are JWTs of RFC 9068, used as RFC8725 recommends."
USER_SCOPES: dict[str, str] = {Scope.ACCOUNT: "The account of the signed-in user."}
CLIENT_SCOPES: dict[str, str] = {
    Scope.ADMIN: "Everything that an admin may do; it includes the other scopes.",
    Scope.CODES_READ: "The look-up of codes, where it is not public.",
    Scope.EVENTS_READ: "The feed of events.",
    Scope.REFERRALS_READ: "The referrals of all users.",
    Scope.REFERRALS_WRITE: "Decisions on referrals.",
    Scope.USERS_ACT: "Access tokens for users, by token exchange.",
    Scope.USERS_READ: "Users, and e-mail addresses in introspection.",
    Scope.USERS_WRITE: "Creating, changing and erasing users.",
    Scope.WEBHOOKS: "Webhooks and their deliveries.",
}

SECURITY_SCHEMES: dict[str, SecurityScheme | Reference] = {
    "client": SecurityScheme(
        type="http", scheme="basic", description="The id and the secret of a client."
    ),
    "clientCredentials": SecurityScheme(
        type="oauth2",
        description=f"A token of a client. {JWT_USE}",
        flows=OAuthFlows(client_credentials=OAuthFlow(token_url=TOKEN_URL, scopes=CLIENT_SCOPES)),
    ),
    "bearer": SecurityScheme(
        type="http", scheme="bearer", bearer_format="JWT", description=f"An access token. {JWT_USE}"
    ),
    "password": SecurityScheme(
        type="oauth2",
        description=f"The e-mail address and the password of a user. {JWT_USE}",
        flows=OAuthFlows(
            password=OAuthFlow(token_url=TOKEN_URL, refresh_url=TOKEN_URL, scopes=USER_SCOPES)
        ),
    ),
}
"""The schemes while the password grant is on.

Swagger UI puts the focus into the last form of its dialog, which is for users."""

AUTHORIZATION_CODE_SCHEME = {
    "type": "oauth2",
    "description": f"Log in on the page of this service. {JWT_USE}",
    "flows": {
        "authorizationCode": {
            "authorizationUrl": f"{EXAMPLE_PUBLIC_URL}/oauth/authorize",
            "tokenUrl": TOKEN_URL,
            "refreshUrl": TOKEN_URL,
            "scopes": USER_SCOPES,
        }
    },
}


def replace_password_scheme(document: Any) -> None:  # noqa: ANN401 - the OpenAPI document
    """Describe the login by authorization code, for a service without the password grant."""
    schemes = document["components"]["securitySchemes"]
    del schemes["password"]
    schemes["authorizationCode"] = AUTHORIZATION_CODE_SCHEME
    for item in document["paths"].values():
        for operation in item.values():
            for requirement in operation.get("security", ()):
                if "password" in requirement:
                    requirement["authorizationCode"] = requirement.pop("password")
