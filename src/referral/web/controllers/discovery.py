"""Discovery for other services: authorization server metadata and JSON Web Key Set."""

import msgspec
from dishka import FromDishka
from litestar import Controller, get
from litestar.datastructures import ResponseHeader
from msgspec import Struct

from referral.core.entities.authorization_codes import CODE_CHALLENGE_METHOD
from referral.core.entities.clients import Scope
from referral.core.ports.security import AccessTokenIssuer
from referral.web.injection import inject
from referral.web.oauth import SupportedGrants
from referral.web.problem_types import problem_responses
from referral.web.public_urls import PublicUrls

CACHE_HEADERS = [
    ResponseHeader(
        "Cache-Control",
        value="public, max-age=300",
        description="`public, max-age=300`: caches may keep the document for 5 minutes.",
    )
]
"""Caches keep the documents for 5 minutes: after that, every client knows a newly added key."""

CLIENT_AUTHENTICATION_METHODS = ("client_secret_basic", "client_secret_post")


class AuthorizationServerMetadata(Struct):
    """The endpoints of the token service and their capabilities (RFC 8414)."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    grant_types_supported: list[str]
    response_types_supported: list[str]
    response_modes_supported: list[str]
    code_challenge_methods_supported: list[str]
    authorization_response_iss_parameter_supported: bool
    scopes_supported: list[str]
    token_endpoint_auth_methods_supported: list[str]
    revocation_endpoint_auth_methods_supported: list[str]
    introspection_endpoint_auth_methods_supported: list[str]
    service_documentation: str


class JsonWebKey(Struct):
    """A public RSA key (RFC 7517)."""

    kty: str
    kid: str
    use: str
    alg: str
    n: str
    e: str


class JsonWebKeySet(Struct):
    """The public keys that verify access tokens (RFC 7517)."""

    keys: list[JsonWebKey]


class DiscoveryController(Controller):
    """Routes for discovery documents."""

    path = "/.well-known"
    tags = ("Clients",)

    @get(
        "/oauth-authorization-server",
        operation_id="getAuthorizationServerMetadata",
        summary="Get the authorization server metadata",
        responses=problem_responses(414),
        response_headers=CACHE_HEADERS,
    )
    @inject
    async def metadata(
        self, grants: FromDishka[SupportedGrants], urls: FromDishka[PublicUrls]
    ) -> AuthorizationServerMetadata:
        """Return the endpoints and their capabilities (RFC 8414)."""
        return AuthorizationServerMetadata(
            issuer=urls.public_url,
            authorization_endpoint=urls.authorize(),
            token_endpoint=f"{urls.public_url}/api/v1/auth/token",
            revocation_endpoint=f"{urls.public_url}/api/v1/auth/revoke",
            introspection_endpoint=f"{urls.public_url}/api/v1/auth/introspect",
            jwks_uri=f"{urls.public_url}/.well-known/jwks.json",
            grant_types_supported=grants.names(),
            response_types_supported=["code"],
            response_modes_supported=["query"],
            code_challenge_methods_supported=[CODE_CHALLENGE_METHOD],
            authorization_response_iss_parameter_supported=True,
            scopes_supported=list(Scope),
            token_endpoint_auth_methods_supported=["none", *CLIENT_AUTHENTICATION_METHODS],
            revocation_endpoint_auth_methods_supported=["none", *CLIENT_AUTHENTICATION_METHODS],
            introspection_endpoint_auth_methods_supported=[*CLIENT_AUTHENTICATION_METHODS],
            service_documentation=f"{urls.public_url}/docs",
        )

    @get(
        "/jwks.json",
        operation_id="getJwks",
        summary="Get the public keys",
        responses=problem_responses(414),
        response_headers=CACHE_HEADERS,
    )
    @inject
    async def jwks(self, access_tokens: FromDishka[AccessTokenIssuer]) -> JsonWebKeySet:
        """Return the keys that verify access tokens (RFC 7517)."""
        return msgspec.convert(access_tokens.jwks(), JsonWebKeySet)
