"""The documents that other services need to trust the tokens."""

import msgspec
from dishka import FromDishka
from litestar import Controller, get
from litestar.datastructures import ResponseHeader
from msgspec import Struct

from referral.core.entities.clients import Scope
from referral.core.ports.security import AccessTokens
from referral.web.controllers.tokens import Grants
from referral.web.injection import inject
from referral.web.links import Links

CACHED = [ResponseHeader("Cache-Control", value="public, max-age=300")]
"""Public documents; a key that is put behind the signing one is known everywhere in 5 minutes."""


class Metadata(Struct):
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


class Key(Struct):
    """A public RSA key (RFC 7517)."""

    kty: str
    kid: str
    use: str
    alg: str
    n: str
    e: str


class KeySet(Struct):
    """The public keys that verify access tokens."""

    keys: list[Key]


class Discovery(Controller):
    """What other services need to know."""

    path = "/.well-known"
    tags = ("Tokens",)

    @get(
        "/oauth-authorization-server",
        summary="Describe the token service",
        response_headers=CACHED,
    )
    @inject
    async def metadata(self, grants: FromDishka[Grants], links: FromDishka[Links]) -> Metadata:
        """Describe the endpoints and what they support (RFC 8414)."""
        return Metadata(
            issuer=links.public_url,
            token_endpoint=f"{links.public_url}/api/v1/auth/token",
            revocation_endpoint=f"{links.public_url}/api/v1/auth/revoke",
            introspection_endpoint=f"{links.public_url}/api/v1/auth/introspect",
            jwks_uri=f"{links.public_url}/.well-known/jwks.json",
            grant_types_supported=grants.supported(),
            response_types_supported=[],
            scopes_supported=list(Scope),
            token_endpoint_auth_methods_supported=["none", "client_secret_basic"],
            revocation_endpoint_auth_methods_supported=["none", "client_secret_basic"],
            introspection_endpoint_auth_methods_supported=["client_secret_basic"],
            service_documentation=f"{links.public_url}/docs",
        )

    @get("/jwks.json", summary="Show the public keys", response_headers=CACHED)
    @inject
    async def jwks(self, tokens: FromDishka[AccessTokens]) -> KeySet:
        """Show the keys that verify access tokens (RFC 7517)."""
        return msgspec.convert(tokens.jwks(), KeySet)
