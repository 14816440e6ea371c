"""Access tokens: what is forged is refused, and what is real any library can check."""

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwt as joserfc_jwt
from joserfc.jwk import KeySet
from jwt.algorithms import RSAAlgorithm

from referral.adapters.keys import SigningKey, load_keys
from tests.journey import API, Member, join, log_in

ISSUER = "http://127.0.0.1:8000"
Forge = Callable[[SigningKey, dict[str, Any]], str]


def sign(key: SigningKey, claims: dict[str, Any], **header: Any) -> str:
    """Sign as the service does, but for what is given."""
    return jwt.encode(claims, key.private, "RS256", {"typ": "at+jwt", "kid": key.kid} | header)


def by_hand(header: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Put a token together that no library would sign."""
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def public_pem(key: SigningKey) -> bytes:
    """Return what everyone knows of the key."""
    return key.public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def with_hmac(key: SigningKey, claims: dict[str, Any]) -> str:
    """Sign with the public key as if it were a shared secret."""
    head = by_hand({"alg": "HS256", "typ": "at+jwt", "kid": key.kid}, claims).rpartition(".")[0]
    digest = hmac.digest(public_pem(key), head.encode(), hashlib.sha256)
    return f"{head}.{urlsafe_b64encode(digest).rstrip(b'=').decode()}"


def with_own_key(_: SigningKey, claims: dict[str, Any]) -> str:
    """Sign with a key of one's own, and send it along."""
    own = generate_private_key(public_exponent=65537, key_size=2048)
    jwk = RSAAlgorithm.to_jwk(own.public_key(), as_dict=True)
    return jwt.encode(claims, own, "RS256", {"typ": "at+jwt", "jwk": jwk, "kid": "own"})


def with_own_key_url(key: SigningKey, claims: dict[str, Any]) -> str:
    """Sign with a key of one's own, and say where to fetch it."""
    own = generate_private_key(public_exponent=65537, key_size=2048)
    there = {"jku": "http://127.0.0.1:9/jwks.json", "x5u": "http://127.0.0.1:9/cert.pem"}
    return jwt.encode(claims, own, "RS256", {"typ": "at+jwt", "kid": key.kid} | there)


def with_eddsa(key: SigningKey, claims: dict[str, Any]) -> str:
    """Sign by another algorithm under the name of the service's key."""
    own = Ed25519PrivateKey.generate()
    return jwt.encode(claims, own, "EdDSA", {"typ": "at+jwt", "kid": key.kid})


def altered(key: SigningKey, claims: dict[str, Any]) -> str:
    """Change the signature."""
    head, _, signature = sign(key, claims).rpartition(".")
    return f"{head}.{'B' if signature[0] == 'A' else 'A'}{signature[1:]}"


def with_other_claims(key: SigningKey, claims: dict[str, Any]) -> str:
    """Keep the signature and change what is signed."""
    head, _, signature = sign(key, claims).split(".")
    other = json.dumps(claims | {"sub": str(uuid4())}).encode()
    return f"{head}.{urlsafe_b64encode(other).rstrip(b'=').decode()}.{signature}"


def without(name: str) -> Forge:
    """Leave a claim out."""
    return lambda key, claims: sign(key, {n: v for n, v in claims.items() if n != name})


def claiming(**other: Any) -> Forge:
    """Claim something else."""
    return lambda key, claims: sign(key, claims | other)


def headed(**header: Any) -> Forge:
    """Put something else into the header."""
    return lambda key, claims: sign(key, claims, **header)


FORGED: dict[str, Forge] = {
    "alg none": lambda key, claims: by_hand(
        {"alg": "none", "typ": "at+jwt", "kid": key.kid}, claims
    ),
    "alg None": lambda key, claims: by_hand(
        {"alg": "NoNe", "typ": "at+jwt", "kid": key.kid}, claims
    ),
    "no alg": lambda key, claims: by_hand({"typ": "at+jwt", "kid": key.kid}, claims),
    "hmac by the public key": with_hmac,
    "another algorithm": with_eddsa,
    "embedded key": with_own_key,
    "key by url": with_own_key_url,
    "altered signature": altered,
    "altered claims": with_other_claims,
    "no signature": lambda key, claims: sign(key, claims).rpartition(".")[0] + ".",
    "unknown crit": headed(crit=["b65"], b65=True),
    "hostile kid: a path": headed(kid="../../../../dev/null"),
    "hostile kid: a statement": headed(kid="' UNION SELECT 'x"),
    "kid is a list": lambda key, claims: by_hand(
        {"alg": "RS256", "typ": "at+jwt", "kid": [key.kid]}, claims
    ),
    "kid is a number": lambda _, claims: by_hand(
        {"alg": "RS256", "typ": "at+jwt", "kid": 7}, claims
    ),
    "no kid": lambda key, claims: jwt.encode(claims, key.private, "RS256", {"typ": "at+jwt"}),
    "typ JWT": headed(typ="JWT"),
    "no typ": headed(typ=None),
    "wrong issuer": claiming(iss="https://elsewhere.example"),
    "wrong audience": claiming(aud="https://elsewhere.example"),
    "audience is a list": claiming(aud=[ISSUER, "https://elsewhere.example"]),
    "no user id": claiming(sub="ann@example.com"),
    "subject is a number": claiming(sub=1),
    "scope is a list": claiming(scope=["account"]),
    "client is a list": claiming(client_id=["first-party"]),
    "session is no id": claiming(sid="here"),
    "expired": claiming(exp=int(time.time()) - 1),
    "expiry is a text": claiming(exp="tomorrow"),
    "not yet": claiming(nbf=int(time.time()) + 3600),
    "issued tomorrow": claiming(iat=int(time.time()) + 86_400),
    **{
        f"no {name}": without(name)
        for name in ("iss", "aud", "sub", "client_id", "scope", "iat", "exp", "jti")
    },
    "claims are a list": lambda key, _: by_hand(
        {"alg": "RS256", "typ": "at+jwt", "kid": key.kid}, {}
    ).replace("e30", "W10"),
    "no token": lambda _, __: "nothing.like.it",
    "two parts": lambda key, claims: sign(key, claims).rpartition(".")[0],
}


@pytest.fixture
async def ann(client: httpx.AsyncClient) -> Member:
    """Someone whose token is good."""
    return await join(client)


@pytest.fixture
def key(key_file: Path) -> SigningKey:
    """The key of the service."""
    return load_keys(key_file.read_bytes())[0]


@pytest.mark.parametrize("forge", FORGED.values(), ids=FORGED)
async def test_a_forged_token_is_refused(ann: Member, key: SigningKey, forge: Forge) -> None:
    """Whatever is not just as the service made it is 401, and says that the token is at fault."""
    claims = claims_of(ann.headers["Authorization"].partition(" ")[2])
    headers = {"Authorization": f"Bearer {forge(key, claims)}"}
    answer = await ann.client.get(f"{API}/me", headers=headers)
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="invalid_token"'
    assert answer.headers["Content-Type"] == "application/problem+json"


async def test_what_the_forgers_start_from_is_good(ann: Member, key: SigningKey) -> None:
    """The claims of a real token, signed by the real key, get in: only the forgery is refused."""
    claims = claims_of(ann.headers["Authorization"].partition(" ")[2])
    headers = {"Authorization": f"bEaReR {sign(key, claims)}"}
    assert (await ann.client.get(f"{API}/me", headers=headers)).status_code == 200


@pytest.mark.parametrize("value", ["Basic {}", "Token {}", "{}", "Bearer", "Bearer {} {}", ""])
async def test_another_scheme_is_refused(ann: Member, value: str) -> None:
    """A good token under another word, or in a garbled header, is 401."""
    token = ann.headers["Authorization"].partition(" ")[2]
    headers = {"Authorization": value.format(token, token)}
    assert (await ann.client.get(f"{API}/me", headers=headers)).status_code == 401


async def test_a_refresh_token_is_no_bearer(ann: Member) -> None:
    """What is for the token endpoint opens nothing else."""
    refresh_token = (await log_in(ann.client, ann.email)).json()["refresh_token"]
    headers = {"Authorization": f"Bearer {refresh_token}"}
    assert (await ann.client.get(f"{API}/me", headers=headers)).status_code == 401


async def test_another_library_verifies_from_the_documents_alone(ann: Member) -> None:
    """Metadata leads to the keys, and joserfc checks a token of RFC 9068 with them."""
    metadata = (await ann.client.get("/.well-known/oauth-authorization-server")).json()
    keys = KeySet.import_key_set((await ann.client.get(metadata["jwks_uri"])).json())
    token = (await log_in(ann.client, ann.email)).json()["access_token"]
    decoded = joserfc_jwt.decode(token, keys, algorithms=["RS256"])
    registry = joserfc_jwt.JWTClaimsRegistry(
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
        assert (await client.post(metadata[name])).json()["error"] == "invalid_request"
    for grant in metadata["grant_types_supported"]:
        answer = await client.post(metadata["token_endpoint"], data={"grant_type": grant})
        assert answer.json()["error"] in {"invalid_request", "invalid_client"}
    unknown = {"grant_type": "authorization_code"}
    refused = await client.post(metadata["token_endpoint"], data=unknown)
    assert refused.json()["error"] == "unsupported_grant_type"
    described = httpx.URL(metadata["service_documentation"]).path
    assert (await client.get(described)).status_code == 200


def claims_of(token: str) -> dict[str, Any]:
    """Read a token without checking it."""
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
