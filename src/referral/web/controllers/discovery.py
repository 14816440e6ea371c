"""The documents that other services need to trust the tokens."""

import msgspec
from dishka import FromDishka
from litestar import Controller, get
from litestar.datastructures import ResponseHeader
from msgspec import Struct

from referral.core.entities.clients import Scope
from referral.core.ports.security import AccessTokenIssuer
from referral.web.controllers.tokens import SupportedGrants
from referral.web.injection import inject
from referral.web.links import PublicUrls

CACHE_HEADERS = [ResponseHeader("Cache-Control", value="public, max-age=300")]
"""Public documents; a key that is put behind the signing one is known everywhere in 5 minutes."""


class AuthorizationServerMetadata(Struct):
    """The endpoints of the token service, and what they support (RFC 8414)."""

    issuer: str
    token_endpoint: str
    revocation_endpoint: str
    introspection_endpoint: str
    jwks_uri: str
    grant_types_supported: list[str]
    response_types_supported: list[str]
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
    """The public keys that verify access tokens."""

    keys: list[JsonWebKey]


class DiscoveryController(Controller):
    """What other services need to know."""

    path = "/.well-known"
    tags = ("Tokens",)

    @get(
        "/oauth-authorization-server",
        summary="Describe the token service",
        response_headers=CACHE_HEADERS,
    )
    @inject
    async def metadata(
        self, grants: FromDishka[SupportedGrants], urls: FromDishka[PublicUrls]
    ) -> AuthorizationServerMetadata:
        """Describe the endpoints and what they support (RFC 8414)."""
        return AuthorizationServerMetadata(
            issuer=urls.public_url,
            token_endpoint=f"{urls.public_url}/api/v1/auth/token",
            revocation_endpoint=f"{urls.public_url}/api/v1/auth/revoke",
            introspection_endpoint=f"{urls.public_url}/api/v1/auth/introspect",
            jwks_uri=f"{urls.public_url}/.well-known/jwks.json",
            grant_types_supported=grants.names(),
            response_types_supported=[],
            scopes_supported=list(Scope),
            token_endpoint_auth_methods_supported=["none", "client_secret_basic"],
            revocation_endpoint_auth_methods_supported=["none", "client_secret_basic"],
            introspection_endpoint_auth_methods_supported=["client_secret_basic"],
            service_documentation=f"{urls.public_url}/docs",
        )

    @get("/jwks.json", summary="Show the public keys", response_headers=CACHE_HEADERS)
    @inject
    async def jwks(self, access_tokens: FromDishka[AccessTokenIssuer]) -> JsonWebKeySet:
        """Show the keys that verify access tokens (RFC 7517)."""
        return msgspec.convert(access_tokens.jwks(), JsonWebKeySet)
