"""What other services need in order to trust the tokens."""

import httpx
from joserfc import jwt
from joserfc.jwk import KeySet

from tests.support.api_client import join, log_in


async def test_another_library_verifies_from_the_documents_alone(client: httpx.AsyncClient) -> None:
    """Metadata leads to the keys, and joserfc checks a token of RFC 9068 with them."""
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


async def test_the_metadata_names_only_what_exists(client: httpx.AsyncClient) -> None:
    """Each endpoint is there, and each grant is known."""
    metadata = (await client.get("/.well-known/oauth-authorization-server")).json()
    for name in ("token_endpoint", "revocation_endpoint", "introspection_endpoint"):
        asked = await client.post(metadata[name], json={})
        assert (asked.status_code, asked.json()["error"]) == (400, "invalid_request")
    for grant in metadata["grant_types_supported"]:
        answer = await client.post(metadata["token_endpoint"], data={"grant_type": grant})
        assert answer.json()["error"] in {"invalid_request", "invalid_client"}
    unknown = {"grant_type": "authorization_code"}
    refused = await client.post(metadata["token_endpoint"], data=unknown)
    assert refused.json()["error"] == "unsupported_grant_type"
    described = httpx.URL(metadata["service_documentation"]).path
    assert (await client.get(described)).status_code == 200
