"""The OAuth metadata is enough for other services to verify tokens."""

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.api_client import join, log_in


async def test_joserfc_verifies_a_token_from_the_metadata(client: httpx.AsyncClient) -> None:
    """The metadata leads to the keys, and joserfc verifies a token of RFC 9068."""
    ann = await join(client)
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    keys = KeySet.import_key_set((await client.get(metadata["jwks_uri"])).json())
    token = (await log_in(client, ann.email)).json()["access_token"]
    decoded = jwt.decode(token, keys, algorithms=["RS256"])
    registry = jwt.JWTClaimsRegistry(
        iss={"essential": True, "value": metadata["issuer"]},
        aud={"essential": True, "value": metadata["issuer"]},
        sub={"essential": True, "value": ann.id},
        client_id={"essential": True, "value": "first-party"},
        scope={"essential": True, "value": "account"},
        iat={"essential": True},
        exp={"essential": True},
        jti={"essential": True},
    )
    registry.validate(decoded.claims)
    assert decoded.header["typ"] == "at+jwt"
    assert decoded.claims["exp"] - decoded.claims["iat"] == 600


async def test_metadata_lists_existing_endpoints_and_grants(client: httpx.AsyncClient) -> None:
    """Each endpoint responds, and each grant is supported."""
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    invalid_request, invalid_client = (400, "invalid_request"), (401, "invalid_client")
    for name, error in (
        ("token_endpoint", invalid_request),
        ("revocation_endpoint", invalid_request),
        ("introspection_endpoint", invalid_client),
    ):
        response = await client.post(metadata[name], json={})
        assert (response.status_code, response.json()["error"]) == error
    for grant in metadata["grant_types_supported"]:
        response = await client.post(metadata["token_endpoint"], data={"grant_type": grant})
        assert response.json()["error"] in {"invalid_request", "invalid_client"}
    unknown = {"grant_type": "implicit"}
    rejected = await client.post(metadata["token_endpoint"], data=unknown)
    assert rejected.json()["error"] == "unsupported_grant_type"
    assert metadata["response_types_supported"], "RFC 8414 requires a value; authlib checks it."
    documentation = httpx.URL(metadata["service_documentation"]).path
    assert (await client.get(documentation)).status_code == 200
